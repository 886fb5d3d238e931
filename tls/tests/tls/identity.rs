//! Who is who: names, protocols, certificates of both sides.

use ringwire_tls::{
    AlertDescription, CertificateError, ClientAuth, ClientSettings, Error, ServerSettings, Version,
};

use crate::pair::{Authority, Pair, Setup, VERSIONS, now};

fn leaf_of(pair: &Pair) -> Vec<u8> {
    pair.client.tls.facts().expect("facts").peer_certificates[0].to_vec()
}

#[test]
fn the_name_chooses_the_certificate() {
    let authority = Authority::new();
    let settings = ServerSettings::new(authority.issue(&["default.test"]).source())
        .with_certificate(authority.issue(&["*.wild.test", "127.0.0.1"]).source())
        .with_certificate(authority.issue(&["exact.wild.test", "Other.test"]).source());
    let server = settings.build(now()).expect("a server");
    let names =
        server.certificates().infos().iter().map(|info| info.names.clone()).collect::<Vec<_>>();
    assert_eq!(names[1], ["*.wild.test", "127.0.0.1"]);
    assert_eq!(names[2], ["exact.wild.test", "other.test"]);

    for version in VERSIONS {
        let client = ClientSettings::dangerous_without_certificate_verification()
            .with_max_version(version)
            .build(now())
            .expect("a client");
        let setup = Setup { authority: Authority::new(), server: server.clone(), client };
        let leaf = |host: &str| {
            let mut pair = setup.pair_named(host);
            pair.handshake().expect("a handshake");
            leaf_of(&pair)
        };
        let (default, wild, exact) =
            (leaf("default.test"), leaf("a.wild.test"), leaf("exact.wild.test"));
        assert!(default != wild && wild != exact && default != exact);
        assert_eq!(leaf("EXACT.wild.test"), exact);
        assert_eq!(leaf("other.test"), exact);
        assert_eq!(leaf("a.b.wild.test"), default);
        assert_eq!(leaf("wild.test"), default);
        assert_eq!(leaf("unknown.test"), default);
        // An address is no SNI.
        assert_eq!(leaf("127.0.0.1"), default);
    }
}

#[test]
fn the_server_is_told_the_name_or_none() {
    let setup = Setup::with(
        Version::Tls13,
        |server, authority| server.with_certificate(authority.issue(&["sub.test"]).source()),
        |client, _| client.dangerous_without_name_verification(),
    );
    for (host, told) in [("sub.test", Some("sub.test")), ("127.0.0.1", None)] {
        let mut pair = setup.pair_named(host);
        pair.handshake().expect("a handshake");
        assert_eq!(pair.server.tls.facts().expect("facts").server_name, told);
        assert_eq!(pair.client.tls.facts().expect("facts").server_name, None);
    }
}

#[test]
fn names_of_sessions_that_alternate_are_not_mixed_up() {
    let setup = Setup::with(
        Version::Tls13,
        |server, _| server,
        |client, _| client.dangerous_without_name_verification(),
    );
    let mut pairs = ["a.test", "b.test", "c.test"].map(|host| (host, setup.pair_named(host)));
    for (_, pair) in &mut pairs {
        let hello = pair.client.transmit();
        pair.server.receive(&hello).expect("receives");
    }
    for (host, pair) in &mut pairs {
        pair.handshake().expect("a handshake");
        assert_eq!(pair.server.tls.facts().expect("facts").server_name, Some(*host));
    }
}

#[test]
fn alpn_is_agreed_on_or_refused() {
    for version in VERSIONS {
        let offering = |protocols: &[&str]| {
            let protocols: Vec<Vec<u8>> =
                protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
            Setup::with(version, |server, _| server, |client, _| client.with_alpn(protocols)).pair()
        };
        let mut pair = offering(&["h2", "http/1.1"]);
        pair.handshake().expect("a handshake");
        assert_eq!(pair.server.tls.facts().expect("facts").alpn, Some(&b"http/1.1"[..]));
        assert_eq!(pair.client.tls.facts().expect("facts").alpn, Some(&b"http/1.1"[..]));

        let mut pair = offering(&[]);
        pair.handshake().expect("a handshake");
        assert_eq!(pair.server.tls.facts().expect("facts").alpn, None);

        let mut pair = offering(&["h2"]);
        let error = pair.handshake().expect_err("no protocol");
        assert_eq!(error, Error::Protocol(rustls::Error::NoApplicationProtocol));
        let alert = pair.server.output.clone();
        let told = Err(Error::PeerAlert(AlertDescription::NoApplicationProtocol));
        assert_eq!(pair.client.receive(&alert), told);
    }
}

#[test]
fn clients_show_certificates_where_they_are_asked() {
    for version in VERSIONS {
        let outsider = Authority::new();
        let asked = |require: bool, shown: Option<bool>| {
            let setup = Setup::with(
                version,
                |server, authority| {
                    let roots = authority.roots();
                    server.with_client_auth(if require {
                        ClientAuth::Require(roots)
                    } else {
                        ClientAuth::Allow(roots)
                    })
                },
                |client, authority| match shown {
                    Some(true) => {
                        client.with_certificate(authority.issue(&["client.test"]).source())
                    }
                    Some(false) => {
                        client.with_certificate(outsider.issue(&["client.test"]).source())
                    }
                    None => client,
                },
            );
            let mut pair = setup.pair();
            let result = pair.handshake();
            result.map(|()| pair.server.tls.facts().expect("facts").peer_certificates.len())
        };
        assert_eq!(asked(true, Some(true)), Ok(1));
        assert_eq!(asked(false, Some(true)), Ok(1));
        assert_eq!(asked(false, None), Ok(0));
        assert!(asked(true, None).is_err());
        // One that nobody here signed: rejected by the server, or not even shown by the client.
        assert!(asked(true, Some(false)).is_err());
    }
}

#[test]
fn a_client_checks_authority_name_and_dates() {
    for version in VERSIONS {
        let setup = Setup::new(version);
        let refused = |setup: &Setup, host: &str| {
            let mut pair = setup.pair_named(host);
            let error = pair.handshake().expect_err("refused");
            let alert = pair.client.output.clone();
            assert!(matches!(pair.server.receive(&alert), Err(Error::PeerAlert(_))));
            error
        };
        let error = refused(&setup, "elsewhere.test");
        let named = |error: &Error| {
            matches!(
                error,
                Error::PeerCertificate(
                    CertificateError::NotValidForName
                        | CertificateError::NotValidForNameContext { .. }
                )
            )
        };
        assert!(named(&error), "{error:?}");

        let stranger = Authority::new();
        let client = ClientSettings::new(stranger.roots()).build(now()).expect("a client");
        let setup = Setup { client, ..setup };
        let error = refused(&setup, "localhost");
        assert_eq!(error, Error::PeerCertificate(CertificateError::UnknownIssuer));
    }
}

#[test]
fn dangerous_settings_skip_what_they_say_and_no_more() {
    for version in VERSIONS {
        let connects = |setup: &Setup, host: &str| {
            let mut pair = setup.pair_named(host);
            pair.handshake().map(|()| !pair.is_handshaking())
        };
        let setup = Setup::with(
            version,
            |it, _| it,
            |client, _| client.dangerous_without_name_verification(),
        );
        assert_eq!(connects(&setup, "elsewhere.test"), Ok(true));

        let stranger = Authority::new();
        let client = ClientSettings::new(stranger.roots()).dangerous_without_name_verification();
        let setup = Setup { client: client.build(now()).expect("a client"), ..setup };
        let unknown = Err(Error::PeerCertificate(CertificateError::UnknownIssuer));
        assert_eq!(connects(&setup, "localhost"), unknown);

        let client = ClientSettings::dangerous_without_certificate_verification();
        let setup = Setup { client: client.build(now()).expect("a client"), ..setup };
        assert_eq!(connects(&setup, "elsewhere.test"), Ok(true));
    }
}

#[test]
fn versions_are_kept_to() {
    let only = |version| {
        move |client: ClientSettings, _: &Authority| {
            client.with_min_version(version).with_max_version(version)
        }
    };
    for (server, client) in [(Version::Tls12, Version::Tls13), (Version::Tls13, Version::Tls12)] {
        let setup = Setup::with(server, |it, _| it, only(client));
        assert!(matches!(setup.pair().handshake(), Err(Error::Protocol(_))));
    }
    let pair = Setup::with(Version::Tls12, |it, _| it.with_max_version(Version::Tls13), |it, _| it)
        .open_pair();
    assert_eq!(pair.server.tls.facts().expect("facts").version, Version::Tls13);
}
