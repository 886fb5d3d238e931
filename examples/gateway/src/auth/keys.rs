//! The keys that tokens are signed with, and which algorithms each is for.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};

/// A file with keys: a public key (PEM), or a set of keys (JWKS, RFC 7517 §5).
///
/// Written as `FILE`, or as `ALGORITHM+…:FILE` where the keys are for these algorithms alone, such as
/// `RS256+PS256:issuer.pem`. Otherwise a key of a set is for the algorithm that it names, and every other key for that
/// of its kind: RS256, ES256, ES384, EdDSA or HS256.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFile {
    path: PathBuf,
    algorithms: Vec<Algorithm>,
}

impl FromStr for KeyFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = |names: &str| names.split('+').map(str::parse).collect::<Result<_, _>>();
        let (algorithms, path) = match text.split_once(':') {
            Some((names, path)) => match known(names) {
                Ok(algorithms) => (algorithms, path),
                Err(_) if names.contains('/') => (Vec::new(), text),
                Err(_) => return Err(format!("unknown algorithm {names}: name one such as RS256")),
            },
            None => (Vec::new(), text),
        };
        Ok(Self { path: path.into(), algorithms })
    }
}

/// Why keys can't be used: which file it is, what is wrong with it, and what would be right.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct KeyError(String);

impl KeyError {
    pub(super) fn of(path: &Path, problem: impl Display) -> Self {
        Self(format!("{}: {problem}", path.display()))
    }

    pub(super) fn none() -> Self {
        Self("tokens need a key: set JWT_SECRET, or jwt_keys to files with public keys".to_owned())
    }
}

/// What every key asks of a token beside the signature.
#[derive(Clone, Debug, Default)]
pub(super) struct Demands {
    pub(super) audiences: Vec<String>,
    pub(super) issuers: Vec<String>,
}

/// A key with what a token that it has signed must say.
pub(super) struct Key {
    /// Its name in a set, which tokens may be meant for alone.
    id: Option<String>,
    pub(super) key: DecodingKey,
    pub(super) validation: Validation,
}

impl Key {
    fn new(
        id: Option<String>,
        key: DecodingKey,
        algorithms: Vec<Algorithm>,
        demands: &Demands,
    ) -> Self {
        // Times are checked by the caller's clock.
        let mut validation =
            Validation { algorithms, validate_exp: false, ..Validation::default() };
        validation.required_spec_claims.clear();
        if !demands.audiences.is_empty() {
            validation.set_audience(&demands.audiences);
            validation.required_spec_claims.insert("aud".to_owned());
        }
        if !demands.issuers.is_empty() {
            validation.set_issuer(&demands.issuers);
            validation.required_spec_claims.insert("iss".to_owned());
        }
        Self { id, key, validation }
    }

    /// A secret, for HS256 alone. `None` if it is empty.
    pub(super) fn of_secret(secret: &[u8], demands: &Demands) -> Option<Self> {
        let key = DecodingKey::from_secret(secret).ok()?;
        Some(Self::new(None, key, vec![Algorithm::HS256], demands))
    }

    pub(super) fn is_for(&self, algorithm: Algorithm) -> bool {
        self.validation.algorithms.contains(&algorithm)
    }

    /// Whether a token may be meant for it whose header names this key, or none.
    pub(super) fn may_be(&self, id: Option<&str>) -> bool {
        self.id.is_none() || id.is_none() || self.id.as_deref() == id
    }
}

impl KeyFile {
    /// All its keys that are for signatures.
    pub(super) fn load(&self, demands: &Demands) -> Result<Vec<Key>, KeyError> {
        let path = &*self.path;
        let text = read(path)?;
        let wrong = |problem: String| KeyError::of(path, problem);
        let keys = if text.trim_ascii_start().starts_with(b"{") {
            let set: JwkSet = serde_json::from_slice(&text)
                .map_err(|error| wrong(format!("it is no set of keys (JWKS): {error}")))?;
            set.keys.into_iter().filter(is_for_signatures).collect()
        } else {
            vec![of_pem(&text).map_err(wrong)?]
        };
        let found = keys.into_iter().map(|key| self.key(key, demands));
        let found: Vec<_> =
            found.filter_map(Result::transpose).collect::<Result<_, _>>().map_err(wrong)?;
        if found.is_empty() {
            return Err(wrong("it has no key for these algorithms".to_owned()));
        }
        Ok(found)
    }

    /// `None` where it is for other algorithms.
    fn key(&self, jwk: Jwk, demands: &Demands) -> Result<Option<Key>, String> {
        let Some(possible) = algorithms_of(&jwk.algorithm) else { return Ok(None) };
        let named = jwk.common.key_algorithm.map(Algorithm::try_from).transpose();
        // One for encryption, say.
        let Ok(named) = named else { return Ok(None) };
        let allowed: Vec<_> = match named {
            Some(named) => vec![named],
            None if self.algorithms.is_empty() => possible.iter().take(1).copied().collect(),
            None => possible.to_vec(),
        };
        let is_allowed = |algorithm: &Algorithm| {
            possible.contains(algorithm)
                && (self.algorithms.is_empty() || self.algorithms.contains(algorithm))
        };
        let allowed: Vec<_> = allowed.into_iter().filter(is_allowed).collect();
        if allowed.is_empty() {
            return Ok(None);
        }
        let key =
            DecodingKey::from_jwk(&jwk).map_err(|error| format!("a key is malformed: {error}"))?;
        check(&jwk.algorithm, &key)?;
        Ok(Some(Key::new(jwk.common.key_id, key, allowed, demands)))
    }
}

/// A file's bytes.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, KeyError> {
    std::fs::read(path).map_err(|error| KeyError::of(path, error))
}

fn of_pem(text: &[u8]) -> Result<Jwk, String> {
    let text = str::from_utf8(text).map_err(|_| "it is neither PEM nor JSON")?;
    if text.contains("PRIVATE KEY-----") {
        return Err("it is a private key: only the public one is needed to check tokens".to_owned());
    }
    if text.matches("-----BEGIN ").count() != 1 {
        return Err("it should have one public key, as PEM or in a set of keys (JWKS)".to_owned());
    }
    let text = text.as_bytes();
    let key = DecodingKey::from_rsa_pem(text)
        .or_else(|_| DecodingKey::from_ec_pem(text))
        .or_else(|_| DecodingKey::from_ed_pem(text));
    let of_key = |key| Jwk::from_decoding_key(&key, None);
    key.and_then(of_key).map_err(|error| format!("it is no public key of a known kind: {error}"))
}

fn is_for_signatures(key: &Jwk) -> bool {
    // RFC 7517 §4.2
    matches!(key.common.public_key_use, None | Some(PublicKeyUse::Signature))
}

/// The algorithms that a key of this kind can be for; the usual one first. `None` for other kinds, which a set of keys
/// may have (RFC 7517 §5).
fn algorithms_of(kind: &AlgorithmParameters) -> Option<&'static [Algorithm]> {
    use Algorithm::*;
    Some(match kind {
        AlgorithmParameters::RSA(_) => &[RS256, RS384, RS512, PS256, PS384, PS512],
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => &[ES256],
            EllipticCurve::P384 => &[ES384],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => &[EdDSA],
        AlgorithmParameters::OctetKey(_) => &[HS256, HS384, HS512],
        _ => return None,
    })
}

/// Refuses what could check no signature, or a forged one.
fn check(kind: &AlgorithmParameters, key: &DecodingKey) -> Result<(), String> {
    let len = key.try_get_as_bytes().map_or(0, <[u8]>::len);
    let is_right = match kind {
        // 2048 to 8192 bits (RFC 7518 §3.3), six in a letter.
        AlgorithmParameters::RSA(key) => (2048..8200).contains(&(key.n.len() * 6)),
        // Two coordinates and a byte that says so (SEC 1 §2.3.3).
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => len == 97,
        AlgorithmParameters::EllipticCurve(_) => len == 65,
        AlgorithmParameters::OctetKeyPair(_) => len == 32,
        _ => len > 0,
    };
    is_right.then_some(()).ok_or_else(|| {
        "a key has a wrong length: RSA keys have 2048 to 8192 bits, others that of their curve"
            .to_owned()
    })
}
