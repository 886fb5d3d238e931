//! What a token says.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringwire::json::numeric_date;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The role that may administer.
const ADMIN: &str = "admin";

/// What a token says of its owner (RFC 7519 §4.1), once its signature, its times and its audience have been checked.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Claims {
    /// The user.
    pub sub: Uuid,
    /// The name by which others know the user.
    pub username: String,
    /// The user's address.
    pub email: String,
    /// When the token expires, in seconds since 1970.
    #[serde(deserialize_with = "numeric_date")]
    pub exp: u64,
    /// When it was issued, in seconds since 1970.
    #[serde(deserialize_with = "numeric_date")]
    pub iat: u64,
    /// Before when it does not hold, in seconds since 1970.
    #[serde(default, deserialize_with = "numeric_date", skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// The token's own id, by which it can be revoked.
    pub jti: String,
    /// What the user may do: `admin` may administer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
}

impl Claims {
    /// Whether the user may administer.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.role.as_deref() == Some(ADMIN)
    }

    /// When the token expires.
    #[must_use]
    pub fn expiry(&self) -> SystemTime {
        at(self.exp)
    }

    pub(super) fn is_expired(&self, now: SystemTime, leeway: Duration) -> bool {
        self.expiry().checked_add(leeway).is_some_and(|end| end <= now)
    }

    pub(super) fn is_early(&self, now: SystemTime, leeway: Duration) -> bool {
        self.nbf.is_some_and(|begin| at(begin) > now + leeway)
    }
}

/// The latest time that is told from later ones: the year 9999, far beyond all clocks.
const MAX_SECONDS: u64 = 253_402_300_799;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds.min(MAX_SECONDS))
}
