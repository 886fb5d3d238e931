//! The programs as clients see them: ordinary routes, upgrades, and what comes right behind them.
//!
//! `RINGWIRE_DRIVER` says which kernel back end the workers have; without it, epoll.

#![expect(clippy::disallowed_types, reason = "tests own sockets, and rustls takes shared settings")]
#![expect(clippy::disallowed_methods, reason = "a test waits for what a program does")]

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringwire_peers::{Identity, read_head};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use tungstenite::protocol::{CloseFrame, Role};
use tungstenite::{Bytes, Message, WebSocket};

const REQUEST: &str = "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// How long what has to happen may take, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection, plain or over TLS.
trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

type Connection = Box<dyn Stream>;

/// One of the programs.
struct Program {
    child: Child,
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
    /// Its certificate.
    _files: tempfile::TempDir,
}

impl Program {
    fn hyper() -> Self {
        Self::start(env!("CARGO_BIN_EXE_behind-hyper"), false)
    }

    fn axum() -> Self {
        Self::start(env!("CARGO_BIN_EXE_behind-axum"), false)
    }

    fn hyper_tls() -> Self {
        Self::start(env!("CARGO_BIN_EXE_behind-hyper-tls"), true)
    }

    fn start(path: &str, is_secure: bool) -> Self {
        let files = tempfile::tempdir().expect("there is room");
        let driver = std::env::var("RINGWIRE_DRIVER").unwrap_or_else(|_| "epoll".into());
        let mut command = Command::new(path);
        command.args(["--listen", "127.0.0.1:0", "--io-workers", "2", "--driver", &driver]);
        let tls = is_secure.then(|| certify(&mut command, files.path()));
        let mut child =
            command.env("RUST_LOG", "warn").stdout(Stdio::piped()).spawn().expect("it runs");
        let mut line = String::new();
        let output = child.stdout.take().expect("it has one");
        BufReader::new(output).read_line(&mut line).expect("it is text");
        let address = line.trim_end().strip_prefix("listening on ").expect("it listens");
        let address = address.parse().expect("it is an address");
        Self { child, address, tls, _files: files }
    }

    fn connect(&self) -> Connection {
        let stream = ringwire_peers::connect(self.address);
        let Some(config) = &self.tls else { return Box::new(stream) };
        let name = ServerName::try_from("localhost").expect("a name");
        let tls = ClientConnection::new(Arc::clone(config), name).expect("a connection");
        Box::new(StreamOwned::new(tls, stream))
    }

    fn terminate(mut self) {
        let id = Pid::from_child(&self.child);
        kill_process(id, Signal::TERM).expect("it is ours");
        assert!(self.child.wait().expect("it is ours").success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It has ended already, or the test is over.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Gives the program a certificate, and the client a reason to trust it.
fn certify(command: &mut Command, directory: &Path) -> Arc<ClientConfig> {
    let identity = Identity::localhost();
    for (flag, name, text) in
        [("--cert", "cert.pem", &identity.chain), ("--key", "key.pem", &identity.key)]
    {
        let path = directory.join(name);
        std::fs::write(&path, text).expect("there is room");
        command.arg(flag).arg(path);
    }
    identity.client(rustls::ALL_VERSIONS)
}

/// The status of the next answer, and its body.
fn answer(stream: &mut impl Read) -> (String, String) {
    let head = read_head(stream).to_lowercase();
    let (_, rest) = head.split_once("content-length: ").unwrap_or_else(|| panic!("{head}"));
    let len = rest.split("\r\n").next().expect("a line").parse().expect("a number");
    let mut body = vec![0; len];
    stream.read_exact(&mut body).expect("the body comes");
    (head[9..12].to_owned(), String::from_utf8(body).expect("it is text"))
}

fn get(stream: &mut (impl Read + Write), path: &str) -> (String, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it is open");
    answer(stream)
}

/// A text message as a client sends it.
fn frame(text: &str) -> Vec<u8> {
    ringwire_peers::frame(0x81, text.as_bytes())
}

/// Reads the 101, and speaks frames from here on.
fn upgraded(mut stream: Connection) -> WebSocket<Connection> {
    let head = read_head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let head = head.to_lowercase();
    assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
    WebSocket::from_raw_socket(stream, Role::Client, None)
}

fn echo(socket: &mut WebSocket<Connection>, message: impl Into<Message>) {
    let message = message.into();
    socket.send(message.clone()).expect("it is open");
    assert!(socket.read().expect("it comes back") == message);
}

fn serves_routes_and_sockets(program: Program) {
    let mut other = program.connect();
    let mut stream = program.connect();
    for _ in 0..3 {
        assert_eq!(get(&mut stream, "/healthz"), ("200".into(), "ok\n".into()));
        assert_eq!(get(&mut other, "/healthz"), ("200".into(), "ok\n".into()));
    }
    assert_eq!(get(&mut stream, "/nowhere").0, "404");
    stream.write_all(REQUEST.as_bytes()).expect("it is open");
    let mut socket = upgraded(stream);
    for len in [0, 1, 126, 70_000, 1 << 20] {
        echo(&mut socket, Message::Binary(Bytes::from(vec![b'b'; len])));
        assert_eq!(get(&mut other, "/healthz").0, "200");
    }
    let frame = CloseFrame { code: 4001.into(), reason: "done".into() };
    socket.close(Some(frame.clone())).expect("it is open");
    assert_eq!(socket.read().expect("it is answered"), Message::Close(Some(frame)));
    assert!(matches!(socket.read(), Err(tungstenite::Error::ConnectionClosed)));
    assert_eq!(get(&mut other, "/healthz").0, "200");
}

fn loses_nothing_behind_the_request(program: Program) {
    let frames = [frame("first"), frame("the second")].concat();
    for cut in [0, 1, frame("first").len(), frame("first").len() + 3, frames.len()] {
        let (early, late) = frames.split_at(cut);
        let mut stream = program.connect();
        let together = [REQUEST.as_bytes(), early].concat();
        stream.write_all(&together).expect("it is open");
        stream.flush().expect("it is open");
        let mut socket = upgraded(stream);
        socket.get_mut().write_all(late).expect("it is open");
        socket.get_mut().flush().expect("it is open");
        for text in ["first", "the second"] {
            assert_eq!(socket.read().expect("an echo"), Message::text(text), "{cut}");
        }
        echo(&mut socket, Message::text("and on"));
    }
}

fn refuses_what_is_no_upgrade(program: Program) {
    let mut stream = program.connect();
    assert_eq!(get(&mut stream, "/ws").0, "426");
    for (from, to, status) in [
        ("Sec-WebSocket-Key: dGhl", "Sec-WebSocket-Key: ", "400"),
        ("Version: 13", "Version: 12", "426"),
    ] {
        let mut stream = program.connect();
        stream.write_all(REQUEST.replace(from, to).as_bytes()).expect("it is open");
        assert_eq!(answer(&mut stream).0, status);
        // It is still HTTP.
        assert_eq!(get(&mut stream, "/healthz").0, "200");
    }
}

/// With no descriptor left it accepts nobody, goes on with those it has, and accepts again once others are gone.
fn outlives_a_shortage_of_descriptors(program: Program) {
    let mut stream = program.connect();
    stream.write_all(REQUEST.as_bytes()).expect("it is open");
    let mut socket = upgraded(stream);
    echo(&mut socket, Message::text("before"));
    let folder = format!("/proc/{}/fd", program.child.id());
    let count = || std::fs::read_dir(&folder).expect("it runs").count();
    let limit = count() as u64 + 3;
    let limits = Rlimit { current: Some(limit), maximum: Some(limit) };
    let id = Pid::from_child(&program.child);
    prlimit(Some(id), Resource::Nofile, limits).expect("it is ours");
    let others: Vec<_> = (0..10).map(|_| ringwire_peers::connect(program.address)).collect();
    let begin = Instant::now();
    while (count() as u64) < limit {
        assert!(begin.elapsed() < PATIENCE, "it accepts as many as it can");
        std::thread::sleep(Duration::from_millis(10));
    }
    // Long enough to try again and again.
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(100));
        echo(&mut socket, Message::text("meanwhile"));
    }
    drop(others);
    let mut stream = program.connect();
    assert_eq!(get(&mut stream, "/healthz").0, "200");
    echo(&mut socket, Message::text("after"));
}

fn ends_in_order(program: Program) {
    let mut stream = program.connect();
    stream.write_all(REQUEST.as_bytes()).expect("it is open");
    let mut socket = upgraded(stream);
    echo(&mut socket, Message::text("here"));
    let id = program.child.id();
    let ended = std::thread::spawn(move || program.terminate());
    let Message::Close(Some(frame)) = socket.read().expect("a last word") else {
        panic!("the server {id} says goodbye")
    };
    assert_eq!(u16::from(frame.code), 1001);
    while socket.read().is_ok() {}
    ended.join().expect("it ends well");
}

macro_rules! tests {
    ($($module:ident: $start:expr,)*) => {$(
        mod $module {
            use super::*;

            #[test]
            fn routes_and_sockets() {
                serves_routes_and_sockets($start);
            }

            #[test]
            fn nothing_behind_the_request_is_lost() {
                loses_nothing_behind_the_request($start);
            }

            #[test]
            fn what_is_no_upgrade_is_refused() {
                refuses_what_is_no_upgrade($start);
            }

            #[test]
            fn shortage_of_descriptors() {
                outlives_a_shortage_of_descriptors($start);
            }

            #[test]
            fn the_end() {
                ends_in_order($start);
            }
        }
    )*};
}

tests! {
    hyper: Program::hyper(),
    axum: Program::axum(),
    hyper_tls: Program::hyper_tls(),
}
