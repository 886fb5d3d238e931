//! What the fuzz targets for bytes of strangers assert: bodies, PROXY headers, answers to a client, offers of compression. Their
//! committed corpora are replayed through the same.

mod answer;
mod body;
mod negotiation;
mod proxy;

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::prelude::*;

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 4] = [
    ("answer", answer::answer),
    ("body", body::body),
    ("negotiation", negotiation::negotiation),
    ("proxy", proxy::proxy),
];

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let entries = fs::read_dir(&folder).expect("the corpus is part of the sources");
    let mut paths: Vec<_> =
        entries.map(|entry| entry.expect("the folder can be listed").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", folder.display());
    paths.iter().map(|path| fs::read(path).expect("an input can be read")).collect()
}

#[test]
fn corpora() {
    for (name, target) in TARGETS {
        for input in corpus(name) {
            println!("{name}: {}", input.escape_ascii());
            target(&input);
        }
    }
}

/// Those of all targets, in their order.
static CORPORA: LazyLock<[Vec<Vec<u8>>; 4]> =
    LazyLock::new(|| TARGETS.map(|(name, _)| corpus(name)));

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..<_>::default() })]

    #[test]
    fn near_the_corpora(
        which in any::<prop::sample::Index>(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        is_cut in prop::bool::weighted(0.2),
    ) {
        for ((_, target), inputs) in TARGETS.iter().zip(CORPORA.iter()) {
            let mut input = inputs[which.index(inputs.len())].clone();
            if input.is_empty() {
                continue;
            }
            for (at, byte) in &changes {
                let at = at.index(input.len());
                input[at] = *byte;
            }
            if is_cut {
                input.truncate(cut.index(input.len()));
            }
            target(&input);
        }
    }
}
