//! The inputs of the fuzz corpora, replayed.

use std::fs;
use std::path::Path;

use crate::targets;

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut input_count = 0;
    for entry in fs::read_dir(&folder).expect("the corpus is part of the sources") {
        let path = entry.expect("the folder can be listed").path();
        println!("{}", path.display());
        run(&fs::read(&path).expect("an input can be read"));
        input_count += 1;
    }
    assert!(input_count > 0, "{} is empty", folder.display());
}

#[test]
fn frame_oracle() {
    replay("frame_oracle", targets::frame_oracle);
}

#[test]
fn split() {
    replay("split", targets::split);
}

#[test]
fn round_trip() {
    replay("round_trip", targets::round_trip);
}
