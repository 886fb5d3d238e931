//! What all workers share, and the routes.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
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

/// The handler of a worker.
pub fn router(app: &Arc<App>, worker: &WorkerContext) -> impl Handler + use<> {
    app.handle.get_or_init(|| worker.handle().clone());
    let router = Router::new().websocket("/ws", Session::new(app.clone()));
    api::routes(router, app)
}
