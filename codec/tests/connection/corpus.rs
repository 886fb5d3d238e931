//! The inputs of the fuzz corpora, replayed.

use std::fs;
use std::path::Path;

use ringwire_codec::Role;

use crate::drive::{Mode, drive, tight};
use crate::naive;

/// Inputs begin with a byte that says role and mode, as in the fuzz targets.
fn inputs(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut inputs: Vec<_> = fs::read_dir(&folder)
        .expect("the corpus is part of the sources")
        .map(|entry| fs::read(entry.expect("it can be listed").path()).expect("it can be read"))
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty());
    inputs
}

#[test]
fn frame_oracle() {
    for input in inputs("frame_oracle") {
        let Some((&settings, wire)) = input.split_first() else { continue };
        let role = if settings & 1 == 0 { Role::Server } else { Role::Client };
        let mode = [Mode::Whole, Mode::Streaming, Mode::CloseSent][usize::from(settings >> 1) % 3];
        let expected = naive::decode(role, &tight(), mode, wire);
        assert_eq!(drive(role, tight(), mode, [wire]), expected);
        assert_eq!(drive(role, tight(), mode, wire.chunks(1)), expected);
    }
}
