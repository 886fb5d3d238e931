//! A request's body whole, cut, and written anew.

#![no_main]

#[path = "../../tests/hostile/body.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|input: &[u8]| body::body(input));
