//! Why somebody is not let in.

use ringwire::http::header::WWW_AUTHENTICATE;
use ringwire::json::Problem;
use ringwire::{CloseCode, HeaderValue, Response, StatusCode};

macro_rules! refusals {
    ($($(#[$doc:meta])+ $name:ident, $reason:literal, $code:literal;)+) => {
        /// Why a token, a login or an administrator's request was refused. No reason reveals a valid credential.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
        #[non_exhaustive]
        pub enum Refused {
            $($(#[$doc])+ #[error($reason)] $name,)+
        }

        impl Refused {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// In a word: a label of metrics, and the body of the answer.
            #[must_use]
            pub const fn reason(self) -> &'static str {
                match self { $(Self::$name => $reason,)+ }
            }

            /// What a connection is closed with that is open already. Codes from 4100 to 4199 say that another attempt
            /// can help, others of 4000 and above that none will.
            #[must_use]
            pub const fn close_code(self) -> CloseCode {
                CloseCode::new(match self { $(Self::$name => $code,)+ })
            }
        }
    };
}

refusals! {
    /// There is no token.
    Missing, "missing", 4001;
    /// It is no JSON Web Token (RFC 7519), or too long for one.
    Malformed, "malformed", 4001;
    /// No configured key has the algorithm of the token's header.
    Algorithm, "algorithm", 4001;
    /// No configured key has the id (`kid`) of the token's header.
    UnknownKey, "unknown_key", 4001;
    /// No configured key verifies the token's signature.
    Signature, "signature", 4001;
    /// A claim is missing, or of a wrong type.
    Claims, "claims", 4001;
    /// `aud` names none of this gateway's audiences (RFC 7519 §4.1.3).
    Audience, "audience", 4001;
    /// `iss` is not an accepted issuer (RFC 7519 §4.1.1).
    Issuer, "issuer", 4001;
    /// The token is not valid before its `nbf` (RFC 7519 §4.1.5).
    NotYetValid, "not_yet_valid", 4001;
    /// The token is past its `exp` (RFC 7519 §4.1.4).
    Expired, "expired", 4102;
    /// It was revoked.
    Revoked, "revoked", 4003;
    /// The database has no such user.
    UnknownUser, "unknown_user", 4003;
    /// The user is not active.
    Inactive, "inactive", 4003;
    /// A name or a password is wrong; it is not said which.
    Credentials, "credentials", 4001;
    /// The user may not administer.
    NotAdmin, "not_admin", 4007;
    /// The API key is wrong.
    ApiKey, "api_key", 4007;
    /// The database does not answer.
    Unavailable, "unavailable", 1013;
    /// As many log in as may: try again after a pause.
    Busy, "busy", 1013;
}

impl Refused {
    /// The status of the answer to a request.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::NotAdmin => StatusCode::FORBIDDEN,
            Self::Unavailable | Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::UNAUTHORIZED,
        }
    }

    /// What would be right, which an answer with 401 has to say (RFC 9110 §15.5.2): no more than the scheme where there
    /// was no token (RFC 6750 §3.1).
    fn challenge(self) -> Option<&'static str> {
        let challenge = match self {
            Self::Missing | Self::ApiKey => "Bearer",
            _ => "Bearer error=\"invalid_token\"",
        };
        (self.status() == StatusCode::UNAUTHORIZED).then_some(challenge)
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let problem = Self::new(refused.status(), refused.reason());
        let challenge = refused.challenge().map(HeaderValue::from_static);
        challenge.into_iter().fold(problem, |it, text| it.with_header(WWW_AUTHENTICATE, text))
    }
}

impl From<Refused> for Response {
    /// The reason as plain text, and what would be right.
    fn from(refused: Refused) -> Self {
        let response = Self::text(refused.reason()).with_status(refused.status());
        let challenge = refused.challenge().map(HeaderValue::from_static);
        challenge.into_iter().fold(response, |it, text| it.with_header(WWW_AUTHENTICATE, text))
    }
}
