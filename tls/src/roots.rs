//! The authorities that a side trusts.

use std::fmt;
use std::path::PathBuf;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use crate::certs::Pem;
use crate::error::{CertificateProblem, ConfigError};

/// The authorities that a side trusts, read when the settings are built.
#[derive(Clone)]
pub struct Roots {
    sources: Vec<Source>,
}

#[derive(Clone)]
enum Source {
    #[cfg(feature = "native-roots")]
    System,
    #[cfg(feature = "webpki-roots")]
    Webpki,
    Pem(Pem),
}

impl Roots {
    /// Those of the operating system (`SSL_CERT_FILE` and `SSL_CERT_DIR` name others).
    #[cfg(feature = "native-roots")]
    #[must_use]
    pub fn system() -> Self {
        Self { sources: vec![Source::System] }
    }

    /// Those of Mozilla, compiled in.
    #[cfg(feature = "webpki-roots")]
    #[must_use]
    pub fn webpki() -> Self {
        Self { sources: vec![Source::Webpki] }
    }

    /// All certificates of a PEM file. Each is trusted as an authority, and for itself where it is shown: a self-signed
    /// certificate is its own authority.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { sources: vec![Source::Pem(Pem::File(path.into()))] }
    }

    /// All certificates of PEM text.
    #[must_use]
    pub fn pem(text: impl Into<Vec<u8>>) -> Self {
        Self { sources: vec![Source::Pem(Pem::Text(text.into()))] }
    }

    /// These and those.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.sources.extend(others.sources);
        self
    }

    /// All that are built in.
    pub(crate) fn public() -> Self {
        Self {
            sources: vec![
                #[cfg(feature = "native-roots")]
                Source::System,
                #[cfg(feature = "webpki-roots")]
                Source::Webpki,
            ],
        }
    }

    pub(crate) fn load(&self) -> Result<Trusted, ConfigError> {
        let mut trusted = Trusted { authorities: RootCertStore::empty(), named: Vec::new() };
        let mut why = String::new();
        for source in &self.sources {
            why += &source.add_to(&mut trusted)?;
        }
        if trusted.authorities.is_empty() { Err(ConfigError::NoRoots(why)) } else { Ok(trusted) }
    }
}

/// What is trusted.
pub(crate) struct Trusted {
    pub(crate) authorities: RootCertStore,
    /// Those that somebody has named, which are trusted themselves as well.
    pub(crate) named: Vec<CertificateDer<'static>>,
}

impl Source {
    /// Returns what went wrong without spoiling it all.
    fn add_to(&self, trusted: &mut Trusted) -> Result<String, ConfigError> {
        let store = &mut trusted.authorities;
        match self {
            #[cfg(feature = "native-roots")]
            Self::System => {
                let found = rustls_native_certs::load_native_certs();
                // A system's store often holds a certificate or two that nothing can parse.
                store.add_parsable_certificates(found.certs);
                return Ok(found.errors.iter().map(|error| format!(": {error}")).collect());
            }
            #[cfg(feature = "webpki-roots")]
            Self::Webpki => store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Self::Pem(pem) => {
                for certificate in pem.certificates()? {
                    let added = store.add(certificate.clone());
                    pem.blame(added.map_err(|error| {
                        CertificateProblem::InvalidCertificate(error.to_string())
                    }))?;
                    trusted.named.push(certificate);
                }
            }
        }
        Ok(String::new())
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.sources.iter().map(|source| match source {
            #[cfg(feature = "native-roots")]
            Source::System => "system".to_owned(),
            #[cfg(feature = "webpki-roots")]
            Source::Webpki => "webpki".to_owned(),
            Source::Pem(pem) => pem.origin(),
        });
        f.debug_list().entries(names).finish()
    }
}
