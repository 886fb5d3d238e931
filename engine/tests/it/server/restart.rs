//! A server that is replaced by another process again and again while clients come, talk and go: none is refused or
//! reset, and each message that was processed was acknowledged, whichever process got it.
//!
//! The processes are this one, started again: see [`a_server_process`].

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests own sockets, share with threads, and wait"
)]

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ringwire::client::{self, OwnedMessage};
use ringwire::takeover::Takeover;
use ringwire::tls::pki_types::UnixTime;
use ringwire::tls::{CertificateSource, ClientSettings, Roots, ServerSettings};
use ringwire::{
    CloseCode, Ctx, Message, Notifier, activation, on_message, shutdown::Drain,
    transport::Listener, tuning::Assignment,
};
use ringwire_peers::{Client, Got, connect, plain_request};

use crate::support::process::name_of;
use crate::support::{PATIENCE, config, in_time, ms, wait_until};

const RESTART: CloseCode = CloseCode::new(1012);
/// Where a server process finds what it needs; it is one if this is set.
const DIRECTORY: &str = "RINGWIRE_TEST_RESTART";
/// Which of the processes it is.
const GENERATION: &str = "RINGWIRE_TEST_GENERATION";
/// How many workers each process has.
const WORKERS: [usize; 5] = [2, 1, 3, 3, 2];
/// How long each is left alone.
const LIFE: Duration = ms(500);
const WINDOW: Duration = ms(300);
/// The clients that stay until they are closed.
const STAYING: [&str; 2] = ["talk0", "talk2"];

// The server

/// Not a test, unless it is started by one: a server that is to be replaced.
#[test]
fn a_server_process() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let generation = std::env::var(GENERATION).expect("it is told").parse().expect("a number");
    let takeover = directory.join("takeover");
    if directory.join("asks").exists() {
        serve_until_asked(&directory, &takeover, generation);
    } else {
        serve_until_told(&directory, generation);
    }
}

/// Starts its successor itself when a byte comes from the test.
#[expect(clippy::zombie_processes, reason = "it outlives this process")]
fn serve_until_told(directory: &Path, generation: usize) {
    let sockets = activation::sockets().expect("the variables make sense");
    let sockets = sockets.into_iter().map(activation::InheritedSocket::into_fd);
    let running = start(directory, generation, sockets);
    let handle = running.handle();
    if let Some(notifier) = Notifier::from_environment().expect("there is a socket") {
        notifier.ready().expect("the predecessor waits");
    }
    thread::spawn(move || {
        if std::io::stdin().read_exact(&mut [0]).is_ok() {
            let successor =
                process(&std::env::current_exe().expect("it has a name"), generation + 1);
            handle.spawn_successor(successor, PATIENCE).expect("it starts");
            handle.drain(WINDOW, RESTART);
        } else {
            handle.shutdown(PATIENCE);
        }
    });
    running.join().expect("every worker ends well");
}

/// Is replaced by whoever asks for its sockets.
fn serve_until_asked(directory: &Path, path: &Path, generation: usize) {
    let mut takeover = Takeover::at(path).expect("it can be asked there");
    // Nobody has to wait for so long.
    takeover = takeover.with_ready_timeout(Duration::MAX);
    assert_eq!(takeover.has_predecessor(), generation > 0);
    let running = start(directory, generation, takeover.sockets());
    takeover.ready().expect("the predecessor waits");
    let handle = running.handle();
    takeover.watch(handle.clone(), Drain::new(WINDOW, RESTART)).expect("there is a thread");
    thread::spawn(move || {
        // Until the test has ended, one way or the other.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        handle.shutdown(PATIENCE);
    });
    running.join().expect("every worker ends well");
}

fn start(
    directory: &Path,
    generation: usize,
    sockets: impl IntoIterator<Item = std::os::fd::OwnedFd>,
) -> ringwire::Running {
    let pem = |name| CertificateSource::files(directory.join("cert.pem"), directory.join(name));
    let tls = ServerSettings::new(pem("key.pem")).build(UnixTime::now()).expect("a certificate");
    let assignment = [Assignment::ReusePort, Assignment::LeastLoaded][generation % 2];
    let settings = config().with_io_workers(WORKERS[generation]).with_assignment(assignment);
    let path = directory.join("log");
    let running = ringwire::Server::new(settings)
        .listen("127.0.0.1:0")
        .listen_tls("127.0.0.1:0", tls)
        .listen_with(Listener::unix(directory.join("server.sock")))
        .inherit(sockets)
        .start(move |_| {
            let mut log = append(&path);
            on_message(move |ctx: &mut Ctx<'_, ()>, message| {
                let Message::Text(id) = message else { panic!("it says text") };
                // One write, so that it is one line (O_APPEND).
                log.write_all(format!("{generation} {id}\n").as_bytes()).expect("there is room");
                let _ = ctx.send(message);
            })
        })
        .expect("it starts");
    let urls: String = running.urls().map(|url| format!("{url}\n")).collect();
    fs::write(directory.join("urls.new"), urls).expect("there is room");
    fs::rename(directory.join("urls.new"), directory.join("urls")).expect("it was there");
    running
}

fn append(path: &Path) -> File {
    File::options().create(true).append(true).open(path).expect("there is room")
}

/// This program, as a server.
fn process(program: &Path, generation: usize) -> Command {
    let mut command = Command::new(program);
    command
        .args([name_of(&a_server_process), "--exact", "--nocapture"])
        .env(GENERATION, generation.to_string())
        .stdout(Stdio::null());
    command
}

// The clients

/// What the clients are to do, and what they have seen.
struct Load {
    plain: SocketAddr,
    ends: AtomicBool,
}

/// The messages of a client.
#[derive(Default)]
struct Seen {
    sent: u32,
    acknowledged: Vec<String>,
    connections: u32,
    /// Connections that the server has closed.
    restarts: u32,
}

impl Seen {
    fn next(&mut self, name: &str) -> String {
        self.sent += 1;
        format!("{name}-{}", self.sent)
    }
}

/// Talks on one connection after the other, with some messages on their way at any time.
fn talk(load: &Load, name: &str, messages_each: usize) -> Seen {
    let mut seen = Seen::default();
    while !load.ends.load(Ordering::Relaxed) {
        let mut client = Client::connect(load.plain);
        seen.connections += 1;
        let (mut left, mut under_way) = (messages_each, 0);
        // A server that drains may say so at once.
        while under_way < 4 && client.is_open() {
            client.send(seen.next(name).as_str());
            under_way += 1;
        }
        loop {
            match client.next() {
                Got::Text(id) => {
                    seen.acknowledged.push(id);
                    left = left.saturating_sub(1);
                    under_way -= 1;
                    if !client.is_open() {
                        continue;
                    }
                    if left > 0 && !load.ends.load(Ordering::Relaxed) {
                        client.send(seen.next(name).as_str());
                        under_way += 1;
                    } else if under_way == 0 {
                        // Not before: data that comes behind one's own close frame is not looked at.
                        client.close(1000, "");
                        break;
                    }
                }
                Got::Close(code, _) => {
                    assert_eq!(code, RESTART.get(), "{name}");
                    seen.restarts += 1;
                    break;
                }
                other => panic!("{name}: {other:?}"),
            }
        }
        assert_eq!(client.end(), Got::Eof, "{name}");
    }
    seen
}

/// Takes its time to ask, so that servers are replaced meanwhile.
fn hesitate(load: &Load, name: &str) -> Seen {
    let mut seen = Seen::default();
    while !load.ends.load(Ordering::Relaxed) {
        let mut stream = connect(load.plain);
        seen.connections += 1;
        let asked = plain_request();
        let mut head = Vec::new();
        asked.encode(&mut head);
        thread::sleep(ms(150));
        stream.write_all(&head[..30]).expect("it is connected");
        thread::sleep(ms(150));
        stream.write_all(&head[30..]).expect("it is connected");
        let mut client = Client::await_upgrade(stream, &asked);
        if client.is_open() {
            client.send(seen.next(name).as_str());
        }
        loop {
            match client.next() {
                Got::Text(id) => {
                    seen.acknowledged.push(id);
                    if client.is_open() {
                        client.close(1000, "");
                    }
                }
                Got::Close(code, _) => seen.restarts += u32::from(code == RESTART.get()),
                Got::Eof => break,
                other => panic!("{name}: {other:?}"),
            }
        }
    }
    seen
}

/// The same conversation with the library's client, which speaks TLS and connects to Unix sockets.
fn converse(load: &Load, name: &str, builder: &client::Builder, url: &str) -> Seen {
    let mut seen = Seen::default();
    while !load.ends.load(Ordering::Relaxed) {
        let mut client = builder.connect(url).unwrap_or_else(|error| panic!("{name}: {error}"));
        seen.connections += 1;
        for _ in 0..20 {
            client.send_text(&seen.next(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
            match client.receive() {
                Ok(Some(OwnedMessage::Text(id))) => seen.acknowledged.push(id),
                Err(client::Error::Closed { .. }) => break,
                other => panic!("{name}: {other:?}"),
            }
        }
        match client.close_frame() {
            Some((code, _)) => {
                assert_eq!(code, RESTART, "{name}");
                seen.restarts += 1;
            }
            None => client.close(CloseCode::NORMAL, "").unwrap_or_else(|error| panic!("{error}")),
        }
    }
    seen
}

// The test

/// How a server is replaced.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// It starts its successor.
    Spawn,
    /// The successor asks for the sockets.
    Takeover,
}

/// Where the processes are told of things, and where they report them.
struct Site {
    way: Way,
    directory: tempfile::TempDir,
    certificate: String,
    /// What the test has started, and the way to them.
    processes: Vec<(Child, Option<ChildStdin>)>,
}

impl Site {
    fn new(way: Way) -> Self {
        let directory = tempfile::tempdir().expect("there is room");
        let key = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a name");
        let (certificate, key) = (key.cert.pem(), key.signing_key.serialize_pem());
        let write = |name, text: &str| {
            fs::write(directory.path().join(name), text).expect("there is room");
        };
        write("cert.pem", &certificate);
        write("key.pem", &key);
        if way == Way::Takeover {
            write("asks", "");
        }
        let mut site = Self { way, directory, certificate, processes: Vec::new() };
        site.start(0);
        wait_until("it listens", || site.path("urls").exists());
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn start(&mut self, generation: usize) {
        let mut child = process(&std::env::current_exe().expect("it has a name"), generation)
            .env(DIRECTORY, self.directory.path())
            .stdin(Stdio::piped())
            .spawn()
            .expect("it starts");
        let stdin = child.stdin.take();
        self.processes.push((child, stdin));
    }

    /// Has the server replaced, and waits until the old one has ended, where it is a child of this process.
    fn replace(&mut self, generation: usize) {
        match self.way {
            Way::Spawn => {
                let (_, stdin) = &mut self.processes[0];
                let stdin = stdin.as_mut().expect("all of them have it");
                stdin.write_all(b"!").expect("somebody reads it");
            }
            Way::Takeover => {
                self.start(generation);
                let (old, _) = &mut self.processes[generation - 1];
                let mut ended = None;
                wait_until("the predecessor ends", || {
                    ended = old.try_wait().expect("it is a child");
                    ended.is_some()
                });
                assert!(ended.is_some_and(|status| status.success()), "{ended:?}");
            }
        }
    }

    fn urls(&self) -> Vec<String> {
        let urls = fs::read_to_string(self.path("urls")).expect("it listens");
        urls.lines().map(str::to_owned).collect()
    }

    /// Whether those who stay have come to this process.
    fn serves_those_who_stay(&self, generation: usize) -> bool {
        let processed = self.processed();
        let ids = processed.get(&generation).map(Vec::as_slice).unwrap_or_default();
        STAYING.iter().all(|name| ids.iter().any(|id| id.starts_with(name)))
    }

    /// What was processed, by process.
    fn processed(&self) -> BTreeMap<usize, Vec<String>> {
        let mut all = BTreeMap::<_, Vec<_>>::new();
        for line in fs::read_to_string(self.path("log")).expect("it was written").lines() {
            let (generation, id) = line.split_once(' ').expect("whole lines are written");
            all.entry(generation.parse().expect("a number")).or_default().push(id.to_owned());
        }
        all
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for (child, stdin) in &mut self.processes {
            // The last end of the pipe: whoever reads it ends.
            drop(stdin.take());
            let status = child.wait().expect("it is a child");
            if !thread::panicking() {
                assert!(status.success());
            }
        }
    }
}

fn restart_under_load(way: Way) {
    let mut site = Site::new(way);
    let urls = site.urls();
    let plain = urls[0].strip_prefix("ws://").and_then(|it| it.parse().ok()).expect("an address");
    let load = Arc::new(Load { plain, ends: AtomicBool::new(false) });
    let roots = ClientSettings::new(Roots::pem(site.certificate.clone()));
    let tls = roots.build(UnixTime::now()).expect("a good root");
    let builder =
        client::Client::builder().with_tls(tls).without_proxy().with_read_timeout(PATIENCE);

    let mut clients: Vec<thread::JoinHandle<Seen>> = Vec::new();
    for number in 0..4 {
        let load = Arc::clone(&load);
        let name = format!("talk{number}");
        // The others come and go.
        let messages_each = if STAYING.contains(&name.as_str()) { usize::MAX } else { 3 };
        clients.push(thread::spawn(move || talk(&load, &name, messages_each)));
    }
    for number in 0..2 {
        let load = Arc::clone(&load);
        thread::sleep(ms(70));
        clients.push(thread::spawn(move || hesitate(&load, &format!("hesitate{number}"))));
    }
    for (name, url) in [("tls", &urls[1]), ("unix", &urls[2])] {
        let (load, builder, url) = (Arc::clone(&load), builder.clone(), url.clone());
        clients.push(thread::spawn(move || converse(&load, name, &builder, &url)));
    }

    for generation in 0..WORKERS.len() {
        if generation > 0 {
            site.replace(generation);
        }
        wait_until("it serves those who stay", || site.serves_those_who_stay(generation));
        thread::sleep(LIFE);
    }
    assert_eq!(site.urls(), urls, "the same sockets");
    load.ends.store(true, Ordering::Relaxed);
    let seen: Vec<Seen> = in_time("all clients end", move || {
        clients.into_iter().map(|client| client.join().expect("nobody was refused")).collect()
    });

    let processed = site.processed();
    assert_eq!(processed.len(), WORKERS.len(), "each process had its share");
    let processed: Vec<String> = processed.into_values().flatten().collect();
    let unique: HashSet<&String> = processed.iter().collect();
    assert_eq!(unique.len(), processed.len(), "none was processed twice");
    let acknowledged: HashSet<&String> = seen.iter().flat_map(|seen| &seen.acknowledged).collect();
    let missing: Vec<_> = acknowledged.symmetric_difference(&unique).take(10).collect();
    assert!(missing.is_empty(), "acknowledged or processed, not both: {missing:?}");
    assert!(seen.iter().all(|seen| seen.connections > 3 && !seen.acknowledged.is_empty()));
    let restarts: u32 = seen.iter().map(|seen| seen.restarts).sum();
    assert!(restarts >= 8, "connections are closed by each server that is replaced: {restarts}");
}

#[test]
fn a_server_that_starts_its_successor() {
    restart_under_load(Way::Spawn);
}

#[test]
fn a_server_whose_successor_asks_for_its_sockets() {
    restart_under_load(Way::Takeover);
}
