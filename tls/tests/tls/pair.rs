//! A certificate authority, and a client and a server joined in memory.

use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use ringwire_tls::pki_types::{ServerName, UnixTime};
use ringwire_tls::{
    CertificateSource, ClientConfig, ClientSettings, Error, Roots, ServerConfig, ServerSettings,
    Session, Version,
};

pub(crate) const VERSIONS: [Version; 2] = [Version::Tls12, Version::Tls13];

/// A certificate chain and its key, as PEM text.
#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl Issued {
    pub(crate) fn source(&self) -> CertificateSource {
        CertificateSource::pem(self.chain.clone(), self.key.clone())
    }
}

pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

static AUTHORITY_COUNT: AtomicUsize = AtomicUsize::new(0);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("no names");
        // webpki looks for an issuer by its name.
        let serial = AUTHORITY_COUNT.fetch_add(1, Ordering::Relaxed);
        params.distinguished_name.push(DnType::CommonName, format!("authority {serial}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("signs").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    pub(crate) fn issue(&self, names: &[&str]) -> Issued {
        self.sign(names, KeyPair::generate().expect("a key"), |_| ())
    }

    pub(crate) fn issue_between(&self, names: &[&str], from_year: i32, to_year: i32) -> Issued {
        self.sign(names, KeyPair::generate().expect("a key"), |params| {
            params.not_before = date_time_ymd(from_year, 1, 1);
            params.not_after = date_time_ymd(to_year, 1, 1);
        })
    }

    fn sign(
        &self,
        names: &[&str],
        key: KeyPair,
        change: impl Fn(&mut CertificateParams),
    ) -> Issued {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).expect("signs");
        Issued { chain: certificate.pem(), key: key.serialize_pem() }
    }

    /// An authority below this one, which has a name as a server has.
    pub(crate) fn issue_authority(&self, name: &str) -> Issued {
        self.sign(&[name], KeyPair::generate().expect("a key"), |params| {
            params.distinguished_name.push(DnType::CommonName, "below");
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        })
    }

    pub(crate) fn issue_for(
        &self,
        algorithm: &'static rcgen::SignatureAlgorithm,
        names: &[&str],
    ) -> Issued {
        let key = KeyPair::generate_for(algorithm).expect("a key");
        self.sign(names, key, |_| ())
    }

    pub(crate) fn roots(&self) -> Roots {
        Roots::pem(self.pem.clone())
    }
}

pub(crate) fn now() -> UnixTime {
    UnixTime::now()
}

pub(crate) fn name(name: &str) -> ServerName<'static> {
    ServerName::try_from(name.to_owned()).expect("a name")
}

/// A server named `localhost` and a client that trusts it. TLS 1.2 is had by the server's speaking nothing else.
pub(crate) struct Setup {
    pub(crate) authority: Authority,
    pub(crate) server: ServerConfig,
    pub(crate) client: ClientConfig,
}

impl Setup {
    pub(crate) fn new(version: Version) -> Self {
        Self::with(version, |server, _| server, |client, _| client)
    }

    pub(crate) fn with(
        version: Version,
        server: impl FnOnce(ServerSettings, &Authority) -> ServerSettings,
        client: impl FnOnce(ClientSettings, &Authority) -> ClientSettings,
    ) -> Self {
        let authority = Authority::new();
        let settings = ServerSettings::new(authority.issue(&["localhost"]).source())
            .with_max_version(version)
            .with_min_version(version);
        let server = server(settings, &authority).build(now()).expect("a server");
        let settings = ClientSettings::new(authority.roots());
        let client = client(settings, &authority).build(now()).expect("a client");
        Self { authority, server, client }
    }

    pub(crate) fn pair(&self) -> Pair {
        self.pair_named("localhost")
    }

    pub(crate) fn pair_named(&self, host: &str) -> Pair {
        Pair::new(
            Session::client(&self.client, name(host)).expect("a session"),
            Session::server(&self.server).expect("a session"),
        )
    }

    pub(crate) fn open_pair(&self) -> Pair {
        let mut pair = self.pair();
        pair.handshake().expect("a handshake");
        pair
    }
}

/// A session, what it has received, and what it has to send.
pub(crate) struct Side {
    pub(crate) tls: Session,
    pub(crate) plaintext: Vec<u8>,
    pub(crate) output: Vec<u8>,
}

impl Side {
    pub(crate) fn new(tls: Session) -> Self {
        Self { tls, plaintext: Vec::new(), output: Vec::new() }
    }

    pub(crate) fn receive(&mut self, input: &[u8]) -> Result<(), Error> {
        let mut input = input.to_vec();
        self.tls.receive(&mut input, &mut self.plaintext, &mut self.output)
    }

    pub(crate) fn send(&mut self, plaintext: &[u8]) -> Result<(), Error> {
        self.tls.send(plaintext, &mut self.output)
    }

    pub(crate) fn close(&mut self) {
        self.tls.close(&mut self.output);
    }

    pub(crate) fn transmit(&mut self) -> Vec<u8> {
        if self.tls.wants_write() {
            self.tls.poll_transmit(&mut self.output).expect("transmits");
        }
        assert!(!self.tls.wants_write());
        std::mem::take(&mut self.output)
    }
}

pub(crate) struct Pair {
    pub(crate) client: Side,
    pub(crate) server: Side,
}

impl Pair {
    pub(crate) fn new(client: Session, server: Session) -> Self {
        Self { client: Side::new(client), server: Side::new(server) }
    }

    /// Carries bytes to and fro until neither side has any.
    pub(crate) fn handshake(&mut self) -> Result<(), Error> {
        self.carry(|bytes| vec![bytes])
    }

    /// As `handshake`, with what is sent cut into pieces.
    pub(crate) fn carry(
        &mut self,
        mut cut: impl FnMut(Vec<u8>) -> Vec<Vec<u8>>,
    ) -> Result<(), Error> {
        loop {
            let (to_server, to_client) = (self.client.transmit(), self.server.transmit());
            if to_server.is_empty() && to_client.is_empty() {
                return Ok(());
            }
            for piece in cut(to_server) {
                self.server.receive(&piece)?;
            }
            for piece in cut(to_client) {
                self.client.receive(&piece)?;
            }
        }
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.client.tls.is_handshaking() || self.server.tls.is_handshaking()
    }
}

/// The lengths of the records that the bytes consist of.
pub(crate) fn record_lens(mut bytes: &[u8]) -> Vec<usize> {
    let mut lens = Vec::new();
    while !bytes.is_empty() {
        let len = 5 + usize::from(u16::from_be_bytes([bytes[3], bytes[4]]));
        lens.push(len);
        bytes = &bytes[len..];
    }
    lens
}
