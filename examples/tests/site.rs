//! A program with settings of its own, and one that it can't do without.

use std::process::{Command, Output};

fn site(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_site"))
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
        .expect("it runs")
}

fn log(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("it is text")
}

#[test]
fn its_own_settings_are_settings_like_others() {
    let output = site(&["--check", "--forwarded-hops", "2"], &[("RINGWIRE_FORWARDED_HOPS", "3")]);
    assert_eq!(output.status.code(), Some(0), "{}", log(&output));
    let report = String::from_utf8(output.stdout).expect("it is text");
    assert!(report.contains("forwarded_hops = 2 # --forwarded-hops\n"), "{report}");
    assert!(report.contains("io_workers = 1 # default\n"), "the program's default: {report}");

    let output = site(&["--help"], &[]);
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("--forwarded-hops"));
}

#[test]
fn what_its_setup_refuses_ends_it_before_it_listens() {
    // A setting that is wrong is the user's mistake (2), as a flag is; what the program says itself is 1.
    for (arguments, variables, status, expected) in [
        (
            &[][..],
            &[("RINGWIRE_FORWARDED_HOPS", "many")][..],
            2,
            "error: RINGWIRE_FORWARDED_HOPS: forwarded_hops can't be \"many\": ",
        ),
        (&["--io-workers", "2"], &[], 1, "io_workers = 1"),
    ] {
        let output = site(arguments, variables);
        assert_eq!(output.status.code(), Some(status), "{}", log(&output));
        assert!(log(&output).contains(expected), "{}", log(&output));
        assert_eq!(output.stdout, b"", "it listens nowhere");
    }
}

#[test]
fn what_makes_no_sense_ends_it_with_2() {
    for arguments in [["--io-workers", "0"], ["--colour", "red"], ["--config", "/nonexistent"]] {
        let output = site(&arguments, &[]);
        assert_eq!(output.status.code(), Some(2), "{}", log(&output));
    }
}
