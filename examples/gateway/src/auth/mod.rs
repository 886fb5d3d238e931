//! Who a request comes from: JSON Web Tokens (RFC 7519).

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use hmac::{Hmac, KeyInit, Mac};
use ringwire::{Request, Response, StatusCode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The user.
    pub sub: Uuid,
    /// What people call the user.
    pub username: String,
    /// The user's address.
    pub email: String,
    /// When the token ends, in seconds since 1970.
    pub exp: u64,
    /// When it was issued, in seconds since 1970.
    pub iat: u64,
    /// The token's own name, by which it can be revoked.
    pub jti: String,
    /// `admin`, or something that gives no rights here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
}

impl Claims {
    /// Whether the user may use what is for administrators.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.role.as_deref() == Some("admin")
    }

    /// When the token ends.
    #[must_use]
    pub fn expiry(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.exp)
    }
}

/// Why a token was refused. Tells nothing that a stranger could use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// There is none.
    #[error("a token is needed")]
    Missing,
    /// It is no token, or not signed with a key of this server.
    #[error("the token is not valid")]
    Invalid,
    /// It was valid once.
    #[error("the token has expired")]
    Expired,
}

impl Refused {
    /// A word for it: a label of metrics.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Invalid => "invalid",
            Self::Expired => "expired",
        }
    }
}

impl From<Refused> for Response {
    fn from(refused: Refused) -> Self {
        Self::text(refused.reason()).with_status(StatusCode::UNAUTHORIZED)
    }
}

/// What tokens are verified with.
#[derive(Debug)]
pub struct Verifier(Hmac<sha2::Sha256>);

impl Verifier {
    /// One for tokens that are signed with this secret and HS256.
    #[must_use]
    pub fn hs256(secret: &[u8]) -> Self {
        Self(Hmac::new_from_slice(secret).expect("a secret may have any length"))
    }

    /// What a token says, if it is valid at `now`.
    ///
    /// # Errors
    /// It is not.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Claims, Refused> {
        let claims = self.claims(token).ok_or(Refused::Invalid)?;
        if claims.expiry() > now { Ok(claims) } else { Err(Refused::Expired) }
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

/// The subprotocol by which browsers say that a token is the next one in the list.
pub const BEARER: &str = "bearer";

/// The request's token: that of `?token=`, of `Authorization: Bearer`, or of `Sec-WebSocket-Protocol: bearer, TOKEN`.
#[must_use]
pub fn token_of<'r>(request: &Request<'r>) -> Option<Cow<'r, str>> {
    let header = || request.header_str("authorization")?.strip_prefix("Bearer ");
    let offered = || request.subprotocols().skip_while(|name| *name != BEARER).nth(1);
    request.query_param("token").or_else(|| header().or_else(offered).map(Into::into))
}
