//! A PROXY header against a plain reader, whole and cut.

#![no_main]

#[path = "../../tests/hostile/proxy.rs"]
mod proxy;

libfuzzer_sys::fuzz_target!(|input: &[u8]| proxy::proxy(input));
