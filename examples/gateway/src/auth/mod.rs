//! Who is let in: what a token must be, and why somebody is refused.
//!
//! Nothing here is written into a log, and no error has a token, a key or a password in it. Users and passwords are in
//! [`users`](crate::users).

mod claims;
mod keys;
mod refused;
mod sign;

use std::collections::HashSet;
use std::fmt;
use std::time::{Duration, SystemTime};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{decode, decode_header};

pub use self::claims::Claims;
use self::keys::{Demands, Key};
pub use self::keys::{KeyError, KeyFile};
pub use self::refused::Refused;
pub use self::sign::Signer;
use crate::settings::TokenRules;

/// The longest token: more than a request can have, so that a message can't cost more.
const MAX_TOKEN_LEN: usize = 8 << 10;
/// A secret should be as long as what HS256 makes of it (RFC 7518 §3.2).
const MIN_SECRET_LEN: usize = 32;

impl TokenRules {
    /// The secret of HS256, if there is one.
    fn secret(&self) -> Result<Option<Vec<u8>>, KeyError> {
        let Some(path) = &self.secret_file else {
            return Ok(self.secret.as_ref().map(|secret| secret.reveal().as_bytes().to_vec()));
        };
        let mut secret = keys::read(path)?;
        secret.truncate(secret.trim_ascii_end().len());
        match secret.is_empty() {
            true => Err(KeyError::of(path, "it is empty")),
            false => Ok(Some(secret)),
        }
    }
}

/// Checks tokens.
pub struct Verifier {
    keys: Vec<Key>,
    leeway: Duration,
    revoked: HashSet<String>,
}

impl Verifier {
    /// Reads all files that the rules name.
    ///
    /// # Errors
    /// One can't be read, has no key that can be used, or there is no key at all.
    pub fn load(rules: &TokenRules) -> Result<Self, KeyError> {
        let demands =
            Demands { audiences: rules.audiences.clone(), issuers: rules.issuers.clone() };
        let mut keys = Vec::new();
        for file in &rules.keys {
            keys.extend(file.load(&demands)?);
        }
        let secret = rules.secret()?;
        if secret.as_ref().is_some_and(|it| it.len() < MIN_SECRET_LEN) {
            tracing::warn!(
                "the secret of tokens is short: with fewer than {MIN_SECRET_LEN} bytes it can be guessed"
            );
        }
        keys.extend(secret.and_then(|secret| Key::of_secret(&secret, &demands)));
        if keys.is_empty() {
            return Err(KeyError::none());
        }
        let revoked = rules.revoked.as_deref().map(keys::read).transpose()?.unwrap_or_default();
        let revoked = String::from_utf8_lossy(&revoked);
        let ids = revoked.lines().map(str::trim);
        let ids = ids.filter(|id| !id.is_empty() && !id.starts_with('#')).map(str::to_owned);
        Ok(Self { keys, leeway: rules.leeway, revoked: ids.collect() })
    }

    /// One for tokens that are signed with a secret and HS256. With an empty one it refuses all.
    #[must_use]
    pub fn hs256(secret: &[u8]) -> Self {
        let key = Key::of_secret(secret, &Demands::default());
        Self { keys: key.into_iter().collect(), leeway: Duration::ZERO, revoked: HashSet::new() }
    }

    /// What a token says, if it holds.
    ///
    /// # Errors
    /// It does not.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Claims, Refused> {
        if token.is_empty() {
            return Err(Refused::Missing);
        }
        if token.len() > MAX_TOKEN_LEN {
            return Err(Refused::Malformed);
        }
        let claims = self.signed(token)?;
        if claims.is_expired(now, self.leeway) {
            return Err(Refused::Expired);
        }
        if claims.is_early(now, self.leeway) {
            return Err(Refused::NotYetValid);
        }
        if self.is_revoked(&claims) { Err(Refused::Revoked) } else { Ok(claims) }
    }

    /// Whether a token that held has been revoked.
    #[must_use]
    pub fn is_revoked(&self, claims: &Claims) -> bool {
        self.revoked.contains(&claims.jti)
    }

    /// When a token's time is over, by this server's clock and the leeway.
    #[must_use]
    pub fn end_of(&self, claims: &Claims) -> SystemTime {
        claims.expiry() + self.leeway
    }

    /// The claims of a token that one of the keys has signed.
    fn signed(&self, token: &str) -> Result<Claims, Refused> {
        let header = decode_header(token).map_err(|_| Refused::Malformed)?;
        let mut refused = Refused::Algorithm;
        for key in self.keys.iter().filter(|key| key.is_for(header.alg)) {
            if !key.may_be(header.kid.as_deref()) {
                refused = if refused == Refused::Algorithm { Refused::UnknownKey } else { refused };
                continue;
            }
            match decode::<Claims>(token, &key.key, &key.validation) {
                Ok(token) => return Ok(token.claims),
                Err(error) => match why(error.kind()) {
                    // Another key may have signed it.
                    Refused::Signature => refused = Refused::Signature,
                    why => return Err(why),
                },
            }
        }
        Err(refused)
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

fn why(kind: &ErrorKind) -> Refused {
    match kind {
        ErrorKind::InvalidSignature => Refused::Signature,
        ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => Refused::Algorithm,
        ErrorKind::InvalidAudience => Refused::Audience,
        ErrorKind::InvalidIssuer => Refused::Issuer,
        ErrorKind::MissingRequiredClaim(name) | ErrorKind::InvalidClaimFormat(name) => {
            match name.as_str() {
                "aud" => Refused::Audience,
                "iss" => Refused::Issuer,
                _ => Refused::Claims,
            }
        }
        ErrorKind::Json(_) => Refused::Claims,
        _ => Refused::Malformed,
    }
}

#[cfg(test)]
mod tests;
