//! What all workers share, and the routes.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use ringwire::{Handle, Handler, Router, WorkerContext};

use crate::api;
use crate::auth::Verifier;
use crate::metrics::Counters;
use crate::presence::Presence;
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
    /// The users, where they are in a database.
    pub users: Option<Users>,
    /// Who is online.
    pub presence: Presence,
    /// What is counted.
    pub counters: Counters,
    handle: OnceLock<Handle>,
}

impl App {
    /// What a gateway with these settings shares.
    #[must_use]
    pub fn new(settings: Settings, verifier: Verifier) -> Arc<Self> {
        Self::with_users(settings, verifier, None)
    }

    /// The same where users are in a database.
    #[must_use]
    pub fn with_users(settings: Settings, verifier: Verifier, users: Option<Users>) -> Arc<Self> {
        Arc::new(Self {
            presence: Presence::new(settings.max_connections_per_user),
            settings,
            verifier: ArcSwap::from_pointee(verifier),
            users,
            counters: Counters::default(),
            handle: OnceLock::new(),
        })
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
