//! Every load against a server that lets nobody in who does not ask for it as it wants: with a header, a cookie, a
//! token of its own, a subprotocol, and a greeting as the first message.
#![expect(clippy::disallowed_types, reason = "the server and the test share what was seen")]

use std::collections::BTreeMap;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringwire::tls::pki_types::UnixTime;
use ringwire::tls::{CertificateSource, ClientAuth, Roots, ServerSettings};
use ringwire::{
    Accept, Answer, Config, Ctx, Handler, Message, Request, Response, Running, Server,
    tuning::Pinning,
};

const TOKENS: u32 = 40;

/// What the server has seen, and ends it.
struct Gate {
    running: Option<Running>,
    url: String,
    /// Connections by token.
    seen: Arc<Mutex<BTreeMap<String, u32>>>,
    dir: tempfile::TempDir,
}

/// One worker's handler.
struct Keeper {
    seen: Arc<Mutex<BTreeMap<String, u32>>>,
}

/// A connection: whether it has said hello.
struct Visitor {
    token: String,
    is_known: bool,
}

impl Handler for Keeper {
    type State = Visitor;

    fn on_request(&mut self, request: &Request<'_>) -> Answer<Visitor> {
        let is_allowed = request.path() == "/in"
            && request.header_str("x-api-key") == Some("k1")
            && request.header_str("cookie") == Some("a=1; b=2")
            && request.subprotocols().any(|name| name == "chat.v2");
        let token = request.header_str("authorization").and_then(|it| it.strip_prefix("Bearer "));
        let Some(token) = token.filter(|token| is_allowed && token.starts_with("t-")) else {
            return Response::new(http::StatusCode::UNAUTHORIZED).into();
        };
        *self.seen.lock().expect("nobody panics").entry(token.to_owned()).or_default() += 1;
        Accept::new(Visitor { token: token.to_owned(), is_known: false })
            .with_subprotocol("chat.v2")
            .into()
    }

    fn on_message(&mut self, ctx: &mut Ctx<'_, Visitor>, message: Message<'_>) {
        if ctx.state().is_known {
            let _ = ctx.send(message);
            return;
        }
        let expected = format!("hello, I am {}", ctx.state().token);
        if message.as_text() == Some(&expected) {
            ctx.state_mut().is_known = true;
            let _ = ctx.send("welcome");
        } else {
            let _ = ctx.close(ringwire::CloseCode::new(4001), "say hello first");
        }
    }
}

impl Gate {
    fn open() -> Self {
        let seen: Arc<Mutex<BTreeMap<String, u32>>> = Arc::default();
        let config = Config::default()
            .with_io_workers(1)
            .with_pinning(Pinning::Off)
            // For hostile peers, which are to be ended before their time is up.
            .with_handshake_timeout(Duration::from_secs(10));
        let shared = Arc::clone(&seen);
        let running = Server::new(config)
            .listen("127.0.0.1:0")
            .start(move |_| Keeper { seen: Arc::clone(&shared) })
            .expect("it starts");
        let url = format!("{}/in", running.urls().next().expect("a listener"));
        let dir = tempfile::tempdir().expect("a folder");
        let tokens: String = (0..TOKENS).map(|number| format!("t-{number}\n")).collect();
        std::fs::write(dir.path().join("tokens"), tokens).expect("it is written");
        std::fs::write(dir.path().join("payload"), r#"{"id":"{number}","text":"hi"}"#)
            .expect("it is written");
        Self { running: Some(running), url, seen, dir }
    }

    /// Runs a subcommand with the words of `line` and with what the server wants, but for the flag `without`.
    fn run(&self, line: &str, without: &str) -> Output {
        let file = |name: &str| self.dir.path().join(name).display().to_string();
        let flags = [
            ("--header", "X-Api-Key: k1".to_owned()),
            ("--header", "Authorization: Bearer {token}".to_owned()),
            ("--cookie", "a=1".to_owned()),
            ("--cookie", "b=2".to_owned()),
            ("--subprotocol", "chat.v1,chat.v2".to_owned()),
            ("--token-file", file("tokens")),
            ("--first-message", "hello, I am {token}".to_owned()),
        ];
        let mut bench = Command::new(env!("CARGO_BIN_EXE_ringwire-bench"));
        let mut words = line.split_whitespace();
        bench.args(words.next());
        bench.args(words.map(|word| match word {
            "URL" => self.url.clone(),
            "PAYLOAD" => file("payload"),
            word => word.to_owned(),
        }));
        for (flag, value) in flags.iter().filter(|(flag, _)| *flag != without) {
            bench.args([flag, value.as_str()]);
        }
        bench.output().expect("it runs")
    }

    fn take_seen(&self) -> BTreeMap<String, u32> {
        std::mem::take(&mut *self.seen.lock().expect("nobody panics"))
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.handle().shutdown(Duration::ZERO);
            running.join().expect("no worker failed");
        }
    }
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// `n` connections with the first `n` tokens, one each.
fn one_each(connections: u32) -> BTreeMap<String, u32> {
    (0..connections).map(|number| (format!("t-{number}"), 1)).collect()
}

#[test]
fn scenarios_are_let_in() {
    let gate = Gate::open();
    for line in [
        "storm URL --connections 20 --json -",
        "throughput URL --connections 20 --messages 5 --processes 3 --payload-file PAYLOAD --json -",
        "sustained URL --connections 20 --duration 500ms --payload-file PAYLOAD --json -",
        "rate URL --clients 20 --mps 10 --duration 500ms --ramp-up 0 --json -",
        "million URL --connections 20 --echoes 100 --concurrency 5 --hold 0 --json -",
        "traffic URL --connections 20 --duration 300ms --json -",
        "tps URL --connections 20 --duration 1 --in-flight 3 --threads 2 --json -",
        "idle URL --connections 20 --duration 0 --json -",
        "stress --url URL --test-type throughput --connections 20 --json -",
        "stress -clients=20 -mps=10 -duration=500ms -ramp-up=0s -server=URL --json -",
    ] {
        let line = line.replace("-server=URL", &format!("-server={}", gate.url));
        let output = gate.run(&line, "");
        assert!(output.status.success(), "{line}: {output:?}");
        let report = json(&output);
        assert_eq!(report["opened"], 20, "{line}: {report}");
        assert_eq!(gate.take_seen(), one_each(20), "{line}");
        let messages = &report["work"]["answered"];
        assert!(messages.is_null() || messages.as_u64() > Some(19), "{line}: {report}");
    }
    // Connections that come again have their tokens again.
    let output = gate.run("churn URL --connections 4 --duration 500ms --json -", "");
    assert!(output.status.success(), "{output:?}");
    let opened = json(&output)["opened"].as_u64().expect("a number");
    let seen = gate.take_seen();
    assert!(seen.len() == 4 && u64::from(seen.values().sum::<u32>()) >= opened, "{seen:?}");
    let output = gate.run("arena URL --connections 9 --duration 200ms --runs 1 --json -", "");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(gate.take_seen(), one_each(9));
}

#[test]
fn lean_loads_are_let_in() {
    let gate = Gate::open();
    let short = "--duration 1s --warmup 50ms --json -";
    for (line, connections) in [
        ("echo URL --connections 20 --threads 2", 20),
        ("echo URL --connections 6 --payload-file PAYLOAD", 6),
        ("handshakes URL --concurrency 3", 0),
    ] {
        let output = gate.run(&format!("{line} {short}"), "");
        assert!(output.status.success(), "{line}: {output:?}");
        let seen = gate.take_seen();
        if connections > 0 {
            assert_eq!(seen, one_each(connections), "{line}");
            assert!(json(&output)["messages"].as_u64() > Some(0), "{output:?}");
        } else {
            assert!(seen.len() > 1, "{line}: {seen:?}");
        }
    }
}

#[test]
fn hostile_peers_are_let_in() {
    let gate = Gate::open();
    let line = "hostile URL --peers 2 --time-limit 20s --bystander-timeout 30s --only unmasked,bad-utf8 \
                --payload-file PAYLOAD --json -";
    let output = gate.run(line, "");
    assert!(output.status.success(), "{output:?}");
    let report = json(&output);
    assert_eq!(report["question"], "message", "{report}");
    let endings: Vec<_> = report["rows"]
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| row["endings"].to_string())
        .collect();
    assert!(endings[0].contains("close 1002") && endings[1].contains("close 1007"), "{endings:?}");
    let seen = gate.take_seen();
    assert!(seen.len() >= 4 && seen.values().all(|count| *count == 1), "{seen:?}");
}

/// Without one of them nobody gets in, so the tests above are of all of them.
#[test]
fn who_asks_otherwise_is_refused() {
    let gate = Gate::open();
    for without in ["--header", "--cookie", "--token-file", "--subprotocol"] {
        // The greeting has a token in it.
        let line = "storm URL --connections 3 --json -";
        let output = gate.run(line, without);
        if without == "--token-file" {
            assert_eq!(output.status.code(), Some(2), "{output:?}");
            let told = String::from_utf8_lossy(&output.stderr);
            assert!(told.contains("line of --token-file"), "{told}");
            continue;
        }
        assert_eq!(output.status.code(), Some(1), "{without}: {output:?}");
        assert_eq!(json(&output)["errors"]["handshake status 401"], 3, "{without}: {output:?}");
    }
    let unheard =
        gate.run("storm URL --connections 3 --first-replies 2 --connect-timeout 4s --json -", "");
    let errors = json(&unheard)["errors"].clone();
    assert_eq!(errors["first messages unanswered (--first-replies)"], 3, "{errors}");
    let unheard =
        gate.run("echo URL --connections 3 --first-replies 2 --connect-timeout 1s --json -", "");
    assert_eq!(json(&unheard)["errors"]["connect timeout"], 3, "{unheard:?}");
    let unsaid =
        gate.run("throughput URL --connections 3 --messages 1 --json -", "--first-message");
    assert_eq!(json(&unsaid)["errors"]["close frame 4001"], 3, "{unsaid:?}");
}

/// Tokens are in no output: a header is a secret as often as not.
#[test]
fn pages_keep_headers_to_themselves() {
    let gate = Gate::open();
    let page = gate.dir.path().join("page.html");
    let line = format!("storm URL --connections 3 --html {}", page.display());
    let output = gate.run(&line, "");
    assert!(output.status.success(), "{output:?}");
    let html = std::fs::read_to_string(page).expect("it is written");
    for secret in ["k1", "a=1", "t-0"] {
        assert!(!html.contains(secret), "{secret}: {html}");
    }
    assert!(html.contains("--header …"), "{html}");
}

/// A server that answers with something else, among other things that it says.
#[test]
fn replies_are_told_from_the_rest() {
    struct Chatty;
    impl Handler for Chatty {
        type State = ();

        fn on_request(&mut self, _request: &Request<'_>) -> Answer<()> {
            Answer::accept(())
        }

        fn on_message(&mut self, ctx: &mut Ctx<'_, ()>, _message: Message<'_>) {
            let _ = ctx.send(r#"{"type":"user_joined"}"#);
            let _ = ctx.send(r#"{"type":"pong"}"#);
        }
    }
    let config = Config::default().with_io_workers(1).with_pinning(Pinning::Off);
    let running = Server::new(config).listen("127.0.0.1:0").start(|_| Chatty).expect("it starts");
    let url = running.urls().next().expect("a listener");
    for (line, all) in [
        ("stress --test-type all --connections 5 --messages 4 --duration 500ms", 20),
        ("throughput --connections 5 --messages 4 --reply-contains pong", 20),
    ] {
        let mut bench = Command::new(env!("CARGO_BIN_EXE_ringwire-bench"));
        bench.args(line.split_whitespace()).args(["--json", "-"]);
        bench.args(if line.starts_with("stress") { vec!["--url", &url] } else { vec![&*url] });
        let output = bench.output().expect("it runs");
        assert!(output.status.success(), "{line}: {output:?}");
        let report = json(&output);
        let throughput = if report.is_array() { &report[1] } else { &report };
        assert_eq!(throughput["work"]["answered"], all, "{report}");
        if report.is_array() {
            assert_eq!(report[2]["work"]["answered"], 25, "{report}");
        }
    }
    running.handle().shutdown(Duration::ZERO);
    running.join().expect("no worker failed");
}

#[test]
fn stress_tells_the_figures_of_the_documents() {
    let gate = Gate::open();
    let line =
        "stress --url URL --test-type sustained --connections 5 --duration 1 --progress 200ms";
    let output = gate.run(line, "");
    assert!(output.status.success(), "{output:?}");
    let table = String::from_utf8_lossy(&output.stdout);
    for name in [
        "total connections",
        "active connections",
        "total messages",
        "successful messages",
        "failed",
        "elapsed",
        "message rate",
        "success rate",
    ] {
        assert!(table.lines().any(|line| line.trim_start().starts_with(name)), "{name}: {table}");
    }
    assert!(table.contains("100.00 %") && table.contains(" msg/s"), "{table}");
    let lines = String::from_utf8_lossy(&output.stderr);
    let last = lines.lines().rfind(|line| line.contains("success")).expect("totals");
    for word in
        ["5 connections, 5 active", " messages, ", " succeeded, 0 failed", "success 100.00 %"]
    {
        assert!(last.contains(word), "{word}: {lines}");
    }
}

fn bench(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringwire-bench")).args(words).output().expect("it runs")
}

fn echo_config() -> Config {
    Config::default().with_io_workers(1).with_pinning(Pinning::Off)
}

#[test]
fn certificates_are_shown_to_who_asks() {
    let dir = tempfile::tempdir().expect("a folder");
    let made = |name: &str| {
        let out = dir.path().join(name);
        let out = out.to_str().expect("text");
        let output = bench(&["cert", "--out", out]);
        assert!(output.status.success(), "{output:?}");
        (format!("{out}/cert.pem"), format!("{out}/key.pem"))
    };
    let ((server_cert, server_key), (cert, key)) = (made("server"), made("client"));
    let source = CertificateSource::files(server_cert.as_str(), server_key.as_str());
    let settings = ServerSettings::new(source)
        .with_client_auth(ClientAuth::Require(Roots::file(cert.as_str())))
        .build(UnixTime::now())
        .expect("good files");
    let running = Server::new(echo_config())
        .listen_tls("127.0.0.1:0", settings)
        .start(|_| ringwire::on_message(|ctx, message| ctx.send(message)))
        .expect("it starts");
    let url = running.urls().next().expect("a listener");
    let short = ["--connections", "4", "--json", "-", "--ca", &server_cert];
    let shown = ["--client-cert", &*cert, "--client-key", &*key];
    for line in [
        &["throughput", "--messages", "3"][..],
        &["echo", "--duration", "200ms", "--warmup", "50ms"],
    ] {
        let output = bench(&[line, &[&url], &short, &shown].concat());
        assert!(output.status.success(), "{line:?}: {output:?}");
        assert_eq!(json(&output)["opened"], 4, "{line:?}: {output:?}");
    }
    let hidden = bench(&[&["storm", &*url][..], &short].concat());
    assert_eq!(
        (hidden.status.code(), &json(&hidden)["opened"]),
        (Some(1), &0.into()),
        "{hidden:?}"
    );
    running.handle().shutdown(Duration::ZERO);
    running.join().expect("no worker failed");
}

#[test]
fn unix_sockets_take_all_loads() {
    let dir = tempfile::tempdir().expect("a folder");
    let socket = dir.path().join("echo.sock");
    let running = Server::new(echo_config())
        .listen_unix(&socket)
        .start(|_| ringwire::on_message(|ctx, message| ctx.send(message)))
        .expect("it starts");
    let url = format!("ws+unix:{}:/chat", socket.display());
    let short = ["--duration", "1s", "--warmup", "50ms", "--json", "-"];
    let output = bench(&[&["echo", &*url, "--connections", "300"][..], &short].concat());
    assert!(output.status.success(), "{output:?}");
    assert_eq!(json(&output)["opened"], 300, "{output:?}");
    let output = bench(&[&["handshakes", &*url][..], &short].concat());
    assert!(
        output.status.success() && json(&output)["handshakes"].as_u64() > Some(0),
        "{output:?}"
    );
    let line =
        "--peers 2 --time-limit 20s --bystander-timeout 30s --only unmasked,half-heads --json -";
    let output = bench(&[&["hostile", &*url][..], &line.split(' ').collect::<Vec<_>>()].concat());
    assert!(output.status.success(), "{output:?}");
    let rows = json(&output)["rows"].to_string();
    assert!(rows.contains("close 1002"), "{rows}");
    let output = bench(&["throughput", &url, "--connections", "20", "--json", "-"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(json(&output)["work"]["answered"], json(&output)["work"]["asked"], "{output:?}");
    running.handle().shutdown(Duration::ZERO);
    running.join().expect("no worker failed");
}

#[test]
fn rates_follow_their_stages() {
    let line = "rate --clients 5 --mps 0 --ramp-up 0 --resp-timeout 20s --stages 1s:20,1s:20,1s:0 --json -";
    let output = bench(&line.split(' ').collect::<Vec<_>>());
    assert!(output.status.success(), "{output:?}");
    let report = json(&output);
    // 10, 20 and 10 of each client.
    assert_eq!(
        (&report["work"]["asked"], &report["work"]["answered"]),
        (&200.into(), &200.into()),
        "{report}"
    );
    assert_eq!(
        report["work"]["each_second"]["counts"].as_array().map(Vec::len),
        Some(3),
        "{report}"
    );
}

/// What makes the document makes it as it is.
#[test]
fn schema_is_printed() {
    let output = bench(&["schema"]);
    assert!(output.status.success(), "{output:?}");
    let documented = include_str!("../../docs/load-generator.schema.json");
    assert_eq!(String::from_utf8_lossy(&output.stdout), documented);
}
