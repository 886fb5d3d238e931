//! The connection against a decoder that is plainly right.

#![no_main]

#[path = "../../tests/connection/drive.rs"]
mod drive;
#[path = "../../tests/connection/naive.rs"]
mod naive;
#[path = "../../tests/connection/targets.rs"]
#[expect(dead_code, reason = "each program is one of the targets")]
mod targets;

libfuzzer_sys::fuzz_target!(|input: &[u8]| targets::frame_oracle(input));
