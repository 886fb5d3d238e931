//! HTTP by bytes: requests, and one answer after the other.

use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::ops::{Deref, DerefMut};

use crate::line::{Line, connect};

/// An answer, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status line and headers, with the blank line.
    pub head: String,
    /// As long as the head says.
    pub body: Vec<u8>,
}

impl Answer {
    /// The number in the status line.
    #[must_use]
    pub fn status(&self) -> u16 {
        let status = self.head.split(' ').nth(1).expect("a status line");
        status.parse().expect("a status is a number")
    }

    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (each, value) = line.split_once(": ")?;
            each.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// The body, which is text.
    #[must_use]
    pub fn text(&self) -> &str {
        str::from_utf8(&self.body).expect("the body is text")
    }
}

/// A [`Line`] that makes requests.
pub struct Http {
    line: Line,
}

impl Deref for Http {
    type Target = Line;

    fn deref(&self) -> &Line {
        &self.line
    }
}

impl DerefMut for Http {
    fn deref_mut(&mut self) -> &mut Line {
        &mut self.line
    }
}

impl Http {
    /// A plain connection.
    #[must_use]
    pub fn connect(addr: SocketAddr) -> Self {
        Self { line: Line::connect(addr) }
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.line.raw(bytes.as_ref());
    }

    /// Sends a request without a body, and reads its answer.
    pub fn get(&mut self, path: &str) -> Answer {
        self.send(get(path));
        self.answer()
    }

    /// Sends a request with a body, and reads its answer.
    pub fn post(&mut self, path: &str, body: &str) -> Answer {
        self.send(post(path, body));
        self.answer()
    }

    /// The next answer, whose body ends by its length.
    pub fn answer(&mut self) -> Answer {
        let mut answer = self.head();
        if let Some(len) = answer.header("content-length") {
            let len = len.parse().expect("a length is a number");
            while self.line.heard.len() < len {
                assert!(self.line.hear(), "the stream ended in a body");
            }
            answer.body = self.line.heard.drain(..len).collect();
        }
        answer
    }

    /// The head of the next answer, which has no body.
    pub fn head(&mut self) -> Answer {
        let head = String::from_utf8(take_head(&mut self.line)).expect("a head is text");
        Answer { head, body: Vec::new() }
    }

    /// Waits for the server's FIN, before which nothing else comes.
    pub fn end(&mut self) {
        let more = self.line.hear();
        assert!(!more && self.line.heard.is_empty(), "{}", self.line.heard.escape_ascii());
    }

    /// The stream, of which nothing was received that was not looked at.
    #[must_use]
    pub fn into_stream(self) -> TcpStream {
        assert!(self.line.heard.is_empty(), "{}", self.line.heard.escape_ascii());
        self.line.stream
    }

    /// The next `len` bytes, whatever they are.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        while self.line.heard.len() < len {
            assert!(self.line.hear(), "the stream ended: {}", self.line.heard.escape_ascii());
        }
        self.line.heard.drain(..len).collect()
    }
}

/// A request without a body.
#[must_use]
pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// A request with a body.
#[must_use]
pub fn post(path: &str, body: &str) -> String {
    let len = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len}\r\n\r\n{body}")
}

/// Sends bytes on a connection of their own, and gives everything that comes back until the server's FIN.
pub fn http(addr: SocketAddr, bytes: impl AsRef<[u8]>) -> String {
    let mut stream = connect(addr);
    stream.write_all(bytes.as_ref()).expect("the request goes out");
    read_answer(&mut stream)
}

/// Everything that comes until the server's FIN. A reset fails.
pub fn read_answer(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the whole answer comes, and then FIN");
    String::from_utf8(answer).expect("the answer is text")
}

/// Reads a head to its blank line, and no byte more.
pub fn read_head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a head comes");
        head.push(byte[0]);
    }
    String::from_utf8(head).expect("a head is text")
}

/// Takes the head off what a line hears.
pub(crate) fn take_head(line: &mut Line) -> Vec<u8> {
    loop {
        if let Some(at) = line.heard.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            return line.heard.drain(..at + 4).collect();
        }
        assert!(line.hear(), "the stream ended in the answer: {}", line.heard.escape_ascii());
    }
}
