//! Settings of both sides.
#![expect(clippy::disallowed_types, reason = "rustls takes shared settings as Arc")]

use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::UnixTime;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{SupportedProtocolVersion, version};

use crate::certs::{CertificateSource, Certificates, Store};
use crate::dangerous::{AnyCertificate, AnyName};
use crate::error::ConfigError;
use crate::facts::Version;
use crate::named::Named;
use crate::roots::{Roots, Trusted};

/// Whether a server asks its clients for a certificate.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum ClientAuth {
    /// It does not.
    #[default]
    None,
    /// It asks; a client without one is let in, a client with one that these did not sign is not.
    Allow(Roots),
    /// Only clients with a certificate of these are let in.
    Require(Roots),
}

/// Settings of a TLS server.
#[derive(Clone, Debug)]
pub struct ServerSettings {
    certificates: Vec<CertificateSource>,
    client_auth: ClientAuth,
    min_version: Version,
    max_version: Version,
    alpn: Vec<Vec<u8>>,
    tickets: bool,
}

impl ServerSettings {
    /// A server with this certificate, which is also the one for clients that name no host or an unknown one.
    #[must_use]
    pub fn new(default: CertificateSource) -> Self {
        Self {
            certificates: vec![default],
            client_auth: ClientAuth::None,
            min_version: Version::Tls12,
            max_version: Version::Tls13,
            alpn: vec![b"http/1.1".to_vec()],
            tickets: true,
        }
    }

    /// One more certificate, for the names in it. Where several have the same name, the first whose kind of
    /// key (ECDSA, RSA, Ed25519) the client knows is used.
    #[must_use]
    pub fn with_certificate(mut self, source: CertificateSource) -> Self {
        self.certificates.push(source);
        self
    }

    /// Whether clients are asked for a certificate. Default: no.
    ///
    /// A resumed session is not asked again: it carries the certificate that was checked by the full
    /// handshake, at most 12 hours before.
    #[must_use]
    pub fn with_client_auth(mut self, client_auth: ClientAuth) -> Self {
        self.client_auth = client_auth;
        self
    }

    /// The oldest version that is spoken. Default: TLS 1.2.
    #[must_use]
    pub fn with_min_version(mut self, version: Version) -> Self {
        self.min_version = version;
        self
    }

    /// The newest version that is spoken. Default: TLS 1.3.
    #[must_use]
    pub fn with_max_version(mut self, version: Version) -> Self {
        self.max_version = version;
        self
    }

    /// The application protocols that are spoken (RFC 7301), the best first. Default: `http/1.1`. A client that
    /// offers protocols, but none of these, is refused; one that offers nothing is let in.
    #[must_use]
    pub fn with_alpn<P: Into<Vec<u8>>>(mut self, protocols: impl IntoIterator<Item = P>) -> Self {
        self.alpn = protocols.into_iter().map(Into::into).collect();
        self
    }

    /// Whether clients may resume a session. Default: yes, by one stateless ticket a handshake, whose key is
    /// renewed every 6 hours and shared by all sessions of the [`ServerConfig`]. Nothing is kept for a session.
    #[must_use]
    pub fn with_tickets(mut self, tickets: bool) -> Self {
        self.tickets = tickets;
        self
    }

    /// Reads the certificates and checks everything.
    ///
    /// # Errors
    ///
    /// The first certificate, key, file or setting that is wrong.
    pub fn build(self, now: UnixTime) -> Result<ServerConfig, ConfigError> {
        check_alpn(&self.alpn)?;
        let provider = Arc::new(provider());
        let certificates = Certificates::load(&self.certificates, &provider, now)?;
        let store = Arc::new(Store::new(certificates));
        let mut tls = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions(self.min_version, self.max_version)?)?
            .with_client_cert_verifier(client_verifier(&self.client_auth, &provider)?)
            .with_cert_resolver(Arc::clone(&store) as Arc<_>);
        tls.alpn_protocols = self.alpn;
        // Both sides' lists hold only what is safe, and the server knows what is fast here.
        tls.ignore_client_order = true;
        // rustls's own cache is behind a lock that all workers would share.
        tls.session_storage = Arc::new(NoServerSessionStorage {});
        tls.send_tls13_tickets = 0;
        if self.tickets {
            tls.ticketer = ticketer()?;
            tls.send_tls13_tickets = 1;
        }
        Ok(ServerConfig { tls: Arc::new(tls), sources: self.certificates.into(), store })
    }
}

/// What all sessions of a server share. A clone is the same configuration.
#[derive(Clone)]
pub struct ServerConfig {
    pub(crate) tls: Arc<rustls::ServerConfig>,
    sources: Arc<[CertificateSource]>,
    store: Arc<Store>,
}

impl ServerConfig {
    /// The certificates of now.
    #[must_use]
    pub fn certificates(&self) -> Arc<Certificates> {
        self.store.current()
    }

    /// Reads the certificates anew from where they came from, checks them and then puts all of them in place of
    /// the old. Handshakes that begin later use them; open connections go on. Authorities of clients are
    /// not read again.
    ///
    /// Reads files, so it blocks: not for a worker's thread.
    ///
    /// # Errors
    ///
    /// The first certificate, key or file that is wrong. The old certificates stay.
    pub fn reload(&self, now: UnixTime) -> Result<Arc<Certificates>, ConfigError> {
        self.replace(&self.sources, now)
    }

    /// As [`ServerConfig::reload`], from other sources. A later reload reads the first ones.
    ///
    /// # Errors
    ///
    /// The first certificate, key or file that is wrong. The old certificates stay.
    pub fn replace(
        &self,
        sources: &[CertificateSource],
        now: UnixTime,
    ) -> Result<Arc<Certificates>, ConfigError> {
        let certificates = Certificates::load(sources, self.tls.crypto_provider(), now)?;
        self.store.replace(certificates);
        Ok(self.store.current())
    }
}

impl fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerConfig").field("sources", &self.sources).finish_non_exhaustive()
    }
}

/// How much of a server's certificate a client checks.
#[derive(Clone, Copy, Debug)]
enum Verification {
    Full,
    NotName,
    Nothing,
}

/// Settings of a TLS client.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    roots: Option<Roots>,
    certificate: Option<CertificateSource>,
    min_version: Version,
    max_version: Version,
    alpn: Vec<Vec<u8>>,
    resumption: bool,
    verification: Verification,
}

impl ClientSettings {
    /// A client that trusts these authorities.
    #[must_use]
    pub fn new(roots: Roots) -> Self {
        Self {
            roots: Some(roots),
            certificate: None,
            min_version: Version::Tls12,
            max_version: Version::Tls13,
            alpn: vec![b"http/1.1".to_vec()],
            resumption: true,
            verification: Verification::Full,
        }
    }

    /// A client that takes **any certificate of anybody**: whoever can answer in the server's place can read
    /// and change everything. For tests alone. (That the server holds the key of its certificate is still
    /// checked, which protects nothing.)
    #[must_use]
    pub fn dangerous_without_certificate_verification() -> Self {
        let mut settings = Self::new(Roots::pem(Vec::new()));
        settings.roots = None;
        settings.verification = Verification::Nothing;
        settings
    }

    /// Takes a certificate of the trusted authorities for **any name**: whoever has a certificate for some
    /// name of theirs can stand in for the server. For private authorities, and tests, alone.
    #[must_use]
    pub fn dangerous_without_name_verification(mut self) -> Self {
        if self.roots.is_some() {
            self.verification = Verification::NotName;
        }
        self
    }

    /// A certificate to show to servers that ask for one. Default: none.
    #[must_use]
    pub fn with_certificate(mut self, source: CertificateSource) -> Self {
        self.certificate = Some(source);
        self
    }

    /// The oldest version that is spoken. Default: TLS 1.2.
    #[must_use]
    pub fn with_min_version(mut self, version: Version) -> Self {
        self.min_version = version;
        self
    }

    /// The newest version that is spoken. Default: TLS 1.3.
    #[must_use]
    pub fn with_max_version(mut self, version: Version) -> Self {
        self.max_version = version;
        self
    }

    /// The application protocols to offer (RFC 7301), the best first. Default: `http/1.1`.
    #[must_use]
    pub fn with_alpn<P: Into<Vec<u8>>>(mut self, protocols: impl IntoIterator<Item = P>) -> Self {
        self.alpn = protocols.into_iter().map(Into::into).collect();
        self
    }

    /// Whether sessions are resumed. Default: yes; tickets of the last 256 servers are kept in memory, behind
    /// a lock that handshakes take.
    #[must_use]
    pub fn with_resumption(mut self, resumption: bool) -> Self {
        self.resumption = resumption;
        self
    }

    /// Reads the files and checks everything.
    ///
    /// # Errors
    ///
    /// The first certificate, key, file or setting that is wrong.
    pub fn build(self, now: UnixTime) -> Result<ClientConfig, ConfigError> {
        check_alpn(&self.alpn)?;
        let provider = Arc::new(provider());
        let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions(self.min_version, self.max_version)?)?;
        let builder = match (&self.roots, self.verification) {
            (Some(roots), Verification::Full) => {
                let Trusted { authorities, named } = roots.load()?;
                let (authorities, provider) = (Arc::new(authorities), Arc::clone(&provider));
                let others = WebPkiServerVerifier::builder_with_provider(authorities, provider);
                let others: Arc<dyn ServerCertVerifier> = others.build().map_err(unusable_roots)?;
                let verifier = Arc::new(Named::new(named, true, others));
                builder.dangerous().with_custom_certificate_verifier(verifier)
            }
            (Some(roots), _) => {
                let Trusted { authorities, named } = roots.load()?;
                let others = Arc::new(AnyName::new(authorities, Arc::clone(&provider)));
                let verifier = Named::new(named, false, others as Arc<dyn ServerCertVerifier>);
                builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
            }
            (None, _) => {
                let verifier = AnyCertificate::new(Arc::clone(&provider));
                builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
            }
        };
        let mut tls = match &self.certificate {
            Some(source) => {
                let certificate = source.load(&provider, now)?;
                let resolver = SingleCertAndKey::from(certificate.key);
                builder.with_client_cert_resolver(Arc::new(resolver))
            }
            None => builder.with_no_client_auth(),
        };
        tls.alpn_protocols = self.alpn;
        if !self.resumption {
            tls.resumption = Resumption::disabled();
        }
        Ok(ClientConfig { tls: Arc::new(tls) })
    }
}

/// What sessions of a client share. A clone is the same configuration.
#[derive(Clone)]
pub struct ClientConfig {
    pub(crate) tls: Arc<rustls::ClientConfig>,
}

impl ClientConfig {
    /// What clients without settings of their own use: the authorities of the system and those of Mozilla, as far as
    /// they are built in. The process has one, so that sessions are resumed.
    ///
    /// # Errors
    ///
    /// As [`ClientSettings::build`].
    pub fn shared() -> Result<Self, ConfigError> {
        static SHARED: OnceLock<ClientConfig> = OnceLock::new();
        if let Some(config) = SHARED.get() {
            return Ok(config.clone());
        }
        let config = ClientSettings::new(Roots::public()).build(UnixTime::now())?;
        Ok(SHARED.get_or_init(|| config).clone())
    }

    /// The same for who drives rustls by other means, such as tokio-rustls.
    #[must_use]
    pub fn rustls(&self) -> Arc<rustls::ClientConfig> {
        Arc::clone(&self.tls)
    }
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig").finish_non_exhaustive()
    }
}

#[cfg(feature = "aws-lc-rs")]
use rustls::crypto::aws_lc_rs as cryptography;
#[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
use rustls::crypto::ring as cryptography;

#[cfg(not(any(feature = "ring", feature = "aws-lc-rs")))]
compile_error!("ringwire-tls needs the feature `ring` or `aws-lc-rs`");

/// Never the process's default, which anybody may have set.
fn provider() -> CryptoProvider {
    cryptography::default_provider()
}

fn ticketer() -> Result<Arc<dyn rustls::server::ProducesTickets>, rustls::Error> {
    cryptography::Ticketer::new()
}

fn versions(
    oldest: Version,
    newest: Version,
) -> Result<&'static [&'static SupportedProtocolVersion], ConfigError> {
    static BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
    static TLS12: [&SupportedProtocolVersion; 1] = [&version::TLS12];
    static TLS13: [&SupportedProtocolVersion; 1] = [&version::TLS13];
    match (oldest, newest) {
        (Version::Tls12, Version::Tls13) => Ok(&BOTH),
        (Version::Tls12, Version::Tls12) => Ok(&TLS12),
        (Version::Tls13, Version::Tls13) => Ok(&TLS13),
        (Version::Tls13, Version::Tls12) => Err(ConfigError::NoVersion),
    }
}

fn check_alpn(protocols: &[Vec<u8>]) -> Result<(), ConfigError> {
    let valid = protocols.iter().all(|protocol| (1..=255).contains(&protocol.len()));
    if valid { Ok(()) } else { Err(ConfigError::InvalidAlpn) }
}

fn client_verifier(
    client_auth: &ClientAuth,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, ConfigError> {
    let (roots, is_required) = match client_auth {
        ClientAuth::None => return Ok(WebPkiClientVerifier::no_client_auth()),
        ClientAuth::Allow(roots) => (roots, false),
        ClientAuth::Require(roots) => (roots, true),
    };
    let Trusted { authorities, named } = roots.load()?;
    let (authorities, provider) = (Arc::new(authorities), Arc::clone(provider));
    let others = WebPkiClientVerifier::builder_with_provider(authorities, provider);
    let others = if is_required { others } else { others.allow_unauthenticated() };
    let others = others.build().map_err(unusable_roots)?;
    Ok(Arc::new(Named::new(named, false, others)))
}

fn unusable_roots(error: rustls::client::VerifierBuilderError) -> ConfigError {
    ConfigError::NoRoots(format!(": {error}"))
}
