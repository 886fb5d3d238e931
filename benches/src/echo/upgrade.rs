//! The client's side of the HTTP upgrade.

use ringwire_codec::Role;
use ringwire_codec::deflate::{Agreement, Offer};
use ringwire_codec::handshake::client::{Request, Response};
use ringwire_codec::handshake::{HandshakeError, HeadLimits, HeadScanner};
use ringwire_examples::CompressionFlag;

use super::errors::Failure;
use super::wire::text_frame;
use crate::target::Resource;

/// Begins upgrades to one resource.
pub(crate) struct Upgrader {
    pub(crate) resource: Resource,
    compression: CompressionFlag,
    /// Whether what is said and heard first comes with the upgrade.
    pub(crate) greets: bool,
}

/// An upgrade that waits for its response.
pub(crate) struct Upgrade {
    request: Request,
    compression: CompressionFlag,
    scanner: HeadScanner,
    head: Vec<u8>,
    first: Option<First>,
}

/// What comes before the load.
pub(crate) struct First {
    /// Frames.
    pub(crate) said: Vec<u8>,
    /// Messages that have to come.
    pub(crate) replies: u32,
}

/// A response that is whole.
pub(crate) struct Upgraded {
    /// Where it ends in the bytes that came last.
    pub(crate) head_end: usize,
    /// `None` where no compression was asked for.
    pub(crate) deflate: Option<Agreement>,
    pub(crate) first: Option<First>,
}

impl Upgrader {
    /// For a resource. Compression has to be agreed on as it is asked for here.
    pub(crate) fn new(resource: Resource, compression: CompressionFlag) -> Self {
        Self { resource, compression, greets: true }
    }

    /// The bytes of a request of the connection with a number, with a key of its own.
    pub(crate) fn begin(&self, number: u32) -> Result<(Upgrade, Vec<u8>), Failure> {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(|_| Failure::HandshakeInvalid)?;
        let Resource { authority, path, ask, .. } = &self.resource;
        let request =
            Request::new(authority.as_str(), &ask.fill(path, number), nonce).map_err(failure)?;
        let mut request = ask.request(request, number).map_err(failure)?;
        let compression = self.compression;
        match compression {
            CompressionFlag::Off => {}
            CompressionFlag::Shared => request = request.with_deflate(Offer::shared()),
            CompressionFlag::Dedicated => request = request.with_deflate(Offer::default()),
        }
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        let (scanner, head) = (HeadScanner::default(), Vec::new());
        let first = (self.greets && ask.has_first()).then(|| {
            let said = ask.first_messages(number).flat_map(|text| text_frame(&text)).collect();
            First { said, replies: ask.first_replies() }
        });
        Ok((Upgrade { request, compression, scanner, head, first }, bytes))
    }
}

impl Upgrade {
    /// Takes bytes of the response; once its head is whole, says what it comes to.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Result<Option<Upgraded>, Failure> {
        let before = self.head.len();
        self.head.extend_from_slice(bytes);
        let limits = HeadLimits::default();
        let Some(end) = self.scanner.scan(&self.head, &limits).map_err(failure)? else {
            return Ok(None);
        };
        let response = Response::parse(&self.head[..end], &limits).map_err(failure)?;
        let deflate = response.check_upgrade(&self.request).map_err(failure)?.deflate;
        self.check_agreement(deflate.as_ref())?;
        Ok(Some(Upgraded { head_end: end - before, deflate, first: self.first.take() }))
    }

    fn check_agreement(&self, agreement: Option<&Agreement>) -> Result<(), Failure> {
        let wanted = match self.compression {
            CompressionFlag::Off => return Ok(()),
            CompressionFlag::Shared => false,
            CompressionFlag::Dedicated => true,
        };
        let Some(agreement) = agreement else { return Err(Failure::CompressionDeclined) };
        if [Role::Client, Role::Server].map(|role| agreement.takeover(role)) != [wanted; 2] {
            return Err(Failure::CompressionTerms);
        }
        Ok(())
    }
}

fn failure(error: HandshakeError) -> Failure {
    match error {
        HandshakeError::Refused(status) => Failure::HandshakeStatus(status.as_u16()),
        HandshakeError::DeflateParams => Failure::CompressionTerms,
        _ => Failure::HandshakeInvalid,
    }
}

#[cfg(test)]
mod tests {
    use ringwire_codec::deflate::Policy;
    use ringwire_codec::handshake::server;

    use super::*;

    fn upgrader(compression: CompressionFlag) -> Upgrader {
        let target = crate::target::Target::from_url("ws://127.0.0.1:1/").unwrap();
        Upgrader::new(target.resource().unwrap().clone(), compression)
    }

    /// A server's answer that agrees to compression on these terms, if any.
    fn answer(request: &[u8], policy: Option<&Policy>) -> Vec<u8> {
        let request = server::Request::parse(request, &HeadLimits::default()).unwrap();
        let upgrade = request.check_upgrade().unwrap();
        let agreement = policy.and_then(|policy| upgrade.deflate(policy));
        let accept = server::Accept::default().with_deflate(agreement);
        let mut response = Vec::new();
        accept.encode(&upgrade, &mut response).unwrap();
        response
    }

    #[test]
    fn response_in_any_cut_ends_where_frames_begin() {
        for step in [1, 2, 50, 1000] {
            let (mut upgrade, request) = upgrader(CompressionFlag::Off).begin(0).unwrap();
            let mut response = answer(&request, None);
            let head_len = response.len();
            response.extend_from_slice(b"frame");
            let mut seen = 0;
            for part in response.chunks(step) {
                if let Some(upgraded) = upgrade.receive(part).unwrap() {
                    assert_eq!(seen + upgraded.head_end, head_len);
                    assert_eq!(upgraded.deflate, None);
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
            let (mut upgrade, _) = upgrader(CompressionFlag::Off).begin(0).unwrap();
            upgrade.receive(text.as_bytes()).err().unwrap()
        };
        let refused = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(answer(refused), Failure::HandshakeStatus(503));
        let foreign_key = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        assert_eq!(answer(foreign_key), Failure::HandshakeInvalid);
        assert_eq!(answer("SSH-2.0-nothing\r\n\r\n"), Failure::HandshakeInvalid);
    }

    #[test]
    fn compression_is_agreed_on_as_asked_for_or_refused() {
        let agree = |compression, policy| {
            let (mut upgrade, request) = upgrader(compression).begin(0).unwrap();
            upgrade.receive(&answer(&request, policy))
        };
        let (alone, takeover) = (
            Policy::default(),
            Policy::default().with_server_context_takeover(true).with_client_context_takeover(true),
        );
        let half = Policy::default().with_server_context_takeover(true);
        let agreed = |compression, policy| {
            let agreement = agree(compression, Some(policy)).unwrap().unwrap().deflate.unwrap();
            [Role::Client, Role::Server].map(|role| agreement.takeover(role))
        };
        assert_eq!(agreed(CompressionFlag::Shared, &alone), [false; 2]);
        // Who may take over need not.
        assert_eq!(agreed(CompressionFlag::Shared, &takeover), [false; 2]);
        assert_eq!(agreed(CompressionFlag::Dedicated, &takeover), [true; 2]);
        for (compression, policy, failure) in [
            (CompressionFlag::Shared, None, Failure::CompressionDeclined),
            (CompressionFlag::Dedicated, None, Failure::CompressionDeclined),
            (CompressionFlag::Dedicated, Some(&alone), Failure::CompressionTerms),
            (CompressionFlag::Dedicated, Some(&half), Failure::CompressionTerms),
        ] {
            let found = agree(compression, policy).err().unwrap();
            assert_eq!(found, failure, "{compression:?}");
        }
    }
}
