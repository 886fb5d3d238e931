//! Who may administer.

use ringwire::OwnedRequest;
use ringwire::json::Problem;
use uuid::Uuid;

use crate::app::App;
use crate::auth::{Claims, Refused};

/// An administrator.
#[derive(Clone, Debug)]
pub(crate) enum Admin {
    /// Somebody who has the API key.
    Key,
    /// Somebody whose token says so.
    User(Claims),
}

impl Admin {
    /// Who messages are from: nobody, where it is the key.
    pub(super) fn user(&self) -> Option<Uuid> {
        match self {
            Self::Key => None,
            Self::User(claims) => Some(claims.sub),
        }
    }

    /// Whoever has sent a request. One with an API key is judged by that alone.
    pub(super) async fn of_request(app: &App, request: &OwnedRequest) -> Result<Self, Problem> {
        let admin = match request.header_str("x-api-key") {
            Some(key) if is_api_key(app, key) => Ok(Self::Key),
            Some(_) => Err(Refused::ApiKey),
            None => Self::of_token(app, &request.token("token").unwrap_or_default()).await,
        };
        admin.map_err(|refused| {
            app.counters.refused(refused);
            refused.into()
        })
    }

    /// Whoever has a secret, which is the API key or a token.
    pub(crate) async fn of_secret(app: &App, secret: &str) -> Result<Self, Refused> {
        let admin = match is_api_key(app, secret) {
            true => Ok(Self::Key),
            false => Self::of_token(app, secret).await,
        };
        admin.inspect_err(|refused| app.counters.refused(*refused))
    }

    async fn of_token(app: &App, token: &str) -> Result<Self, Refused> {
        let claims = app.identify(token).await?;
        if claims.is_admin() { Ok(Self::User(claims)) } else { Err(Refused::NotAdmin) }
    }
}

/// Whether a text is the API key.
pub(crate) fn is_api_key(app: &App, text: &str) -> bool {
    app.settings.api_key.as_ref().is_some_and(|key| key.is(text))
}
