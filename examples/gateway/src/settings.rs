//! What may be set, beside the engine's settings and those of every program: names in a file, flags and variables.

use std::path::PathBuf;
use std::time::Duration;

use ringwire::settings::{self, OwnSettings as _, OwnValue, Secret, SettingsError};

use ringwire_nats::NatsHistory;
use ringwire_nats::async_nats::jetstream::stream::StorageType;

use crate::auth::KeyFile;

/// How long the last words of a room are known at least, by which it is seen that nothing is missing.
const SILENT_ROOMS: Duration = Duration::from_secs(24 * 3600);

ringwire::own_settings! {
    /// The gateway's settings.
    #[derive(Clone, Debug)]
    #[non_exhaustive]
    pub struct Settings in "" {
        /// What administrators may send as X-Api-Key instead of a token
        api_key: Option<Secret> = None, variable "GATEWAY_API_KEY";
        /// The users' database: sqlite:FILE (?mode=rwc makes it) or postgres://… [default: tokens are believed]
        database_url: Option<Secret> = None, variable "DATABASE_URL";
        /// The most connections to it [default: 10]
        database_connections: u32 = 10, at least 1;
        /// Whether users may log in by a first message with name and password: true or false [default: false]
        login: bool = false;
        /// How long that message may take, and then its check [default: 10s]
        login_timeout: Duration = Duration::from_secs(10);
        /// The most logins that are checked or wait for it; others are refused as `busy` [default: 128]
        max_logins: usize = 128, at least 1;
        /// How long a login holds [default: 1h]
        login_lifetime: Duration = Duration::from_secs(3600);
        /// The most connections of one user [default: 16]
        max_connections_per_user: usize = 16, at least 1;
        /// How often stale connections are closed [default: 5m]
        cleanup_interval: Duration = Duration::from_secs(300);
        /// Servers of NATS by which this gateway is one node of several: nats://HOST:PORT, several with commas [default: it is alone]
        nats: Option<String> = None;
        /// What the other nodes call this one [default: what the machine is called]
        node: Option<String> = None;
        /// Where JetStream keeps what is said in rooms, for all nodes: memory, file, or off [default: off]
        nats_history: SharedHistory = SharedHistory::Off;
        /// On how many servers of NATS [default: 1]
        nats_history_replicas: usize = 1, at least 1;
        /// The most bytes of all rooms together [default: 268435456]
        nats_history_max_len: usize = 256 << 20, at least 1;
        /// How long what is said waits for JetStream until each node numbers by itself [default: 3s]
        nats_history_patience: Duration = Duration::from_secs(3);
        /// How long a node may be silent until its users have gone [default: 5s]
        node_lease: Duration = Duration::from_secs(5);
        ..tokens: TokenRules;
        ..rooms: RoomLimits;
    }

    /// What tokens have to be like.
    #[derive(Clone, Debug)]
    #[non_exhaustive]
    pub struct TokenRules in "jwt_" {
        /// The secret of tokens that are signed with HS256
        secret: Option<Secret> = None, variable "JWT_SECRET";
        /// A file with that secret, which goes before it; white space at its end does not count; read again on SIGHUP
        secret_file: Option<PathBuf> = None;
        /// Files with public keys for tokens, PEM or JWKS, each as FILE or as ALGORITHM+ALGORITHM:FILE; read again on SIGHUP
        keys: Vec<KeyFile> = Vec::new();
        /// For whom tokens may be (`aud`) [default: tokens that name nobody]
        audiences: Vec<String> = Vec::new();
        /// Who may have issued tokens (`iss`) [default: whoever has a key]
        issuers: Vec<String> = Vec::new();
        /// How far the clocks of issuers may be apart from this one [default: 0s]
        leeway: Duration = Duration::ZERO;
        /// A file with the ids (`jti`) of revoked tokens, one a line; read again on SIGHUP, which also closes their connections
        revoked: Option<PathBuf> = None;
    }

    /// What rooms may be.
    #[derive(Clone, Copy, Debug)]
    #[non_exhaustive]
    pub struct RoomLimits in "rooms." {
        /// The longest name of a room, in bytes [default: 64]
        max_name_len: usize = 64, at least 1;
        /// The most rooms of one user, over all connections [default: 100]
        max_rooms_per_user: usize = 100, at least 1;
        /// The most members of a room, on each node [default: 10000]
        max_members: usize = 10_000, at least 1;
        /// Messages that a room keeps for clients that come back; 0: none [default: 100]
        history: usize = 100;
        /// How long it keeps them [default: 5m]
        history_age: Duration = Duration::from_secs(300);
    }
}

/// Where what is said in rooms is kept for all nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedHistory {
    /// Each node keeps what it hears.
    Off,
    /// In the memory of NATS.
    Memory,
    /// In its files.
    File,
}

impl OwnValue for SharedHistory {
    fn read(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "memory" => Ok(Self::Memory),
            "file" => Ok(Self::File),
            _ => Err("expected off, memory or file".to_owned()),
        }
    }
}

impl Settings {
    /// How JetStream keeps what is said in rooms, if it does.
    #[must_use]
    pub fn history(&self) -> Option<NatsHistory> {
        let storage = match self.nats_history {
            SharedHistory::Off => return None,
            SharedHistory::Memory => StorageType::Memory,
            SharedHistory::File => StorageType::File,
        };
        let history = NatsHistory::default()
            .with_storage(storage)
            .with_replicas(self.nats_history_replicas)
            .with_max_count(self.rooms.history)
            .with_max_len(self.nats_history_max_len)
            .with_patience(self.nats_history_patience);
        Some(history.with_max_age(self.rooms.history_age.max(SILENT_ROOMS)))
    }

    /// What this node is called, where it is one of several.
    #[must_use]
    pub fn node_name(&self) -> Option<String> {
        let is_node = self.nats.is_some() || self.node.is_some();
        let machine = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        is_node.then(|| self.node.clone().unwrap_or_else(machine))
    }

    /// What was set, with the defaults for the rest.
    ///
    /// # Errors
    /// A value makes no sense, or they don't go together.
    pub fn of(set: &settings::Settings) -> Result<Self, SettingsError> {
        let settings = Self::read(set)?;
        if settings.login && settings.database_url.is_none() {
            return Err(set.wrong("login", "it needs users with passwords: set DATABASE_URL"));
        }
        if settings.nats_history != SharedHistory::Off {
            if settings.nats.is_none() {
                return Err(set.wrong("nats_history", "it is for nodes of a cluster: set nats"));
            }
            if settings.rooms.history == 0 {
                return Err(set.wrong("nats_history", "rooms keep nothing: set rooms.history"));
            }
        }
        Ok(settings)
    }
}
