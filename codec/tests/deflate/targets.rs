//! What the fuzz target asserts of an input. The committed corpus is replayed through the same.

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};
use ringwire_codec::deflate::Decompressor;
use ringwire_codec::{Error, Limit};

/// Above this, both stop.
const LIMIT: usize = 1 << 16;

/// Inflates a message that may have any number of final blocks in it. `None`: it is wrong somewhere,
/// or ends inside a block.
fn with_miniz(payload: &[u8]) -> Option<Result<Vec<u8>, Limit>> {
    let mut out = Vec::new();
    let mut rest = payload;
    loop {
        let mut buffer = vec![0; LIMIT + 1 - out.len()];
        let more = inflate_flags::TINFL_FLAG_HAS_MORE_INPUT;
        let (status, used, produced) = one_stream(rest, &mut buffer, more);
        out.extend_from_slice(&buffer[..produced]);
        if out.len() > LIMIT || status == TINFLStatus::HasMoreOutput {
            return Some(Err(Limit::MessageLen));
        }
        rest = match status {
            TINFLStatus::Done if used == rest.len() => return Some(Ok(out)),
            TINFLStatus::Done => &rest[used..],
            TINFLStatus::NeedsMoreInput => {
                // The end of the flush, which adds nothing, and a block that ends the stream; or the
                // flush has ended it.
                let whole = [rest, &[0, 0, 0xff, 0xff, 3, 0]].concat();
                let (status, used, len) = one_stream(&whole, &mut buffer, 0);
                let at_end = used == whole.len() || used == rest.len() + 4;
                let ends = status == TINFLStatus::Done && len == produced && at_end;
                return ends.then_some(Ok(out));
            }
            _ => return None,
        };
    }
}

fn one_stream(input: &[u8], buffer: &mut [u8], flags: u32) -> (TINFLStatus, usize, usize) {
    let flags = flags | inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    decompress(&mut DecompressorOxide::new(), input, buffer, 0, flags)
}

/// What zlib-rs makes of any bytes is what miniz_oxide makes of them.
pub(crate) fn inflate(payload: &[u8]) {
    let mut out = Vec::new();
    let result = Decompressor::new().decompress(payload, LIMIT, &mut out);
    assert!(out.len() <= LIMIT + 1);
    if payload.is_empty() {
        assert_eq!((result, out.len()), (Ok(()), 0));
        return;
    }
    let expected = with_miniz(payload);
    match result {
        Ok(()) => assert_eq!(expected, Some(Ok(out))),
        Err(Error::LimitExceeded(limit)) => assert_eq!(expected, Some(Err(limit))),
        Err(error) => {
            assert_eq!(error, Error::InvalidDeflate);
            assert!(!matches!(expected, Some(Ok(_))), "{expected:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use crate::ends::deflated;
    use crate::streams::any_bytes;

    #[test]
    fn corpus() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/inflate");
        let mut input_count = 0;
        for entry in fs::read_dir(&folder).expect("the corpus is part of the sources") {
            let path = entry.expect("the folder can be listed").path();
            println!("{}", path.display());
            super::inflate(&fs::read(&path).expect("an input can be read"));
            input_count += 1;
        }
        assert!(input_count > 0, "{} is empty", folder.display());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..<_>::default() })]

        #[test]
        fn miniz_agrees_on_garbage(
            bytes in any_bytes(),
            changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            tail in vec(any::<u8>(), 0..20),
        ) {
            super::inflate(&tail);
            let mut payload = deflated(&bytes[..bytes.len().min(500)]);
            for (at, change) in changes {
                let at = at.index(payload.len());
                payload[at] ^= change;
            }
            super::inflate(&payload);
            payload.extend(tail);
            super::inflate(&payload);
        }
    }
}
