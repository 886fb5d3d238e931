//! Certificates on the command line.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use ringwire::tls::pki_types::UnixTime;
use ringwire::tls::{CertificateSource, ServerConfig, ServerSettings};

/// The certificate of a program that serves TLS.
#[derive(Clone, Debug, Args)]
pub struct Certificate {
    /// The certificate chain for TLS, a PEM file, leaf first. It is read again on SIGHUP.
    #[arg(long, env = "RINGWIRE_CERT", requires = "key")]
    pub cert: Option<PathBuf>,
    /// Its private key, a PEM file.
    #[arg(long, env = "RINGWIRE_KEY", requires = "cert")]
    pub key: Option<PathBuf>,
}

impl Certificate {
    /// The settings of a server with it.
    ///
    /// # Errors
    /// It was not given, or something is wrong with it.
    pub fn server(&self) -> Result<ServerConfig> {
        let files = self.cert.as_ref().zip(self.key.as_ref());
        let (cert, key) = files.context("TLS needs --cert and --key")?;
        let source = CertificateSource::files(cert, key);
        Ok(ServerSettings::new(source).build(UnixTime::now())?)
    }
}
