//! TLS of the simulated clients, and of the server that they talk to.

use std::sync::OnceLock;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use ringwire_tls::pki_types::{ServerName, UnixTime};
use ringwire_tls::{
    CertificateSource, ClientConfig, ClientSettings, Roots, ServerConfig, ServerSettings, Session,
};

use super::app::Entry;
use super::http::{answer_count, answer_deferred, cut_requests};
use super::play::Play;
use super::time::{secs, upgrade};
use crate::config::Config;
use crate::conn::cause::CloseReason;
use crate::driver::sim::{Faults, Peer};
use crate::layers::compression::CompressionConfig;

/// The server's TLS.
pub(super) fn server() -> ServerConfig {
    configs().0.clone()
}

/// What a client says and hears through TLS.
#[derive(Debug)]
pub(super) struct Secured {
    session: Session,
    /// What it wanted to say before the handshake was over.
    unsaid: Vec<u8>,
    said_the_end: bool,
}

impl Secured {
    /// A session, and the bytes that begin it.
    pub(super) fn begin() -> (Self, Vec<u8>) {
        let name = ServerName::try_from("localhost").expect("a name");
        let mut session = Session::client(&configs().1, name).expect("a session");
        let mut hello = Vec::new();
        session.poll_transmit(&mut hello).expect("a hello");
        (Self { session, unsaid: Vec::new(), said_the_end: false }, hello)
    }

    /// What goes out for `bytes`: nothing after close_notify (RFC 8446 §6.1), as nothing goes out after FIN.
    pub(super) fn say(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        if self.said_the_end {
            return out;
        }
        if self.session.is_handshaking() {
            self.unsaid.extend_from_slice(bytes);
        } else {
            self.session.send(bytes, &mut out).expect("it is open");
        }
        out
    }

    /// What `bytes` say, and what goes out for them.
    pub(super) fn hear(&mut self, mut bytes: Vec<u8>) -> (Vec<u8>, Vec<u8>) {
        let (mut plaintext, mut out) = (Vec::new(), Vec::new());
        self.session
            .receive(&mut bytes, &mut plaintext, &mut out)
            .unwrap_or_else(|error| panic!("the server's TLS is wrong: {error}"));
        if !self.session.is_handshaking() {
            let unsaid = std::mem::take(&mut self.unsaid);
            out.extend(self.say(&unsaid));
        }
        (plaintext, out)
    }

    /// close_notify.
    pub(super) fn close(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.said_the_end = true;
        self.session.close(&mut out);
        out
    }

    /// Whether the server said close_notify.
    pub(super) fn heard_the_end(&self) -> bool {
        self.session.peer_has_closed()
    }
}

/// One pair for all runs. Signatures of Ed25519 all have the same length, so that a seed can be run again.
fn configs() -> &'static (ServerConfig, ClientConfig) {
    static CONFIGS: OnceLock<(ServerConfig, ClientConfig)> = OnceLock::new();
    CONFIGS.get_or_init(|| {
        let key = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
        let names = vec!["localhost".to_owned()];
        let certificate = CertificateParams::new(names).expect("names").self_signed(&key);
        let chain = certificate.expect("signs").pem();
        let source = CertificateSource::pem(chain.clone(), key.serialize_pem());
        let now = UnixTime::now();
        let server = ServerSettings::new(source).build(now).expect("a server");
        let client = ClientSettings::new(Roots::pem(chain)).with_resumption(false).build(now);
        (server, client.expect("a client"))
    })
}

/// RFC 8446 §6.1: each side ends its own direction, and says nothing in it after close_notify. A frame of the server
/// may cross that on its way, whose answer is not sent.
#[test]
fn nothing_is_said_after_close_notify_and_all_is_heard() {
    let (mut client, mut flight) = Secured::begin();
    let mut server = Session::server(&server()).expect("a session");
    let mut heard = Vec::new();
    assert!(client.say(b"request").is_empty(), "it waits for the handshake");
    while !flight.is_empty() {
        let mut answer = Vec::new();
        server.receive(&mut flight, &mut heard, &mut answer).expect("a correct client");
        flight = client.hear(answer).1;
    }
    assert_eq!(heard, b"request");
    let mut notice = client.close();
    assert!(!notice.is_empty());

    let mut crossing = Vec::new();
    server.send(b"goodbye", &mut crossing).expect("it is open");
    assert_eq!(client.hear(crossing), (b"goodbye".to_vec(), Vec::new()));
    assert!(client.say(b"an answer").is_empty());
    server.receive(&mut notice, &mut heard, &mut Vec::new()).expect("a correct client");
    assert!(server.peer_has_closed());
    assert_eq!(heard, b"request");
}

/// A raw client that has shaken hands.
struct Raw {
    peer: Peer,
    tls: Secured,
    heard: Vec<u8>,
}

impl Raw {
    fn begin(play: &mut Play) -> Self {
        let (tls, hello) = Secured::begin();
        let peer = play.scene.world.connect(1);
        peer.write(&hello);
        let mut raw = Self { peer, tls, heard: Vec::new() };
        while raw.tls.session.is_handshaking() {
            play.step();
            raw.hear();
        }
        raw
    }

    fn hear(&mut self) {
        let (heard, out) = self.tls.hear(self.peer.read());
        self.heard.extend(heard);
        self.peer.write(&out);
    }

    fn hear_until(&mut self, play: &mut Play, at: Duration) {
        play.run_until(at);
        self.hear();
    }
}

/// A request that is cut off by the end of the stream ends the connection, also where another was answered later.
#[test]
fn a_cut_request_behind_one_that_is_answered_later_ends_the_connection() {
    let config = Config::default().with_handshake_timeout(None).with_http_keep_alive_timeout(None);
    for between in ["", "GET /now HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let mut play = Play::new(1, &config, Faults::none(), Vec::new());
        let mut client = Raw::begin(&mut play);
        let mut bytes = client.tls.say(&cut_requests(between));
        bytes.extend(client.tls.close());
        client.peer.write(&bytes);
        client.hear_until(&mut play, secs(1));
        answer_deferred(&play);
        client.hear_until(&mut play, secs(2));
        assert_eq!(answer_count(&client.heard), 1 + usize::from(!between.is_empty()));
        assert!(client.tls.heard_the_end() && client.peer.is_eof(), "it is kept");
    }
}

/// docs/architecture.md: the application gets what was decrypted before a failure.
#[test]
fn what_came_before_a_failure_is_handed_over() {
    let compression = CompressionConfig::shared().with_work_per_turn(1);
    let few = Config::default().with_messages_per_turn(1);
    let little = Config::default().with_compression(compression);
    // a, b and c as they are, and compressed (RFC 7692 §7.2.1).
    let plain = b"\x81\x81\0\0\0\0a\x81\x81\0\0\0\0b\x81\x81\0\0\0\0c".as_slice();
    let deflated =
        b"\xc1\x83\0\0\0\0\x4a\x04\0\xc1\x83\0\0\0\0\x4a\x02\0\xc1\x83\0\0\0\0\x4a\x06\0";
    for (config, frames) in [(few, plain), (little, deflated.as_slice())] {
        let mut play = Play::new(1, &config, Faults::none(), Vec::new());
        play.scene.log.borrow_mut().clients.push(Entry::default());
        let mut client = Raw::begin(&mut play);
        let target = "/0 HTTP/1.1\r\nSec-WebSocket-Extensions: permessage-deflate\r\nX-Rest:";
        let bytes = client.tls.say(&upgrade(target, b""));
        client.peer.write(&bytes);
        client.hear_until(&mut play, secs(1));
        let mut bytes = client.tls.say(frames);
        bytes.extend([0xff; 40]);
        client.peer.write(&bytes);
        play.run_until(secs(2));
        let log = play.scene.log.borrow();
        let entry = &log.clients[0];
        assert_eq!(entry.closed.as_ref().map(|cause| cause.reason), Some(CloseReason::Tls));
        let came: Vec<_> = entry.came.iter().map(|said| said.bytes.as_slice()).collect();
        assert_eq!(came, [b"a", b"b", b"c"]);
    }
}
