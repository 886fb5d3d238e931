//! Certificates that are trusted themselves.
//!
//! What `openssl req -x509` makes says of itself that it is an authority (CA:TRUE), and webpki takes no authority for a
//! server or client. But whoever names a certificate as trusted means that one, whatever it says of itself: it is
//! accepted when it is shown, as other TLS libraries do. Its dates and its name are checked as any other's.
#![expect(clippy::disallowed_types, reason = "rustls takes shared settings as Arc")]

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use crate::certs::Facts;

/// Accepts the named certificates themselves, and leaves all others to another verifier.
pub(crate) struct Named<V: ?Sized> {
    certificates: Vec<CertificateDer<'static>>,
    checks_name: bool,
    others: Arc<V>,
}

impl<V: ?Sized> Named<V> {
    pub(crate) fn new(
        certificates: Vec<CertificateDer<'static>>,
        checks_name: bool,
        others: Arc<V>,
    ) -> Self {
        Self { certificates, checks_name, others }
    }

    fn find(&self, end_entity: &CertificateDer<'_>) -> Option<&CertificateDer<'static>> {
        self.certificates.iter().find(|each| each.as_ref() == end_entity.as_ref())
    }
}

impl<V: ?Sized> fmt::Debug for Named<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Named").field("count", &self.certificates.len()).finish_non_exhaustive()
    }
}

/// Checks the dates (RFC 5280 §4.1.2.5), and the name where one is given.
fn check(
    certificate: &CertificateDer<'_>,
    name: Option<&ServerName<'_>>,
    now: UnixTime,
) -> Result<(), Error> {
    let facts = Facts::of(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if seconds > facts.not_after {
        return Err(CertificateError::Expired.into());
    }
    if seconds < facts.not_before {
        return Err(CertificateError::NotValidYet.into());
    }
    let Some(expected) = name else { return Ok(()) };
    let name = match expected {
        ServerName::DnsName(name) => name.as_ref().to_owned(),
        ServerName::IpAddress(address) => std::net::IpAddr::from(*address).to_string(),
        _ => return Err(CertificateError::NotValidForName.into()),
    };
    if facts.covers(&name) {
        return Ok(());
    }
    let presented = facts.host_names().iter().map(|name| format!("{name:?}")).collect();
    let expected = expected.to_owned();
    Err(CertificateError::NotValidForNameContext { expected, presented }.into())
}

/// What both sides leave to the other verifier: that the peer holds the key.
macro_rules! check_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.others.verify_tls12_signature(message, cert, dss)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.others.verify_tls13_signature(message, cert, dss)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.others.supported_verify_schemes()
        }
    };
}

impl ServerCertVerifier for Named<dyn ServerCertVerifier> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(named) = self.find(end_entity) else {
            let others = &self.others;
            return others.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            );
        };
        check(named, self.checks_name.then_some(server_name), now)?;
        Ok(ServerCertVerified::assertion())
    }

    check_signatures!();
}

impl ClientCertVerifier for Named<dyn ClientCertVerifier> {
    fn offer_client_auth(&self) -> bool {
        self.others.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.others.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.others.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let Some(named) = self.find(end_entity) else {
            return self.others.verify_client_cert(end_entity, intermediates, now);
        };
        check(named, None, now)?;
        Ok(ClientCertVerified::assertion())
    }

    check_signatures!();
}
