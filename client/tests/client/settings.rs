//! Settings from a file and the environment.

use std::io::Write;
use std::sync::mpsc;

use ringwire_client::settings::{Place, SettingsError, Sources, all, find};
use ringwire_client::{Client, Error};
use ringwire_peers::PATIENCE;
use ringwire_peers::server::{header, read_head, serve};

use crate::peer::{builder, url};

fn refusal(sources: Result<Sources, SettingsError>) -> String {
    sources.and_then(Sources::load).expect_err("it is wrong").to_string()
}

fn file(text: &str) -> Result<Sources, SettingsError> {
    Sources::new(builder()).with_file_text("chat.toml", text)
}

fn variable(name: &str, value: &str) -> [(String, String); 1] {
    [(name.to_owned(), value.to_owned())]
}

/// From the file to the request: what is set arrives, and the environment wins.
#[test]
fn what_is_set_arrives() {
    let (sender, seen) = mpsc::channel();
    let address = serve(move |mut stream, _| {
        let head = read_head(&mut stream);
        let value = |name| header(&head, name).unwrap_or_default();
        sender
            .send((
                value("sec-websocket-protocol"),
                value("origin"),
                value("sec-websocket-extensions"),
            ))
            .unwrap();
        stream.write_all(b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy").unwrap();
    });
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let text = "io_workers = 2\n[client]\nsubprotocols = ['chat.v2', 'chat']\n\
                origin = 'https://file.example'\ncompression = 'on'\nmax_refusal_len = 2\n";
    file.write_all(text.as_bytes()).unwrap();
    let builder = Sources::new(builder())
        .with_variables(variable("RINGWIRE_CLIENT_ORIGIN", "https://variable.example"))
        .with_variables(variable("RINGWIRE_IO_WORKERS", "the server's"))
        .with_file(file.path())
        .unwrap()
        .with_environment()
        .load()
        .unwrap();
    let Err(Error::Refused(refusal)) = builder.connect(url(address)) else { panic!("no refusal") };
    assert_eq!((&refusal.body[..], refusal.is_complete), (&b"bu"[..], false));
    let (subprotocols, origin, extensions) = seen.recv_timeout(PATIENCE).unwrap();
    assert_eq!(subprotocols, "chat.v2, chat");
    assert_eq!(origin, "https://variable.example");
    assert!(extensions.starts_with("permessage-deflate"), "{extensions}");
}

#[test]
fn mistakes_say_where_they_stand() {
    let text = refusal(file("[client]\nping_interval = 'often'"));
    assert!(text.starts_with("chat.toml:2: client.ping_interval can't be \"often\": expected off"));
    let text = refusal(file("[client]\n\nread_timeuot = 1"));
    assert!(text.starts_with("chat.toml:3: there is no setting client.read_timeuot"), "{text}");
    assert!(refusal(file("client = 1")).starts_with("chat.toml:1: client can't be a"));
    assert!(refusal(file("[client]\norigin = 1979-05-27")).contains("can't be a datetime"));
    assert!(refusal(file("[client")).starts_with("chat.toml:1: "));
    let with = |name, value| Ok(Sources::default().with_variables(variable(name, value)));
    let text = refusal(with("RINGWIRE_CLIENT_TCP_NODELAY", "maybe"));
    assert!(text.starts_with("RINGWIRE_CLIENT_TCP_NODELAY: client.tcp_nodelay"), "{text}");
    let text = refusal(with("RINGWIRE_CLIENT_NODELAY", "on"));
    assert!(text.starts_with("RINGWIRE_CLIENT_NODELAY: there is no setting"), "{text}");
    let text = refusal(with("RINGWIRE_CLIENT_PROXY", "ftp://u:secret@a"));
    assert!(!text.contains("secret"), "{text}");
    let missing = Sources::default().with_file("/nonexistent/chat.toml").unwrap_err().to_string();
    assert!(missing.contains("/nonexistent/chat.toml"), "{missing}");

    let error = file("[client]\nmax_redirects = 'x'").and_then(Sources::load).unwrap_err();
    assert!(matches!(error, SettingsError::Value { place: Place::File { line: 2, .. }, .. }));
    // What does not go together is found before anybody is connected to.
    let builder = file("[client]\npeer_timeout = 1").and_then(Sources::load).unwrap();
    let error = builder.connect("ws://127.0.0.1:1/").unwrap_err();
    assert!(matches!(error, Error::Setting { setting: "peer_timeout", .. }), "{error}");
}

#[test]
fn the_documentation_lists_every_setting() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
    let text = std::fs::read_to_string(path).expect("it is in the repository");
    let listed: Vec<_> = text.lines().filter(|line| line.starts_with("| `client.")).collect();
    let expected: Vec<_> = all()
        .iter()
        .map(|setting| {
            let value = setting.value(&Client::builder());
            let value = if value.is_empty() { "none".to_owned() } else { format!("`{value}`") };
            let (name, accepts, about) = (setting.name(), setting.accepts(), setting.about());
            format!("| `{name}` | {value} | {accepts} | {about} |")
        })
        .collect();
    assert_eq!(listed, expected, "docs/configuration.md should have:\n{}", expected.join("\n"));
    let variable = find("client.ping_interval").unwrap().variable();
    assert_eq!(variable, "RINGWIRE_CLIENT_PING_INTERVAL");
}
