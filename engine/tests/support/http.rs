//! An HTTP client that speaks bytes, and reads one answer after the other.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::client::connect;

/// An answer, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        let status = self.head.split(' ').nth(1).expect("a status line");
        status.parse().expect("a status is a number")
    }

    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (each, value) = line.split_once(": ")?;
            each.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.body).expect("the body is text")
    }
}

/// A connection that makes requests.
pub(crate) struct Http {
    pub(crate) stream: TcpStream,
    received: Vec<u8>,
}

impl Http {
    pub(crate) fn connect(addr: SocketAddr) -> Self {
        Self { stream: connect(addr), received: Vec::new() }
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the server takes it");
    }

    /// Sends a request without a body, and reads its answer.
    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.send(get(path));
        self.answer()
    }

    /// Sends a request with a body, and reads its answer.
    pub(crate) fn post(&mut self, path: &str, body: &str) -> Answer {
        self.send(post(path, body));
        self.answer()
    }

    /// The next answer, whose body ends by its length.
    pub(crate) fn answer(&mut self) -> Answer {
        let mut answer = self.head();
        if let Some(len) = answer.header("content-length") {
            let len = len.parse().expect("a length is a number");
            while self.received.len() < len {
                assert!(self.read(), "the stream ended in a body");
            }
            answer.body = self.received.drain(..len).collect();
        }
        answer
    }

    /// The head of the next answer, which has no body.
    pub(crate) fn head(&mut self) -> Answer {
        loop {
            if let Some(at) = self.received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let head: Vec<u8> = self.received.drain(..at + 4).collect();
                let head = String::from_utf8(head).expect("a head is text");
                return Answer { head, body: Vec::new() };
            }
            assert!(self.read(), "the stream ended: {}", self.received.escape_ascii());
        }
    }

    /// Waits for the server's FIN, before which nothing else comes.
    pub(crate) fn end(&mut self) {
        let more = self.read();
        assert!(!more && self.received.is_empty(), "{}", self.received.escape_ascii());
    }

    /// What was received and not looked at, and the stream.
    pub(crate) fn into_stream(self) -> TcpStream {
        assert!(self.received.is_empty(), "{}", self.received.escape_ascii());
        self.stream
    }

    /// The next `len` bytes, whatever they are.
    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        while self.received.len() < len {
            assert!(self.read(), "the stream ended: {}", self.received.escape_ascii());
        }
        self.received.drain(..len).collect()
    }

    /// Whether more came.
    fn read(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(len) => {
                    self.received.extend_from_slice(&buffer[..len]);
                    return len > 0;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("{error} where bytes or the end were expected"),
            }
        }
    }
}

/// A request without a body.
pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// A request with a body.
pub(crate) fn post(path: &str, body: &str) -> String {
    let len = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len}\r\n\r\n{body}")
}
