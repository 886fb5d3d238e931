//! What may be set.

use std::time::Duration;

/// The gateway's settings, beside the engine's.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// The secret of tokens that are signed with HS256.
    pub jwt_secret: Option<String>,
    /// What administrators may send as `X-Api-Key` instead of a token.
    pub api_key: Option<String>,
    /// Whether a connection without a token may name its user by its first message.
    pub login: bool,
    /// How long it may take until that message. Default: 10 s.
    pub login_timeout: Duration,
    /// The most connections of one user. Default: 16.
    pub max_connections_per_user: usize,
    /// What rooms may be. Default: see there.
    pub rooms: RoomLimits,
    /// How often stale connections are closed. Default: 5 min.
    pub cleanup_interval: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            jwt_secret: None,
            api_key: None,
            login: false,
            login_timeout: Duration::from_secs(10),
            max_connections_per_user: 16,
            rooms: RoomLimits::default(),
            cleanup_interval: Duration::from_secs(300),
        }
    }
}

/// What rooms may be.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct RoomLimits {
    /// The longest name, in bytes. Default: 64.
    pub max_name_len: usize,
    /// The most rooms of one user, over all connections. Default: 100.
    pub max_rooms_per_user: usize,
    /// The most members of a room. Default: 10 000.
    pub max_members: usize,
}

impl Default for RoomLimits {
    fn default() -> Self {
        Self { max_name_len: 64, max_rooms_per_user: 100, max_members: 10_000 }
    }
}
