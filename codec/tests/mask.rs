//! Masking through its public functions, against the definition of RFC 6455 §5.3.
#![expect(clippy::indexing_slicing, reason = "a slice out of bounds fails the test")]

use proptest::prelude::*;
use ringwire_codec::mask::{mask, mask_extend, mask_from};

fn scalar(src: &[u8], key: [u8; 4], offset: usize) -> Vec<u8> {
    src.iter().zip(0..).map(|(byte, i)| byte ^ key[(offset + i) % 4]).collect()
}

#[test]
fn every_length_and_alignment() {
    let key = [0x01, 0x20, 0x83, 0xf4];
    let source: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
    for len in 0..=256 {
        for alignment in 0..64 {
            let expected = scalar(&source[alignment..alignment + len], key, 0);
            let mut place = source.clone();
            mask(&mut place[alignment..alignment + len], key);
            assert_eq!(place[alignment..alignment + len], expected, "{len} {alignment}");
            assert_eq!(place[..alignment], source[..alignment], "{len} {alignment}: before");
            assert_eq!(place[alignment + len..], source[alignment + len..], "{len}: behind");

            let mut out = vec![7; alignment];
            mask_extend(&mut out, &source[alignment..alignment + len], key, 0);
            assert!(out[..alignment].iter().all(|&byte| byte == 7));
            assert_eq!(out[alignment..], expected, "{len} {alignment}");
        }
    }
}

#[test]
fn offset_wraps_nowhere() {
    let mut bytes = *b"Hello";
    mask_from(&mut bytes, [1, 2, 3, 4], usize::MAX);
    assert_eq!(bytes.as_slice(), scalar(b"Hello", [1, 2, 3, 4], 3));
}

#[test]
fn extend_uses_the_capacity_there_is() {
    let mut out = Vec::with_capacity(1000);
    let before = out.as_ptr();
    mask_extend(&mut out, &[0; 1000], [9; 4], 0);
    assert_eq!((out.as_ptr(), out.len()), (before, 1000));
    assert!(out.iter().all(|&byte| byte == 9));
}

proptest! {
    #[test]
    fn equals_scalar(
        source in prop::collection::vec(any::<u8>(), 0..5000),
        key: [u8; 4],
        offset: usize,
        skip in 0_usize..64,
    ) {
        let source = source.get(skip..).unwrap_or_default();
        let expected = scalar(source, key, offset % 4);
        let mut place = source.to_vec();
        mask_from(&mut place, key, offset);
        prop_assert_eq!(&place, &expected);

        let mut out = b"before".to_vec();
        mask_extend(&mut out, source, key, offset);
        prop_assert_eq!(&out[..6], b"before");
        prop_assert_eq!(&out[6..], &expected);
    }

    #[test]
    fn pieces_equal_the_whole(
        source in prop::collection::vec(any::<u8>(), 0..600),
        key: [u8; 4],
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(source.len() + 1)).collect();
        cuts.extend([0, source.len()]);
        cuts.sort_unstable();
        let mut pieces = source.clone();
        for ends in cuts.windows(2) {
            mask_from(&mut pieces[ends[0]..ends[1]], key, ends[0]);
        }
        prop_assert_eq!(pieces, scalar(&source, key, 0));
    }
}
