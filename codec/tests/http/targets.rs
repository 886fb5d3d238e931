//! What the fuzz target asserts of an input. The committed corpus is replayed through the same.

use ringwire_codec::http::{BodyDecoder, BodyFraming};

use crate::drive::{MAX_BODY_LEN, drive};

/// Where the reads cut a stream of requests makes no difference, and a naive decoder of chunks agrees about what it
/// holds. Three bytes say where the reads end.
pub(crate) fn requests(input: &[u8]) {
    let [a, b, c, wire @ ..] = input else { return };
    let whole = drive([wire]);
    assert_eq!(drive(wire.chunks(1)), whole);
    let mut pieces = Vec::new();
    let mut rest = wire;
    for len in [a, b, c] {
        let (piece, behind) = rest.split_at(rest.len().min(usize::from(*len)));
        pieces.push(piece);
        rest = behind;
    }
    pieces.push(rest);
    assert_eq!(drive(pieces), whole);
    chunks(wire);
}

/// The same bytes as a chunked body.
fn chunks(wire: &[u8]) {
    let mut decoder = BodyDecoder::new(BodyFraming::Chunked, MAX_BODY_LEN).expect("nothing came");
    let mut content = Vec::new();
    let result = decoder.receive(wire, &mut content);
    let naive = naive(wire);
    if decoder.is_complete() {
        assert_eq!(naive, result.ok().map(|used| (content, used)));
    } else {
        assert_eq!(naive, None, "{result:?}");
    }
}

/// The content of a whole chunked body, and how many bytes the body takes. `None`: it is wrong, or not whole.
fn naive(wire: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut content = Vec::new();
    let mut rest = wire;
    loop {
        let line = line(&mut rest)?;
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let behind = line[digits..].trim_ascii_start();
        let is_extended = behind.starts_with(b";");
        if digits > 16 || !(is_extended || digits == line.len()) {
            return None;
        }
        let size = usize::from_str_radix(str::from_utf8(&line[..digits]).ok()?, 16).ok()?;
        if size == 0 {
            break;
        }
        content.extend_from_slice(rest.get(..size)?);
        rest = rest[size..].strip_prefix(b"\r\n")?;
    }
    loop {
        let line = line(&mut rest)?;
        if line.is_empty() {
            let len = wire.len() - rest.len();
            return (content.len() <= MAX_BODY_LEN).then_some((content, len));
        }
        let name = line.split(|byte| *byte == b':').next()?;
        http::HeaderName::from_bytes(name).ok().filter(|_| name.len() < line.len())?;
    }
}

/// Takes a line without control characters.
fn line<'w>(rest: &mut &'w [u8]) -> Option<&'w [u8]> {
    let len = rest.windows(2).position(|pair| pair == b"\r\n")?;
    let (line, behind) = rest.split_at(len);
    *rest = &behind[2..];
    let is_text = |byte: &u8| *byte == b'\t' || !byte.is_ascii_control();
    line.iter().all(is_text).then_some(line)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn corpus() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/requests");
        let mut input_count = 0;
        for entry in fs::read_dir(&folder).expect("the corpus is part of the sources") {
            let path = entry.expect("the folder can be listed").path();
            println!("{}", path.display());
            super::requests(&fs::read(&path).expect("an input can be read"));
            input_count += 1;
        }
        assert!(input_count > 0, "{} is empty", folder.display());
    }

    /// Pieces of which requests are made, and some of which none is.
    fn pieces() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop::sample::select(vec![
            "GET / HTTP/1.1\r\nHost: a\r\n",
            "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST /l HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
            "Content-Length: 3\r\n",
            "\r\n",
            "\r",
            "\n",
            "5\r\nhello\r\n",
            "5;name=\"value\"\r\nhello\r\n",
            "1 ;x\r\na\r\n",
            "0\r\n",
            "0\r\n\r\n",
            "X: y\r\n",
            " x",
            "400\r\n",
            "hello",
        ]);
        vec(piece, 0..10).prop_map(|pieces| pieces.concat().into_bytes())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..<_>::default() })]

        #[test]
        fn cuts_make_no_difference(
            cuts in any::<[u8; 3]>(),
            mut wire in pieces(),
            changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..2),
        ) {
            super::requests(&[&cuts[..], &wire].concat());
            for (at, byte) in changes.iter().filter(|_| !wire.is_empty()).collect::<Vec<_>>() {
                let at = at.index(wire.len());
                wire[at] = *byte;
            }
            super::requests(&[&cuts[..], &wire].concat());
        }
    }
}
