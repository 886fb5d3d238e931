//! What all workers share, and the routes.

use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use ringwire::program::{Setup, SetupError};
use ringwire::{Handle, Handler, Router, WorkerContext};
use tokio::runtime::Handle as Runtime;
use tokio::sync::Notify;

use crate::api;
use crate::auth::{Claims, KeyError, Refused, Verifier};
use crate::clock::{self, Board};
use crate::metrics::Counters;
use crate::presence::{self, Presence};
use crate::rooms::Rooms;
use crate::session::Session;
use crate::settings::Settings;
use crate::users::Users;

/// What all workers share.
#[derive(Debug)]
pub struct App {
    /// What was set.
    pub settings: Settings,
    /// What tokens are verified with. Another one takes its place on SIGHUP.
    pub verifier: ArcSwap<Verifier>,
    /// Who is online.
    pub presence: Presence,
    /// Who is in which room.
    pub rooms: Rooms,
    /// What is counted.
    pub counters: Counters,
    /// Since when it counts.
    pub(crate) started: Instant,
    /// Where users are looked up, and the runtime that this goes by.
    pub(crate) database: Option<(Users, Runtime)>,
    /// What the gateway did in the last minutes.
    pub board: Board,
    /// Told when stale connections are to be closed at once.
    pub(crate) sweep_now: Notify,
    pub(crate) handle: OnceLock<Handle>,
}

impl App {
    /// What a gateway with these settings shares. Without a database, claims are believed.
    #[must_use]
    pub fn new(
        settings: Settings,
        verifier: Verifier,
        database: Option<(Users, Runtime)>,
    ) -> Arc<Self> {
        let presence = Presence::new(settings.max_connections_per_user);
        Arc::new(Self {
            presence: match settings.node_name() {
                Some(name) => presence.with_node(&name, settings.node_lease),
                None => presence,
            },
            rooms: Rooms::new(settings.rooms.limits()),
            started: Instant::now(),
            database,
            settings,
            verifier: ArcSwap::from_pointee(verifier),
            counters: Counters::default(),
            board: Board::default(),
            sweep_now: Notify::new(),
            handle: OnceLock::new(),
        })
    }

    /// Where users are looked up.
    #[must_use]
    pub fn users(&self) -> Option<&Users> {
        self.database.as_ref().map(|(users, _)| users)
    }

    /// Whether a connection may begin without a token, with a login.
    pub(crate) fn can_login(&self) -> bool {
        self.settings.login && self.database.is_some()
    }

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

    /// Who a name and a password stand for.
    ///
    /// # Errors
    /// They are wrong, nobody may log in, or the user is inactive.
    pub async fn login(&self, username: &str, password: &str) -> Result<Claims, Refused> {
        let users = self.users().filter(|_| self.settings.login);
        let user = users.ok_or(Refused::Credentials)?.login(username, password).await?;
        Ok(user.claims(SystemTime::now(), self.settings.login_lifetime))
    }

    /// Reads the keys and the revoked ids again.
    ///
    /// # Errors
    /// Keys or ids can't be used, and those from before stay.
    pub fn reload_keys(&self) -> Result<(), KeyError> {
        self.verifier.store(Arc::new(Verifier::load(&self.settings.tokens)?));
        tracing::info!("the keys of tokens were read again");
        Ok(())
    }

    /// The server that it runs in.
    ///
    /// # Panics
    /// It runs in none: no [`router`] has been made.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        self.handle.get().expect("a router is made before anybody can ask")
    }
}

/// Gets everything ready that the settings of a program name.
///
/// # Errors
/// Keys can't be used, or the database can't.
pub fn start(setup: &mut Setup<'_>) -> Result<Arc<App>, SetupError> {
    let settings = Settings::of(setup)?;
    let verifier = Verifier::load(&settings.tokens)?;
    // Its threads talk to the database and check passwords. The workers poll, and serve the clients.
    let runtime = setup.runtime()?;
    let url = settings.database_url.as_ref();
    let users = url.map(|url| {
        runtime.block_on(Users::open(url, settings.database_connections, settings.max_logins))
    });
    let users = users.transpose().map_err(|error| format!("the database: {error}"))?;
    *setup.config_mut() = settings.rooms.keep(setup.config().clone());
    let app = App::new(settings, verifier, users.map(|users| (users, runtime.clone())));
    clock::start(&app, &runtime);
    let renewing = app.clone();
    setup.on_reload(move || {
        let kept = |error| format!("cannot reload the token keys, the old ones stay: {error}");
        renewing.reload_keys().map_err(kept)?;
        // Signals are not to wait for a database.
        renewing.sweep_now.notify_one();
        Ok(())
    });
    Ok(app)
}

/// The handler of a worker.
pub fn router(app: &Arc<App>, worker: &WorkerContext) -> impl Handler + use<> {
    if app.handle.set(worker.handle().clone()).is_ok() {
        presence::start(app, worker.handle());
        if app.presence.nodes().is_some() {
            app.rooms.start(worker.handle());
        }
    }
    let router = Router::new().websocket("/ws", Session::new(app.clone()));
    api::routes(router, app)
}
