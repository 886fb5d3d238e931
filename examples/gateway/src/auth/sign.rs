//! Making tokens: for tests, and for services that have none to make them.

use std::path::Path;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Serialize;

use super::Claims;
use super::keys::{self, KeyError};
use crate::settings::TokenRules;

/// Signs tokens.
#[derive(Clone)]
pub struct Signer {
    key: EncodingKey,
    header: Header,
    audience: Option<String>,
    issuer: Option<String>,
}

impl Signer {
    /// One that signs with a secret and HS256.
    ///
    /// # Errors
    /// The secret is empty.
    pub fn hs256(secret: &[u8]) -> Result<Self, KeyError> {
        let key = EncodingKey::from_secret(secret).map_err(|_| KeyError::none())?;
        Ok(Self { key, header: Header::new(Algorithm::HS256), audience: None, issuer: None })
    }

    /// One whose tokens keep to the rules. It signs with a private key (PEM) and the algorithm of its kind, or else
    /// with the secret.
    ///
    /// # Errors
    /// A file can't be read, or has no private key; or there is nothing to sign with.
    pub fn load(
        rules: &TokenRules,
        private_key: Option<&Path>,
        key_id: Option<String>,
    ) -> Result<Self, KeyError> {
        let mut signer = match private_key {
            Some(path) => Self::of_pem(path)?,
            None => Self::hs256(&rules.secret()?.unwrap_or_default())?,
        };
        signer.header.kid = key_id;
        signer.audience = rules.audiences.first().cloned();
        signer.issuer = rules.issuers.first().cloned();
        Ok(signer)
    }

    fn of_pem(path: &Path) -> Result<Self, KeyError> {
        let text = keys::read(path)?;
        let rsa = EncodingKey::from_rsa_pem(&text).map(|key| (key, Algorithm::RS256));
        let ec = |_| EncodingKey::from_ec_pem(&text).map(|key| (key, Algorithm::ES256));
        let ed = |_| EncodingKey::from_ed_pem(&text).map(|key| (key, Algorithm::EdDSA));
        let wrong = |_| KeyError::of(path, "it is no private key in PKCS #8, as PEM");
        let (key, algorithm) = rsa.or_else(ec).or_else(ed).map_err(wrong)?;
        Ok(Self { key, header: Header::new(algorithm), audience: None, issuer: None })
    }

    /// A token that says this.
    ///
    /// # Errors
    /// The key can't sign.
    pub fn sign(&self, claims: &Claims) -> Result<String, jsonwebtoken::errors::Error> {
        #[derive(Serialize)]
        struct Signed<'a> {
            #[serde(flatten)]
            claims: &'a Claims,
            #[serde(skip_serializing_if = "Option::is_none")]
            aud: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            iss: Option<&'a str>,
        }
        let (aud, iss) = (self.audience.as_deref(), self.issuer.as_deref());
        encode(&self.header, &Signed { claims, aud, iss }, &self.key)
    }
}
