//! Certificates that people have: as `openssl req -x509` makes them, in other forms than PEM, of other kinds than are
//! usual.
//!
//! The files of `people/` were made with OpenSSL 3: `openssl.pem` and `.key` by `openssl req -x509 -newkey rsa:2048
//! -nodes -subj "/CN=localhost"`, which says CA:TRUE and has no subjectAltName; the rest from them, or with another
//! `-newkey`.
#![expect(clippy::disallowed_types, reason = "rustls takes shared settings as Arc")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, date_time_ymd};
use ringwire_tls::pki_types::UnixTime;
use ringwire_tls::{
    AlertDescription, CertificateError, CertificateSource, ClientAuth, ClientSettings, Error,
    Roots, ServerConfig, ServerSettings, Session,
};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::{ClientConnection, PeerIncompatible, RootCertStore};

use crate::interop::{only, provider};
use crate::pair::{Authority, Issued, Pair, Side, VERSIONS, name, now};

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/tls/people").join(name)
}

fn files(chain: &str, key: &str) -> CertificateSource {
    CertificateSource::files(file(chain), file(key))
}

fn server(source: CertificateSource) -> ServerConfig {
    ServerSettings::new(source).build(now()).expect("a server")
}

/// A self-signed certificate that says of itself that it is an authority.
fn self_signed(names: &[&str], common_name: &str, to_year: i32) -> Issued {
    let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let mut params = CertificateParams::new(names).expect("names");
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_after = date_time_ymd(to_year, 1, 1);
    let key = KeyPair::generate().expect("a key");
    let chain = params.self_signed(&key).expect("signs").pem();
    Issued { chain, key: key.serialize_pem() }
}

/// What becomes of a handshake with a server for which these are trusted.
fn handshake(server: &ServerConfig, client: ClientSettings, host: &str) -> Result<(), Error> {
    let client = client.build(now()).expect("a client");
    let mut pair = Pair::new(
        Session::client(&client, name(host)).expect("a session"),
        Session::server(server).expect("a session"),
    );
    pair.handshake()
}

#[test]
fn what_openssl_req_makes_serves_and_is_its_own_authority() {
    let server = server(files("openssl.pem", "openssl.key"));
    let info = server.certificates().infos()[0].clone();
    assert_eq!((info.names.len(), info.common_name.as_deref()), (0, Some("localhost")));
    for version in VERSIONS {
        let client =
            || ClientSettings::new(Roots::file(file("openssl.pem"))).with_max_version(version);
        assert_eq!(handshake(&server, client(), "localhost"), Ok(()));
        assert_eq!(handshake(&server, client(), "LOCALHOST"), Ok(()));
        for other in ["example.org", "a.localhost", "127.0.0.1"] {
            let error = handshake(&server, client(), other).expect_err("refused").to_string();
            assert!(error.contains(&format!("not valid for name \"{other}\"")), "{error}");
            assert!(error.contains("only valid for \"localhost\""), "{error}");
        }
        let any_name = client().dangerous_without_name_verification();
        assert_eq!(handshake(&server, any_name, "example.org"), Ok(()));
        // Who trusts another knows nothing of this one.
        let stranger = ClientSettings::new(Authority::new().roots());
        assert!(matches!(
            handshake(&server, stranger, "localhost"),
            Err(Error::PeerCertificate(_))
        ));
    }
}

#[test]
fn a_named_certificate_has_its_names_and_dates_checked() {
    let issued = self_signed(&["*.a.test", "127.0.0.1", "::1"], "b.test", 2090);
    let server = server(issued.source());
    let client = || ClientSettings::new(Roots::pem(issued.chain.clone()));
    for (host, fits) in [
        ("x.a.test", true),
        ("127.0.0.1", true),
        ("::1", true),
        ("a.test", false),
        ("x.y.a.test", false),
        ("127.0.0.2", false),
        // RFC 9525 §2: where there is a subjectAltName the common name does not count.
        ("b.test", false),
    ] {
        assert_eq!(handshake(&server, client(), host).is_ok(), fits, "{host}");
    }

    let expired = self_signed(&["localhost"], "x", 2002);
    let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let then = ServerSettings::new(expired.source()).build(at(978_307_200)).expect("a server");
    let client = ClientSettings::new(Roots::pem(expired.chain));
    let refused = Err(Error::PeerCertificate(CertificateError::Expired));
    assert_eq!(handshake(&then, client, "localhost"), refused);
}

#[test]
fn an_authority_that_is_shown_is_accepted_only_where_it_was_named() {
    // Signed by a trusted authority, but an authority itself: no certificate of a server.
    let authority = Authority::new();
    let sub = authority.issue_authority("localhost");
    let error =
        handshake(&server(sub.source()), ClientSettings::new(authority.roots()), "localhost");
    assert!(matches!(error, Err(Error::PeerCertificate(_))), "{error:?}");
    let named = authority.roots().and(Roots::pem(sub.chain.clone()));
    assert_eq!(handshake(&server(sub.source()), ClientSettings::new(named), "localhost"), Ok(()));
}

#[test]
fn a_client_shows_a_self_signed_certificate() {
    let (mine, other) = (self_signed(&[], "me", 2090), self_signed(&[], "me", 2090));
    let issued = self_signed(&["localhost"], "localhost", 2090);
    for version in VERSIONS {
        let auth = ClientAuth::Require(Roots::pem(mine.chain.clone()));
        let settings = ServerSettings::new(issued.source()).with_client_auth(auth);
        let server = settings.with_max_version(version).build(now()).expect("a server");
        let client = |shown: &Issued| {
            ClientSettings::new(Roots::pem(issued.chain.clone())).with_certificate(shown.source())
        };
        assert_eq!(handshake(&server, client(&mine), "localhost"), Ok(()));
        assert!(handshake(&server, client(&other), "localhost").is_err());
    }
}

#[test]
fn the_common_name_chooses_where_there_is_no_other() {
    let settings = ServerSettings::new(Authority::new().issue(&["default.test"]).source());
    let server = settings.with_certificate(files("openssl.pem", "openssl.key"));
    let server = server.build(now()).expect("a server");
    let client = ClientSettings::new(Roots::file(file("openssl.pem")));
    assert_eq!(handshake(&server, client, "localhost"), Ok(()));
}

#[test]
fn errors_name_the_cause_and_the_mend() {
    let problem = |source: CertificateSource| {
        ServerSettings::new(source).build(now()).expect_err("refused").to_string()
    };
    let pem = std::fs::read("tests/tls/people/openssl.pem").expect("reads");
    let key = std::fs::read("tests/tls/people/openssl.key").expect("reads");
    let utf16 = |text: &[u8]| -> Vec<u8> {
        [0xff, 0xfe].into_iter().chain(text.iter().flat_map(|byte| [*byte, 0])).collect()
    };
    let authority = Authority::new();
    let issued = authority.issue(&["localhost"]);
    let reversed = format!("{}{}", authority.pem, issued.chain);
    for (source, cause, mend) in [
        (files("openssl.pem", "encrypted.key"), "is encrypted", "openssl pkey"),
        (files("openssl.pem", "encrypted-old.key"), "is encrypted", "openssl pkey"),
        (
            files("rsa1024.pem", "rsa1024.key"),
            "RSA of less than 2048 bits, which is not supported",
            "use P-256",
        ),
        #[cfg(not(feature = "aws-lc-rs"))]
        (files("p521.pem", "p521.key"), "P-521, which is not supported", "use P-256"),
        (
            files("openssl.der", "openssl.key"),
            "binary (DER or PKCS#12)",
            "openssl x509 -inform der",
        ),
        (
            CertificateSource::pem([b"\xef\xbb\xbf", &pem[..]].concat(), key.clone()),
            "byte order mark",
            "without BOM",
        ),
        (CertificateSource::pem(utf16(&pem), key.clone()), "byte order mark", "without BOM"),
        (
            CertificateSource::pem(pem.clone(), [b"\xef\xbb\xbf", &key[..]].concat()),
            "byte order mark",
            "without BOM",
        ),
        (CertificateSource::pem(reversed, issued.key), "wrong order", "leaf first"),
        (files("openssl.pem", "openssl.pem"), "no private key", "openssl.pem"),
        (files("openssl.key", "openssl.key"), "no certificate", "openssl.key"),
    ] {
        let text = problem(source);
        assert!(text.contains(cause) && text.contains(mend), "{text}");
    }
    let roots = ClientSettings::new(Roots::file(file("openssl.der"))).build(now());
    let text = roots.expect_err("refused").to_string();
    assert!(text.contains("openssl.der: is binary"), "{text}");
}

/// RFC 5246 §7.4.1.4.1, RFC 8446 §4.4.2.2: without a signature scheme in common the handshake fails.
#[test]
fn no_common_signature_scheme_is_a_handshake_failure() {
    let server = server(Authority::new().issue(&["localhost"]).source());
    for version in VERSIONS {
        let mut provider = (*provider()).clone();
        provider.signature_verification_algorithms = rsa_alone();
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(only(version))
            .expect("a version")
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let client = ClientConnection::new(Arc::new(config), name("localhost")).expect("a client");
        let mut client = rustls::Connection::Client(client);
        let mut hello = Vec::new();
        client.write_tls(&mut hello).expect("writes");
        let mut side = Side::new(Session::server(&server).expect("a session"));
        let error = side.receive(&hello).expect_err("refused");
        assert_eq!(
            error,
            Error::Protocol(PeerIncompatible::NoSignatureSchemesInCommon.into()),
            "{version}"
        );
        let mut alert = &side.output[..];
        while !alert.is_empty() {
            client.read_tls(&mut alert).expect("reads");
        }
        let told = client.process_new_packets().expect_err("an alert");
        assert_eq!(told, rustls::Error::AlertReceived(AlertDescription::HandshakeFailure));
    }
}

/// What is left of the provider's algorithms without ECDSA and Ed25519.
fn rsa_alone() -> WebPkiSupportedAlgorithms {
    let known = provider().signature_verification_algorithms;
    let mapping: Vec<_> = known
        .mapping
        .iter()
        .filter(|(scheme, _)| format!("{scheme:?}").starts_with("RSA"))
        .copied()
        .collect();
    WebPkiSupportedAlgorithms { all: known.all, mapping: mapping.leak() }
}
