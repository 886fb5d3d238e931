//! The compressor and the decompressor by themselves, against two other inflaters.

use proptest::collection::vec;
use proptest::prelude::*;
use ringwire_codec::deflate::{Compressor, Decompressor, Level, WindowBits};
use ringwire_codec::{Error, Limit};

use crate::ends::deflated;
use crate::naive;

/// Bytes of all kinds: like text, like noise, repeated.
pub(crate) fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        2 => vec(any::<u8>(), 0..300),
        3 => vec(0_usize..4, 0..400).prop_map(|parts| {
            let words = ["{\"id\":", "12345,", "\"name\":\"ringwire\"}", "\n"];
            parts.into_iter().map(|i| words[i]).collect::<String>().into_bytes()
        }),
        1 => (any::<u8>(), 0_usize..70_000).prop_map(|(byte, len)| vec![byte; len]),
        1 => (vec(any::<u8>(), 1..2000), 1_usize..40).prop_map(|(bytes, count)| bytes.repeat(count)),
    ]
}

pub(crate) fn any_window() -> impl Strategy<Value = WindowBits> {
    (9_u8..=15).prop_filter_map("a size that exists", WindowBits::new)
}

pub(crate) fn any_level() -> impl Strategy<Value = Level> {
    (1_u8..=9).prop_filter_map("a level that exists", Level::new)
}

/// Noise that is the same every time.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    };
    (0..len).map(|_| next()).collect()
}

fn with_miniz(payload: &[u8]) -> Option<Vec<u8>> {
    // A final empty block, so that miniz sees an end.
    let stream = [payload, &[0, 0, 0xff, 0xff, 3, 0]].concat();
    miniz_oxide::inflate::decompress_to_vec(&stream).ok()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..<_>::default() })]

    #[test]
    fn other_inflaters_agree(messages in vec(any_bytes(), 1..6), window in any_window(), level in any_level()) {
        let mut shared = Compressor::new(level, window);
        let mut dedicated = Compressor::new(level, window).with_takeover();
        let mut decompressor = Decompressor::new();
        let mut before = Vec::new();
        for message in &messages {
            let (mut alone, mut after) = (Vec::new(), b"kept".to_vec());
            shared.compress(message, &mut alone);
            dedicated.compress(message, &mut after);
            let after = after.strip_prefix(b"kept").expect("it was appended to");

            let second = with_miniz(&alone);
            prop_assert_eq!(second.as_deref(), Some(&message[..]));
            let naive = naive::inflate(&alone, b"").expect("it is a deflate stream");
            prop_assert_eq!(&naive.bytes, message);
            prop_assert!(naive.max_distance <= window.window_len());
            let naive = naive::inflate(after, &before).expect("it is a deflate stream");
            prop_assert_eq!(&naive.bytes, message);
            prop_assert!(naive.max_distance <= window.window_len());

            let mut out = b"kept".to_vec();
            decompressor.decompress(after, message.len(), &mut out).expect("it is as long");
            prop_assert_eq!(out.strip_prefix(b"kept"), Some(&message[..]));
            before.extend_from_slice(message);
        }
    }

    #[test]
    fn the_limit_is_exact(message in any_bytes(), less in 1_usize..100) {
        let payload = deflated(&message);
        let mut decompressor = Decompressor::new();
        for limit in [message.len().saturating_sub(less), message.len().saturating_sub(1)] {
            decompressor.reset();
            let mut out = Vec::new();
            let result = decompressor.decompress(&payload, limit, &mut out);
            if limit < message.len() {
                prop_assert_eq!(result, Err(Error::LimitExceeded(Limit::MessageLen)));
                prop_assert_eq!(out.len(), limit + 1);
            }
        }
        decompressor.reset();
        let mut out = Vec::new();
        prop_assert_eq!(decompressor.decompress(&payload, message.len(), &mut out), Ok(()));
        prop_assert_eq!(out, message);
    }
}

#[test]
fn every_window_is_used_and_kept_to() {
    // What repeats at a distance is found exactly if the window reaches so far. zlib keeps 262 bytes
    // of its window to look ahead.
    for bits in 9..=15_u8 {
        let window = WindowBits::new(bits).expect("it exists");
        for (distance, found) in
            [(window.window_len() - 262, true), (window.window_len() + 1, false)]
        {
            let phrase = noise(100);
            let filler: Vec<u8> = noise(distance).iter().map(|byte| byte ^ 0x55).collect();
            let message = [&phrase[..], &filler[100..], &phrase].concat();
            let mut out = Vec::new();
            Compressor::new(Level::SMALLEST, window).compress(&message, &mut out);
            let naive = naive::inflate(&out, b"").expect("it is a deflate stream");
            assert_eq!(naive.bytes, message);
            assert_eq!(naive.max_distance == distance, found, "{bits} bits, {distance} bytes");
        }
    }
}

#[test]
fn without_takeover_a_message_stands_for_itself() {
    let text = noise(400);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    let mut compressor = Compressor::new(Level::BALANCED, WindowBits::MAX);
    compressor.compress(&text, &mut first);
    compressor.compress(&text, &mut second);
    assert_eq!(first, second);

    let mut compressor = compressor.with_takeover();
    compressor.reset();
    let (mut first, mut second, mut third) = (Vec::new(), Vec::new(), Vec::new());
    compressor.compress(&text, &mut first);
    compressor.compress(&text, &mut second);
    compressor.reset();
    compressor.compress(&text, &mut third);
    assert!(second.len() < 20, "{} bytes", second.len());
    assert_eq!(third, first, "what was reset does not refer back");
    assert_eq!(naive::inflate(&second, b""), None);
}

/// The examples of RFC 7692 §7.2.3.
#[test]
fn examples_of_the_rfc() {
    let mut decompressor = Decompressor::new();
    let mut inflate = |payload: &[u8]| {
        let mut out = Vec::new();
        decompressor.decompress(payload, 100, &mut out).map(|()| out)
    };
    let hello = Ok(b"Hello".to_vec());
    assert_eq!(inflate(&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]), hello, "§7.2.3.1");
    assert_eq!(inflate(&[0xf2, 0x00, 0x11, 0x00, 0x00]), hello, "§7.2.3.2, the context taken over");
    let stored = [0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00];
    assert_eq!(inflate(&stored), hello, "§7.2.3.3");
    let last = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
    assert_eq!(inflate(&last), hello, "§7.2.3.4, a final block");
    assert_eq!(inflate(&last[..7]), hello, "and without what should follow it");
    let two = [0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00];
    assert_eq!(inflate(&two), hello, "§7.2.3.5");
    assert_eq!(inflate(&[0x00]), Ok(Vec::new()), "§7.2.3.6");
    assert_eq!(inflate(&[]), Ok(Vec::new()));
    let both = [&last[..7], &last[..7], &stored].concat();
    assert_eq!(inflate(&both), Ok(b"HelloHelloHello".to_vec()), "blocks after a final one");
    assert_eq!(inflate(&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]), hello);

    let mut out = Vec::new();
    Compressor::new(Level::BALANCED, WindowBits::MAX).compress(b"", &mut out);
    assert_eq!(out, [0]);
}

#[test]
fn inflate_garbage() {
    let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    for garbage in [
        &[0xff; 20][..],
        &[0x07],
        &[0x06],
        // Stored, with lengths that do not match.
        &[0x00, 0x05, 0x00, 0xfa, 0xfe, 0x48],
        // A distance before the beginning.
        &[0xf2, 0x00, 0x11, 0x00, 0x00],
        // The end of the flush was not removed.
        &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00, 0x00, 0xff, 0xff],
    ]
    .into_iter()
    .chain((1..hello.len() - 1).map(|len| &hello[..len]))
    {
        let mut out = Vec::new();
        let result = Decompressor::new().decompress(garbage, 1000, &mut out);
        assert_eq!(result, Err(Error::InvalidDeflate), "{garbage:02x?}");
    }
    assert_eq!(Error::InvalidDeflate.close_code().get(), 1007);
}
