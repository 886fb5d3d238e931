//! JSON Web Tokens that are signed with HMAC-SHA-256 (RFC 7519; HS256 of RFC 7518 §3.2).

#![expect(clippy::disallowed_methods, reason = "a token expires by the wall clock")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use hmac::{Hmac, KeyInit, Mac};
use ringwire::StatusCode;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::Problem;

/// What a token says: who the user is, until when (in seconds since 1970), and whether an administrator.
#[derive(Clone, Deserialize, Serialize)]
#[expect(missing_docs, reason = "said above")]
pub struct Claims {
    pub sub: String,
    pub exp: u32,
    #[serde(default)]
    pub admin: bool,
}

impl Claims {
    pub(crate) fn expiry(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.exp.into())
    }
}

/// What tokens are signed with.
#[derive(Clone)]
pub struct Key(Hmac<sha2::Sha256>);

impl Key {
    /// The key of a secret.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        Self(Hmac::new_from_slice(secret).expect("a secret may have any length"))
    }

    /// A token that says this.
    #[must_use]
    pub fn sign(&self, claims: &Claims) -> String {
        let claims = serde_json::to_vec(claims).expect("claims are JSON");
        let signed = format!("{}.{}", BASE64.encode(r#"{"alg":"HS256"}"#), BASE64.encode(claims));
        let code = self.0.clone().chain_update(&signed).finalize().into_bytes();
        format!("{signed}.{}", BASE64.encode(code))
    }

    /// What a token says, if it is valid now.
    pub(crate) fn verify(&self, token: &str) -> Result<Claims, Problem> {
        let refusal = || Problem(StatusCode::UNAUTHORIZED, "a valid token is needed".to_owned());
        self.check(token).filter(|it| it.expiry() > SystemTime::now()).ok_or_else(refusal)
    }

    fn check(&self, token: &str) -> Option<Claims> {
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
