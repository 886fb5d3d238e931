//! Certificates from files, checked before they replace the old ones.

use std::fs;
use std::path::PathBuf;

use ringwire_tls::pki_types::UnixTime;
use ringwire_tls::{
    CertificateProblem, CertificateSource, ClientSettings, ConfigError, Roots, ServerConfig,
    ServerSettings, Session, Version,
};
use tempfile::TempDir;

use crate::pair::{Authority, Issued, Pair, name, now};

struct Files {
    dir: TempDir,
    authority: Authority,
}

impl Files {
    fn new() -> Self {
        Self { dir: TempDir::new().expect("a directory"), authority: Authority::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, issued: &Issued) {
        fs::write(self.path("cert.pem"), &issued.chain).expect("writes");
        fs::write(self.path("key.pem"), &issued.key).expect("writes");
    }

    fn source(&self) -> CertificateSource {
        CertificateSource::files(self.path("cert.pem"), self.path("key.pem"))
    }

    fn serve(&self) -> ServerConfig {
        self.write(&self.authority.issue(&["first.test"]));
        ServerSettings::new(self.source()).build(now()).expect("a server")
    }
}

fn names(server: &ServerConfig) -> Vec<String> {
    server.certificates().infos()[0].names.clone()
}

/// A reload that must fail: with what, and in which file.
fn refusal(server: &ServerConfig) -> (CertificateProblem, String) {
    let before = server.certificates();
    let error = server.reload(now()).expect_err("refused");
    assert_eq!(server.certificates().infos(), before.infos(), "the old certificates stay");
    let ConfigError::Certificate { origin, problem } = error else { panic!("{error}") };
    let file = PathBuf::from(origin).file_name().expect("a name").to_string_lossy().into_owned();
    (problem, file)
}

#[test]
fn new_handshakes_get_the_new_certificate_and_open_sessions_go_on() {
    let files = Files::new();
    let server = files.serve();
    let client = ClientSettings::new(files.authority.roots())
        .dangerous_without_name_verification()
        .with_resumption(false)
        .build(now())
        .expect("a client");
    let open = || {
        let mut pair = Pair::new(
            Session::client(&client, name("x.test")).expect("a session"),
            Session::server(&server).expect("a session"),
        );
        pair.handshake().expect("a handshake");
        let leaf = pair.client.tls.facts().expect("facts").peer_certificates[0].clone();
        (pair, leaf)
    };
    let (mut old_pair, old_leaf) = open();

    files.write(&files.authority.issue_between(&["second.test"], 2020, 2090));
    let loaded = server.reload(now()).expect("reloads");
    assert_eq!(names(&server), ["second.test"]);
    assert_eq!(loaded.not_after(), 3_786_912_000);
    assert_eq!(loaded.infos()[0].not_before, 1_577_836_800);
    assert!(open().1 != old_leaf);
    old_pair.client.send(b"still here").expect("sends");
    old_pair.handshake().expect("carries");
    assert_eq!(old_pair.server.plaintext, b"still here");
}

#[test]
fn clones_share_what_is_reloaded() {
    let files = Files::new();
    let server = files.serve();
    let other_worker = server.clone();
    files.write(&files.authority.issue(&["second.test"]));
    server.reload(now()).expect("reloads");
    assert_eq!(names(&other_worker), ["second.test"]);
}

#[test]
fn unreadable_files_are_refused() {
    let files = Files::new();
    let server = files.serve();
    fs::remove_file(files.path("key.pem")).expect("removes");
    assert!(matches!(refusal(&server), (CertificateProblem::Unreadable(_), f) if f == "key.pem"));
    fs::remove_file(files.path("cert.pem")).expect("removes");
    assert!(matches!(refusal(&server), (CertificateProblem::Unreadable(_), f) if f == "cert.pem"));
}

#[test]
fn files_without_what_they_are_for_are_refused() {
    let files = Files::new();
    let server = files.serve();
    let issued = files.authority.issue(&["second.test"]);
    files.write(&Issued { chain: issued.key.clone(), key: issued.key.clone() });
    assert!(matches!(refusal(&server), (CertificateProblem::NoCertificate, f) if f == "cert.pem"));
    files.write(&Issued { chain: issued.chain.clone(), key: issued.chain.clone() });
    assert!(matches!(refusal(&server), (CertificateProblem::NoKey, f) if f == "key.pem"));
    files.write(&Issued { chain: String::new(), key: issued.key });
    assert!(matches!(refusal(&server), (CertificateProblem::NoCertificate, f) if f == "cert.pem"));
}

#[test]
fn damaged_files_are_refused() {
    let files = Files::new();
    let server = files.serve();
    let issued = files.authority.issue(&["second.test"]);
    let half = issued.chain[..issued.chain.len() / 2].to_owned();
    files.write(&Issued { chain: half, key: issued.key.clone() });
    assert!(matches!(refusal(&server), (CertificateProblem::InvalidPem(_), f) if f == "cert.pem"));
    let wrong = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned();
    files.write(&Issued { chain: wrong, key: issued.key.clone() });
    let (problem, file) = refusal(&server);
    assert!(matches!(problem, CertificateProblem::InvalidCertificate(_)), "{problem}");
    assert_eq!(file, "cert.pem");
    let wrong = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".to_owned();
    files.write(&Issued { chain: issued.chain, key: wrong });
    assert!(matches!(refusal(&server), (CertificateProblem::UnusableKey(_), f) if f == "key.pem"));
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let files = Files::new();
    let server = files.serve();
    let (one, other) = (files.authority.issue(&["a.test"]), files.authority.issue(&["a.test"]));
    files.write(&Issued { chain: one.chain, key: other.key });
    assert!(matches!(refusal(&server), (CertificateProblem::KeyMismatch, f) if f == "key.pem"));
}

#[test]
fn dates_that_do_not_include_now_are_refused() {
    let files = Files::new();
    let server = files.serve();
    files.write(&files.authority.issue_between(&["a.test"], 2001, 2002));
    let (problem, file) = refusal(&server);
    let not_after = 1_009_843_200;
    assert!(matches!(problem, CertificateProblem::Expired { not_after: at } if at == not_after));
    assert_eq!(file, "cert.pem");
    files.write(&files.authority.issue_between(&["a.test"], 2090, 2091));
    assert!(matches!(refusal(&server).0, CertificateProblem::NotYetValid { .. }));

    // The last second still counts.
    files.write(&files.authority.issue_between(&["a.test"], 2001, 2002));
    let at = |secs: u64| UnixTime::since_unix_epoch(std::time::Duration::from_secs(secs));
    assert!(server.reload(at(1_009_843_200)).is_ok());
    assert!(server.reload(at(1_009_843_201)).is_err());
    assert!(server.reload(at(978_307_200)).is_ok());
    assert!(server.reload(at(978_307_199)).is_err());
}

#[test]
fn names_that_are_missing_are_refused() {
    let files = Files::new();
    let server = files.serve();
    // One without any is usable, and only told about.
    files.write(&files.authority.issue(&[]));
    assert!(server.reload(now()).expect("reloads").infos()[0].names.is_empty());

    files.write(&files.authority.issue(&["*.a.test", "b.test"]));
    let covering = |names: &[&str]| {
        let source = files.source().with_names(names.iter().copied());
        server.replace(&[source], now()).map(|_| ())
    };
    covering(&["x.a.test", "B.test", "*.a.test"]).expect("covered");
    for missing in ["a.test", "x.y.a.test", "c.test"] {
        let error = covering(&["b.test", missing]).expect_err("refused");
        assert!(matches!(
            error,
            ConfigError::Certificate { problem: CertificateProblem::NameMissing(name), .. }
                if name == missing
        ));
    }
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let files = Files::new();
    let issued = files.authority.issue(&["a.test"]);
    let server = || ServerSettings::new(issued.source());
    let client = || ClientSettings::new(files.authority.roots());
    let invalid = server().with_alpn([Vec::new()]).build(now());
    assert!(matches!(invalid, Err(ConfigError::InvalidAlpn)));
    let invalid = client().with_alpn([vec![b'x'; 256]]).build(now());
    assert!(matches!(invalid, Err(ConfigError::InvalidAlpn)));
    let (low, high) = (Version::Tls12, Version::Tls13);
    let invalid = server().with_min_version(high).with_max_version(low).build(now());
    assert!(matches!(invalid, Err(ConfigError::NoVersion)));
    let invalid = ClientSettings::new(Roots::pem("")).build(now());
    let error = invalid.expect_err("no roots");
    assert_eq!(error.to_string(), "memory: holds no certificate");
    let invalid = ClientSettings::new(Roots::file(files.path("none.pem"))).build(now());
    assert!(invalid.expect_err("no file").to_string().contains("none.pem: cannot be read"));
    let expired = files.authority.issue_between(&["a.test"], 2001, 2002);
    assert!(client().with_certificate(expired.source()).build(now()).is_err());
    assert!(ServerSettings::new(expired.source()).build(now()).is_err());
}

#[test]
fn roots_can_be_joined() {
    let (one, other) = (Authority::new(), Authority::new());
    let roots = one.roots().and(other.roots()).and(Roots::webpki());
    ClientSettings::new(roots).build(now()).expect("a client");
}

#[test]
fn roots_of_the_system_are_found_or_said_to_be_missing() {
    match ClientSettings::new(Roots::system()).build(now()) {
        Ok(_) => {}
        Err(ConfigError::NoRoots(_)) => {
            let usual = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];
            assert!(!usual.iter().any(|path| PathBuf::from(path).exists()));
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn private_keys_are_not_printed() {
    let issued = Authority::new().issue(&["a.test"]);
    let settings = ServerSettings::new(issued.source());
    assert!(!format!("{settings:?}").contains("PRIVATE"));
    let server = settings.build(now()).expect("a server");
    assert!(!format!("{server:?}").contains("PRIVATE"));
    assert!(!format!("{:?}", server.certificates()).contains("PRIVATE"));
}
