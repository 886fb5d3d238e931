//! The same input whole, cut, and byte by byte.

#![no_main]

#[path = "../../tests/connection/drive.rs"]
mod drive;
#[path = "../../tests/connection/naive.rs"]
mod naive;
#[path = "../../tests/connection/targets.rs"]
#[expect(dead_code, reason = "each program is one of the targets")]
mod targets;

libfuzzer_sys::fuzz_target!(|input: &[u8]| targets::split(input));
