//! What a run gives to other tools while it goes on and afterwards.
#![expect(clippy::disallowed_types, reason = "a scrape is a request over a socket of its own")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_ringwire-bench"))
}

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn scrape(address: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// An echo server of a process of its own, and its address.
fn echo_server() -> (Running, String) {
    let args = "echo --listen 127.0.0.1:0 --stay --connections 1 --duration 100ms --warmup 0ms";
    let child = program().args(args.split_whitespace()).stdout(Stdio::piped()).spawn();
    let mut server = Running(child.expect("a server"));
    let mut lines = BufReader::new(server.0.stdout.take().expect("it is piped")).lines();
    let address = lines.find_map(|line| {
        let line = line.expect("text");
        Some(line.strip_prefix("still serving; open http://")?.split('/').next()?.to_owned())
    });
    (server, address.expect("its address"))
}

#[test]
fn prometheus_sees_a_run_while_it_goes_on() {
    let args = "rate --clients 5 --mps 50 --duration 60s --metrics 127.0.0.1:0";
    let mut command = program();
    command.args(args.split_whitespace()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut running = Running(command.spawn().expect("it runs"));
    let mut lines = BufReader::new(running.0.stderr.take().expect("it is piped")).lines();
    let address = lines.find_map(|line| {
        let line = line.expect("text");
        Some(line.strip_prefix("metrics at http://")?.strip_suffix("/metrics")?.to_owned())
    });
    let address = address.expect("it says where");
    let value = |text: &str, name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix("{scenario=\"rate\"} "));
        line.and_then(|value| value.parse::<f64>().ok()).unwrap_or_default()
    };
    // The run goes on for a minute: numbers come, or the test ends with it.
    loop {
        let text = scrape(&address);
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        if value(&text, "ringwire_bench_latency_seconds_count") > 0.0 {
            assert_eq!(value(&text, "ringwire_bench_connections"), 5.0, "{text}");
            assert!(value(&text, "ringwire_bench_messages_sent_total") > 0.0, "{text}");
            assert!(value(&text, "ringwire_bench_latency_seconds_sum") > 0.0, "{text}");
            break;
        }
        let is_running = running.0.try_wait().expect("a child").is_none();
        assert!(is_running, "it ended without a number: {text}");
    }
}

#[test]
fn latencies_of_each_second_become_a_log() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("run.hlog");
    let args = "all --connections 4 --messages 10 --duration 2 --json - --hdr-log";
    let output = program().args(args.split_whitespace()).arg(&file).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let reports: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let log = std::fs::read(&file).expect("a log");
    assert!(log.starts_with(b"#[Histogram log format version 1.3]\n"));
    let entries: Vec<_> =
        IntervalLogIterator::new(&log).map(|entry| entry.expect("valid")).collect();
    let starts = entries.iter().filter(|entry| matches!(entry, LogEntry::StartTime(_))).count();
    assert_eq!(starts, 3, "one for each run");
    for (scenario, latency) in
        [("storm", "connect_us"), ("throughput", "latency_us"), ("sustained", "latency_us")]
    {
        let highest = entries.iter().filter_map(|entry| match entry {
            LogEntry::Interval(interval)
                if interval.tag().is_some_and(|tag| tag.as_str() == scenario) =>
            {
                assert_eq!(interval.duration().as_secs(), 1);
                Some(interval.max())
            }
            _ => None,
        });
        let highest = highest.fold(0.0, f64::max);
        let all = reports.as_array().expect("three reports");
        let report = all.iter().find(|report| report["scenario"] == scenario).expect("its report");
        let told = report["work"].get(latency).unwrap_or_else(|| &report[latency])["max"]
            .as_f64()
            .expect("a maximum");
        // Milliseconds, with three significant digits.
        assert!(
            (highest - told / 1e3).abs() <= told / 1e3 * 0.01 + 0.001,
            "{scenario}: {highest}, {told}"
        );
    }
}

#[test]
fn groups_run_at_once_and_each_has_a_report() {
    let dir = tempfile::tempdir().expect("a folder");
    let (_server, address) = echo_server();
    let file = dir.path().join("groups.toml");
    let text = format!(
        "url = 'ws://{}/'\n[[group]]\nname = 'talkers'\nscenario = 'rate'\nclients = 3\nmps = 20\nduration = '2s'\n\
         [[group]]\nscenario = 'churn'\nafter = '100ms'\nconnections = 2\nmessages = 2\nduration = '1s'\n",
        address
    );
    std::fs::write(&file, text).expect("a file");
    let output =
        program().arg("--scenario").arg(&file).args(["--json", "-"]).output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let reports: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let groups = &reports["groups"];
    assert_eq!(groups["talkers"]["work"]["answered"], 120, "{groups}");
    assert_eq!(groups["churn"]["scenario"], "churn", "{groups}");
    assert_eq!(groups["churn"]["errors"], serde_json::json!({}), "{groups}");
}

#[test]
fn servers_that_are_started_agree_to_compression() {
    let args =
        "traffic --connections 3 --size 4KiB --text --duration 1 --server-processes 1 --json -";
    let run = |compression: &str| {
        let mut command = program();
        let output =
            command.args(args.split_whitespace()).args(["--compression", compression]).output();
        let output = output.expect("it runs");
        assert!(output.status.success(), "{output:?}");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let work = &report["work"];
        let number = |value: &serde_json::Value| value.as_f64().expect("a number");
        number(&work["traffic"]["bytes_received"]) / number(&work["answered"])
    };
    // Small letters have less than five bits each.
    assert!(run("off") > 4096.0 && run("dedicated") < 3072.0);
}

#[test]
fn machines_of_the_load_add_up() {
    let (_server, address) = echo_server();
    let own = env!("CARGO_BIN_EXE_ringwire-bench");
    // Each is this machine, as another one would be reached.
    let machine = format!("env RUST_BACKTRACE=0 '{own}'");
    let args = format!("rate ws://{address}/ --clients 6 --mps 20 --duration 2s --json -");
    let mut command = program();
    command.args(args.split_whitespace());
    let output = command
        .args(["--load-machine", &machine, "--load-machine", &machine])
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&report["opened"], &report["generators"]), (&6.into(), &2.into()), "{report}");
    assert_eq!(report["work"]["answered"], 240, "{report}");
    assert!(report["generator_cpus"].as_f64() > Some(0.0), "{report}");
    assert!(
        report["notes"][0].as_str().is_some_and(|note| note.contains("--load-machine")),
        "{report}"
    );
    let gone = program()
        .args(args.split_whitespace())
        .args(["--load-machine", "false"])
        .output()
        .expect("it runs");
    assert_eq!(gone.status.code(), Some(2), "{gone:?}");
}
