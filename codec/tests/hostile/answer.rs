//! A server's answer to the client's request.

use ringwire_codec::deflate::Offer;
use ringwire_codec::handshake::client::{Request, Response};
use ringwire_codec::handshake::{HandshakeError, HeadLimits, HeadScanner};

const SUBPROTOCOLS: [&str; 2] = ["chat", "superchat"];
/// RFC 6455 §1.3: of the key that this nonce makes.
const NONCE: [u8; 16] = *b"the sample nonce";
const ACCEPT: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

fn limits() -> HeadLimits {
    HeadLimits::default().with_max_head_len(1024).with_max_line_len(256).with_max_header_count(16)
}

/// Where the head of an answer ends, or why it is none, when it comes in these pieces.
fn scan(bytes: &[u8], piece_len: usize) -> Result<Option<usize>, HandshakeError> {
    let mut scanner = HeadScanner::default();
    let mut end = 0;
    while end < bytes.len() {
        end = bytes.len().min(end + piece_len);
        if let Some(len) = scanner.scan(&bytes[..end], &limits())? {
            return Ok(Some(len));
        }
    }
    Ok(None)
}

/// Where the reads cut an answer makes no difference, and a plain reader of its lines finds the same fault in it, or none. The
/// first byte says what was offered, and whether the lines of a good answer stand before the rest.
pub(crate) fn answer(input: &[u8]) {
    let [kind, cut, rest @ ..] = input else { return };
    let (has_subprotocols, has_deflate) = (kind & 1 > 0, kind & 2 > 0);
    let mut bytes = Vec::new();
    if kind & 4 > 0 {
        bytes.extend(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
        );
    }
    if kind & 8 > 0 {
        bytes.extend([b"Sec-WebSocket-Accept: ", ACCEPT, b"\r\n"].concat());
    }
    bytes.extend(rest);
    if kind & 16 > 0 {
        bytes.extend(b"\r\n\r\n");
    }
    let whole = scan(&bytes, bytes.len().max(1));
    assert_eq!(scan(&bytes, 1), whole);
    assert_eq!(scan(&bytes, usize::from(*cut).max(1)), whole);
    let Ok(Some(len)) = whole else {
        let parsed = Response::parse(&bytes, &limits());
        assert!(parsed.is_err(), "there is no head");
        return;
    };
    let head = &bytes[..len];
    assert!(head.ends_with(b"\r\n\r\n"));
    let mut request = Request::new("example.org", "/", NONCE).expect("it is well-formed");
    for name in SUBPROTOCOLS.iter().filter(|_| has_subprotocols) {
        request = request.with_subprotocol(name).expect("it is a token");
    }
    if has_deflate {
        request = request.with_deflate(Offer::default());
    }
    let Ok(response) = Response::parse(head, &limits()) else { return };
    let judged = response.check_upgrade(&request);
    let answer = Plain::of(head);
    match answer.fault(has_subprotocols) {
        Some(fault) => assert_eq!(judged.expect_err("it is no good answer"), fault),
        None => match judged {
            Ok(agreed) => {
                let chosen = answer.all("sec-websocket-protocol").next();
                assert_eq!(agreed.subprotocol.map(str::as_bytes), chosen);
                assert!(agreed.layer.is_none(), "no other extension was offered");
                let names_none = answer
                    .all("sec-websocket-extensions")
                    .all(|value| value.iter().all(|byte| matches!(byte, b',' | b' ' | b'\t')));
                assert_eq!(agreed.deflate.is_none(), names_none);
                assert!(has_deflate || names_none);
            }
            Err(error) => assert!(
                matches!(
                    error,
                    HandshakeError::InvalidExtensions
                        | HandshakeError::UnofferedExtension
                        | HandshakeError::DeflateParams
                        | HandshakeError::UnusableExtension
                ) && answer.all("sec-websocket-extensions").next().is_some(),
                "{error:?}"
            ),
        },
    }
}

/// The lines of a head, split at colons.
struct Plain<'b> {
    first: &'b [u8],
    headers: Vec<(String, &'b [u8])>,
}

impl<'b> Plain<'b> {
    fn of(head: &'b [u8]) -> Self {
        let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.trim_ascii_end());
        let first = lines.next().expect("a head has a line");
        let headers = lines.filter(|line| !line.is_empty()).map(|line| {
            let colon = line.iter().position(|byte| *byte == b':').expect("a header has a colon");
            let name = str::from_utf8(&line[..colon]).expect("a name is a token");
            (name.to_ascii_lowercase(), line[colon + 1..].trim_ascii())
        });
        Self { first, headers: headers.collect() }
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &'b [u8]> {
        self.headers.iter().filter(move |(each, _)| each == name).map(|(_, value)| *value)
    }

    /// The first rule of RFC 6455 §4.1 that is broken, but for those of extensions.
    fn fault(&self, has_subprotocols: bool) -> Option<HandshakeError> {
        let [version, status] = [&self.first[..8], &self.first[9..12]];
        if status != b"101" {
            let status = str::from_utf8(status).ok()?.parse().ok()?;
            return Some(HandshakeError::Refused(status));
        }
        if version != b"HTTP/1.1" {
            return Some(HandshakeError::HttpVersion);
        }
        let upgrades: Vec<_> = self.all("upgrade").collect();
        if !matches!(upgrades[..], [value] if value.eq_ignore_ascii_case(b"websocket")) {
            return Some(HandshakeError::Upgrade);
        }
        let mut options = self.all("connection").flat_map(|list| list.split(|byte| *byte == b','));
        if !options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade")) {
            return Some(HandshakeError::Connection);
        }
        if self.all("sec-websocket-accept").collect::<Vec<_>>() != [ACCEPT] {
            return Some(HandshakeError::AcceptKey);
        }
        let is_offered = |chosen: &[u8]| {
            has_subprotocols && SUBPROTOCOLS.iter().any(|name| name.as_bytes() == chosen)
        };
        match self.all("sec-websocket-protocol").collect::<Vec<_>>()[..] {
            [] => None,
            [chosen] if is_offered(chosen) => None,
            _ => Some(HandshakeError::UnofferedSubprotocol),
        }
    }
}
