//! What may be set, and how it is read.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ringwire::program::SetupError;
use ringwire::settings::{self, Origin, Sources};
use ringwire::{Backpressure, CloseCode, Config};

use crate::auth::{KeyFile, Secret, TokenRules};

/// Of a connection that does not read what is sent to it: come back.
const TOO_SLOW: CloseCode = CloseCode::new(4108);

/// A setting that the engine does not have: a flag, unless it is secret, a variable, and a name in a file.
#[derive(Debug)]
pub struct Own {
    /// Its name in a file; with dashes, and `-` for the dot, that of its flag.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// A variable beside `RINGWIRE_…`.
    variable: Option<&'static str>,
}

impl Own {
    /// Whether nobody is to read it.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        self.variable.is_some()
    }
}

const fn own(name: &'static str, about: &'static str) -> Own {
    Own { name, about, variable: None }
}

const fn secret(name: &'static str, variable: &'static str, about: &'static str) -> Own {
    Own { name, about, variable: Some(variable) }
}

/// All of them.
pub const OWN: [Own; 24] = [
    own(
        "listen",
        "Where to listen: ADDRESS:PORT (port 0 takes a free one) or unix:PATH; several with commas [default: 127.0.0.1:8000]",
    ),
    own("tls_listen", "Where to listen for TLS as well"),
    own("cert", "The certificate chain for TLS, a PEM file, leaf first; read again on SIGHUP"),
    own("key", "Its private key, a PEM file"),
    secret("jwt_secret", "JWT_SECRET", "The secret of tokens that are signed with HS256"),
    own("jwt_secret_file", "A file with such a secret; read again on SIGHUP"),
    own(
        "jwt_keys",
        "Files with public keys for tokens, PEM or JWKS, each as FILE or as ALGORITHM+ALGORITHM:FILE; read again on SIGHUP",
    ),
    own("jwt_audiences", "For whom tokens may be (`aud`) [default: tokens that name nobody]"),
    own("jwt_issuers", "Who may have issued tokens (`iss`) [default: whoever has a key]"),
    own("jwt_leeway", "How far the clocks of issuers may be apart from this one [default: 0s]"),
    own(
        "jwt_revoked",
        "A file with the ids (`jti`) of revoked tokens, one a line; read again on SIGHUP, which also closes their connections",
    ),
    secret(
        "api_key",
        "GATEWAY_API_KEY",
        "What administrators may send as X-Api-Key instead of a token",
    ),
    secret(
        "database_url",
        "DATABASE_URL",
        "The users' database: sqlite:FILE or postgres://… [default: tokens are believed]",
    ),
    own("database_connections", "The most connections to it [default: 10]"),
    own(
        "login",
        "Whether users may log in by a first message with name and password: true or false [default: false]",
    ),
    own("login_timeout", "How long that message may take [default: 10s]"),
    own("login_lifetime", "How long a login holds [default: 1h]"),
    own("max_connections_per_user", "The most connections of one user [default: 16]"),
    own("rooms.max_name_len", "The longest name of a room, in bytes [default: 64]"),
    own("rooms.max_rooms_per_user", "The most rooms of one user [default: 100]"),
    own("rooms.max_members", "The most members of a room [default: 10000]"),
    own("cleanup_interval", "How often stale connections are closed [default: 5m]"),
    own(
        "drain",
        "Over which time connections are closed on SIGTERM and SIGINT, with 4112 [default: 5s]",
    ),
    own("shutdown_grace", "How long they may take to close after that [default: 3s]"),
];

/// The sources of a program's settings: its file, and its variables.
///
/// # Errors
/// The file can't be read, or is no TOML.
pub fn sources(
    file: Option<PathBuf>,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<Sources, settings::SettingsError> {
    let defaults = Sources::new(Config::default().with_backpressure(Backpressure::Close(TOO_SLOW)));
    let mut sources = OWN.iter().fold(defaults, |sources, own| match own.is_secret() {
        true => sources.with_own_secret(own.name),
        false => sources.with_own(own.name),
    });
    if let Some(file) = file {
        sources = sources.with_file(file)?;
    }
    for (variable, text) in variables {
        sources = match OWN.iter().find(|own| own.variable == Some(&variable)) {
            Some(own) => sources.with_value(Origin::Variable(variable), own.name, text),
            None => sources.with_variables([(variable, text)]),
        };
    }
    Ok(sources)
}

/// The gateway's settings, beside the engine's.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// What tokens have to be like.
    pub tokens: TokenRules,
    /// What administrators may send as `X-Api-Key` instead of a token.
    pub api_key: Option<Secret>,
    /// The users' database.
    pub database_url: Option<Secret>,
    /// The most connections to it. Default: 10.
    pub database_connections: u32,
    /// Whether a connection without a token may name its user by its first message.
    pub login: bool,
    /// How long it may take until that message. Default: 10 s.
    pub login_timeout: Duration,
    /// How long such a login holds. Default: 1 h.
    pub login_lifetime: Duration,
    /// The most connections of one user. Default: 16.
    pub max_connections_per_user: usize,
    /// What rooms may be. Default: see there.
    pub rooms: RoomLimits,
    /// How often stale connections are closed. Default: 5 min.
    pub cleanup_interval: Duration,
    /// Over which time connections are closed on SIGTERM. Default: 5 s.
    pub drain: Duration,
    /// How long they may take to close after that. Default: 3 s.
    pub shutdown_grace: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tokens: TokenRules::default(),
            api_key: None,
            database_url: None,
            database_connections: 10,
            login: false,
            login_timeout: Duration::from_secs(10),
            login_lifetime: Duration::from_secs(3600),
            max_connections_per_user: 16,
            rooms: RoomLimits::default(),
            cleanup_interval: Duration::from_secs(300),
            drain: Duration::from_secs(5),
            shutdown_grace: Duration::from_secs(3),
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

impl Settings {
    /// What was set, with the defaults for the rest.
    ///
    /// # Errors
    /// A value makes no sense, or they don't go together.
    pub fn of(set: &settings::Settings) -> Result<Self, SetupError> {
        let default = Self::default();
        let secret = |name| set.own(name).and_then(Secret::new);
        let path = |name| set.own(name).filter(|path| !path.is_empty()).map(PathBuf::from);
        let list = |name| Ok::<_, SetupError>(set.own_as(name)?.unwrap_or(List(Vec::new())).0);
        let time = |name, default| Ok::<_, SetupError>(set.own_duration(name)?.unwrap_or(default));
        let count = |name, default| {
            let count = set.own_as::<NonZeroUsize>(name)?.map(NonZeroUsize::get);
            Ok::<_, SetupError>(count.unwrap_or(default))
        };
        let settings = Self {
            tokens: TokenRules {
                secret: secret("jwt_secret"),
                secret_file: path("jwt_secret_file"),
                keys: set.own_as::<List<KeyFile>>("jwt_keys")?.map_or_else(Vec::new, |keys| keys.0),
                audiences: list("jwt_audiences")?,
                issuers: list("jwt_issuers")?,
                leeway: time("jwt_leeway", Duration::ZERO)?,
                revoked: path("jwt_revoked"),
            },
            api_key: secret("api_key"),
            database_url: secret("database_url"),
            database_connections: set
                .own_as("database_connections")?
                .unwrap_or(default.database_connections),
            login: set.own_as("login")?.unwrap_or(default.login),
            login_timeout: time("login_timeout", default.login_timeout)?,
            login_lifetime: time("login_lifetime", default.login_lifetime)?,
            max_connections_per_user: count(
                "max_connections_per_user",
                default.max_connections_per_user,
            )?,
            rooms: RoomLimits {
                max_name_len: count("rooms.max_name_len", default.rooms.max_name_len)?,
                max_rooms_per_user: count(
                    "rooms.max_rooms_per_user",
                    default.rooms.max_rooms_per_user,
                )?,
                max_members: count("rooms.max_members", default.rooms.max_members)?,
            },
            cleanup_interval: time("cleanup_interval", default.cleanup_interval)?,
            drain: time("drain", default.drain)?,
            shutdown_grace: time("shutdown_grace", default.shutdown_grace)?,
        };
        if settings.login && settings.database_url.is_none() {
            return Err("login needs users with passwords: set DATABASE_URL".into());
        }
        Ok(settings)
    }
}

/// Several, with commas between them.
struct List<T>(Vec<T>);

impl<T: FromStr> FromStr for List<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}
