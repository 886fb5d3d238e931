//! Programs as processes: their settings, commands, `--check`, what SIGHUP reads again and how SIGTERM drains.
//!
//! This test is the program as well, where a variable says so.

#![expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "it is no worker")]

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use ringwire::program::{Program, SetupError, clap};
use ringwire::settings::{OwnSettings as _, Secret, Settings};
use ringwire::shutdown::Drain;
use ringwire::{CloseCode, WorkerContext, on_message};
use ringwire_peers::Client;
use rustix::process::{Pid, Signal, kill_process};

/// Has this be the program.
const IS_PROGRAM: &str = "IS_THE_PROGRAM_OF_THE_TEST";
/// Within this everything happens, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(20);

ringwire::own_settings! {
    /// What the greeter may be told.
    #[derive(Clone, Debug)]
    struct Greeting in "greeting." {
        /// The file with what it says
        file: PathBuf = PathBuf::from("greeting.txt");
        /// How many times it says so [default: 1]
        times: usize = 1, at least 1;
        /// Something that nobody is to read
        secret: Option<Secret> = None, variable "GREETING_SECRET";
    }
}

impl Greeting {
    fn text(&self) -> Result<String, SetupError> {
        let text = fs::read_to_string(&self.file)?;
        let text = text.trim();
        if text.is_empty() { Err("there is nothing to say".into()) } else { Ok(text.to_owned()) }
    }
}

fn show(settings: &Settings, words: &clap::ArgMatches) -> Result<(), SetupError> {
    let greeting = Greeting::read(settings)?;
    let secret = greeting.secret.as_ref().map_or("none", Secret::reveal);
    match words.get_one::<String>("what").map(String::as_str) {
        Some("secret") => println!("{secret} {}", greeting.times),
        Some("wrong") => return Err(settings.wrong("greeting.times", "it is odd").into()),
        _ => return Err("there is no such thing".into()),
    }
    Ok(())
}

fn program() -> ExitCode {
    let what = clap::Arg::new("what").required(true);
    Program::new("greeter")
        .with_address("127.0.0.1:0")
        .with_drain(Drain::new(Duration::ZERO, CloseCode::new(4112)))
        .with_own_settings::<Greeting>()
        .with_check(|settings| Greeting::read(settings)?.text().map(drop))
        .with_command(clap::Command::new("show").arg(what), show)
        .run_with(|setup| {
            let greeting = Greeting::read(setup)?;
            let (times, text) = (greeting.times, Arc::new(Mutex::new(greeting.text()?)));
            let renewed = text.clone();
            setup.on_reload(move || {
                *renewed.lock().map_err(|_| "a handler panicked")? = greeting.text()?;
                Ok(())
            });
            Ok(move |_worker: &WorkerContext| {
                let text = text.clone();
                on_message(move |ctx, _| {
                    let text = text.lock().expect("nobody panics").clone();
                    (0..times).try_for_each(|_| ctx.send(text.as_str()).map(drop))
                })
            })
        })
}

fn command(dir: &Path, words: &[&str], variables: &[(&str, &str)]) -> Command {
    let own = std::env::current_exe().expect("it runs");
    let mut command = Command::new(own);
    command.current_dir(dir).args(words).env(IS_PROGRAM, "").env("NO_COLOR", "1");
    command.envs(variables.iter().copied()).stdin(Stdio::null());
    command
}

/// What the program says and how it ends.
fn ended(dir: &Path, words: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } =
        command(dir, words, variables).output().expect("it starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it is text");
    (status.code(), text(stdout), text(stderr))
}

fn folder(greeting: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("there is room");
    fs::write(dir.path().join("greeting.txt"), greeting).expect("there is room");
    dir
}

fn settings_come_from_everywhere() {
    let dir = folder("hi");
    fs::write(dir.path().join("a.toml"), "[greeting]\ntimes = 3\n").expect("there is room");
    let variables = [("GREETING_SECRET", "s3cret"), ("RINGWIRE_CONFIG", "a.toml")];
    let (code, out, error) = ended(dir.path(), &["--check"], &variables);
    assert_eq!(code, Some(0), "{error}");
    for line in ["# greeting.secret is set # GREETING_SECRET", "greeting.times = 3 # a.toml:2"] {
        assert!(out.lines().any(|it| it == line), "{out}");
    }
    assert!(!out.contains("s3cret"), "{out}");
    let (_, out, _) = ended(dir.path(), &["--help"], &[]);
    assert!(out.contains("--greeting-times") && out.contains("How many times"), "{out}");
    assert!(!out.contains("greeting-secret"), "a secret has no flag: {out}");
}

fn what_makes_no_sense_ends_it_with_2() {
    let dir = folder("hi");
    for (words, expected) in [
        (&["--greeting-times", "0"][..], "--greeting-times: greeting.times can't be \"0\""),
        (&["--greeting-times", "0", "show", "secret"], "--greeting-times: greeting.times can't be"),
        (&["show", "wrong"], "default: greeting.times can't be \"\": it is odd"),
        (&["--check", "--greeting-file", "nowhere.txt"], "No such file"),
        (&["--check", "--tls-listen", "127.0.0.1:0"], "--cert and --key"),
        (&["--check", "--tls-listen", "a:1", "--cert", "no.pem", "--key", "no.pem"], "no.pem"),
    ] {
        let (code, out, error) = ended(dir.path(), words, &[]);
        assert_eq!((code, &*out), (Some(2), ""), "{words:?}: {error}");
        assert!(error.contains(expected), "{words:?}: {error}");
    }
    let (code, _, error) = ended(dir.path(), &["--greeting-file", "nowhere.txt"], &[]);
    assert_eq!(code, Some(1), "a start that fails is no wrong setting: {error}");
}

fn commands_share_the_settings() {
    let dir = folder("hi");
    let secret = [("GREETING_SECRET", "s3cret")];
    for words in
        [["show", "secret", "--greeting-times", "2"], ["--greeting-times", "2", "show", "secret"]]
    {
        assert_eq!(ended(dir.path(), &words, &secret).1, "s3cret 2\n", "{words:?}");
    }
    let (code, _, error) = ended(dir.path(), &["show", "else"], &[]);
    assert_eq!((code, error.contains("there is no such thing")), (Some(1), true), "{error}");
}

/// The program, while it serves.
struct Serving {
    child: Child,
    addr: SocketAddr,
}

impl Serving {
    fn start(dir: &Path, words: &[&str]) -> Self {
        let log = fs::File::create(dir.join("log")).expect("there is room");
        let mut command = command(dir, words, &[]);
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().expect("it starts");
        let mut line = String::new();
        let out = child.stdout.as_mut().expect("it is a pipe");
        BufReader::new(out).read_line(&mut line).expect("it says where it listens");
        let addr = line.trim().rsplit('/').find(|part| !part.is_empty()).expect("an address");
        Self { child, addr: addr.parse().unwrap_or_else(|_| panic!("{line}")) }
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(id.expect("it has an id"), signal).expect("it is ours");
    }

    fn said(&self) -> String {
        let mut client = Client::connect(self.addr);
        client.send("what?");
        client.text()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It has ended where the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "in vain: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn signals_reload_and_drain(driver: &OsStr) {
    let (dir, driver) = (folder("hi"), driver.to_str().expect("it is text"));
    let words = ["--driver", driver, "--io-workers", "1", "--pin", "none"];
    let mut serving = Serving::start(dir.path(), &words);
    assert_eq!(serving.said(), "hi");
    let (file, log) = (dir.path().join("greeting.txt"), dir.path().join("log"));
    fs::write(&file, "hello").expect("there is room");
    serving.signal(Signal::HUP);
    until("it is read again", || serving.said() == "hello");
    fs::write(&file, "").expect("there is room");
    serving.signal(Signal::HUP);
    until("it says that it is not", || {
        let log = fs::read_to_string(&log).expect("it is there");
        log.contains("the previous settings stay in effect")
            && log.contains("there is nothing to say")
    });
    assert_eq!(serving.said(), "hello");
    let mut client = Client::connect(serving.addr);
    client.send("what?");
    assert_eq!(client.text(), "hello");
    serving.signal(Signal::TERM);
    assert_eq!(client.close_frame().0, 4112);
    let mut rest = String::new();
    serving.child.stdout.take().expect("a pipe").read_to_string(&mut rest).expect("it ends");
    assert!(serving.child.wait().expect("it is ours").success());
}

fn main() -> ExitCode {
    if std::env::var_os(IS_PROGRAM).is_some() {
        return program();
    }
    settings_come_from_everywhere();
    what_makes_no_sense_ends_it_with_2();
    commands_share_the_settings();
    match std::env::var_os("RINGWIRE_DRIVER") {
        Some(driver) => signals_reload_and_drain(&driver),
        None => ["epoll", "uring"].map(OsStr::new).into_iter().for_each(signals_reload_and_drain),
    }
    println!("programs are as their settings say");
    ExitCode::SUCCESS
}
