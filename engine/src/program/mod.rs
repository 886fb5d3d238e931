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
//! - `--help` says what the flags are, `--check` what is in effect and where it comes from. What the settings name,
//!   such as certificates, is looked at, too.
//! - It listens at addresses, Unix sockets and sockets of the service manager (`--listen`, `--tls-listen`), behind
//!   proxies (`--proxy-protocol`), with certificates (`--cert`, `--key`) that SIGHUP has it read again.
//! - SIGTERM and SIGINT close all connections with 1001 and end it, or [drain](Program::with_drain) it; a second one
//!   ends it at once. SIGUSR1 logs how many connections each worker has.
//! - With the feature `manual`, `--write-manual DIRECTORY` writes its manual page and completions for bash, fish and
//!   zsh, for whoever packs it. `--help` does not show that.
//! - It tells a service manager that it is ready, alive and stopping ([`Notifier`]), and hands its sockets to the next
//!   version of itself (`--takeover`).
//! - It logs to standard error, `RUST_LOG` says what, and neither a full pipe nor a slow disk holds a worker up
//!   ([`LogWriter`](crate::logging::LogWriter)).
//!
//! Settings of the application's own go by the same flags, variables and file
//! ([`own_settings!`](crate::own_settings)), SIGHUP has it [read its files again](Setup::on_reload), and
//! [commands](Program::with_command) do something else with the same settings.
//!
//! docs/configuration.md lists the flags. Programs that do all of that in another way find the pieces here as well:
//! [`with_log`], [`init_log`], [`announce`], [`note`], [`handle_signals`].

mod flags;
mod listeners;
#[cfg(feature = "manual")]
mod manual;
mod output;
mod setup;
mod signals;

use std::error::Error;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

pub use clap;
use clap::{ArgMatches, Command};
use ringwire_codec::CloseCode;
use ringwire_tls::ServerConfig;

pub use self::output::{announce, init_log, note, with_log};
pub use self::setup::Setup;
pub use self::signals::handle_signals;
use self::signals::{Ending, Reload, watch};
use crate::app::handler::Handler;
use crate::cluster::Bus;
use crate::config::Config;
pub use crate::config::settings::OwnSetting;
use crate::config::settings::{OwnSettings, Settings, SettingsError};
use crate::limits::Drain;
use crate::program::flags::Outcome;
use crate::program::listeners::MakeTls;
use crate::server::notify::Notifier;
use crate::server::restart::takeover::Takeover;
use crate::server::{Server, WorkerContext};

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
/// Exit codes: 0 after an orderly end, 2 for a wrong setting, 1 for any other error, and 128 and the signal's number
/// where a second signal ends it at once.
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
    drain: Option<Drain>,
    /// Of tables of own settings.
    checks: Vec<Check<SettingsError>>,
    check: Check<SetupError>,
    commands: Vec<(Command, RunCommand)>,
}

/// Whether settings make sense.
type Check<E> = fn(&Settings) -> Result<(), E>;

/// What a command of an application does with the settings and its own words.
type RunCommand = fn(&Settings, &ArgMatches) -> Result<(), SetupError>;

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
            drain: None,
            checks: Vec::new(),
            check: |_| Ok(()),
            commands: Vec::new(),
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

    /// Adds all settings of a table that [`own_settings!`](crate::own_settings) made. One that makes no sense ends the
    /// program before anything runs, so that reading the table does not fail any more.
    ///
    /// ```no_run
    /// use std::process::ExitCode;
    /// use ringwire::on_message;
    /// use ringwire::program::Program;
    /// use ringwire::settings::OwnSettings as _;
    ///
    /// ringwire::own_settings! {
    ///     /// What it says.
    ///     #[derive(Clone, Debug)]
    ///     pub struct Greeting in "greeting." {
    ///         /// What it says first [default: Hello]
    ///         text: String = "Hello".to_owned();
    ///         /// How many times [default: 1]
    ///         times: usize = 1, at least 1;
    ///     }
    /// }
    ///
    /// fn main() -> ExitCode {
    ///     Program::new("greeter").with_own_settings::<Greeting>().run_with(|setup| {
    ///         let Greeting { text, times } = Greeting::read(setup)?;
    ///         Ok(move |_worker: &_| {
    ///             let text = text.clone();
    ///             on_message(move |ctx, _| (0..times).try_for_each(|_| ctx.send(&text).map(drop)))
    ///         })
    ///     })
    /// }
    /// ```
    #[must_use]
    pub fn with_own_settings<T: OwnSettings>(mut self) -> Self {
        self.own.extend(T::all());
        self.checks.push(|settings| T::read(settings).map(drop));
        self
    }

    /// Has `--check` look at what the settings name as well: whether the files with keys can be used, say. Certificates
    /// it looks at anyway. An error is what is wrong with the settings.
    #[must_use]
    pub fn with_check(mut self, check: fn(&Settings) -> Result<(), SetupError>) -> Self {
        self.check = check;
        self
    }

    /// Has SIGTERM and SIGINT [drain](crate::Handle::drain_with) the server, with this code. What the settings `drain`
    /// and `shutdown_grace` say goes before the window and the grace. Default: all connections are closed at once, with
    /// 1001.
    #[must_use]
    pub fn with_drain(mut self, drain: Drain) -> Self {
        self.drain = Some(drain);
        self
    }

    /// Adds a command: `gateway token`, say, is the program's name and that of the command. Instead of serving, `run`
    /// is called with the settings, which come from the same flags, variables and file, and with the command's own
    /// words. An error of it ends the program with 2 where it is a [`SettingsError`], else with 1.
    ///
    /// ```no_run
    /// use std::process::ExitCode;
    /// use ringwire::program::{Program, clap};
    ///
    /// fn main() -> ExitCode {
    ///     let words = clap::Command::new("motto").about("Prints the motto");
    ///     Program::new("greeter")
    ///         .with_own_setting("motto")
    ///         .with_command(words, |settings, _words| Ok(println!("{}", settings.own_required("motto")?)))
    ///         .run(|_worker| ringwire::on_message(|ctx, message| ctx.send(message)))
    /// }
    /// ```
    #[must_use]
    pub fn with_command(mut self, command: Command, run: RunCommand) -> Self {
        self.commands.push((command, run));
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
    /// makes each worker's handler. An error of it ends the program, with 2 where it is a [`SettingsError`], else
    /// with 1.
    pub fn run_with<H, F>(
        self,
        setup: impl FnOnce(&mut Setup<'_>) -> Result<F, SetupError>,
    ) -> ExitCode
    where
        H: Handler,
        F: Fn(&WorkerContext) -> H + Send + Sync + 'static,
    {
        #[cfg(feature = "manual")]
        if let Some((name, directory)) = manual::asked_for(std::env::args_os()) {
            return manual::write(self.command().name(name), &directory);
        }

        with_log(|| match self.load(std::env::args_os(), std::env::vars_os()) {
            Outcome::Run(settings) => ended(self.start(&settings, setup)),
            Outcome::Command(run, settings, words) => ended(run(&settings, &words)),
            Outcome::Report(settings) => {
                let listeners = listeners::all(&settings, &self.address, self.make_tls);
                if let Err(error) = listeners.and_then(|_| (self.check)(&settings)) {
                    return Ok(wrong(&error));
                }
                io::stdout().write_all(settings.report().to_string().as_bytes())?;
                Ok(ExitCode::SUCCESS)
            }
            Outcome::Told(error) => {
                error.print()?;
                Ok(ExitCode::from(if error.use_stderr() { 2 } else { 0 }))
            }
            Outcome::Wrong(error) => Ok(wrong(&error)),
        })
    }

    fn start<H, F>(
        &self,
        settings: &Settings,
        setup: impl FnOnce(&mut Setup<'_>) -> Result<F, SetupError>,
    ) -> Result<(), SetupError>
    where
        H: Handler,
        F: Fn(&WorkerContext) -> H + Send + Sync + 'static,
    {
        let mut start = Setup::new(settings);
        let factory = setup(&mut start)?;
        let listeners = listeners::all(settings, &self.address, self.make_tls)?;
        let mut server = Server::new(start.config);
        server = listeners.into_iter().fold(server, Server::listen_with);
        if let Some(bus) = (self.make_bus)(settings)? {
            server = server.with_bus(bus);
        }
        #[cfg(feature = "tokio")]
        if let Some(runtime) = &start.runtime {
            server = server.with_runtime(runtime.handle().clone());
        }
        self.serve(settings, server, factory, start.reload.take())
    }

    /// What the settings `drain` and `shutdown_grace` change.
    fn drain_by_default(&self) -> Drain {
        self.drain.unwrap_or_else(|| Drain::new(DRAIN, CloseCode::GOING_AWAY))
    }

    fn serve<H, F>(
        &self,
        settings: &Settings,
        mut server: Server,
        factory: F,
        reload: Option<Reload>,
    ) -> Result<(), SetupError>
    where
        H: Handler,
        F: Fn(&WorkerContext) -> H + Send + Sync + 'static,
    {
        let drain = self.drain_by_default();
        let grace = settings.own_duration("shutdown_grace")?.unwrap_or(drain.grace);
        let window = settings.own_duration("drain")?.unwrap_or(drain.window);
        let mut takeover =
            settings.own("takeover").map(Takeover::at).transpose().map_err(during("--takeover"))?;
        if let Some(takeover) = &mut takeover {
            server = server.inherit(takeover.sockets());
        }
        let server = server.start(factory)?;
        let end = match self.drain {
            Some(drain) => Ending::Drain(Drain { window, ..drain }.with_grace(grace)),
            None => Ending::Close(grace),
        };
        watch(server.handle(), end, reload).map_err(during("cannot handle signals"))?;
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
            takeover.watch(server.handle(), Drain::new(window, SERVICE_RESTART))?;
        }
        Ok(server.join()?)
    }
}

/// A setting makes no sense.
fn wrong(error: &dyn Display) -> ExitCode {
    note(format_args!("error: {error}"));
    ExitCode::from(2)
}

/// The code of a program whose work has ended so.
fn ended(work: Result<(), SetupError>) -> Result<ExitCode, SetupError> {
    match work {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) if error.is::<SettingsError>() => Ok(wrong(&error)),
        Err(error) => Err(error),
    }
}

/// Says what was being done when an error came.
fn during<E: Display>(what: &str) -> impl FnOnce(E) -> SetupError {
    move |error| format!("{what}: {error}").into()
}
