//! The client's side of TLS: flags, and what all connections of a load share.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::ValueEnum;
use ringwire_tls::pki_types::{ServerName, UnixTime};
use ringwire_tls::{CertificateSource, ClientConfig, ClientSettings, Roots, Session, Version};
use serde::{Deserialize, Serialize};

use crate::target::Target;

/// Flags for wss:// URLs.
#[derive(Clone, Debug, Default, Deserialize, Serialize, clap::Args)]
pub(crate) struct TlsArgs {
    /// Authorities to trust with wss://, a PEM file. A self-signed certificate is its own authority. By
    /// default those of the system.
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    ca: Option<PathBuf>,
    /// Takes any certificate with wss://. For servers of one's own.
    #[arg(long)]
    insecure: bool,
    /// A certificate to show to a server that asks for one, with its chain: a PEM file.
    #[arg(long, value_name = "FILE", requires = "client_key")]
    client_cert: Option<PathBuf>,
    /// The key of --client-cert, a PEM file.
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    client_key: Option<PathBuf>,
    /// The TLS version to speak with wss://; by default the newest that both sides have.
    #[arg(long, value_enum)]
    tls_version: Option<TlsVersion>,
    /// Resumes TLS sessions with the server's tickets; by default each connection is a new client's.
    #[arg(long)]
    resume: bool,
}

/// The value of `--tls-version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ValueEnum)]
enum TlsVersion {
    #[value(name = "1.2")]
    Tls12,
    #[value(name = "1.3")]
    Tls13,
}

impl TlsArgs {
    /// The flags' defaults, but for `--resume`.
    pub(crate) fn resuming(resume: bool) -> Self {
        Self { resume, ..Self::default() }
    }

    /// What connections to `target` need, whose certificate is `own`, in PEM, where it made that itself; `None` where
    /// it does not speak TLS.
    ///
    /// # Errors
    /// When a file of authorities cannot be used, or the host of the URL can have no certificate.
    pub(crate) fn client(
        &self,
        target: &Target,
        own: Option<&str>,
    ) -> anyhow::Result<Option<Client>> {
        let roots = match (own, &self.ca) {
            (Some(pem), _) => Roots::pem(pem),
            (None, Some(file)) => Roots::file(file),
            (None, None) => Roots::system(),
        };
        let Some(host) = target.tls_host() else { return Ok(None) };
        let name = ServerName::try_from(host.to_owned())
            .with_context(|| format!("{host:?} is no name of a TLS server"))?;
        let mut settings = if self.insecure {
            ClientSettings::dangerous_without_certificate_verification()
        } else {
            ClientSettings::new(roots)
        };
        if let Some(version) = self.tls_version {
            let version = match version {
                TlsVersion::Tls12 => Version::Tls12,
                TlsVersion::Tls13 => Version::Tls13,
            };
            settings = settings.with_min_version(version).with_max_version(version);
        }
        if let Some((chain, key)) = self.client_cert.as_ref().zip(self.client_key.as_ref()) {
            settings = settings.with_certificate(CertificateSource::files(chain, key));
        }
        let settings = settings.with_resumption(self.resume);
        let config = settings.build(UnixTime::now()).context("cannot speak TLS")?;
        Ok(Some(Client { config, name }))
    }
}

/// What the TLS connections of a load share.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    config: ClientConfig,
    name: ServerName<'static>,
}

impl Client {
    /// A new session, which takes a ticket where there is one.
    pub(crate) fn session(&self) -> Result<Session, ringwire_tls::Error> {
        Session::client(&self.config, self.name.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(flags: &str, url: &str) -> anyhow::Result<Option<Client>> {
        let flags: TlsArgs = crate::flags::parse(flags)?;
        flags.client(&Target::from_url(url)?, None)
    }

    #[test]
    fn only_wss_has_a_client() {
        assert!(client("--insecure", "ws://127.0.0.1:1/").unwrap().is_none());
        assert!(client("--insecure", "tcp://127.0.0.1:1").unwrap().is_none());
        let client = client("--insecure --tls-version 1.2", "wss://127.0.0.1:1/").unwrap().unwrap();
        assert_eq!(client.name, ServerName::try_from("127.0.0.1").unwrap());
        assert!(client.session().unwrap().wants_write());
    }

    #[test]
    fn unreadable_authorities_are_told() {
        let error = client("--ca /nowhere/ca.pem", "wss://127.0.0.1:1/").unwrap_err();
        assert!(format!("{error:#}").contains("/nowhere/ca.pem"), "{error:#}");
    }
}
