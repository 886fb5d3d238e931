//! Against rustls's ordinary connections, and against a client that splits what it should not.
#![expect(clippy::disallowed_types, reason = "rustls takes shared settings as Arc")]

use std::io::{Read, Write};
use std::sync::Arc;

use ringwire_tls::pki_types::pem::PemObject;
use ringwire_tls::pki_types::{CertificateDer, PrivateKeyDer};
use ringwire_tls::{Error, ServerSettings, Session, Version};
use rustls::crypto::cipher::{MessageEncrypter, OutboundPlainMessage};
use rustls::{
    ClientConnection, Connection, ConnectionTrafficSecrets, ContentType, ProtocolVersion,
    RootCertStore, ServerConnection, SupportedCipherSuite, SupportedProtocolVersion,
};

use crate::pair::{Authority, Setup, Side, VERSIONS, name, now};

pub(crate) fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

pub(crate) fn only(version: Version) -> &'static [&'static SupportedProtocolVersion] {
    static TLS12: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS12];
    static TLS13: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];
    if version == Version::Tls12 { &TLS12 } else { &TLS13 }
}

pub(crate) fn buffered_client(authority: &Authority, version: Version) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(authority.pem.as_bytes()).expect("a certificate");
    roots.add(root).expect("a root");
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(only(version))
        .expect("a version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.enable_secret_extraction = true;
    ClientConnection::new(Arc::new(config), name("localhost")).expect("a connection")
}

pub(crate) fn buffered_server(authority: &Authority, version: Version) -> ServerConnection {
    let issued = authority.issue(&["localhost"]);
    let chain = CertificateDer::from_pem_slice(issued.chain.as_bytes()).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).expect("a key");
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(only(version))
        .expect("a version")
        .with_no_client_auth()
        .with_single_cert(vec![chain], key)
        .expect("a server");
    config.ticketer = rustls::crypto::ring::Ticketer::new().expect("a ticketer");
    ServerConnection::new(Arc::new(config)).expect("a connection")
}

/// Carries bytes until neither side has any, and returns what the buffered side has read.
pub(crate) fn carry(buffered: &mut Connection, side: &mut Side) -> Vec<u8> {
    let mut read = Vec::new();
    loop {
        let mut from_buffered = Vec::new();
        while buffered.wants_write() {
            buffered.write_tls(&mut from_buffered).expect("writes");
        }
        side.receive(&from_buffered).expect("receives");
        let to_buffered = side.transmit();
        if from_buffered.is_empty() && to_buffered.is_empty() {
            return read;
        }
        let mut rest = &to_buffered[..];
        while !rest.is_empty() && buffered.read_tls(&mut rest).expect("reads") > 0 {
            buffered.process_new_packets().expect("processes");
            let mut chunk = [0; 4096];
            while let Ok(len @ 1..) = buffered.reader().read(&mut chunk) {
                read.extend_from_slice(&chunk[..len]);
            }
        }
    }
}

pub(crate) fn converse(buffered: &mut Connection, side: &mut Side) {
    assert_eq!(carry(buffered, side), b"");
    assert!(!buffered.is_handshaking() && !side.tls.is_handshaking());
    for len in [1, 1_000, 50_000] {
        side.plaintext.clear();
        let (ours, theirs) = (vec![b'o'; len], vec![b't'; len]);
        side.send(&ours).expect("sends");
        buffered.writer().write_all(&theirs).expect("writes");
        assert!(carry(buffered, side) == ours);
        assert!(side.plaintext == theirs);
    }
}

fn end(buffered: &mut Connection, side: &mut Side) {
    side.close();
    carry(buffered, side);
    let mut byte = [0];
    assert_eq!(buffered.reader().read(&mut byte).expect("an orderly end"), 0);
    buffered.send_close_notify();
    carry(buffered, side);
    assert!(side.tls.peer_has_closed());
}

#[test]
fn buffered_clients_and_servers() {
    for version in VERSIONS {
        let setup = Setup::new(version);
        let mut client = Connection::Client(buffered_client(&setup.authority, version));
        let mut server = Side::new(Session::server(&setup.server).expect("a session"));
        converse(&mut client, &mut server);
        end(&mut client, &mut server);

        let mut server = Connection::Server(buffered_server(&setup.authority, version));
        let client = Session::client(&setup.client, name("localhost")).expect("a session");
        let mut client = Side::new(client);
        converse(&mut server, &mut client);
        end(&mut server, &mut client);
    }
}

#[test]
fn keys_are_updated_whenever_the_peer_wants() {
    let setup = Setup::new(Version::Tls13);
    let mut client = Connection::Client(buffered_client(&setup.authority, Version::Tls13));
    let mut server = Side::new(Session::server(&setup.server).expect("a session"));
    converse(&mut client, &mut server);
    for round in 0..100 {
        match &mut client {
            Connection::Client(client) => client.refresh_traffic_keys().expect("refreshes"),
            Connection::Server(_) => unreachable!("it is a client"),
        }
        carry(&mut client, &mut server);
        if round % 3 == 0 {
            converse(&mut client, &mut server);
        }
    }
    converse(&mut client, &mut server);
    end(&mut client, &mut server);
}

/// A TLS 1.3 client after its handshake, reduced to its keys: it can send what rustls never would.
struct RawClient {
    encrypter: Box<dyn MessageEncrypter>,
    seq: u64,
}

impl RawClient {
    fn connect(setup: &Setup) -> (Self, Side) {
        let mut client = Connection::Client(buffered_client(&setup.authority, Version::Tls13));
        let mut server = Side::new(Session::server(&setup.server).expect("a session"));
        converse(&mut client, &mut server);
        server.plaintext.clear();
        let suite = client.negotiated_cipher_suite().expect("a suite");
        let SupportedCipherSuite::Tls13(suite) = suite else { unreachable!("it is TLS 1.3") };
        let secrets = client.dangerous_extract_secrets().expect("secrets");
        let (seq, ConnectionTrafficSecrets::Aes256Gcm { key, iv }) = secrets.tx else {
            unreachable!("the server prefers AES-256")
        };
        (Self { encrypter: suite.aead_alg.encrypter(key, iv), seq }, server)
    }

    fn record(&mut self, typ: ContentType, payload: &[u8]) -> Vec<u8> {
        let version = ProtocolVersion::TLSv1_2;
        let message = OutboundPlainMessage { typ, version, payload: payload.into() };
        let record = self.encrypter.encrypt(message, self.seq).expect("encrypts");
        self.seq += 1;
        record.encode()
    }
}

const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 1];

/// rustls keeps offsets into what it was given while a handshake message is not whole; it panics when it is
/// then given less.
#[test]
fn sending_between_the_halves_of_a_key_update() {
    let setup = Setup::new(Version::Tls13);
    for cut in 1..KEY_UPDATE.len() {
        let (mut client, mut server) = RawClient::connect(&setup);
        let idle_len = server.tls.memory_len();
        let first = client.record(ContentType::Handshake, &KEY_UPDATE[..cut]);
        server.receive(&first).expect("receives");
        assert!(server.tls.memory_len() > idle_len);
        server.send(b"in between").expect("sends");
        server.receive(&[]).expect("receives nothing");
        server.tls.poll_transmit(&mut Vec::new()).expect("transmits");
        for byte in client.record(ContentType::Handshake, &KEY_UPDATE[cut..]) {
            server.receive(&[byte]).expect("receives");
            server.send(b"and on").expect("sends");
        }
        assert_eq!(server.tls.memory_len(), idle_len);
        // The client's keys have changed, so what it says with the old ones is refused.
        let old = client.record(ContentType::ApplicationData, b"old keys");
        let refused = server.receive(&old);
        assert_eq!(refused, Err(Error::Protocol(rustls::Error::DecryptError)));
    }
}

#[test]
fn closing_and_ending_between_the_halves_of_a_key_update() {
    let setup = Setup::new(Version::Tls13);
    let (mut client, mut server) = RawClient::connect(&setup);
    let first = client.record(ContentType::Handshake, &KEY_UPDATE[..2]);
    server.receive(&first).expect("receives");
    server.close();
    assert!(!server.output.is_empty());
    assert_eq!(server.tls.receive_eof(), Err(Error::Truncated));
}

#[test]
fn data_between_the_halves_of_a_key_update_is_refused() {
    let setup = Setup::new(Version::Tls13);
    for typ in [ContentType::ApplicationData, ContentType::Alert] {
        let (mut client, mut server) = RawClient::connect(&setup);
        let first = client.record(ContentType::Handshake, &KEY_UPDATE[..2]);
        server.receive(&first).expect("receives");
        let between = client.record(typ, &[1, 0]);
        assert!(matches!(server.receive(&between), Err(Error::Protocol(_))));
        assert!(server.plaintext.is_empty());
    }
}

#[test]
fn a_whole_key_update_and_data_in_one_input() {
    let setup = Setup::new(Version::Tls13);
    let (mut client, mut server) = RawClient::connect(&setup);
    let mut bytes = client.record(ContentType::ApplicationData, b"one ");
    bytes.extend(client.record(ContentType::ApplicationData, b""));
    bytes.extend(client.record(ContentType::ApplicationData, b"two"));
    bytes.extend(client.record(ContentType::Handshake, &KEY_UPDATE[..3]));
    bytes.extend(client.record(ContentType::Handshake, &KEY_UPDATE[3..]));
    server.receive(&bytes).expect("receives");
    assert_eq!(server.plaintext, b"one two");
    server.send(b"with new keys").expect("sends");
}

#[test]
fn floods_of_what_costs_the_server_are_ended() {
    let setup = Setup::new(Version::Tls13);
    let floods = [(ContentType::Handshake, &KEY_UPDATE[..]), (ContentType::ApplicationData, b"")];
    for (typ, payload) in floods {
        let (mut client, mut server) = RawClient::connect(&setup);
        let ended = (0..100).any(|_| {
            let record = client.record(typ, payload);
            server.receive(&record).is_err()
        });
        assert!(ended);
    }
}

#[test]
fn a_client_of_another_kind_of_key_gets_the_certificate_it_can_check() {
    let authority = Authority::new();
    let ed25519 = authority.issue_for(&rcgen::PKCS_ED25519, &["localhost"]);
    let ecdsa = authority.issue(&["localhost"]);
    let server = ServerSettings::new(ed25519.source()).with_certificate(ecdsa.source());
    let server = server.build(now()).expect("a server");
    let mut restricted = rustls::crypto::ring::default_provider();
    let known = &mut restricted.signature_verification_algorithms;
    let ecdsa_only: Vec<_> = known
        .mapping
        .iter()
        .copied()
        .filter(|(scheme, _)| *scheme == rustls::SignatureScheme::ECDSA_NISTP256_SHA256)
        .collect();
    known.mapping = Box::leak(ecdsa_only.into_boxed_slice());
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(authority.pem.as_bytes()).expect("a certificate");
    roots.add(root).expect("a root");
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(restricted))
        .with_protocol_versions(only(Version::Tls13))
        .expect("a version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = ClientConnection::new(Arc::new(config), name("localhost")).expect("a connection");
    let mut client = Connection::Client(client);
    converse(&mut client, &mut Side::new(Session::server(&server).expect("a session")));
    let shown = client.peer_certificates().expect("certificates")[0].clone();
    let wanted = CertificateDer::from_pem_slice(ecdsa.chain.as_bytes()).expect("a certificate");
    assert_eq!(shown, wanted);
}
