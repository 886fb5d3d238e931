//! Each reason to refuse a token, and each kind of key.

use std::fs;
use std::time::UNIX_EPOCH;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::{self, KeySize};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use ringwire::settings::Secret;
use ringwire::{Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::settings::TokenRules;

const SECRET: &[u8] = b"thirty-two bytes are long enough";
const NOW: u64 = 1_700_000_000;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

fn claims() -> Value {
    json!({
        "sub": "6a1f0e2c-8d3b-4f57-9a64-0c2b7e1d5f38",
        "username": "ann",
        "email": "ann@example.org",
        "exp": NOW + 60,
        "iat": NOW - 60,
        "jti": "token-1",
    })
}

/// The same with other claims; `null` takes one away.
fn with(changes: &Value) -> Value {
    let mut claims = claims();
    for (name, value) in changes.as_object().expect("an object") {
        if value.is_null() {
            claims.as_object_mut().expect("an object").remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

fn signed_with(secret: &[u8], algorithm: Algorithm, claims: &Value) -> String {
    let key = EncodingKey::from_secret(secret).unwrap();
    encode(&Header::new(algorithm), claims, &key).unwrap()
}

fn signed(claims: &Value) -> String {
    signed_with(SECRET, Algorithm::HS256, claims)
}

fn rules() -> TokenRules {
    TokenRules {
        secret: Some(Secret::new(str::from_utf8(SECRET).unwrap())),
        ..TokenRules::default()
    }
}

fn verify(rules: &TokenRules, token: &str) -> Result<Claims, Refused> {
    Verifier::load(rules).expect("the rules make sense").verify(token, now())
}

#[test]
fn a_token_that_holds_says_who_it_is() {
    let found = verify(&rules(), &signed(&claims())).unwrap();
    let expected = Claims {
        sub: Uuid::from_u128(0x6a1f_0e2c_8d3b_4f57_9a64_0c2b_7e1d_5f38),
        username: "ann".to_owned(),
        email: "ann@example.org".to_owned(),
        exp: NOW + 60,
        iat: NOW - 60,
        nbf: None,
        jti: "token-1".to_owned(),
        role: None,
    };
    assert_eq!(found, expected);
    assert_eq!(found.expiry(), now() + Duration::from_secs(60));
    assert!(!found.is_admin());
    let admin = verify(&rules(), &signed(&with(&json!({ "role": "admin" })))).unwrap();
    assert!(admin.is_admin());
    let other = verify(&rules(), &signed(&with(&json!({ "role": "administrator" })))).unwrap();
    assert!(!other.is_admin());
}

#[test]
fn a_time_may_have_a_fraction() {
    let token = signed(&with(&json!({ "exp": NOW as f64 + 1.5, "iat": 0.5 })));
    assert_eq!(verify(&rules(), &token).unwrap().exp, NOW + 1);
}

#[test]
fn what_a_claim_lacks_is_refused() {
    for (change, expected) in [
        (json!({ "sub": null }), Refused::Claims),
        (json!({ "sub": "ann" }), Refused::Claims),
        (json!({ "username": null }), Refused::Claims),
        (json!({ "username": 7 }), Refused::Claims),
        (json!({ "email": null }), Refused::Claims),
        (json!({ "exp": null }), Refused::Claims),
        (json!({ "exp": "tomorrow" }), Refused::Claims),
        (json!({ "exp": -1 }), Refused::Claims),
        (json!({ "exp": 1e300 }), Refused::Claims),
        (json!({ "iat": null }), Refused::Claims),
        (json!({ "jti": null }), Refused::Claims),
        (json!({ "jti": 1 }), Refused::Claims),
        (json!({ "role": ["admin"] }), Refused::Claims),
        (json!({ "nbf": "now" }), Refused::Claims),
        (json!({ "exp": NOW }), Refused::Expired),
        (json!({ "exp": NOW - 1 }), Refused::Expired),
        (json!({ "exp": 0 }), Refused::Expired),
        (json!({ "nbf": NOW + 1 }), Refused::NotYetValid),
        // RFC 7519 §4.1.3: who does not say that it is meant takes no token that is meant for somebody.
        (json!({ "aud": "others" }), Refused::Audience),
    ] {
        let refused = verify(&rules(), &signed(&with(&change)));
        assert_eq!(refused, Err(expected), "{change}");
    }
    for change in [json!({ "exp": NOW + 1 }), json!({ "exp": u64::MAX }), json!({ "nbf": NOW })] {
        assert!(verify(&rules(), &signed(&with(&change))).is_ok(), "{change}");
    }
}

#[test]
fn what_is_no_token_of_ours_is_refused() {
    let good = signed(&claims());
    let parts: Vec<_> = good.split('.').collect();
    // {"alg":"none"}, and {"alg":"HS256","crit":["exp"]}: RFC 7515 §4.1.11
    let unsigned = format!("eyJhbGciOiJub25lIn0.{}.", parts[1]);
    let critical = format!("eyJhbGciOiJIUzI1NiIsImNyaXQiOlsiZXhwIl19.{}.{}", parts[1], parts[2]);
    let other = signed(&with(&json!({ "role": "admin" })));
    let swapped = format!("{}.{}.{}", parts[0], other.split('.').nth(1).unwrap(), parts[2]);
    let mut broken = good.clone();
    broken.pop();
    for (token, expected) in [
        (String::new(), Refused::Missing),
        ("token".to_owned(), Refused::Malformed),
        ("a.b.c".to_owned(), Refused::Malformed),
        ("..".to_owned(), Refused::Malformed),
        (format!("{good}.{good}"), Refused::Malformed),
        (format!(" {good}"), Refused::Malformed),
        (signed(&with(&json!({ "email": "a".repeat(10_000) }))), Refused::Malformed),
        (unsigned, Refused::Malformed),
        (critical, Refused::Malformed),
        (signed_with(SECRET, Algorithm::HS384, &claims()), Refused::Algorithm),
        (signed_with(b"guessed", Algorithm::HS256, &claims()), Refused::Signature),
        (swapped, Refused::Signature),
        (format!("{}.{}.", parts[0], parts[1]), Refused::Signature),
    ] {
        assert_eq!(verify(&rules(), &token), Err(expected), "{token}");
    }
    assert!(verify(&rules(), &broken).is_err());
    assert!(verify(&rules(), &good).is_ok());
    assert_eq!(Verifier::hs256(b"").verify(&good, now()), Err(Refused::Algorithm));
}

#[test]
fn clocks_may_be_apart() {
    let rules = TokenRules { leeway: Duration::from_secs(5), ..rules() };
    for (change, expected) in [
        (json!({ "exp": NOW - 4 }), None),
        (json!({ "exp": NOW - 5 }), Some(Refused::Expired)),
        (json!({ "nbf": NOW + 5 }), None),
        (json!({ "nbf": NOW + 6 }), Some(Refused::NotYetValid)),
    ] {
        assert_eq!(verify(&rules, &signed(&with(&change))).err(), expected, "{change}");
    }
    let verifier = Verifier::load(&rules).unwrap();
    let claims = verifier.verify(&signed(&claims()), now()).unwrap();
    assert_eq!(verifier.end_of(&claims), now() + Duration::from_secs(65));
}

#[test]
fn tokens_are_for_somebody_and_from_somebody() {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let rules =
        TokenRules { audiences: names(&["chat", "news"]), issuers: names(&["us"]), ..rules() };
    for (change, expected) in [
        (json!({ "aud": "chat", "iss": "us" }), None),
        (json!({ "aud": ["shop", "news"], "iss": "us" }), None),
        (json!({ "iss": "us" }), Some(Refused::Audience)),
        (json!({ "aud": "shop", "iss": "us" }), Some(Refused::Audience)),
        (json!({ "aud": [], "iss": "us" }), Some(Refused::Audience)),
        (json!({ "aud": 7, "iss": "us" }), Some(Refused::Audience)),
        (json!({ "aud": "chat" }), Some(Refused::Issuer)),
        (json!({ "aud": "chat", "iss": "them" }), Some(Refused::Issuer)),
        (json!({ "aud": "chat", "iss": 7 }), Some(Refused::Issuer)),
    ] {
        assert_eq!(verify(&rules, &signed(&with(&change))).err(), expected, "{change}");
    }
    let token = Signer::load(&rules, None, None).unwrap();
    let token = token.sign(&verify(&self::rules(), &signed(&claims())).unwrap()).unwrap();
    assert!(verify(&rules, &token).is_ok(), "our own tokens are for us, and from us");
}

#[test]
fn revoked_tokens_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("revoked");
    fs::write(&path, "# stolen\n\n token-1 \ntoken-2\n").unwrap();
    let rules = TokenRules { revoked: Some(path), ..rules() };
    for (jti, expected) in
        [("token-1", false), ("token-2", false), ("token", true), ("# stolen", true)]
    {
        let found = verify(&rules, &signed(&with(&json!({ "jti": jti }))));
        assert_eq!(found.is_ok(), expected, "{jti}");
        assert!(expected || found == Err(Refused::Revoked), "{jti}");
    }
}

/// A private key in a file, its public one in another, and the algorithm of its kind.
struct Pair {
    private: String,
    public: String,
    algorithm: Algorithm,
}

fn rsa(size: KeySize) -> Pair {
    let key = rsa::KeyPair::generate(size).unwrap();
    let der: Pkcs8V1Der<'_> = key.as_der().unwrap();
    pair(&KeyPair::try_from(der.as_ref()).unwrap(), Algorithm::RS256)
}

fn pair(key: &KeyPair, algorithm: Algorithm) -> Pair {
    Pair { private: key.serialize_pem(), public: key.public_key_pem(), algorithm }
}

fn pairs() -> [Pair; 4] {
    let of = |kind, algorithm| pair(&KeyPair::generate_for(kind).unwrap(), algorithm);
    [
        rsa(KeySize::Rsa2048),
        of(&PKCS_ECDSA_P256_SHA256, Algorithm::ES256),
        of(&PKCS_ECDSA_P384_SHA384, Algorithm::ES384),
        of(&PKCS_ED25519, Algorithm::EdDSA),
    ]
}

impl Pair {
    fn key(&self) -> EncodingKey {
        let pem = self.private.as_bytes();
        match self.algorithm {
            Algorithm::EdDSA => EncodingKey::from_ed_pem(pem),
            Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_pem(pem),
            _ => EncodingKey::from_rsa_pem(pem),
        }
        .unwrap()
    }

    fn sign(&self, algorithm: Algorithm, id: Option<&str>) -> String {
        let header = Header { kid: id.map(str::to_owned), ..Header::new(algorithm) };
        encode(&header, &claims(), &self.key()).unwrap()
    }

    /// As it stands in a set of keys, with more members.
    fn jwk(&self, more: &Value) -> Value {
        let pem = self.public.as_bytes();
        let key = match self.algorithm {
            Algorithm::EdDSA => DecodingKey::from_ed_pem(pem),
            Algorithm::ES256 | Algorithm::ES384 => DecodingKey::from_ec_pem(pem),
            _ => DecodingKey::from_rsa_pem(pem),
        };
        let jwk = Jwk::from_decoding_key(&key.unwrap(), None).unwrap();
        let mut jwk = serde_json::to_value(jwk).unwrap();
        jwk.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        jwk
    }
}

/// A file of that content, named for use as a key after `prefix`.
fn key_file(folder: &TempDir, prefix: &str, text: &str) -> KeyFile {
    let path = folder.path().join(Uuid::new_v4().to_string());
    fs::write(&path, text).unwrap();
    format!("{prefix}{}", path.display()).parse().unwrap()
}

fn set(folder: &TempDir, prefix: &str, keys: &[Value]) -> KeyFile {
    key_file(folder, prefix, &json!({ "keys": keys }).to_string())
}

fn keyed(keys: Vec<KeyFile>) -> TokenRules {
    TokenRules { keys, ..TokenRules::default() }
}

#[test]
fn public_keys_of_each_kind_check_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let (pairs, others) = (pairs(), pairs());
    for (pair, other) in pairs.iter().zip(&others) {
        let in_pem = keyed(vec![key_file(&folder, "", &pair.public)]);
        let in_set = keyed(vec![set(&folder, "", &[pair.jwk(&json!({ "kid": "a" }))])]);
        for rules in [in_pem, in_set] {
            let (right, wrong) =
                (pair.sign(pair.algorithm, None), other.sign(pair.algorithm, None));
            assert!(verify(&rules, &right).is_ok(), "{:?}", pair.algorithm);
            assert_eq!(verify(&rules, &wrong), Err(Refused::Signature), "{:?}", pair.algorithm);
        }
        let private = folder.path().join("private.pem");
        fs::write(&private, &pair.private).unwrap();
        let rules = keyed(vec![key_file(&folder, "", &pair.public)]);
        if pair.algorithm != Algorithm::ES384 {
            let signer = Signer::load(&rules, Some(&private), None).unwrap();
            let claims = verify(&rules, &pair.sign(pair.algorithm, None)).unwrap();
            assert!(verify(&rules, &signer.sign(&claims).unwrap()).is_ok());
        }
    }
}

/// RFC 8725 §3.1: a key is for its own algorithms alone, whatever a token says.
#[test]
fn a_key_is_for_its_algorithms_alone() {
    let folder = tempfile::tempdir().unwrap();
    let [rsa, ec, ..] = pairs();
    let by_public_key = signed_with(rsa.public.as_bytes(), Algorithm::HS256, &claims());
    let usual = keyed(vec![key_file(&folder, "", &rsa.public)]);
    let both = keyed(vec![key_file(&folder, "RS256+PS256:", &rsa.public)]);
    let of_set = keyed(vec![set(&folder, "", &[rsa.jwk(&json!({ "alg": "PS256" }))])]);
    let fewer = keyed(vec![set(&folder, "ES256:", &[rsa.jwk(&json!({})), ec.jwk(&json!({}))])]);
    for (rules, algorithm, holds) in [
        (&usual, Algorithm::RS256, true),
        (&usual, Algorithm::PS256, false),
        (&usual, Algorithm::RS512, false),
        (&both, Algorithm::RS256, true),
        (&both, Algorithm::PS256, true),
        (&both, Algorithm::RS384, false),
        (&of_set, Algorithm::PS256, true),
        (&of_set, Algorithm::RS256, false),
        (&fewer, Algorithm::RS256, false),
    ] {
        let found = verify(rules, &rsa.sign(algorithm, None));
        assert_eq!(found.is_ok(), holds, "{algorithm:?} by {rules:?}");
        assert!(holds || found == Err(Refused::Algorithm));
        assert_eq!(verify(rules, &by_public_key), Err(Refused::Algorithm));
    }
    assert!(verify(&fewer, &ec.sign(Algorithm::ES256, None)).is_ok());
    let mixed = TokenRules { keys: usual.keys, ..rules() };
    assert_eq!(verify(&mixed, &by_public_key), Err(Refused::Signature));
    assert!(verify(&mixed, &signed(&claims())).is_ok());
    assert!(verify(&mixed, &rsa.sign(Algorithm::RS256, None)).is_ok());
}

#[test]
fn keys_of_a_set_have_names_and_purposes() {
    let folder = tempfile::tempdir().unwrap();
    let [rsa, ec, p384, ed] = pairs();
    let keys = [
        rsa.jwk(&json!({ "kid": "old", "use": "sig" })),
        ec.jwk(&json!({ "kid": "new" })),
        p384.jwk(&json!({ "kid": "sealed", "use": "enc" })),
        rsa.jwk(&json!({ "kid": "wrapped", "alg": "RSA-OAEP" })),
        json!({ "kty": "AKP", "kid": "later", "alg": "ML-DSA-44", "pub": "AA" }),
        ed.jwk(&json!({})),
    ];
    let rules = keyed(vec![set(&folder, "", &keys)]);
    for (token, expected) in [
        (rsa.sign(Algorithm::RS256, Some("old")), None),
        (rsa.sign(Algorithm::RS256, None), None),
        (rsa.sign(Algorithm::RS256, Some("new")), Some(Refused::UnknownKey)),
        (rsa.sign(Algorithm::RS256, Some("wrapped")), Some(Refused::UnknownKey)),
        (ec.sign(Algorithm::ES256, Some("new")), None),
        (p384.sign(Algorithm::ES384, Some("sealed")), Some(Refused::Algorithm)),
        // A key without a name is for all.
        (ed.sign(Algorithm::EdDSA, Some("any")), None),
    ] {
        assert_eq!(verify(&rules, &token).err(), expected, "{token}");
    }
}

#[test]
fn keys_that_check_nothing_are_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let [rsa, ec, _, ed] = pairs();
    let short = json!({ "kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA" });
    let weak = json!({ "kty": "RSA", "n": "s".repeat(171), "e": "AQAB" });
    for (text, prefix, expected) in [
        (rsa.private, "", "private key"),
        (format!("{}{}", ec.public, ed.public), "", "one public key"),
        (ec.public, "RS256:", "no key for these algorithms"),
        (
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n".to_owned(),
            "",
            "no public key",
        ),
        ("hello".to_owned(), "", "one public key"),
        ("{}".to_owned(), "", "no set of keys"),
        (json!({ "keys": [] }).to_string(), "", "no key for these algorithms"),
        (json!({ "keys": [short] }).to_string(), "", "wrong length"),
        (json!({ "keys": [weak] }).to_string(), "", "wrong length"),
        (json!({ "keys": [{ "kty": "oct", "k": "" }] }).to_string(), "", "a key is malformed"),
    ] {
        let error = Verifier::load(&keyed(vec![key_file(&folder, prefix, &text)])).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.to_string().starts_with(folder.path().to_str().unwrap()), "{error}");
    }
    let absent = keyed(vec!["/nowhere/key.pem".parse().unwrap()]);
    assert!(Verifier::load(&absent).unwrap_err().to_string().starts_with("/nowhere/key.pem: "));
    let none = Verifier::load(&TokenRules::default()).unwrap_err().to_string();
    assert!(none.contains("set JWT_SECRET"), "{none}");
    for text in ["RS265:key.pem", "none:key.pem", ":key.pem"] {
        assert!(text.parse::<KeyFile>().unwrap_err().contains("RS256"), "{text}");
    }
    for text in ["key.pem", "/etc/keys:old/key.pem", "./RS256:key.pem", "EdDSA:/etc/key.pem"] {
        assert!(text.parse::<KeyFile>().is_ok(), "{text}");
    }
}

#[test]
fn a_secret_comes_from_a_file_and_is_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    fs::write(&path, [SECRET, b"\n"].concat()).unwrap();
    let in_file = TokenRules {
        secret: Some(Secret::new("another one")),
        secret_file: Some(path.clone()),
        ..TokenRules::default()
    };
    assert!(verify(&in_file, &signed(&claims())).is_ok());
    fs::write(&path, "\n").unwrap();
    let error = Verifier::load(&in_file).unwrap_err().to_string();
    assert!(error.ends_with("it is empty"), "{error}");
    for text in [format!("{in_file:?}"), format!("{:?}", Verifier::hs256(b"another one"))] {
        assert!(!text.contains("another"), "{text}");
    }
}

#[test]
fn a_refusal_says_in_a_word_why() {
    let mut reasons: Vec<_> = Refused::ALL.iter().map(|refused| refused.reason()).collect();
    reasons.sort_unstable();
    reasons.dedup();
    assert_eq!(reasons.len(), Refused::ALL.len(), "each has a word of its own");
    for refused in Refused::ALL {
        let is_plain = |letter: char| letter.is_ascii_lowercase() || letter == '_';
        assert!(refused.reason().chars().all(is_plain), "{refused}");
        assert!(refused.close_code().is_sendable(), "{refused}");
        let response = Response::from(*refused);
        let challenge = response.headers().find(|(name, _)| *name == "www-authenticate");
        let challenge = challenge.map(|(_, text)| text.to_str().unwrap());
        let (status, expected) = match refused {
            Refused::Missing | Refused::ApiKey => (StatusCode::UNAUTHORIZED, Some("Bearer")),
            Refused::NotAdmin => (StatusCode::FORBIDDEN, None),
            Refused::Unavailable | Refused::Busy => (StatusCode::SERVICE_UNAVAILABLE, None),
            _ => (StatusCode::UNAUTHORIZED, Some("Bearer error=\"invalid_token\"")),
        };
        assert_eq!((response.status(), challenge), (status, expected), "{refused}");
    }
}
