//! The client's side of the HTTP upgrade.

use ringwire_codec::handshake::client::{Request, Response};
use ringwire_codec::handshake::{HandshakeError, HeadLimits, HeadScanner};

use super::errors::Failure;
use crate::target::Resource;

/// Begins upgrades to one resource.
pub(crate) struct Upgrader(Resource);

/// An upgrade that waits for its response.
pub(crate) struct Upgrade {
    request: Request,
    scanner: HeadScanner,
    head: Vec<u8>,
}

impl Upgrader {
    /// For a resource.
    pub(crate) fn new(resource: Resource) -> Self {
        Self(resource)
    }

    /// The bytes of a request to be sent, with a key of its own.
    pub(crate) fn begin(&self) -> Result<(Upgrade, Vec<u8>), Failure> {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(|_| Failure::HandshakeInvalid)?;
        let request = Request::new(&self.0.authority, &self.0.path, nonce).map_err(failure)?;
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        Ok((Upgrade { request, scanner: HeadScanner::default(), head: Vec::new() }, bytes))
    }
}

impl Upgrade {
    /// Takes bytes of the response; once its head is whole, says where in `bytes` it ends.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Result<Option<usize>, Failure> {
        let before = self.head.len();
        self.head.extend_from_slice(bytes);
        let limits = HeadLimits::default();
        let Some(end) = self.scanner.scan(&self.head, &limits).map_err(failure)? else {
            return Ok(None);
        };
        let response = Response::parse(&self.head[..end], &limits).map_err(failure)?;
        response.check_upgrade(&self.request).map_err(failure)?;
        Ok(Some(end - before))
    }
}

fn failure(error: HandshakeError) -> Failure {
    match error {
        HandshakeError::Refused(status) => Failure::HandshakeStatus(status.as_u16()),
        _ => Failure::HandshakeInvalid,
    }
}

#[cfg(test)]
mod tests {
    use ringwire_codec::handshake::server;

    use super::*;

    fn upgrader() -> Upgrader {
        Upgrader::new(Resource {
            secure: false,
            authority: "localhost:1".to_owned(),
            path: "/".to_owned(),
        })
    }

    #[test]
    fn response_in_any_cut_ends_where_frames_begin() {
        for step in [1, 2, 50, 1000] {
            let (mut upgrade, request) = upgrader().begin().unwrap();
            let request = server::Request::parse(&request, &HeadLimits::default()).unwrap();
            let mut response = Vec::new();
            let upgrade_request = request.check_upgrade().unwrap();
            server::Accept::default().encode(&upgrade_request, &mut response).unwrap();
            let head_len = response.len();
            response.extend_from_slice(b"frame");
            let mut seen = 0;
            for part in response.chunks(step) {
                if let Some(used) = upgrade.receive(part).unwrap() {
                    assert_eq!(seen + used, head_len);
                    seen = usize::MAX;
                    break;
                }
                seen += part.len();
            }
            assert_eq!(seen, usize::MAX, "{step}");
        }
    }

    #[test]
    fn refusals_are_told_apart() {
        let answer = |text: &str| {
            let (mut upgrade, _) = upgrader().begin().unwrap();
            upgrade.receive(text.as_bytes()).unwrap_err()
        };
        let refused = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(answer(refused), Failure::HandshakeStatus(503));
        let foreign_key = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        assert_eq!(answer(foreign_key), Failure::HandshakeInvalid);
        assert_eq!(answer("SSH-2.0-nothing\r\n\r\n"), Failure::HandshakeInvalid);
    }
}
