//! What all workers share, and the routes.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use ringwire::program::{Setup, SetupError};
use ringwire::{Handle, Handler, Router, WorkerContext};
use tokio::runtime::Handle as Runtime;
use tokio::task::JoinHandle;

use crate::api;
use crate::auth::Verifier;
use crate::clock::{Board, Clock};
use crate::cluster::Cluster;
use crate::metrics::Counters;
use crate::presence::Presence;
use crate::rooms::Rooms;
use crate::session::Session;
use crate::settings::Settings;
use crate::users::Users;

/// A secret should be as long as what HS256 makes of it (RFC 7518 §3.2).
const MIN_SECRET_LEN: usize = 32;

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
    /// The other nodes, where there are any.
    pub cluster: Option<Cluster>,
    /// Where users are looked up, and the runtime that this goes by.
    database: Option<(Users, Runtime)>,
    /// What the gateway did in the last minutes.
    pub board: Board,
    /// What happens by the clock, where that was started.
    pub clock: OnceLock<Clock>,
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
        Arc::new(Self {
            presence: Presence::new(settings.max_connections_per_user),
            rooms: Rooms::new(settings.rooms),
            cluster: settings.node_name().map(|name| Cluster::new(&name, settings.node_lease)),
            database,
            settings,
            verifier: ArcSwap::from_pointee(verifier),
            counters: Counters::default(),
            board: Board::default(),
            clock: OnceLock::new(),
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

    /// Asks the database.
    ///
    /// # Panics
    /// There is none.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        query: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        let (_, runtime) = self.database.as_ref().expect("who asks has seen the users");
        runtime.spawn(query)
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
    if settings.tokens.secret.as_ref().is_some_and(|it| it.reveal().len() < MIN_SECRET_LEN) {
        tracing::warn!(
            "JWT_SECRET is short: with fewer than {MIN_SECRET_LEN} bytes it can be guessed"
        );
    }
    let open = |url| {
        // Its threads talk to the database and check passwords. The workers poll, and serve the clients.
        let runtime = setup.runtime()?;
        match runtime.block_on(Users::open(url, settings.database_connections)) {
            Ok(users) => Ok::<_, SetupError>((users, runtime)),
            Err(error) => Err(format!("the database: {error}").into()),
        }
    };
    let database = settings.database_url.as_ref().map(open).transpose()?;
    *setup.config_mut() = settings.rooms.keep(setup.config().clone());
    let app = App::new(settings, verifier, database);
    Clock::start(&app)?;
    let renewing = app.clone();
    setup.on_reload(move || Ok(renewing.reload_keys()?));
    Ok(app)
}

/// The handler of a worker.
pub fn router(app: &Arc<App>, worker: &WorkerContext) -> impl Handler + use<> {
    if app.handle.set(worker.handle().clone()).is_ok() {
        Cluster::start(app);
    }
    let router = Router::new().websocket("/ws", Session::new(app.clone()));
    api::routes(router, app)
}
