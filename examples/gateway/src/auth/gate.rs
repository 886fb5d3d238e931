//! What the application asks of all of this: who somebody is, and who has to go.

use std::sync::Arc;
use std::time::SystemTime;

use super::{Claims, KeyError, Refused, Verifier};
use crate::app::App;
use crate::clock::sweep;

impl App {
    /// Whose token this is. Where users are in a database, that has the last word.
    ///
    /// # Errors
    /// The token does not hold, or its user is missing or inactive.
    pub async fn identify(&self, token: &str) -> Result<Claims, Refused> {
        let claims = self.verifier.load().verify(token, SystemTime::now())?;
        match self.users() {
            Some(users) => users.confirm(claims).await,
            None => Ok(claims),
        }
    }

    /// Who a name and a password stand for. `None` if nobody may log in.
    ///
    /// # Errors
    /// They are wrong, or the user is inactive.
    pub async fn login(&self, username: &str, password: &str) -> Result<Claims, Refused> {
        let users = self.users().filter(|_| self.settings.login);
        let user = users.ok_or(Refused::Credentials)?.login(username, password).await?;
        Ok(user.claims(SystemTime::now(), self.settings.login_lifetime))
    }

    /// Reads the keys and the revoked ids again, and closes the connections whose tokens have been revoked. Waits for
    /// workers, so it is not for one.
    ///
    /// # Errors
    /// Keys or ids can't be used, and those from before stay.
    pub fn reload_keys(self: &Arc<Self>) -> Result<(), KeyError> {
        self.verifier
            .store(Arc::new(Verifier::load(&self.settings.tokens).map_err(KeyError::kept)?));
        tracing::info!("the keys of tokens were read again");
        sweep(self, self.handle());
        Ok(())
    }
}
