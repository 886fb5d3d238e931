//! Users, and their tokens.

#![expect(clippy::disallowed_methods, reason = "a token says when it was made")]

use std::time::{Duration, SystemTime};

use ringwire_gateway::auth::Signer;
use ringwire_gateway::users::User;
use uuid::Uuid;

pub(crate) const SECRET: &str = "a secret of the tests, and long enough";

/// The token of a user, by number.
pub(crate) fn token(number: usize) -> String {
    let username = format!("user{number}");
    let user = User {
        id: Uuid::from_u128(number as u128 + 1),
        email: format!("{username}@example.com"),
        username,
        role: None,
        active: true,
    };
    let claims = user.claims(SystemTime::now(), Duration::from_secs(3600));
    Signer::hs256(SECRET.as_bytes()).expect("it is one").sign(&claims).expect("it is signed")
}
