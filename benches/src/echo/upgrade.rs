//! The client's side of the HTTP upgrade.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

use super::errors::Failure;

const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// A longer response head is refused.
const MAX_HEAD_LEN: usize = 16 << 10;

/// Begins upgrades to one resource.
pub(crate) struct Upgrader {
    authority: String,
    path: String,
}

/// An upgrade that waits for its response.
pub(crate) struct Upgrade {
    accept: String,
    head: Vec<u8>,
}

impl Upgrader {
    /// For the resource `path` at `authority` (host and port).
    pub(crate) fn new(authority: &str, path: &str) -> Self {
        Self { authority: authority.to_owned(), path: path.to_owned() }
    }

    /// The request to be sent, with a key of its own.
    pub(crate) fn begin(&self) -> Result<(Upgrade, Vec<u8>), Failure> {
        let mut key = [0; 16];
        getrandom::fill(&mut key).map_err(|_| Failure::HandshakeInvalid)?;
        let key = STANDARD.encode(key);
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n",
            self.path, self.authority
        );
        let accept = STANDARD.encode(Sha1::new().chain_update(&key).chain_update(GUID).finalize());
        Ok((Upgrade { accept, head: Vec::new() }, request.into_bytes()))
    }
}

impl Upgrade {
    /// Takes bytes of the response; once its head is whole, says where in `bytes` it ends.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Result<Option<usize>, Failure> {
        let before = self.head.len();
        self.head.extend_from_slice(bytes);
        let Some(end) = self.head.windows(4).position(|four| four == b"\r\n\r\n") else {
            return if self.head.len() > MAX_HEAD_LEN {
                Err(Failure::HandshakeInvalid)
            } else {
                Ok(None)
            };
        };
        let head = std::str::from_utf8(&self.head[..end]).map_err(|_| Failure::HandshakeInvalid)?;
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3));
        match status.and_then(|status| status.parse().ok()) {
            Some(101) => {}
            Some(status) => return Err(Failure::HandshakeStatus(status)),
            None => return Err(Failure::HandshakeInvalid),
        }
        let accepted = lines.filter_map(|line| line.split_once(':')).any(|(name, value)| {
            name.eq_ignore_ascii_case("sec-websocket-accept") && value.trim() == self.accept
        });
        if accepted { Ok(Some(end + 4 - before)) } else { Err(Failure::HandshakeInvalid) }
    }
}
