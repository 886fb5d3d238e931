//! Servers that these tests meet, plain and over TLS, and what their peers say and hear.

use std::sync::LazyLock;

use ringwire::tls::pki_types::UnixTime;
use ringwire::tls::{CertificateSource, ServerConfig, ServerSettings};
use ringwire::{CloseCause, Config};
use ringwire_codec::deflate::Offer;
use ringwire_codec::handshake::client::Request;
use ringwire_peers::{Client, Got, Identity, Line, Way, plain_request};

use crate::support::Server;
use crate::support::app::App;

static IDENTITY: LazyLock<Identity> = LazyLock::new(Identity::localhost);

pub(crate) fn identity() -> &'static Identity {
    &IDENTITY
}

/// A server on a plain port and on one for TLS.
pub(crate) fn serve(config: Config, build: impl Fn(App) -> App + Send + Sync + 'static) -> Server {
    Server::secure(config, tls(), build)
}

pub(crate) fn tls() -> ServerConfig {
    let Identity { chain, key } = IDENTITY.clone();
    ServerSettings::new(CertificateSource::pem(chain, key))
        .build(UnixTime::now())
        .expect("a good certificate")
}

/// Connected, and through the TLS handshake.
pub(crate) fn connect(server: &Server, way: Way) -> Line {
    match way.version() {
        None => Line::connect(server.addr()),
        Some(version) => Line::connect_tls(server.addrs()[1], &IDENTITY.client(&[version])),
    }
}

/// Upgraded.
pub(crate) fn open(server: &Server, way: Way) -> Client {
    upgrade(server, way, &plain_request())
}

/// Upgraded, with compression.
pub(crate) fn offering(server: &Server, way: Way) -> Client {
    let peer = upgrade(server, way, &plain_request().with_deflate(Offer::default()));
    assert!(peer.is_compressed(), "the server compresses");
    peer
}

/// One that says nothing by itself.
fn upgrade(server: &Server, way: Way, request: &Request) -> Client {
    let mut peer = Client::upgrade(connect(server, way), request);
    peer.answers = false;
    peer
}

/// A message whose beginning is its number.
pub(crate) fn numbered(number: u32, len: usize) -> Vec<u8> {
    let mut message = number.to_be_bytes().to_vec();
    message.resize(len, 7);
    message
}

/// Checks that the messages with these numbers came, each once, in their order, and nothing else.
pub(crate) fn assert_numbers(got: &[Got], count: u32, len: usize) {
    for (number, got) in (0..).zip(got) {
        assert!(*got == Got::Binary(numbered(number, len)), "reply {number} is another");
    }
    assert_eq!(u32::try_from(got.len()), Ok(count), "all replies");
}

/// A connection whose peer has ended its stream, and that has said all.
pub(crate) fn assert_whole(cause: &CloseCause) {
    assert_eq!(cause.reason, ringwire::CloseReason::EndOfStream);
    assert_eq!(cause.unsent_len, 0);
}
