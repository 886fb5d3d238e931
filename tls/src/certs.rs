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

use crate::error::{CertificateProblem, ConfigError};

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

    /// Reads and checks it. A server's certificate must name a host, a client's need not.
    pub(crate) fn load(
        &self,
        provider: &CryptoProvider,
        now: UnixTime,
        needs_names: bool,
    ) -> Result<Certificate, ConfigError> {
        let chain = self.chain.certificates()?;
        let key = self.key.private_key()?;
        let info = self.chain.blame(Info::of(&chain))?;
        let info = CertificateInfo {
            origin: self.chain.origin(),
            names: info.names,
            not_before: info.not_before,
            not_after: info.not_after,
        };
        self.chain.blame(info.check(now, &self.names, needs_names))?;
        let key = provider.key_provider.load_private_key(key);
        let key = self.key.blame(key.map_err(CertificateProblem::UnusableKey))?;
        let certified = CertifiedKey::new(chain, key);
        let matches = certified.keys_match().map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => CertificateProblem::KeyMismatch,
            other => CertificateProblem::InvalidCertificate(other.to_string()),
        });
        self.key.blame(matches)?;
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

/// What a server tells about one of its certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CertificateInfo {
    /// The path of its file, or `memory`.
    pub origin: String,
    /// The DNS names and IP addresses it is for, in lower case.
    pub names: Vec<String>,
    /// The first second of its life, in seconds since 1970.
    pub not_before: i64,
    /// The last second of its life, in seconds since 1970.
    pub not_after: i64,
}

impl CertificateInfo {
    fn check(
        &self,
        now: UnixTime,
        expected: &[String],
        needs_names: bool,
    ) -> Result<(), CertificateProblem> {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if now > self.not_after {
            return Err(CertificateProblem::Expired { not_after: self.not_after });
        }
        if now < self.not_before {
            return Err(CertificateProblem::NotYetValid { not_before: self.not_before });
        }
        if needs_names && self.names.is_empty() {
            return Err(CertificateProblem::NoNames);
        }
        match expected.iter().find(|name| !self.covers(name)) {
            Some(name) => Err(CertificateProblem::NameMissing(name.clone())),
            None => Ok(()),
        }
    }

    /// A wildcard stands for exactly one label, the leftmost (RFC 9525 §6.3).
    fn covers(&self, name: &str) -> bool {
        let name = lower_case(name);
        self.names.iter().any(|own| match own.strip_prefix("*.") {
            Some(parent) => name.split_once('.').is_some_and(|(_, rest)| rest == parent),
            None => *own == name,
        })
    }
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
            let Certificate { info, key } = source.load(provider, now, true)?;
            for name in &info.names {
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
    fn choose(&self, hello: &ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|name| self.named(&lower_case(name)));
        let schemes = hello.signature_schemes();
        let usable = |keys: &[Arc<CertifiedKey>]| {
            keys.iter().find(|key| key.key.choose_scheme(schemes).is_some()).cloned()
        };
        named.and_then(usable).or_else(|| usable(&self.all))
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
        let key = PrivateKeyDer::from_pem_slice(&text);
        self.blame(key.map_err(|error| invalid_pem(&error, CertificateProblem::NoKey)))
    }

    fn text(&self) -> Result<Cow<'_, [u8]>, CertificateProblem> {
        match self {
            Self::File(path) => read(path).map(Cow::Owned),
            Self::Text(text) => Ok(Cow::Borrowed(text)),
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

/// What the leaf of a chain says.
struct Info {
    names: Vec<String>,
    not_before: i64,
    not_after: i64,
}

impl Info {
    fn of(chain: &[CertificateDer<'_>]) -> Result<Self, CertificateProblem> {
        let leaf = chain.first().ok_or(CertificateProblem::NoCertificate)?;
        let invalid = |why: String| CertificateProblem::InvalidCertificate(why);
        let (rest, leaf) =
            X509Certificate::from_der(leaf).map_err(|error| invalid(error.to_string()))?;
        if !rest.is_empty() {
            return Err(invalid("bytes follow the certificate".to_owned()));
        }
        let names = leaf.subject_alternative_name().map_err(|error| invalid(error.to_string()))?;
        let names = names.map_or_else(Vec::new, |names| {
            names.value.general_names.iter().filter_map(host_name).collect()
        });
        let validity = leaf.validity();
        Ok(Self {
            names,
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
        })
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
