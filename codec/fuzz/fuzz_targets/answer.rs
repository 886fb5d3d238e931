//! A server's answer against a plain reader of its lines, whole and cut.

#![no_main]

#[path = "../../tests/hostile/answer.rs"]
mod answer;

libfuzzer_sys::fuzz_target!(|input: &[u8]| answer::answer(input));
