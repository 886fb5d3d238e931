//! The flags of a program, and how they, the environment and a file become settings.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::{Program, RunCommand};
use crate::config::Config;
use crate::config::settings::{Origin, Settings, SettingsError, Sources, variable_of};
use crate::entry::proxy::{Network, NetworkError};

const CONFIG_VARIABLE: &str = "RINGWIRE_CONFIG";

/// A flag that stands for a setting.
struct Flag {
    /// Its name, and that of its variable, with underscores.
    name: &'static str,
    setting: &'static str,
    /// May be given several times.
    is_list: bool,
    value: &'static str,
    about: &'static str,
}

const fn flag(name: &'static str, value: &'static str, about: &'static str) -> Flag {
    Flag { name, setting: name, is_list: false, value, about }
}

impl Flag {
    const fn list(self) -> Self {
        Self { is_list: true, ..self }
    }

    const fn of(self, setting: &'static str) -> Self {
        Self { setting, ..self }
    }
}

/// What a program has beside the engine's settings.
const OWN: [Flag; 8] = [
    flag(
        "listen",
        "ADDRESS",
        "Where to listen: ADDRESS:PORT (port 0 takes a free one), `unix:PATH` or `unix:PATH?mode=660`, or `inherited` \
         or `inherited:NAME` for what the service manager made",
    ).list(),
    flag("tls_listen", "ADDRESS", "Where to listen for TLS, in the same forms").list(),
    flag("cert", "FILE", "The certificate chain for TLS, a PEM file, leaf first; read again on SIGHUP"),
    flag("key", "FILE", "The certificate's private key, a PEM file"),
    flag(
        "proxy_protocol",
        "NETWORK",
        "A network of proxies, such as 10.0.0.0/8: they begin each connection with a PROXY header, and other peers are \
         refused",
    ).list(),
    flag(
        "takeover",
        "PATH",
        "A Unix socket at which a process that is started with the same flags takes over: it gets the listening \
         sockets, and this one closes its connections with 1012 and ends, so that a new version refuses no connection",
    ),
    flag(
        "drain",
        "TIME",
        "How long to spread the closes over after a takeover, and on SIGTERM or SIGINT in programs that drain",
    ),
    flag("shutdown_grace", "TIME", "How long connections may take to close on SIGTERM or SIGINT"),
];

/// The engine's settings that have a flag; `--set` has the others.
const ENGINE: [Flag; 11] = [
    flag(
        "io_workers",
        "COUNT",
        "Event-loop threads, or auto: one per core, less the compute workers, and at least half of the cores",
    ),
    flag(
        "compute_workers",
        "COUNT",
        "Threads for work that would block an event loop: jobs of handlers, long compressions, TLS handshakes",
    ),
    flag(
        "driver",
        "DRIVER",
        "Kernel interface: epoll, uring, or auto: io_uring from Linux 6.17 on where it is allowed, epoll otherwise",
    ),
    flag(
        "pin",
        "CORES",
        "Cores that the IO workers are pinned to: a list such as 0,1, `none`, or `auto`: one core each",
    )
    .of("pinning"),
    flag(
        "assignment",
        "WAY",
        "How a new connection is assigned to a worker: reuseport, least-loaded or cpu",
    ),
    flag("max_message", "BYTES", "Longest message, such as 64MiB")
        .of("protocol.max_message_len"),
    flag(
        "idle_timeout",
        "TIME",
        "Silence after which a connection is closed, such as 90s, or off: never, and no pings are sent",
    ),
    flag("max_connections", "COUNT", "Most connections, or auto: what RLIMIT_NOFILE allows"),
    flag(
        "compression",
        "MODE",
        "Compression of messages (permessage-deflate): off, shared or dedicated",
    )
    .of("compression.mode"),
    flag("compression_threshold", "BYTES", "Shortest message that is compressed, such as 1KiB")
        .of("compression.threshold"),
    flag("compression_level", "LEVEL", "Compression level: 1 is fastest, 9 is smallest")
        .of("compression.level"),
];

/// What becomes of a start.
pub(super) enum Outcome {
    /// The server runs with these settings.
    Run(Box<Settings>),
    /// They were asked for.
    Report(Box<Settings>),
    /// A [command](Program::with_command) is carried out with them.
    Command(RunCommand, Box<Settings>, ArgMatches),
    /// The help was asked for, or the flags make no sense.
    Told(clap::Error),
    /// A setting makes no sense.
    Wrong(Box<SettingsError>),
}

impl Program {
    /// Puts file, environment and flags together.
    pub(super) fn load(
        &self,
        arguments: impl Iterator<Item = OsString>,
        variables: impl Iterator<Item = (OsString, OsString)>,
    ) -> Outcome {
        let matches = match self.command().try_get_matches_from(arguments) {
            Ok(matches) => matches,
            Err(error) => return Outcome::Told(error),
        };
        let settings = self.settings(&matches, variables).map(Box::new);
        if let (Ok(settings), Some((name, words))) = (&settings, matches.subcommand())
            && let Some((_, run)) = self.commands.iter().find(|(it, _)| it.get_name() == name)
        {
            return Outcome::Command(*run, settings.clone(), words.clone());
        }
        match settings {
            Ok(settings) if matches.get_flag("check") => Outcome::Report(settings),
            Ok(settings) => Outcome::Run(settings),
            Err(error) => Outcome::Wrong(Box::new(error)),
        }
    }

    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(self.name)
            .arg(
                Arg::new("config")
                    .global(true)
                    .long("config")
                    .value_name("FILE")
                    .value_parser(value_parser!(PathBuf))
                    .help("A TOML file with settings"),
            )
            .arg(
                Arg::new("check")
                    .long("check")
                    .action(ArgAction::SetTrue)
                    .help("Prints the settings in effect and where each comes from, and ends"),
            )
            .arg(
                Arg::new("set")
                    .global(true)
                    .long("set")
                    .value_name("NAME=VALUE")
                    .action(ArgAction::Append)
                    .help("Any setting; may be given several times"),
            );
        command = self.about.into_iter().fold(command, Command::about);
        command = self.version.into_iter().fold(command, Command::version);
        for flag in OWN.iter().chain(&ENGINE) {
            let more = if flag.is_list { "; may be given several times" } else { "" };
            let action = if flag.is_list { ArgAction::Append } else { ArgAction::Set };
            let arg = Arg::new(flag.name).long(dashed(flag.name)).value_name(flag.value);
            let default = self.default_of(flag.name).map(|it| format!(" [default: {it}]"));
            let help = format!("{}{more}{}", flag.about, default.unwrap_or_default());
            command = command.arg(arg.global(true).action(action).help(help));
        }
        for own in self.own.iter().filter(|own| !own.is_secret) {
            let arg = Arg::new(own.name.clone()).long(dashed(&own.name)).help(own.about.clone());
            let arg = arg.global(true);
            command = command.arg(if own.is_switch {
                arg.num_args(0..=1).require_equals(true).default_missing_value("true")
            } else {
                arg.action(ArgAction::Append)
            });
        }
        command.subcommands(self.commands.iter().map(|(command, _)| command.clone()))
    }

    /// Of a flag whose default is the program's own.
    fn default_of(&self, flag: &str) -> Option<String> {
        let drain = self.drain_by_default();
        match flag {
            "listen" => Some(format!("{}, or none with --tls-listen", self.address)),
            "drain" => Some(format!("{:?}", drain.window)),
            "shutdown_grace" => Some(format!("{:?}", drain.grace)),
            _ => None,
        }
    }

    fn settings(
        &self,
        matches: &ArgMatches,
        variables: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<Settings, SettingsError> {
        let text = |text: OsString| text.to_string_lossy().into_owned();
        let (config, variables): (Vec<_>, Vec<_>) =
            variables.partition(|(name, _)| name == CONFIG_VARIABLE);
        let mut sources = Sources::new(self.defaults.clone());
        sources = OWN.iter().fold(sources, |sources, flag| sources.with_own(flag.setting));
        sources = self.own.iter().cloned().fold(sources, Sources::with_own);
        let file = matches.get_one::<PathBuf>("config").cloned();
        if let Some(path) = file.or_else(|| config.into_iter().next().map(|(_, path)| path.into()))
        {
            sources = sources.with_file(path)?;
        }
        for (variable, value) in
            variables.into_iter().map(|(name, value)| (text(name), text(value)))
        {
            let flag = ENGINE.iter().find(|flag| variable_of(flag.name) == variable);
            sources = match flag {
                Some(flag) => sources.with_value(Origin::Variable(variable), flag.setting, value),
                None => sources.with_variables([(variable, value)]),
            };
        }
        let flags = OWN.iter().chain(&ENGINE).map(|flag| (flag.name, flag.setting));
        let own = self.own.iter().filter(|own| !own.is_secret);
        for (name, setting) in flags.chain(own.map(|own| (&*own.name, &*own.name))) {
            if let Some(values) = matches.get_many::<String>(name) {
                let values: Vec<_> = values.map(String::as_str).collect();
                let flag = format!("--{}", dashed(name));
                sources = sources.with_flag(flag, setting, values.join(","));
            }
        }
        for setting in matches.get_many::<String>("set").into_iter().flatten() {
            let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
            sources = sources.with_flag("--set", name.trim(), value);
        }
        let settings = sources.clone().load()?;
        settings.own_duration("drain")?;
        settings.own_duration("shutdown_grace")?;
        settings.own_as::<Networks>("proxy_protocol")?;
        self.checks.iter().try_for_each(|check| check(&settings))?;
        // Without a limit on silence nobody needs the pings that would break it.
        let is_open = settings.config().idle_timeout.is_none();
        let is_asked_for = settings.origin("idle_timeout") != Origin::Default
            || self.defaults.ping_interval == Config::default().ping_interval;
        if is_open && is_asked_for && settings.origin("ping_interval") == Origin::Default {
            let origin = settings.origin("idle_timeout");
            return sources.with_value(origin, "ping_interval", "off").load();
        }
        Ok(settings)
    }
}

/// `max_message` or `gateway.secret` as a flag has it.
fn dashed(name: &str) -> String {
    name.replace(['_', '.'], "-")
}

/// The networks of trusted proxies.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Networks(pub(super) Vec<Network>);

impl FromStr for Networks {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ringwire_codec::CloseCode;

    use super::*;
    use crate::base::amount::Sizing;
    use crate::layers::compression::CompressionMode;
    use crate::limits::Drain;
    use crate::program::OwnSetting;

    fn load(program: &Program, arguments: &[&str], variables: &[(&str, &str)]) -> Outcome {
        program.command().debug_assert();
        let arguments = ["program"].iter().chain(arguments).map(OsString::from);
        let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
        program.load(arguments, variables)
    }

    fn settings(program: &Program, arguments: &[&str], variables: &[(&str, &str)]) -> Settings {
        match load(program, arguments, variables) {
            Outcome::Run(settings)
            | Outcome::Report(settings)
            | Outcome::Command(_, settings, _) => *settings,
            Outcome::Told(error) => panic!("{error}"),
            Outcome::Wrong(error) => panic!("{error}"),
        }
    }

    fn refusal(program: &Program, arguments: &[&str], variables: &[(&str, &str)]) -> String {
        match load(program, arguments, variables) {
            Outcome::Wrong(error) => error.to_string(),
            Outcome::Told(error) => error.to_string(),
            Outcome::Run(_) | Outcome::Report(_) | Outcome::Command(..) => {
                panic!("it should be refused")
            }
        }
    }

    #[test]
    fn short_names_have_variables_as_well() {
        let program = Program::new("program");
        let settings = settings(
            &program,
            &["--io-workers", "2", "--listen", "a:1", "--listen", "b:2"],
            &[("RINGWIRE_IO_WORKERS", "3"), ("RINGWIRE_COMPRESSION", "shared"), ("HOME", "/")],
        );
        assert_eq!(settings.config().io_workers, Sizing::Fixed(2));
        assert_eq!(settings.config().compression.mode, CompressionMode::Shared);
        assert_eq!(settings.own("listen"), Some("a:1,b:2"));
        assert_eq!(settings.origin("compression.mode").to_string(), "RINGWIRE_COMPRESSION");
    }

    #[test]
    fn the_applications_own_come_from_everywhere() {
        let secret = OwnSetting::new("gateway.jwt_secret").with_about("Signs tokens.").secret();
        let program = Program::new("gateway")
            .with_defaults(Config::default().with_max_connections(10))
            .with_own_setting(secret)
            .with_own_setting("hops")
            .with_own_setting(OwnSetting::new("quiet").switch());
        let found = settings(
            &program,
            &["--hops=2", "--quiet", "--check"],
            &[("RINGWIRE_GATEWAY_JWT_SECRET", "s3cret")],
        );
        assert_eq!(found.own_required("gateway.jwt_secret").unwrap(), "s3cret");
        assert_eq!(found.own_as("hops").unwrap(), Some(2_usize));
        assert_eq!(found.own_as("quiet").unwrap(), Some(true));
        assert_eq!(found.config().max_connections, Sizing::Fixed(10));
        let report = found.report().to_string();
        assert!(report.contains("# gateway.jwt_secret is set # RINGWIRE_GATEWAY_JWT_SECRET\n"));
        assert!(!report.contains("s3cret"), "{report}");
        assert!(report.contains("hops = 2 # --hops\n"), "{report}");

        let found = settings(&program, &["--hops", "many"], &[]);
        assert_eq!(found.own_as::<bool>("quiet").unwrap(), None);
        let wrong = found.own_as::<usize>("hops").unwrap_err().to_string();
        assert!(wrong.starts_with("--hops: hops can't be \"many\": "), "{wrong}");
        let missing = found.own_required("gateway.jwt_secret").unwrap_err().to_string();
        assert!(missing.contains("set RINGWIRE_GATEWAY_JWT_SECRET"), "{missing}");
        assert!(refusal(&program, &["--set", "hop=1"], &[]).contains("did you mean hops?"));
    }

    #[test]
    fn what_makes_no_sense_is_refused_before_anything_runs() {
        let program = Program::new("program");
        for (arguments, expected) in [
            (["--drain", "soon"], "--drain: drain can't be \"soon\": expected a duration"),
            (["--shutdown-grace", "long"], "--shutdown-grace: shutdown_grace can't be \"long\""),
            (["--proxy-protocol", "10.0.0.0/99"], "--proxy-protocol: proxy_protocol can't be"),
            (["--io-workers", "0"], "--io-workers: io_workers can't be \"0\": expected auto"),
            (["--colour", "red"], "unexpected argument '--colour'"),
        ] {
            let text = refusal(&program, &arguments, &[]);
            assert!(text.contains(expected), "{text}");
        }
        let text = refusal(&program, &[], &[("RINGWIRE_DRAIN", "soon")]);
        assert!(text.starts_with("RINGWIRE_DRAIN: drain can't be"), "{text}");
    }

    #[test]
    fn a_program_without_an_idle_timeout_keeps_the_pings_that_it_asks_for() {
        let open = Config::default().with_idle_timeout(None);
        let pings = Some(Duration::from_secs(15));
        let program = |config| Program::new("program").with_defaults(config);
        let ping_interval =
            |program, words: &[&str]| settings(&program, words, &[]).config().ping_interval;
        assert_eq!(ping_interval(program(open.clone()), &[]), None);
        assert_eq!(ping_interval(program(open.with_ping_interval(pings)), &[]), pings);
        let silent = Config::default().with_ping_interval(pings);
        assert_eq!(ping_interval(program(silent), &["--idle-timeout", "off"]), None);
    }

    #[test]
    fn the_help_has_the_defaults_of_the_program() {
        let own = Drain::new(Duration::from_millis(2500), CloseCode::new(4112))
            .with_grace(Duration::from_secs(3));
        for (program, address, drain, grace) in [
            (Program::new("program"), "127.0.0.1:9001", "10s", "5s"),
            (Program::new("program").with_address("a:1").with_drain(own), "a:1", "2.5s", "3s"),
        ] {
            let help = program.command().render_long_help().to_string();
            assert!(
                help.contains(&format!("[default: {address}, or none with --tls-listen]")),
                "{help}"
            );
            assert!(help.contains(&format!("programs that drain [default: {drain}]")), "{help}");
            assert!(help.contains(&format!("SIGTERM or SIGINT [default: {grace}]")), "{help}");
        }
    }

    #[test]
    fn the_documentation_lists_every_flag() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
        let text = std::fs::read_to_string(path).expect("it is in the repository");
        let listed: Vec<_> = text.lines().filter(|line| line.starts_with("| `--")).collect();
        let expected: Vec<_> = OWN
            .iter()
            .chain(&ENGINE)
            .map(|flag| {
                format!("| `--{}` | `{}` | {} |", dashed(flag.name), flag.setting, flag.about)
            })
            .collect();
        assert_eq!(listed, expected, "docs/configuration.md should have:\n{}", expected.join("\n"));
    }
}
