//! Certificates, and rustls's own settings for them: the project's TLS meets an end that is not its own.

use std::sync::Arc;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

/// A certificate that signs itself, and its key.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate, as PEM.
    pub chain: String,
    /// The key, as PEM.
    pub key: String,
}

impl Identity {
    /// For these host names and addresses.
    #[must_use]
    pub fn new(names: &[&str]) -> Self {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).expect("names that can be");
        Self { chain: made.cert.pem(), key: made.signing_key.serialize_pem() }
    }

    /// For `localhost`.
    #[must_use]
    pub fn localhost() -> Self {
        Self::new(&["localhost"])
    }

    /// A client that trusts it and speaks these versions.
    #[must_use]
    pub fn client(&self, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
        trusting(&self.chain, versions)
    }

    /// A server that shows it and speaks these versions.
    #[must_use]
    pub fn server(&self, versions: &[&'static SupportedProtocolVersion]) -> Arc<ServerConfig> {
        let chain = CertificateDer::from_pem_slice(self.chain.as_bytes()).expect("PEM");
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("PEM");
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(versions)
            .expect("versions of TLS")
            .with_no_client_auth()
            .with_single_cert(vec![chain], key)
            .expect("a certificate with its key");
        Arc::new(config)
    }
}

/// A client that trusts this certificate, as PEM, and what it has signed.
#[must_use]
pub fn trusting(root: &str, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(root.as_bytes()).expect("PEM");
    roots.add(root).expect("a root");
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(versions)
        .expect("versions of TLS")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}
