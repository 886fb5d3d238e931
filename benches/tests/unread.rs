//! The program where nobody reads what it prints.

use std::io::pipe;
use std::process::{Command, Output, Stdio};

/// Runs it with a standard output, and a standard error if `both`, whose reader is gone.
fn unread(args: &[&str], both: bool) -> Output {
    let closed = || {
        let (reader, writer) = pipe().expect("a pipe");
        drop(reader);
        Stdio::from(writer)
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringwire-bench"));
    command.args(args).stdout(closed()).stderr(if both { closed() } else { Stdio::piped() });
    command.spawn().and_then(std::process::Child::wait_with_output).expect("it runs")
}

#[test]
fn an_output_that_nobody_reads_ends_it_quietly() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("result.json");
    let file = file.to_str().expect("a name");
    let cases: [&[&str]; 4] = [
        &["schema"],
        &["cert", "--force", "--out", dir.path().to_str().expect("a name")],
        &["storm", "--connections", "5", "--progress", "1ms", "--json", file],
        &["echo", "--connections", "5", "--duration", "50ms", "--warmup", "10ms", "--json", file],
    ];
    for args in cases {
        let _ = std::fs::remove_file(file);
        let output = unread(args, false);
        // As shells say that SIGPIPE ended a program.
        assert_eq!(output.status.code(), Some(141), "{args:?}: {output:?}");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!stderr.contains("panicked") && !stderr.contains("error"), "{args:?}: {stderr}");
        let written = std::fs::read(file).unwrap_or_default();
        let is_whole = serde_json::from_slice::<serde_json::Value>(&written).is_ok();
        assert_eq!(is_whole, args.contains(&"--json"), "{args:?}: a file is written first");
        assert_eq!(unread(args, true).status.code(), Some(141), "{args:?}: with neither");
    }
}
