//! What a session does with whole and cut input, in both versions.

use crate::pair::{Setup, VERSIONS};
use ringwire_tls::{Error, Handshake};

#[test]
fn data_goes_both_ways() {
    for version in VERSIONS {
        let setup = Setup::new(version);
        let mut pair = setup.pair();
        assert!(pair.client.tls.wants_write() && !pair.server.tls.wants_write());
        assert_eq!(pair.server.send(b"early"), Err(Error::NotReady));
        assert_eq!(pair.client.send(b"early"), Err(Error::NotReady));
        assert!(pair.client.tls.facts().is_none());
        pair.handshake().expect("a handshake");
        assert!(!pair.is_handshaking());
        pair.client.send(b"question").expect("sends");
        pair.handshake().expect("carries");
        pair.server.send(b"answer").expect("sends");
        pair.handshake().expect("carries");
        assert_eq!(pair.server.plaintext, b"question");
        assert_eq!(pair.client.plaintext, b"answer");

        let facts = pair.server.tls.facts().expect("facts");
        assert_eq!(facts.version, version);
        assert_eq!(facts.server_name, Some("localhost"));
        assert_eq!(facts.alpn, Some(&b"http/1.1"[..]));
        assert_eq!(facts.handshake, Handshake::Full);
        assert!(facts.peer_certificates.is_empty());
        assert!(facts.cipher_suite.starts_with("TLS"));
        let facts = pair.client.tls.facts().expect("facts");
        assert_eq!((facts.version, facts.peer_certificates.len()), (version, 1));
    }
}
