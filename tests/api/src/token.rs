//! JSON Web Tokens that are signed with HMAC-SHA-256 (RFC 7519; HS256 of RFC 7518 §3.2).

#![expect(clippy::disallowed_methods, reason = "a token expires by the wall clock")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use hmac::{Hmac, KeyInit, Mac};
use ringwire::StatusCode;
use serde::{Deserialize, de::DeserializeOwned};

use crate::{Problem, refuse};

/// What tokens are signed with.
pub(crate) struct Key(Hmac<sha2::Sha256>);

/// What a token says: who the user is, until when (in seconds since 1970), and whether an administrator.
#[derive(Deserialize)]
pub(crate) struct Claims {
    pub(crate) sub: String,
    exp: u32,
    #[serde(default)]
    pub(crate) admin: bool,
}

impl Claims {
    pub(crate) fn expiry(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.exp.into())
    }
}

impl Key {
    pub(crate) fn new(secret: &[u8]) -> Self {
        Self(Hmac::new_from_slice(secret).expect("a secret may have any length"))
    }

    /// What a token says, if it is valid now.
    pub(crate) fn verify(&self, token: &str) -> Result<Claims, Problem> {
        let claims = self.claims(token).filter(|it| it.expiry() > SystemTime::now());
        claims.map_or_else(|| refuse(StatusCode::UNAUTHORIZED, "a valid token is needed"), Ok)
    }

    fn claims(&self, token: &str) -> Option<Claims> {
        let (signed, code) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        self.0.clone().chain_update(signed).verify_slice(&BASE64.decode(code).ok()?).ok()?;
        let header: serde_json::Value = decode(header)?;
        if header["alg"] == "HS256" { decode(claims) } else { None }
    }
}

fn decode<T: DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice(&BASE64.decode(part).ok()?).ok()
}
