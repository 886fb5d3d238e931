//! A stream of requests whole, cut, and byte by byte.

#![no_main]

#[path = "../../tests/http/drive.rs"]
mod drive;
#[path = "../../tests/http/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|input: &[u8]| targets::requests(input));
