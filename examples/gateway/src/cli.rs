//! The program's command line: flags, `--check`, and the commands that make tokens and users.

use std::ffi::OsString;
use std::io::{self, BufRead as _, BufWriter, Write as _};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use ringwire::program::SetupError;
use ringwire::settings::{self, SettingsError};
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::auth::Signer;
use crate::settings::{Settings, own, sources};
use crate::users::{User, Users};

/// The engine's settings that have a flag of their own, and `--set` for the others.
const ENGINE: [(&str, &str, &str); 8] = [
    ("driver", "driver", "The kernel back end: auto, epoll or uring"),
    ("io_workers", "io_workers", "Threads that do IO: a number, or auto"),
    ("compute_workers", "compute_workers", "Threads beside them for what takes long"),
    ("pin", "pinning", "The cores of the IO workers: a list such as 0,1, none or auto"),
    ("max_message", "protocol.max_message_len", "The longest message, such as 64KiB"),
    ("idle_timeout", "idle_timeout", "How long a connection may be silent, such as 90s, or off"),
    ("max_connections", "max_connections", "The most connections, or auto"),
    ("compression", "compression.mode", "Compression of messages: off, shared or dedicated"),
];

/// What somebody wants of the program.
#[derive(Debug)]
pub enum Order {
    /// To serve.
    Serve(Box<settings::Settings>, Box<Settings>),
    /// To read what is set.
    Check(Box<settings::Settings>, Box<Settings>),
    /// Tokens for tests.
    Token(Box<Settings>, ArgMatches),
    /// Another user in the database.
    User(Box<Settings>, ArgMatches),
    /// To read something that is written already, help or an error.
    Read(clap::Error),
}

/// What the arguments and variables of a program stand for.
///
/// # Errors
/// A setting makes no sense.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Order, SetupError> {
    let matches = match command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => return Ok(Order::Read(error)),
    };
    let set = load(&matches, variables)?;
    let settings = Box::new(Settings::of(&set)?);
    Ok(match matches.subcommand() {
        Some(("token", order)) => Order::Token(settings, order.clone()),
        Some((_, order)) => Order::User(settings, order.clone()),
        None if matches.get_flag("check") => Order::Check(Box::new(set), settings),
        None => Order::Serve(Box::new(set), settings),
    })
}

fn command() -> Command {
    let flag =
        |name: &'static str, about: &'static str| Arg::new(name).long(dashed(name)).help(about);
    let path = |name, about| flag(name, about).value_parser(value_parser!(PathBuf));
    let switch = |name, about| flag(name, about).action(ArgAction::SetTrue);
    let setting = |name, about| flag(name, about).action(ArgAction::Append).global(true);
    let whose = [
        flag("id", "The user [default: a new one]").value_parser(value_parser!(Uuid)),
        flag("email", "The user's address [default: NAME@localhost]"),
        flag("role", "What the user may do, such as admin"),
    ];
    let token = Command::new("token")
        .about("Prints tokens that the gateway takes, one a line, for tests")
        .arg(flag("username", "The user's name").default_value("user"))
        .args(&whose)
        .arg(
            flag("lifetime", "How long they hold, in seconds")
                .default_value("3600")
                .value_parser(value_parser!(u64)),
        )
        .arg(
            flag("count", "So many, each for a user of its own")
                .default_value("1")
                .value_parser(value_parser!(usize)),
        )
        .arg(path("private_key", "A PEM file to sign with instead of JWT_SECRET"))
        .arg(flag("key_id", "Its name in the set of keys (`kid`)"));
    let user = Command::new("user")
        .about("Adds a user to the database, or changes one, with a password from standard input")
        .arg(Arg::new("username").required(true).help("The user's name"))
        .args(whose)
        .arg(switch("inactive", "The user may not come in"))
        .arg(switch("no_password", "The user has no password, and comes with tokens alone"));
    Command::new("gateway")
        .about("A gateway for messages between users: WebSockets behind JSON Web Tokens")
        .version(env!("CARGO_PKG_VERSION"))
        .arg(path("config", "A TOML file with settings").global(true))
        .arg(switch("check", "Checks the settings and the keys, prints what is in effect and where it comes from, and ends"))
        .arg(setting("set", "Any setting, as NAME=VALUE; may be given several times"))
        .args(own().filter(|own| !own.is_secret()).map(|own| setting(own.name, own.about)))
        .args(ENGINE.iter().map(|(name, _, about)| setting(name, about)))
        .subcommand(token)
        .subcommand(user)
}

/// `rooms.max_members` as a flag has it.
fn dashed(name: &str) -> String {
    name.replace(['_', '.'], "-")
}

fn load(
    matches: &ArgMatches,
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<settings::Settings, SettingsError> {
    let text = |text: OsString| text.to_string_lossy().into_owned();
    let (config, variables): (Vec<_>, Vec<_>) =
        variables.partition(|(name, _)| name == "RINGWIRE_CONFIG");
    let file = matches.get_one("config").cloned();
    let file = file.or_else(|| config.into_iter().next().map(|(_, path)| path.into()));
    let variables = variables.into_iter().map(|(name, value)| (text(name), text(value)));
    let mut sources = sources(file, variables)?;
    let own = own().filter(|own| !own.is_secret()).map(|own| (own.name, own.name));
    for (flag, setting) in own.chain(ENGINE.iter().map(|(flag, setting, _)| (*flag, *setting))) {
        if let Some(values) = matches.get_many::<String>(flag) {
            let values: Vec<_> = values.map(String::as_str).collect();
            sources = sources.with_flag(format!("--{}", dashed(flag)), setting, values.join(","));
        }
    }
    for setting in matches.get_many::<String>("set").into_iter().flatten() {
        let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
        sources = sources.with_flag("--set", name.trim(), value);
    }
    sources.load()
}

/// Whom a command is about.
fn user(order: &ArgMatches) -> User {
    let text = |name| order.get_one::<String>(name).cloned();
    let username = text("username").unwrap_or_default();
    User {
        id: order.get_one("id").copied().unwrap_or_else(Uuid::new_v4),
        email: text("email").unwrap_or_else(|| format!("{username}@localhost")),
        username,
        role: text("role"),
        active: !matches!(order.try_get_one("inactive"), Ok(Some(true))),
    }
}

/// Writes tokens that a gateway with these settings takes.
///
/// # Errors
/// There is nothing to sign with, or nobody to write to.
pub fn print_tokens(
    settings: &Settings,
    order: &ArgMatches,
    now: SystemTime,
    to: impl io::Write,
) -> Result<(), SetupError> {
    let private_key = order.get_one::<PathBuf>("private_key").map(PathBuf::as_path);
    let signer = Signer::load(&settings.tokens, private_key, order.get_one("key_id").cloned())?;
    let lifetime = order.get_one("lifetime").copied().map_or(Duration::ZERO, Duration::from_secs);
    let count: usize = order.get_one("count").copied().unwrap_or(1);
    let user = user(order);
    let mut to = BufWriter::new(to);
    for number in 1..=count {
        let mut user = user.clone();
        if count > 1 {
            user.id = Uuid::new_v4();
            user.username = format!("{}{number}", user.username);
        }
        writeln!(to, "{}", signer.sign(&user.claims(now, lifetime))?)?;
    }
    Ok(to.flush()?)
}

/// Writes a user into the database. Without one of that name there is another afterwards.
///
/// # Errors
/// There is no database, it failed, or there is no password.
pub fn add_user(
    settings: &Settings,
    order: &ArgMatches,
    runtime: &Runtime,
) -> Result<(), SetupError> {
    let url = settings.database_url.as_ref().ok_or("users are in a database: set DATABASE_URL")?;
    let mut line = String::new();
    let password = if order.get_flag("no_password") {
        None
    } else {
        io::stdin().lock().read_line(&mut line)?;
        let password = line.trim_end_matches(['\r', '\n']);
        let missing = "write a password to standard input, or say --no-password";
        Some(password).filter(|text| !text.is_empty()).ok_or(missing)?.into()
    };
    runtime.block_on(async { Ok(Users::open(url, 1).await?.add(&user(order), password).await?) })
}
