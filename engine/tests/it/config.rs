//! Settings from files, the environment and flags.

use std::time::Duration;

use ringwire::settings::{Origin, Settings, SettingsError, Sources, all, find};
use ringwire::{
    Backpressure, Config, DriverKind, Sizing,
    compression::CompressionMode,
    tuning::{Assignment, Pinning},
};

const FILE: &str = "
# A server.
driver = 'epoll'
io_workers = 2
pinning = [0, 1]
idle_timeout = \"90s\"
tcp_nodelay = false

[protocol]
max_message_len = \"4MiB\"

[compression]
mode = 'shared'
level = 6

[topics.policies]
'prices.>' = 'drop-oldest'
'orders.*' = 'close:1008'
";

fn load(file: &str) -> Result<Settings, SettingsError> {
    Sources::default().with_file_text("server.toml", file)?.load()
}

fn refusal(file: &str) -> String {
    load(file).expect_err("it is refused").to_string()
}

fn variables(variables: &[(&str, &str)]) -> Vec<(String, String)> {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn a_file() {
    let loaded = load(FILE).unwrap();
    let config = loaded.config();
    assert_eq!(config.driver, DriverKind::Epoll);
    assert_eq!(config.io_workers, Sizing::Fixed(2));
    assert_eq!(config.pinning, Pinning::Cores(vec![0, 1]));
    assert_eq!(config.idle_timeout, Some(Duration::from_secs(90)));
    assert!(!config.tcp_nodelay);
    assert_eq!(config.protocol.max_message_len, 4 << 20);
    assert_eq!(config.compression.mode, CompressionMode::Shared);
    assert_eq!(config.compression.level.get(), 6);
    assert_eq!(config.topics.policies.len(), 2);
    assert_eq!(config.topics.policies[0], ("prices.>".to_owned(), Backpressure::DropOldest));
    assert_eq!(config.ping_interval, Config::default().ping_interval, "what is not there");
    assert_eq!(loaded.origin("idle_timeout").to_string(), "server.toml:6");
    assert_eq!(loaded.origin("compression.mode").to_string(), "server.toml:13");
    assert_eq!(loaded.origin("ping_interval"), Origin::Default);
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    // In whatever order they are named.
    let loaded = Sources::new(Config::default().with_assignment(Assignment::LeastLoaded))
        .with_flag("--io-workers", "io_workers", "4")
        .with_variables(variables(&[
            ("RINGWIRE_IO_WORKERS", "3"),
            ("RINGWIRE_COMPRESSION_LEVEL", "9"),
            ("HOME", "/root"),
        ]))
        .with_file_text("server.toml", FILE)
        .unwrap()
        .load()
        .unwrap();
    assert_eq!(loaded.config().io_workers, Sizing::Fixed(4));
    assert_eq!(loaded.origin("io_workers"), Origin::Flag("--io-workers".into()));
    assert_eq!(loaded.config().compression.level.get(), 9);
    assert_eq!(loaded.origin("compression.level").to_string(), "RINGWIRE_COMPRESSION_LEVEL");
    assert_eq!(loaded.config().idle_timeout, Some(Duration::from_secs(90)));
    assert_eq!(loaded.config().assignment, Assignment::LeastLoaded, "the application's default");
}

#[test]
fn the_report_is_a_file_of_the_same_effect() {
    let loaded = Sources::default()
        .with_own("listen")
        .with_file_text("server.toml", &format!("listen = ['a:1', \"b\\\"\\\\:2\"]\n{FILE}"))
        .unwrap()
        .with_flag("--max-lifetime", "max_lifetime", "1h")
        .load()
        .unwrap();
    assert_eq!(loaded.own("listen"), Some("a:1,b\"\\:2"));
    let report = loaded.report().to_string();
    assert!(report.contains("io_workers = 2 # server.toml:5\n"), "{report}");
    assert!(report.contains("max_lifetime = \"1h\" # --max-lifetime\n"), "{report}");
    assert!(report.contains("close_timeout = \"5s\" # default\n"), "{report}");
    let again =
        Sources::default().with_own("listen").with_file_text("report", &report).unwrap().load();
    let again = again.unwrap();
    assert_eq!(again.own("listen"), loaded.own("listen"));
    for setting in all() {
        let name = setting.name();
        assert_eq!(setting.value(again.config()), setting.value(loaded.config()), "{name}");
        assert!(matches!(again.origin(name), Origin::File { .. }), "{name} is in the report");
    }
}

#[test]
fn unknown_names_are_errors_with_a_suggestion() {
    let text = refusal("\nmax_conections = 5");
    assert_eq!(
        text,
        "server.toml:2: there is no setting max_conections (did you mean max_connections?)"
    );
    let text = refusal("[compresion]\nmode = 'shared'");
    assert!(text.ends_with("compresion.mode (did you mean compression.mode?)"), "{text}");
    let text = refusal("mode = 'shared'");
    assert!(text.ends_with("(did you mean compression.mode?)"), "{text}");
    assert!(refusal("wholly_different = 1").ends_with("there is no setting wholly_different"));
    let text = Sources::default()
        .with_variables(variables(&[("RINGWIRE_IDLE_TIMEUOT", "1s")]))
        .load()
        .unwrap_err()
        .to_string();
    assert!(text.ends_with("(did you mean RINGWIRE_IDLE_TIMEOUT?)"), "{text}");
    let text = Sources::default().with_own("listen").with_flag("--x", "lsten", "1").load();
    assert!(text.unwrap_err().to_string().contains("did you mean listen?"));
}

#[test]
fn wrong_values_say_where_and_what_is_accepted() {
    for (file, name, expected) in [
        ("idle_timeout = '5 parsecs'", "idle_timeout", "a duration"),
        ("driver = 'kqueue'", "driver", "auto, epoll or uring"),
        ("compression.level = 10", "compression.level", "a level from 1 to 9"),
        ("io_workers = -1", "io_workers", "auto, or a whole number from 1"),
        ("io_workers = 1.5", "io_workers", "auto, or a whole number from 1"),
        ("listen_backlog = 4294967296", "listen_backlog", "up to 4294967295"),
        ("high_water = true", "high_water", "bytes"),
        ("[driver]\nname = 'epoll'", "driver", "auto, epoll or uring"),
    ] {
        let text = refusal(file);
        assert!(text.starts_with("server.toml:1: "), "{text}");
        assert!(text.contains(name) && text.contains(expected), "{text}");
    }
    let text = Sources::default()
        .with_variables(variables(&[("RINGWIRE_TCP_NODELAY", "maybe")]))
        .with_flag("--tcp-nodelay", "tcp_nodelay", "true")
        .load()
        .unwrap_err()
        .to_string();
    assert!(text.contains("RINGWIRE_TCP_NODELAY: tcp_nodelay can't be \"maybe\""), "{text}");
}

/// It stood for the word once; a file that still says so is told which.
#[test]
fn a_zero_is_refused_with_the_word_for_what_was_meant() {
    for (file, word) in [
        ("io_workers = 0", "auto"),
        ("max_memory = 0", "auto"),
        ("max_connections = 0", "auto"),
        ("tcp_send_buffer_len = \"0\"", "auto"),
        ("rate_limit.byte_burst = 0", "auto"),
        ("rate_limit.messages_per_second = 0", "unlimited"),
        ("max_connections_per_address = 0", "unlimited"),
        ("max_accepts_per_second = 0", "unlimited"),
        ("idle_timeout = 0", "off"),
        ("ping_interval = \"0s\"", "off"),
        ("max_lifetime = 0", "off"),
        ("compression.offload_threshold = 0", "off"),
        ("max_unauthenticated_len = 0", "off"),
    ] {
        let text = refusal(file);
        assert!(text.contains(&format!(": expected {word}, or ")), "{file}: {text}");
        let (name, _) = file.split_once(" = ").expect("it is one line");
        let loaded = load(&format!("{name} = \"{word}\"")).expect(word);
        let setting = find(name).expect("it is there");
        assert_eq!(setting.value(loaded.config()), word, "{name}");
    }
    // Where it means itself it may stand.
    for file in ["compute_workers = 0", "listen_timeout = 0", "compression.threshold = 0"] {
        load(file).expect(file);
    }
}

#[test]
fn subprotocols_and_answers_to_pings_may_come_from_a_file() {
    let loaded = load(
        "subprotocols = ['v2', \"v1\"]\nreports_pongs = false\nprotocol.answers_pings = false",
    );
    let config = loaded.unwrap().into_config();
    assert_eq!(config.subprotocols, ["v2", "v1"]);
    assert!(!config.reports_pongs && !config.protocol.answers_pings);
    let text = refusal("subprotocols = 'chat v2'");
    assert!(text.contains("expected names such as chat.v2,chat.v1"), "{text}");
}

#[test]
fn what_is_no_toml_is_named_with_its_line() {
    assert!(refusal("io_workers = 1\nio_workers = 2").starts_with("server.toml:2: "));
    assert!(refusal("\n\nio_workers").starts_with("server.toml:3: "));
    assert!(refusal("idle_timeout = 1979-05-27").contains("can't be a datetime"));
    let missing = Sources::default().with_file("/nonexistent/server.toml").unwrap_err().to_string();
    assert!(missing.contains("/nonexistent/server.toml"), "{missing}");
}

/// A file and an environment may have the settings of clients as well, which are not the server's.
#[test]
fn settings_of_clients_are_left_to_them() {
    let variables = [("RINGWIRE_CLIENT_PROXY".to_owned(), "none".to_owned())];
    let text = "io_workers = 2\n[client]\nread_timeout = '30s'\n";
    let loaded = Sources::default()
        .with_file_text("server.toml", text)
        .map(|sources| sources.with_variables(variables))
        .and_then(Sources::load)
        .expect("it is right");
    assert_eq!(loaded.config().io_workers, Sizing::Fixed(2));
}

#[test]
fn settings_that_do_not_go_together_are_found_before_the_start() {
    let text = refusal("mailbox_len = 0");
    assert_eq!(text, "server.toml:1: setting mailbox_len: 0 is too small: the least is 1");
    let error = load("max_queued_len = 1").unwrap_err();
    assert!(matches!(&error, SettingsError::Check { origin: Origin::File { line: 1, .. }, .. }));
}

#[test]
fn the_documentation_lists_every_setting() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
    let text = std::fs::read_to_string(path).expect("it is in the repository");
    // The first table; another has the features of the crate.
    let table = text.lines().skip_while(|line| !line.starts_with("| `"));
    let listed: Vec<_> = table.take_while(|line| line.starts_with("| `")).collect();
    let default = Config::default();
    let expected: Vec<_> = all()
        .iter()
        .map(|setting| {
            let value = setting.value(&default);
            let value = if value.is_empty() { "none".to_owned() } else { format!("`{value}`") };
            format!(
                "| `{}` | {value} | {} | {} |",
                setting.name(),
                setting.accepts(),
                setting.about()
            )
        })
        .collect();
    assert_eq!(listed, expected, "docs/configuration.md should have:\n{}", expected.join("\n"));
    assert_eq!(
        find("compression.mode").expect("it is there").variable(),
        "RINGWIRE_COMPRESSION_MODE"
    );
}
