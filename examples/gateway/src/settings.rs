//! What may be set: tables by which files, variables, flags and `--check` go.

use std::fmt::Display;
use std::num::NonZero;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ringwire::program::SetupError;
use ringwire::settings::{self, Origin, SettingsError, Sources};
use ringwire::{Backpressure, CloseCode, Config};

use crate::auth::{KeyFile, Secret};

/// Of a connection that does not read what is sent to it: come back.
const TOO_SLOW: CloseCode = CloseCode::new(4108);

/// A setting that the engine does not have: a flag, unless it is secret, a variable, and a name in a file.
#[derive(Debug)]
pub struct Own {
    /// Its name in a file; with dashes that of its flag.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// A variable beside `RINGWIRE_…`, which secret ones have.
    variable: Option<&'static str>,
}

impl Own {
    /// Whether nobody is to read it.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        self.variable.is_some()
    }
}

macro_rules! table {
    ($(#[$doc:meta])+ $type:ident, $prefix:literal, {$($inner:ident: $of:ty),*}
     $($name:ident: $kind:ty = $default:expr, $about:literal $(, $variable:literal)?;)+) => {
        $(#[$doc])+
        #[derive(Clone, Debug)]
        #[non_exhaustive]
        pub struct $type {
            $(#[doc = $about] pub $name: $kind,)+
            $(#[doc = "See there."] pub $inner: $of,)*
        }

        impl Default for $type {
            fn default() -> Self {
                Self { $($name: $default,)+ $($inner: Default::default(),)* }
            }
        }

        impl $type {
            const OWN: &[Own] = &[$(Own {
                name: concat!($prefix, stringify!($name)),
                about: $about,
                variable: [$(Some($variable),)? None][0],
            },)+];

            fn read(set: &settings::Settings) -> Result<Self, SettingsError> {
                let mut found = Self { $($inner: <$of>::read(set)?,)* ..Self::default() };
                $(if let Some(value) = Value::read(set, concat!($prefix, stringify!($name)))? {
                    found.$name = value;
                })+
                Ok(found)
            }
        }
    };
}

table! {
    /// The gateway's settings, beside the engine's.
    Settings, "", { tokens: TokenRules, rooms: RoomLimits }
    listen: Vec<String> = vec!["127.0.0.1:8000".to_owned()], "Where to listen: ADDRESS:PORT (port 0 takes a free one) or unix:PATH; several with commas [default: 127.0.0.1:8000]";
    tls_listen: Vec<String> = Vec::new(), "Where to listen for TLS as well";
    cert: Option<PathBuf> = None, "The certificate chain for TLS, a PEM file, leaf first; read again on SIGHUP";
    key: Option<PathBuf> = None, "Its private key, a PEM file";
    api_key: Option<Secret> = None, "What administrators may send as X-Api-Key instead of a token", "GATEWAY_API_KEY";
    database_url: Option<Secret> = None, "The users' database: sqlite:FILE or postgres://… [default: tokens are believed]", "DATABASE_URL";
    database_connections: u32 = 10, "The most connections to it [default: 10]";
    login: bool = false, "Whether users may log in by a first message with name and password: true or false [default: false]";
    login_timeout: Duration = Duration::from_secs(10), "How long that message may take [default: 10s]";
    login_lifetime: Duration = Duration::from_secs(3600), "How long a login holds [default: 1h]";
    max_connections_per_user: usize = 16, "The most connections of one user [default: 16]";
    cleanup_interval: Duration = Duration::from_secs(300), "How often stale connections are closed [default: 5m]";
    drain: Duration = Duration::from_secs(5), "Over which time connections are closed on SIGTERM and SIGINT, with 4112 [default: 5s]";
    shutdown_grace: Duration = Duration::from_secs(3), "How long they may take to close after that [default: 3s]";
    nats: Option<String> = None, "Servers of NATS by which this gateway is one node of several: nats://HOST:PORT, several with commas [default: it is alone]";
    node: Option<String> = None, "What the other nodes call this one [default: what the machine is called]";
    node_lease: Duration = Duration::from_secs(5), "How long a node may be silent until its users have gone [default: 5s]";
}

table! {
    /// What tokens have to be like.
    TokenRules, "jwt_", {}
    secret: Option<Secret> = None, "The secret of tokens that are signed with HS256", "JWT_SECRET";
    secret_file: Option<PathBuf> = None, "A file with that secret, which goes before it; white space at its end does not count; read again on SIGHUP";
    keys: Vec<KeyFile> = Vec::new(), "Files with public keys for tokens, PEM or JWKS, each as FILE or as ALGORITHM+ALGORITHM:FILE; read again on SIGHUP";
    audiences: Vec<String> = Vec::new(), "For whom tokens may be (`aud`) [default: tokens that name nobody]";
    issuers: Vec<String> = Vec::new(), "Who may have issued tokens (`iss`) [default: whoever has a key]";
    leeway: Duration = Duration::ZERO, "How far the clocks of issuers may be apart from this one [default: 0s]";
    revoked: Option<PathBuf> = None, "A file with the ids (`jti`) of revoked tokens, one a line; read again on SIGHUP, which also closes their connections";
}

table! {
    /// What rooms may be.
    #[derive(Copy)]
    RoomLimits, "rooms.", {}
    max_name_len: usize = 64, "The longest name of a room, in bytes [default: 64]";
    max_rooms_per_user: usize = 100, "The most rooms of one user, over all connections [default: 100]";
    max_members: usize = 10_000, "The most members of a room [default: 10000]";
    history: usize = 100, "Messages that a room keeps for clients that come back; 0: none [default: 100]";
    history_age: Duration = Duration::from_secs(300), "How long it keeps them [default: 5m]";
}

impl Settings {
    /// What this node is called, where it is one of several.
    #[must_use]
    pub fn node_name(&self) -> Option<String> {
        let is_node = self.nats.is_some() || self.node.is_some();
        let machine = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        is_node.then(|| self.node.clone().unwrap_or_else(machine))
    }
}

/// All settings that the engine does not have.
pub fn own() -> impl Iterator<Item = &'static Own> {
    Settings::OWN.iter().chain(TokenRules::OWN).chain(RoomLimits::OWN)
}

/// The sources of a program's settings: its file, and its variables.
///
/// # Errors
/// The file can't be read, or is no TOML.
pub fn sources(
    file: Option<PathBuf>,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<Sources, SettingsError> {
    let defaults = Sources::new(Config::default().with_backpressure(Backpressure::Close(TOO_SLOW)));
    let mut sources = own().fold(defaults, |sources, own| match own.is_secret() {
        true => sources.with_own_secret(own.name),
        false => sources.with_own(own.name),
    });
    if let Some(file) = file {
        sources = sources.with_file(file)?;
    }
    Ok(variables.fold(sources, |sources, (variable, text)| {
        match own().find(|own| own.variable == Some(&variable)) {
            Some(own) => sources.with_value(Origin::Variable(variable), own.name, text),
            None => sources.with_variables([(variable, text)]),
        }
    }))
}

impl Settings {
    /// What was set, with the defaults for the rest.
    ///
    /// # Errors
    /// A value makes no sense, or they don't go together.
    pub fn of(set: &settings::Settings) -> Result<Self, SetupError> {
        let settings = Self::read(set)?;
        if settings.login && settings.database_url.is_none() {
            return Err("login needs users with passwords: set DATABASE_URL".into());
        }
        Ok(settings)
    }
}

/// What a setting can be.
trait Value: Sized {
    /// `None` where nobody has set it.
    fn read(set: &settings::Settings, name: &str) -> Result<Option<Self>, SettingsError>;
}

macro_rules! values {
    ($($type:ty: |$set:ident, $name:ident| $read:expr;)+) => {$(
        impl Value for $type {
            fn read($set: &settings::Settings, $name: &str) -> Result<Option<Self>, SettingsError> {
                $read
            }
        }
    )+};
}

values! {
    bool: |set, name| set.own_as(name);
    u32: |set, name| Ok(set.own_as(name)?.map(NonZero::<Self>::get));
    usize: |set, name| Ok(set.own_as(name)?.map(NonZero::<Self>::get));
    Duration: |set, name| set.own_duration(name);
    Option<Secret>: |set, name| Ok(set.own(name).map(Secret::new));
    Option<PathBuf>: |set, name| Ok(set.own(name).map(|path| (!path.is_empty()).then(|| path.into())));
}

impl<T: FromStr<Err: Display>> Value for Vec<T> {
    fn read(set: &settings::Settings, name: &str) -> Result<Option<Self>, SettingsError> {
        Ok(set.own_as(name)?.map(|List(all)| all))
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
