//! Servers as programs: settings, listeners, certificates, signals, the service manager and the log, in one call.
//!
//! [`run`] is all that a server needs which has no settings of its own:
//!
//! ```no_run
//! use std::process::ExitCode;
//! use ringwire::on_message;
//!
//! fn main() -> ExitCode {
//!     ringwire::run("echo", |_worker| on_message(|ctx, message| ctx.send(message)))
//! }
//! ```
//!
//! Such a program takes the [settings](crate::settings) of the engine and [its own](Program) from flags, `RINGWIRE_*`
//! variables and a TOML file (`--config`), and:
//!
//! - `--help` says what the flags are, `--check` what is in effect and where it comes from.
//! - It listens at addresses, Unix sockets and sockets of the service manager (`--listen`, `--tls-listen`), behind
//!   proxies (`--proxy-protocol`), with certificates (`--cert`, `--key`) that SIGHUP has it read again.
//! - SIGTERM and SIGINT close all connections with 1001 and end it; a second one ends it at once. SIGUSR1 logs how many
//!   connections each worker has.
//! - With the feature `manual`, `--write-manual DIRECTORY` writes its manual page and completions for bash, fish and zsh,
//!   for whoever packs it. `--help` does not show that.
//! - It tells a service manager that it is ready, alive and stopping ([`Notifier`]), and hands its sockets to the next
//!   version of itself (`--takeover`).
//! - It logs to standard error, `RUST_LOG` says what, and neither a full pipe nor a slow disk holds a worker up
//!   ([`LogWriter`](crate::logging::LogWriter)).
//!
//! docs/configuration.md lists the flags. Programs that do all of that in another way find the pieces here as well:
//! [`with_log`], [`init_log`], [`announce`], [`note`], [`handle_signals`].

mod flags;
mod listeners;
#[cfg(feature = "manual")]
mod manual;
mod output;
mod signals;

use std::error::Error;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use ringwire_codec::CloseCode;
use ringwire_tls::ServerConfig;

pub use self::flags::OwnSetting;
pub use self::output::{announce, init_log, note, with_log};
pub use self::signals::handle_signals;
use crate::app::handler::Handler;
use crate::cluster::Bus;
use crate::config::Config;
use crate::config::settings::Settings;
use crate::entry::listener::Listener;
use crate::limits::Drain;
use crate::program::flags::Outcome;
use crate::program::listeners::MakeTls;
use crate::server::notify::Notifier;
use crate::server::restart::takeover::Takeover;
use crate::server::{Server, WorkerContext};

/// How long connections may take to close on SIGTERM or SIGINT.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
/// Over which time connections are closed when another process takes over.
const DRAIN: Duration = Duration::from_secs(10);
/// What clients are told then: come back (RFC 6455 §7.4.2, IANA's registry).
const SERVICE_RESTART: CloseCode = CloseCode::new(1012);
/// Where it listens if nobody says anything.
const DEFAULT_ADDRESS: &str = "127.0.0.1:9001";

/// What an application's own part of a program may fail with. `?` makes one of any error.
pub type SetupError = Box<dyn Error + Send + Sync>;

/// The bus of a program, if the settings say that it has one. See [`Program::with_bus`].
pub type MadeBus = Result<Option<Box<dyn Bus>>, SetupError>;

/// Runs a server until it is told to end; see the [module's documentation](self). `factory` makes each worker's
/// handler, as for [`Server::start`].
///
/// The code is 0 after an end in good order, 2 where a setting is wrong, 1 where something else was.
pub fn run<H, F>(name: &'static str, factory: F) -> ExitCode
where
    H: Handler,
    F: Fn(&WorkerContext) -> H + Send + Sync + 'static,
{
    Program::new(name).run(factory)
}

/// A server as a program, with settings of its own.
///
/// ```no_run
/// use std::process::ExitCode;
/// use ringwire::on_message;
/// use ringwire::program::{OwnSetting, Program};
///
/// fn main() -> ExitCode {
///     Program::new("greeter")
///         .with_about("Greets whoever says something.")
///         .with_own_setting(OwnSetting::new("greeting").with_about("What it says first."))
///         .run_with(|settings| {
///             let greeting = settings.own("greeting").unwrap_or("Hello").to_owned();
///             Ok(move |_worker: &_| {
///                 let greeting = greeting.clone();
///                 on_message(move |ctx, _message| ctx.send(greeting.as_str()))
///             })
///         })
/// }
/// ```
///
/// `greeter --greeting Hi`, `RINGWIRE_GREETING=Hi` and `greeting = "Hi"` in a file are the same then.
#[derive(Clone, Debug)]
pub struct Program {
    name: &'static str,
    about: Option<&'static str>,
    version: Option<&'static str>,
    defaults: Config,
    address: String,
    own: Vec<OwnSetting>,
    make_tls: MakeTls,
    make_bus: MakeBus,
}

type MakeBus = fn(&Settings) -> MadeBus;

impl Program {
    /// A program of that name, which is for `--help` and errors.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            about: None,
            version: None,
            defaults: Config::default(),
            address: DEFAULT_ADDRESS.to_owned(),
            own: Vec::new(),
            make_tls: listeners::plain_tls,
            make_bus: |_| Ok(None),
        }
    }

    /// What it does, for `--help`.
    #[must_use]
    pub fn with_about(mut self, text: &'static str) -> Self {
        self.about = Some(text);
        self
    }

    /// Its version, for `--version`: `env!("CARGO_PKG_VERSION")`, say.
    #[must_use]
    pub fn with_version(mut self, version: &'static str) -> Self {
        self.version = Some(version);
        self
    }

    /// The engine's settings where nobody says anything else.
    #[must_use]
    pub fn with_defaults(mut self, config: Config) -> Self {
        self.defaults = config;
        self
    }

    /// Where it listens if nobody says anything else. Default: `127.0.0.1:9001`.
    #[must_use]
    pub fn with_address(mut self, address: impl Into<String>) -> Self {
        self.address = address.into();
        self
    }

    /// Adds a setting of the application's own: a flag, a variable and a name in a file. What it was set to is in
    /// [`Settings::own`].
    #[must_use]
    pub fn with_own_setting(mut self, setting: impl Into<OwnSetting>) -> Self {
        self.own.push(setting.into());
        self
    }

    /// Makes the TLS settings of its listeners of the certificate chain and the key, where the defaults are not enough:
    /// with client certificates, say. Default: what [`tls`](crate::tls) does with the files, which are read again on
    /// SIGHUP.
    ///
    /// ```no_run
    /// # use std::process::ExitCode;
    /// use ringwire::program::Program;
    /// use ringwire::tls::pki_types::UnixTime;
    /// use ringwire::tls::{CertificateSource, ServerSettings};
    ///
    /// # fn main() -> ExitCode {
    /// Program::new("quiet")
    ///     .with_tls(|_settings, cert, key| {
    ///         let settings = ServerSettings::new(CertificateSource::files(cert, key));
    ///         Ok(settings.with_tickets(false).build(UnixTime::now())?)
    ///     })
    ///     .run(|_worker| ringwire::on_message(|ctx, message| ctx.send(message)))
    /// # }
    /// ```
    #[must_use]
    pub fn with_tls(
        mut self,
        make: fn(&Settings, &Path, &Path) -> Result<ServerConfig, SetupError>,
    ) -> Self {
        self.make_tls = make;
        self
    }

    /// Makes it a node of a [cluster](crate::cluster) where the settings say so. An error ends the program before
    /// anything is listened on. With the crate `ringwire-nats`:
    ///
    /// ```ignore
    /// Program::new("chat").with_own_setting("nats").with_bus(|settings| {
    ///     let servers = settings.own("nats");
    ///     Ok(servers.map(NatsBus::new).transpose()?.map(|bus| Box::new(bus) as Box<dyn Bus>))
    /// })
    /// ```
    #[must_use]
    pub fn with_bus(mut self, make: fn(&Settings) -> MadeBus) -> Self {
        self.make_bus = make;
        self
    }

    /// Runs it until it is told to end. See [`run`].
    pub fn run<H, F>(self, factory: F) -> ExitCode
    where
        H: Handler,
        F: Fn(&WorkerContext) -> H + Send + Sync + 'static,
    {
        self.run_with(|_| Ok(factory))
    }

    /// The same where handlers need settings: `setup` is called once, before anything is listened on, and gives what
    /// makes each worker's handler. An error of it ends the program.
    pub fn run_with<H, F>(self, setup: impl FnOnce(&Settings) -> Result<F, SetupError>) -> ExitCode
    where
        H: Handler,
        F: Fn(&WorkerContext) -> H + Send + Sync + 'static,
    {
        #[cfg(feature = "manual")]
        if let Some((name, directory)) = manual::asked_for(std::env::args_os()) {
            return manual::write(self.command().name(name), &directory);
        }

        with_log(|| {
            let settings = match self.load(std::env::args_os(), std::env::vars_os()) {
                Outcome::Run(settings) => settings,
                Outcome::Report(settings) => {
                    io::stdout().write_all(settings.report().to_string().as_bytes())?;
                    return Ok(ExitCode::SUCCESS);
                }
                Outcome::Told(error) => {
                    error.print()?;
                    return Ok(ExitCode::from(if error.use_stderr() { 2 } else { 0 }));
                }
                Outcome::Wrong(error) => {
                    note(format_args!("error: {error}"));
                    return Ok(ExitCode::from(2));
                }
            };
            let factory = setup(&settings)?;
            let listeners = listeners::all(&settings, &self.address, self.make_tls)?;
            let bus = (self.make_bus)(&settings)?;
            serve(&settings, listeners, bus, factory).map(|()| ExitCode::SUCCESS)
        })
    }
}

/// Says what was being done when an error came.
fn during<E: Display>(what: &str) -> impl FnOnce(E) -> SetupError {
    move |error| format!("{what}: {error}").into()
}

fn serve<H, F>(
    settings: &Settings,
    listeners: Vec<Listener>,
    bus: Option<Box<dyn Bus>>,
    factory: F,
) -> Result<(), SetupError>
where
    H: Handler,
    F: Fn(&WorkerContext) -> H + Send + Sync + 'static,
{
    let grace = settings.own_duration("shutdown_grace")?.unwrap_or(SHUTDOWN_GRACE);
    let drain = settings.own_duration("drain")?.unwrap_or(DRAIN);
    let mut server = Server::new(settings.config().clone());
    server = listeners.into_iter().fold(server, Server::listen_with);
    let mut takeover =
        settings.own("takeover").map(Takeover::at).transpose().map_err(during("--takeover"))?;
    if let Some(takeover) = &mut takeover {
        server = server.inherit(takeover.sockets());
    }
    if let Some(bus) = bus {
        server = server.with_bus(bus);
    }
    let server = server.start(factory)?;
    handle_signals(server.handle(), grace).map_err(during("cannot handle signals"))?;
    announce(server.urls().map(|url| format!("listening on {url}")));
    if let Some(notifier) = Notifier::from_environment()? {
        notifier.ready().map_err(during("cannot tell the service manager"))?;
        notifier.watch(server.handle())?;
    }
    if let Some(mut takeover) = takeover {
        match takeover.ready() {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                server.handle().shutdown(grace);
                server.join()?;
                return Err(during("--takeover")(error));
            }
            Err(error) => {
                crate::base::event::warn!(
                    %error,
                    "the predecessor may not know that this server took over"
                );
            }
            Ok(()) => {}
        }
        takeover.watch(server.handle(), Drain::new(drain, SERVICE_RESTART))?;
    }
    server.join()?;
    Ok(())
}
