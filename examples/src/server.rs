//! What the servers among the programs share: their flags, their settings, and a run from start to signal.
//!
//! The flags stay as they are, since scripts use them; each can also be given in the environment, as `RINGWIRE_` and
//! its name, and all settings in a file (docs/configuration.md).

use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser};
use ringwire::activation::{self, InheritedSocket};
use ringwire::settings::{ConfigError, Loaded, Origin, Sources};
use ringwire::takeover::Takeover;
use ringwire::{
    CloseCode, Config, Handler, Notifier, Server, shutdown::Drain, transport::Listener,
};

use crate::units::parse_duration;
use crate::{Certificate, announce, handle_signals, note};

/// How long connections may take to close on SIGTERM or SIGINT.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);
/// What clients are told when another process takes over: come back (RFC 6455 §7.4.2, IANA's registry).
const SERVICE_RESTART: CloseCode = CloseCode::new(1012);
/// Where it listens if nobody says anything.
const DEFAULT_ADDRESS: &str = "127.0.0.1:9001";

/// Runs a server, each worker with a copy of the handler, until SIGTERM or SIGINT: with the settings that file,
/// environment and flags give, of which `adjust` makes what the program needs. `about` is for `--help`.
///
/// # Errors
/// A certificate cannot be used, an address cannot be listened on, or a worker failed.
pub fn run_server<H: Handler + Copy + Send + Sync + 'static>(
    about: &'static str,
    adjust: impl FnOnce(Config) -> Config,
    handler: H,
) -> Result<ExitCode> {
    let matches = Flags::command().about(about).get_matches();
    let flags = Flags::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let loaded = match load(&flags, &matches) {
        Ok(loaded) => loaded,
        Err(error) => {
            note!("error: {error}");
            return Ok(ExitCode::from(2));
        }
    };
    if flags.check {
        std::io::stdout().write_all(loaded.report().to_string().as_bytes())?;
    } else {
        let config = adjust(loaded.config().clone());
        serve(&flags, &loaded, config, handler)?;
    }
    Ok(ExitCode::SUCCESS)
}

const CONFIG_VARIABLE: &str = "RINGWIRE_CONFIG";
const TAKEOVER_VARIABLE: &str = "RINGWIRE_TAKEOVER";
const DRAIN_VARIABLE: &str = "RINGWIRE_DRAIN";

/// Flags win over the environment, that over the file.
#[derive(Debug, Parser)]
#[command(version)]
struct Flags {
    /// A TOML file with settings.
    #[arg(long, env = CONFIG_VARIABLE)]
    config: Option<PathBuf>,
    /// Prints the settings in effect and where each comes from, and ends.
    #[arg(long)]
    check: bool,
    /// Any setting, as NAME=VALUE. May be given several times.
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// A Unix socket at which a process that is started with the same flags takes over: it gets the listening sockets,
    /// and this one closes its connections with 1012 and ends. So a new version refuses no connection.
    #[arg(long, value_name = "PATH", env = TAKEOVER_VARIABLE)]
    takeover: Option<PathBuf>,
    /// Over which time the connections are closed then.
    #[arg(long, value_name = "TIME", env = DRAIN_VARIABLE, default_value = "10s", value_parser = parse_duration)]
    drain: Duration,
    #[command(flatten)]
    settings: SettingFlags,
}

/// Flags that stand for settings.
#[derive(Debug, Parser)]
struct SettingFlags {
    /// Where to listen: ADDRESS:PORT (port 0 takes a free one), `unix:PATH` or `unix:PATH?mode=660`, or `inherited` or
    /// `inherited:NAME` for what the service manager made. May be given several times. Default: 127.0.0.1:9001.
    #[arg(long, env = "RINGWIRE_LISTEN")]
    listen: Vec<String>,
    /// Where to listen for TLS as well. May be given several times.
    #[arg(long, env = "RINGWIRE_TLS_LISTEN")]
    tls_listen: Vec<String>,
    /// The certificate chain for TLS, a PEM file, leaf first. It is read again on SIGHUP.
    #[arg(long, env = "RINGWIRE_CERT")]
    cert: Option<String>,
    /// Its private key, a PEM file.
    #[arg(long, env = "RINGWIRE_KEY")]
    key: Option<String>,
    /// Threads that do IO; 0: one for each core.
    #[arg(long, env = "RINGWIRE_IO_WORKERS")]
    io_workers: Option<String>,
    /// Threads beside them that take over the costly part of TLS handshakes.
    #[arg(long, env = "RINGWIRE_COMPUTE_WORKERS")]
    compute_workers: Option<String>,
    /// The kernel back end: auto, epoll or uring.
    #[arg(long, env = "RINGWIRE_DRIVER")]
    driver: Option<String>,
    /// The cores of the IO workers: a list such as 0,1, `none`, or `auto`, one core for each.
    #[arg(long, env = "RINGWIRE_PIN")]
    pin: Option<String>,
    /// Which worker gets a connection that comes in: reuseport or least-loaded.
    #[arg(long, env = "RINGWIRE_ASSIGNMENT")]
    assignment: Option<String>,
    /// The longest message, such as 64MiB.
    #[arg(long, env = "RINGWIRE_MAX_MESSAGE")]
    max_message: Option<String>,
    /// How long a connection may be silent, such as 90s; 0: for ever, and no pings are sent.
    #[arg(long, env = "RINGWIRE_IDLE_TIMEOUT")]
    idle_timeout: Option<String>,
    /// Compression of messages (permessage-deflate): off, shared or dedicated.
    #[arg(long, env = "RINGWIRE_COMPRESSION")]
    compression: Option<String>,
    /// The shortest message that is compressed, such as 1KiB.
    #[arg(long, env = "RINGWIRE_COMPRESSION_THRESHOLD")]
    compression_threshold: Option<String>,
    /// How much work is done for a smaller output: 1 to 9.
    #[arg(long, env = "RINGWIRE_COMPRESSION_LEVEL")]
    compression_level: Option<String>,
}

/// What a file may say beside the engine's settings.
const OWN: [&str; 4] = ["listen", "tls_listen", "cert", "key"];

/// Which setting a flag stands for, where the names differ.
fn setting_of(flag: &str) -> &str {
    match flag {
        "pin" => "pinning",
        "max_message" => "protocol.max_message_len",
        "compression" => "compression.mode",
        "compression_threshold" => "compression.threshold",
        "compression_level" => "compression.level",
        same => same,
    }
}

/// Puts file, environment and flags together.
fn load(flags: &Flags, matches: &ArgMatches) -> Result<Loaded, ConfigError> {
    let mut sources = OWN.into_iter().fold(Sources::default(), Sources::with_own);
    if let Some(path) = &flags.config {
        sources = sources.with_file(path)?;
    }
    let mut of_flags =
        [CONFIG_VARIABLE, TAKEOVER_VARIABLE, DRAIN_VARIABLE].map(str::to_owned).to_vec();
    for argument in SettingFlags::command().get_arguments() {
        let flag = argument.get_id().as_str();
        let variable = argument.get_env().map(|name| name.to_string_lossy().into_owned());
        let Some(texts) = matches.get_raw(flag) else {
            of_flags.extend(variable);
            continue;
        };
        let texts: Vec<_> = texts.map(|text| text.to_string_lossy()).collect();
        let origin = match (matches.value_source(flag), &variable) {
            (Some(ValueSource::EnvVariable), Some(variable)) => Origin::Variable(variable.clone()),
            _ => Origin::Flag(format!("--{}", flag.replace('_', "-"))),
        };
        sources = sources.with_value(origin, setting_of(flag), texts.join(","));
        of_flags.extend(variable);
    }
    for setting in &flags.set {
        let (name, text) = setting.split_once('=').unwrap_or((setting, ""));
        sources = sources.with_flag("--set", name.trim(), text);
    }
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    let variables = std::env::vars_os().map(|(name, value)| (text(name), text(value)));
    let sources = sources.with_variables(variables.filter(|(name, _)| !of_flags.contains(name)));
    let loaded = sources.clone().load()?;
    // Without a limit on silence nobody needs the pings that would break it.
    if loaded.config().idle_timeout.is_zero() && loaded.origin("ping_interval") == Origin::Default {
        let origin = loaded.origin("idle_timeout");
        return sources.with_value(origin, "ping_interval", "0").load();
    }
    Ok(loaded)
}

fn addresses<'a>(
    loaded: &'a Loaded,
    name: &str,
    default: &'a str,
) -> impl Iterator<Item = &'a str> {
    let list = loaded.own(name).unwrap_or(default);
    list.split(',').map(str::trim).filter(|address| !address.is_empty())
}

/// The listeners that an address stands for, those of the service manager out of `inherited`.
fn listeners(address: &str, inherited: &mut Vec<InheritedSocket>) -> Result<Vec<Listener>> {
    if let Some(path) = address.strip_prefix("unix:") {
        let Some((path, mode)) = path.split_once("?mode=") else {
            return Ok(vec![Listener::unix(path)]);
        };
        let mode = u32::from_str_radix(mode, 8).ok().filter(|mode| *mode <= 0o777);
        let mode = mode.with_context(|| format!("{address}: a mode is octal, such as 660"))?;
        return Ok(vec![Listener::unix(path).with_mode(mode)]);
    }
    let Some(name) = address.strip_prefix("inherited") else {
        return Ok(vec![Listener::address(address)]);
    };
    let name = name.strip_prefix(':');
    let wanted = |socket: &mut InheritedSocket| name.is_none_or(|name| socket.name() == Some(name));
    let found: Vec<_> = inherited.extract_if(.., wanted).collect();
    anyhow::ensure!(!found.is_empty(), "the service manager made no socket for {address}");
    Ok(found.into_iter().map(|socket| Listener::socket(socket.into_fd())).collect())
}

fn serve<H: Handler + Copy + Send + Sync + 'static>(
    flags: &Flags,
    loaded: &Loaded,
    config: Config,
    handler: H,
) -> Result<()> {
    let mut server = Server::new(config);
    let mut inherited = activation::sockets()?;
    for address in addresses(loaded, "listen", DEFAULT_ADDRESS) {
        server = listeners(address, &mut inherited)?.into_iter().fold(server, Server::listen_with);
    }
    let mut secure = addresses(loaded, "tls_listen", "").peekable();
    if secure.peek().is_some() {
        let path = |name| loaded.own(name).map(PathBuf::from);
        let tls = Certificate { cert: path("cert"), key: path("key") }.server()?;
        for address in secure {
            for listener in listeners(address, &mut inherited)? {
                server = server.listen_with(listener.with_tls(tls.clone()));
            }
        }
    }
    let mut takeover =
        flags.takeover.as_ref().map(Takeover::at).transpose().context("--takeover")?;
    if let Some(takeover) = &mut takeover {
        server = server.inherit(takeover.sockets());
    }
    let server = server.start(move |_worker| handler)?;
    handle_signals(server.handle(), SHUTDOWN_LIMIT).context("cannot handle signals")?;
    announce(server.urls().map(|url| format!("listening on {url}")));
    if let Some(notifier) = Notifier::from_environment()? {
        notifier.ready().context("cannot tell the service manager")?;
        notifier.watch(server.handle())?;
    }
    if let Some(mut takeover) = takeover {
        match takeover.ready() {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                server.handle().shutdown(SHUTDOWN_LIMIT);
                server.join()?;
                return Err(error).context("--takeover");
            }
            Err(error) => {
                tracing::warn!(%error, "the predecessor may not know that this server took over");
            }
            Ok(()) => {}
        }
        takeover.watch(server.handle(), Drain::new(flags.drain, SERVICE_RESTART))?;
    }
    server.join()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unix_socket_may_have_a_mode() {
        for (address, path, mode) in [
            ("unix:/run/a", "/run/a", "None"),
            ("unix:/run/a?mode=660", "/run/a", "Some(432)"),
            ("unix:/run/a?mode=0600", "/run/a", "Some(384)"),
        ] {
            let text = format!("{:?}", listeners(address, &mut Vec::new()).unwrap());
            assert!(text.contains(&format!("path: {path:?}, mode: {mode}")), "{text}");
        }
        for address in ["unix:/run/a?mode=", "unix:/run/a?mode=9", "unix:/run/a?mode=1777"] {
            let error = listeners(address, &mut Vec::new()).unwrap_err().to_string();
            assert!(error.contains("a mode is octal, such as 660"), "{error}");
        }
    }
}
