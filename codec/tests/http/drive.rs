//! A server that reads one request after the other, and notes what it sees.

use ringwire_codec::handshake::server::Request;
use ringwire_codec::handshake::{HandshakeError, HeadLimits, HeadScanner};
use ringwire_codec::http::{BodyDecoder, BodyError};

/// The longest body that it takes.
pub(crate) const MAX_BODY_LEN: usize = 1 << 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    /// A whole request: its target and its body.
    Request(String, Vec<u8>),
    BadHead(HandshakeError),
    BadBody(BodyError),
    /// An upgrade, behind which there is no HTTP any more.
    Upgrade,
}

#[derive(Default)]
pub(crate) struct Driven {
    pub(crate) seen: Vec<Seen>,
    /// The head that is under way, or whose body is.
    head: Vec<u8>,
    scanner: HeadScanner,
    body: Option<(BodyDecoder, Vec<u8>)>,
}

pub(crate) fn limits() -> HeadLimits {
    HeadLimits::default().with_max_head_len(512).with_max_line_len(256).with_max_header_count(8)
}

/// What is seen of a stream that comes in these pieces.
pub(crate) fn drive<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> Vec<Seen> {
    let mut driven = Driven::default();
    pieces.into_iter().for_each(|piece| driven.receive(piece));
    driven.seen
}

impl Driven {
    pub(crate) fn receive(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() && !self.has_ended() {
            let used = match self.body.take() {
                Some((decoder, content)) => self.receive_body(decoder, content, piece),
                None => self.receive_head(piece),
            };
            piece = &piece[used..];
        }
    }

    fn has_ended(&self) -> bool {
        !matches!(self.seen.last(), None | Some(Seen::Request(..)))
    }

    /// Gives how many bytes it took.
    fn receive_head(&mut self, piece: &[u8]) -> usize {
        let before = self.head.len();
        self.head.extend_from_slice(piece);
        match self.scanner.scan(&self.head, &limits()) {
            Ok(Some(len)) => {
                self.head.truncate(len);
                self.begin();
                len - before
            }
            Ok(None) => piece.len(),
            Err(error) => {
                self.seen.push(Seen::BadHead(error));
                piece.len()
            }
        }
    }

    fn begin(&mut self) {
        match Request::parse(&self.head, &limits()) {
            Ok(request) if request.is_upgrade() => self.seen.push(match request.check_upgrade() {
                Ok(_) => Seen::Upgrade,
                Err(error) => Seen::BadHead(error),
            }),
            Ok(request) => match BodyDecoder::new(request.body_framing(), MAX_BODY_LEN) {
                Ok(decoder) if decoder.is_complete() => self.end(Vec::new()),
                Ok(decoder) => self.body = Some((decoder, Vec::new())),
                Err(error) => self.seen.push(Seen::BadBody(error)),
            },
            Err(error) => self.seen.push(Seen::BadHead(error)),
        }
    }

    fn receive_body(
        &mut self,
        mut decoder: BodyDecoder,
        mut content: Vec<u8>,
        piece: &[u8],
    ) -> usize {
        match decoder.receive(piece, &mut content) {
            Ok(used) if decoder.is_complete() => {
                self.end(content);
                used
            }
            Ok(used) => {
                assert_eq!(used, piece.len(), "a body that goes on takes all there is");
                self.body = Some((decoder, content));
                used
            }
            Err(error) => {
                self.seen.push(Seen::BadBody(error));
                piece.len()
            }
        }
    }

    fn end(&mut self, content: Vec<u8>) {
        assert!(content.len() <= MAX_BODY_LEN);
        let request = Request::parse(&self.head, &limits()).expect("it was parsed before");
        self.seen.push(Seen::Request(request.target().to_owned(), content));
        self.head.clear();
        self.scanner = HeadScanner::default();
    }
}
