//! Offers of compression and answers to them, against the rules of RFC 7692.

#![no_main]

#[path = "../../tests/hostile/negotiation.rs"]
mod negotiation;

libfuzzer_sys::fuzz_target!(|input: &[u8]| negotiation::negotiation(input));
