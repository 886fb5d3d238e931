//! How the echo server is configured.

use std::fs;
use std::process::{Command, Output};

/// Runs `echo --check`.
fn check(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_echo"))
        .arg("--check")
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .expect("it runs")
}

fn report(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let output = check(arguments, variables);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("it is text")
}

fn refusal(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let output = check(arguments, variables);
    assert_eq!(output.status.code(), Some(2));
    String::from_utf8(output.stderr).expect("it is text")
}

#[test]
fn flags_variables_and_file() {
    let dir = std::env::temp_dir().join(format!("ringwire-echo-{}", std::process::id()));
    fs::create_dir_all(&dir).expect("there is room");
    let file = dir.join("echo.toml");
    fs::write(&file, "listen = ['127.0.0.1:1', '127.0.0.1:2']\nio_workers = 3\nmailbox_len = 9\n")
        .expect("there is room");
    let path = file.to_str().expect("it is text");
    let report = report(
        &["--io-workers", "2", "--set", "max_lifetime=1h"],
        &[("RINGWIRE_CONFIG", path), ("RINGWIRE_PIN", "none"), ("RINGWIRE_MAX_MESSAGE", "5MiB")],
    );
    for line in [
        format!("listen = \"127.0.0.1:1,127.0.0.1:2\" # {path}:1\n"),
        "io_workers = 2 # --io-workers\n".into(),
        format!("mailbox_len = 9 # {path}:3\n"),
        "max_lifetime = \"1h\" # --set\n".into(),
        "pinning = \"off\" # RINGWIRE_PIN\n".into(),
        "protocol.max_message_len = \"5MiB\" # RINGWIRE_MAX_MESSAGE\n".into(),
    ] {
        assert!(report.contains(&line), "{line}: {report}");
    }
    fs::remove_dir_all(dir).expect("it is ours");
}

#[test]
fn without_a_limit_on_silence_there_are_no_pings() {
    let variables = [("RINGWIRE_PONG_TIMEOUT", "3s")];
    let pings = report(&["--idle-timeout", "0"], &variables);
    assert!(pings.contains("ping_interval = 0 # --idle-timeout\n"), "{pings}");
    assert!(pings.contains("pong_timeout = \"3s\" # RINGWIRE_PONG_TIMEOUT\n"), "{pings}");
    let pings = report(&["--idle-timeout", "0", "--set", "ping_interval=5s"], &[]);
    assert!(pings.contains("ping_interval = \"5s\" # --set\n"), "{pings}");
}

#[test]
fn what_is_wrong_is_said() {
    assert!(refusal(&["--driver", "kqueue"], &[]).contains("--driver: driver can't be \"kqueue\""));
    assert!(refusal(&["--set", "io_worker=1"], &[]).contains("did you mean io_workers?"));
    let text = refusal(&[], &[("RINGWIRE_IDLE_TIMEUOT", "1s")]);
    assert!(text.contains("did you mean RINGWIRE_IDLE_TIMEOUT?"), "{text}");
    let text = refusal(&[], &[("RINGWIRE_FOO", "1")]);
    assert!(text.ends_with("there is no setting RINGWIRE_FOO\n"), "{text}");
    assert!(refusal(&["--config", "/nonexistent"], &[]).contains("cannot read /nonexistent"));
}
