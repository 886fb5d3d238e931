//! Certificates: reading, checking, choosing by name, and replacing while connections are served.
#![expect(
    clippy::disallowed_types,
    reason = "rustls takes shared settings as Arc; once a handshake"
)]

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::error::{CertificateProblem, ConfigError};
use crate::facts::CertificateInfo;

/// Where a certificate chain and its private key come from, and which names it must cover.
#[derive(Clone)]
pub struct CertificateSource {
    chain: Pem,
    key: Pem,
    names: Vec<String>,
}

impl CertificateSource {
    /// PEM files: the chain, leaf first, and the private key (PKCS#8, PKCS#1 or SEC1). Both may be one file.
    /// They are read again by each [`ServerConfig::reload`](crate::ServerConfig::reload).
    #[must_use]
    pub fn files(chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self { chain: Pem::File(chain.into()), key: Pem::File(key.into()), names: Vec::new() }
    }

    /// PEM text in memory, otherwise as [`CertificateSource::files`].
    #[must_use]
    pub fn pem(chain: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        let (chain, key) = (Pem::Text(chain.into()), Pem::Text(key.into()));
        Self { chain, key, names: Vec::new() }
    }

    /// Names that the certificate must cover, exactly or by a wildcard; it is refused otherwise. Default: any
    /// that it has.
    #[must_use]
    pub fn with_names<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.names.extend(names.into_iter().map(Into::into));
        self
    }

    /// Reads and checks it.
    pub(crate) fn load(
        &self,
        provider: &CryptoProvider,
        now: UnixTime,
    ) -> Result<Certificate, ConfigError> {
        let chain = self.chain.certificates()?;
        let key = self.key.private_key()?;
        let leaf = chain.first().ok_or(CertificateProblem::NoCertificate);
        let facts = self.chain.blame(leaf.and_then(Facts::of))?;
        let unsupported = facts.unsupported_key;
        let info = facts.into_info(self.chain.origin());
        let key = provider.key_provider.load_private_key(key);
        let key = self.key.blame(key.map_err(|error| match unsupported {
            Some(kind) => CertificateProblem::UnsupportedKey(kind),
            None => CertificateProblem::UnusableKey(error),
        }))?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) => {}
            Err(rustls::Error::InconsistentKeys(_)) if is_of_another(&certified) => {
                return self.chain.blame(Err(CertificateProblem::LeafNotFirst));
            }
            Err(rustls::Error::InconsistentKeys(_)) => {
                return self.key.blame(Err(CertificateProblem::KeyMismatch));
            }
            Err(other) => {
                let problem = CertificateProblem::InvalidCertificate(other.to_string());
                return self.chain.blame(Err(problem));
            }
        }
        self.chain.blame(info.check(now, &self.names))?;
        Ok(Certificate { info, key: Arc::new(certified) })
    }
}

impl fmt::Debug for CertificateSource {
    /// Leaves the private key out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateSource")
            .field("chain", &self.chain.origin())
            .field("key", &self.key.origin())
            .field("names", &self.names)
            .finish()
    }
}

impl CertificateInfo {
    fn check(&self, now: UnixTime, expected: &[String]) -> Result<(), CertificateProblem> {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if now > self.not_after {
            return Err(CertificateProblem::Expired { not_after: self.not_after });
        }
        if now < self.not_before {
            return Err(CertificateProblem::NotYetValid { not_before: self.not_before });
        }
        match expected.iter().find(|name| !covers(&self.names, name)) {
            Some(name) => Err(CertificateProblem::NameMissing(name.clone())),
            None => Ok(()),
        }
    }

    /// The names by which it is chosen.
    fn chosen_by(&self) -> &[String] {
        if self.names.is_empty() { self.common_name.as_slice() } else { &self.names }
    }
}

/// A wildcard stands for exactly one label, the leftmost (RFC 9525 §6.3).
fn covers(names: &[String], name: &str) -> bool {
    let name = lower_case(name);
    names.iter().any(|own| match own.strip_prefix("*.") {
        Some(parent) => name.split_once('.').is_some_and(|(_, rest)| rest == parent),
        None => *own == name,
    })
}

/// Whether the key belongs to a certificate of the chain that is not the first.
fn is_of_another(certified: &CertifiedKey) -> bool {
    certified.cert.iter().skip(1).any(|other| {
        let other = CertifiedKey::new(vec![other.clone()], Arc::clone(&certified.key));
        other.keys_match().is_ok()
    })
}

/// The certificates of a server at one time.
#[derive(Debug)]
pub struct Certificates {
    infos: Vec<CertificateInfo>,
    /// By exact name. Several for a name may differ in the kind of key.
    exact: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// By what follows `*.`.
    wildcard: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// All, in order: the first is the default.
    all: Vec<Arc<CertifiedKey>>,
}

impl Certificates {
    /// Facts about each, in the order in which they were given; the first is the default.
    #[must_use]
    pub fn infos(&self) -> &[CertificateInfo] {
        &self.infos
    }

    /// When the first of them expires, in seconds since 1970.
    #[must_use]
    pub fn not_after(&self) -> i64 {
        self.infos.iter().map(|info| info.not_after).min().unwrap_or(i64::MAX)
    }

    pub(crate) fn load(
        sources: &[CertificateSource],
        provider: &CryptoProvider,
        now: UnixTime,
    ) -> Result<Self, ConfigError> {
        let mut loaded = Self {
            infos: Vec::new(),
            exact: HashMap::new(),
            wildcard: HashMap::new(),
            all: Vec::new(),
        };
        for source in sources {
            let Certificate { info, key } = source.load(provider, now)?;
            for name in info.chosen_by() {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut loaded.wildcard, parent),
                    None => (&mut loaded.exact, name.as_str()),
                };
                map.entry(name.to_owned()).or_default().push(Arc::clone(&key));
            }
            loaded.infos.push(info);
            loaded.all.push(key);
        }
        if loaded.all.is_empty() { Err(ConfigError::NoCertificate) } else { Ok(loaded) }
    }

    /// The first whose signatures the client can check: of those for the name, or else of all.
    ///
    /// Where there is none, it is the first: rustls then finds that no signature scheme is shared, which is a
    /// handshake_failure (RFC 8446 §4.4.2.2, RFC 5246 §7.4.1.4.1), while no certificate would be access_denied.
    fn choose(&self, hello: &ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|name| self.named(&lower_case(name)));
        let schemes = hello.signature_schemes();
        let usable = |keys: &[Arc<CertifiedKey>]| {
            keys.iter().find(|key| key.key.choose_scheme(schemes).is_some()).cloned()
        };
        named.and_then(usable).or_else(|| usable(&self.all)).or_else(|| self.all.first().cloned())
    }

    fn named(&self, name: &str) -> Option<&[Arc<CertifiedKey>]> {
        let exact = self.exact.get(name);
        let wildcard = || self.wildcard.get(name.split_once('.')?.1);
        exact.or_else(wildcard).map(Vec::as_slice)
    }
}

thread_local! {
    static ASKED_NAME: Cell<Option<Box<str>>> = const { Cell::new(None) };
}

/// The name that the ClientHello asked for, which was processed by this thread since the last call.
///
/// rustls does not tell it for an unbuffered connection; but it resolves the certificate in the midst of
/// processing the ClientHello, on the thread that feeds it.
pub(crate) fn take_asked_name() -> Option<Box<str>> {
    ASKED_NAME.take()
}

/// The certificates of a server, replaced as a whole; handshakes under way keep what they have.
pub(crate) struct Store {
    current: ArcSwap<Certificates>,
}

impl Store {
    pub(crate) fn new(certificates: Certificates) -> Self {
        Self { current: ArcSwap::from_pointee(certificates) }
    }

    pub(crate) fn current(&self) -> Arc<Certificates> {
        self.current.load_full()
    }

    pub(crate) fn replace(&self, certificates: Certificates) {
        self.current.store(Arc::new(certificates));
    }
}

impl ResolvesServerCert for Store {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        ASKED_NAME.set(hello.server_name().map(Box::from));
        self.current.load().choose(&hello)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("infos", &self.current.load().infos).finish()
    }
}

/// A certificate that was read and checked.
pub(crate) struct Certificate {
    pub(crate) info: CertificateInfo,
    pub(crate) key: Arc<CertifiedKey>,
}

/// PEM text and where it is.
#[derive(Clone)]
pub(crate) enum Pem {
    File(PathBuf),
    Text(Vec<u8>),
}

impl Pem {
    pub(crate) fn origin(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Text(_) => "memory".to_owned(),
        }
    }

    /// All certificates in it, at least one.
    pub(crate) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
        let text = self.blame(self.text())?;
        let chain = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
        self.blame(match chain {
            Ok(chain) if chain.is_empty() => Err(CertificateProblem::NoCertificate),
            other => other.map_err(|error| invalid_pem(&error, CertificateProblem::NoCertificate)),
        })
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, ConfigError> {
        let text = self.blame(self.text())?;
        if is_encrypted(&text) {
            return self.blame(Err(CertificateProblem::EncryptedKey));
        }
        let key = PrivateKeyDer::from_pem_slice(&text);
        self.blame(key.map_err(|error| invalid_pem(&error, CertificateProblem::NoKey)))
    }

    fn text(&self) -> Result<Cow<'_, [u8]>, CertificateProblem> {
        let text = match self {
            Self::File(path) => Cow::Owned(read(path)?),
            Self::Text(text) => Cow::Borrowed(text.as_slice()),
        };
        match &*text {
            [0xef, 0xbb, 0xbf, ..] | [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => {
                Err(CertificateProblem::ByteOrderMark)
            }
            // A sequence in DER (X.690 §8.9), which no text of PEM begins with: its length is no character of `0…`.
            [0x30, 0x80..=0x84, ..] => Err(CertificateProblem::Binary),
            _ => Ok(text),
        }
    }

    /// Says where the problem is.
    pub(crate) fn blame<T>(&self, result: Result<T, CertificateProblem>) -> Result<T, ConfigError> {
        let origin = || self.origin();
        result.map_err(|problem| ConfigError::Certificate { origin: origin(), problem })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateProblem> {
    fs::read(path).map_err(CertificateProblem::Unreadable)
}

/// Whether the first key is encrypted: by PKCS#8 (RFC 7468 §11), or in the old way (RFC 1421 §4.6.1.1).
fn is_encrypted(text: &[u8]) -> bool {
    let find = |what: &[u8]| memchr::memmem::find(text, what);
    let plain = find(b"PRIVATE KEY-----").unwrap_or(usize::MAX);
    match (find(b"-----BEGIN ENCRYPTED PRIVATE KEY-----"), find(b"Proc-Type: 4,ENCRYPTED")) {
        (Some(begin), _) => begin < plain,
        (None, old) => old.is_some(),
    }
}

fn invalid_pem(error: &pem::Error, nothing: CertificateProblem) -> CertificateProblem {
    match error {
        pem::Error::NoItemsFound => nothing,
        other => CertificateProblem::InvalidPem(other.to_string()),
    }
}

fn lower_case(name: &str) -> Cow<'_, str> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

/// What a certificate says.
pub(crate) struct Facts {
    names: Vec<String>,
    common_name: Option<String>,
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
    /// The kind of its key, if it is none that every provider has.
    unsupported_key: Option<&'static str>,
}

impl Facts {
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Result<Self, CertificateProblem> {
        let invalid = |why: String| CertificateProblem::InvalidCertificate(why);
        let (rest, leaf) =
            X509Certificate::from_der(certificate).map_err(|error| invalid(error.to_string()))?;
        if !rest.is_empty() {
            return Err(invalid("bytes follow the certificate".to_owned()));
        }
        let names = leaf.subject_alternative_name().map_err(|error| invalid(error.to_string()))?;
        let names = names.map_or_else(Vec::new, |names| {
            names.value.general_names.iter().filter_map(host_name).collect()
        });
        let common_name = leaf.subject().iter_common_name().next();
        let validity = leaf.validity();
        Ok(Self {
            names,
            common_name: common_name
                .and_then(|name| Some(name.as_str().ok()?.to_ascii_lowercase())),
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
            unsupported_key: unsupported_key(leaf.public_key()),
        })
    }

    /// The names it is for; its common name, if it has no other.
    pub(crate) fn host_names(&self) -> &[String] {
        if self.names.is_empty() { self.common_name.as_slice() } else { &self.names }
    }

    /// Whether it is for this name.
    pub(crate) fn covers(&self, name: &str) -> bool {
        covers(self.host_names(), name)
    }

    fn into_info(self, origin: String) -> CertificateInfo {
        let Self { names, common_name, not_before, not_after, .. } = self;
        CertificateInfo { origin, names, common_name, not_before, not_after }
    }
}

/// The kind of a key that is not supported everywhere: RFC 8446 §9.1 asks for P-256 and RSA, and short RSA keys are
/// broken.
fn unsupported_key(key: &SubjectPublicKeyInfo<'_>) -> Option<&'static str> {
    match key.parsed() {
        Ok(PublicKey::RSA(rsa)) if rsa.key_size() < 2048 => Some("RSA of less than 2048 bits"),
        Ok(PublicKey::RSA(_)) => None,
        Ok(PublicKey::DSA(_)) => Some("DSA"),
        _ => {
            let curve = key.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
            match (key.algorithm.algorithm.to_id_string().as_str(), curve) {
                ("1.2.840.10045.2.1", Some(curve)) => match curve.to_id_string().as_str() {
                    "1.2.840.10045.3.1.7" | "1.3.132.0.34" => None,
                    "1.3.132.0.35" => Some("P-521"),
                    _ => Some("ECDSA with a curve other than P-256 and P-384"),
                },
                ("1.3.101.113", _) => Some("Ed448"),
                _ => None,
            }
        }
    }
}

fn host_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let address = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
            address.ok().map(|address| address.to_string())
        }
        _ => None,
    }
}
