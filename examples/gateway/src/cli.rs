//! The commands that make tokens and users, with the settings of the gateway.

use std::io::{self, BufRead as _, BufWriter, Write as _};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use ringwire::program::SetupError;
use ringwire::program::clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use ringwire::settings;
use tokio::runtime::Builder;
use uuid::Uuid;

use crate::auth::Signer;
use crate::settings::Settings;
use crate::users::{User, Users};

fn flag(name: &'static str, about: &'static str) -> Arg {
    Arg::new(name).long(name).help(about)
}

/// What both commands take.
fn whose() -> [Arg; 3] {
    [
        flag("id", "The user [default: a new one]").value_parser(value_parser!(Uuid)),
        flag("email", "The user's address [default: NAME@localhost]"),
        flag("role", "What the user may do, such as admin"),
    ]
}

/// `gateway token`
#[must_use]
pub fn token() -> Command {
    let number = |name, about| flag(name, about).value_parser(value_parser!(u64));
    Command::new("token")
        .about("Prints tokens that the gateway takes, one a line, for tests")
        .arg(flag("username", "The user's name").default_value("user"))
        .args(whose())
        .arg(number("lifetime", "How long they hold, in seconds").default_value("3600"))
        .arg(number("count", "So many, each for a user of its own").default_value("1"))
        .arg(
            flag("private-key", "A PEM file to sign with instead of JWT_SECRET")
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(flag("key-id", "Its name in the set of keys (`kid`)"))
}

/// `gateway user`
#[must_use]
pub fn user() -> Command {
    let switch = |name, about| flag(name, about).action(ArgAction::SetTrue);
    Command::new("user")
        .about("Adds a user to the database, or changes one, with a password from standard input")
        .arg(Arg::new("username").required(true).help("The user's name"))
        .args(whose())
        .arg(switch("inactive", "The user may not come in"))
        .arg(switch("no-password", "The user has no password, and comes with tokens alone"))
}

/// Whom a command is about.
fn user_of(words: &ArgMatches) -> User {
    let text = |name| words.get_one::<String>(name).cloned();
    let username = text("username").unwrap_or_default();
    User {
        id: words.get_one("id").copied().unwrap_or_else(Uuid::new_v4),
        email: text("email").unwrap_or_else(|| format!("{username}@localhost")),
        username,
        role: text("role"),
        active: !matches!(words.try_get_one("inactive"), Ok(Some(true))),
    }
}

/// Writes tokens that a gateway with these settings takes.
///
/// # Errors
/// There is nothing to sign with, or nobody to write to.
pub fn print_tokens(set: &settings::Settings, words: &ArgMatches) -> Result<(), SetupError> {
    let private_key = words.get_one::<PathBuf>("private-key").map(PathBuf::as_path);
    let key_id = words.get_one("key-id").cloned();
    let signer = Signer::load(&Settings::of(set)?.tokens, private_key, key_id)?;
    let number = |name| words.get_one::<u64>(name).copied().unwrap_or_default();
    let (now, lifetime) = (SystemTime::now(), Duration::from_secs(number("lifetime")));
    let user = user_of(words);
    let mut out = BufWriter::new(io::stdout().lock());
    for index in 1..=number("count") {
        let mut user = user.clone();
        if number("count") > 1 {
            user.id = Uuid::new_v4();
            user.username = format!("{}{index}", user.username);
        }
        writeln!(out, "{}", signer.sign(&user.claims(now, lifetime))?)?;
    }
    Ok(out.flush()?)
}

/// Writes a user into the database. Without one of that name there is another afterwards.
///
/// # Errors
/// There is no database, it failed, or there is no password.
pub fn add_user(set: &settings::Settings, words: &ArgMatches) -> Result<(), SetupError> {
    let settings = Settings::of(set)?;
    let url = settings.database_url.ok_or("users are in a database: set DATABASE_URL")?;
    let mut line = String::new();
    if !words.get_flag("no-password") {
        io::stdin().lock().read_line(&mut line)?;
    }
    let password = Some(line.trim_end_matches(['\r', '\n'])).filter(|text| !text.is_empty());
    if password.is_none() && !words.get_flag("no-password") {
        return Err("write a password to standard input, or say --no-password".into());
    }
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let user = user_of(words);
    runtime.block_on(async { Ok(Users::open(&url, 1, 1).await?.add(&user, password).await?) })
}
