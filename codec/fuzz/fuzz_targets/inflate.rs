//! zlib-rs, as the codec uses it, against miniz_oxide.

#![no_main]

#[path = "../../tests/deflate/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|input: &[u8]| targets::inflate(input));
