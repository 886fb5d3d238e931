//! The echo server as HttpArena starts it, and the checks of its validator: an upgrade, text, binary, several messages
//! at once, a close, a GET that asks for no upgrade, and that it lives on afterwards.
#![expect(clippy::disallowed_types, reason = "the checks are made on plain sockets, as there")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long anything may take that must happen, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(20);
/// The key and what is made of it in RFC 6455 §1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const DOCKERFILE: &str = include_str!("../../benches/httparena/Dockerfile");
const META: &str = include_str!("../../benches/httparena/meta.json");

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;

/// The words after ENTRYPOINT.
fn entry_point() -> Vec<String> {
    let line = DOCKERFILE.lines().find_map(|line| line.strip_prefix("ENTRYPOINT "));
    serde_json::from_str(line.expect("there is one")).expect("words")
}

/// Ends with the test.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    /// As in the container, but for the port.
    fn start(driver: &str) -> Self {
        let words = entry_point();
        assert_eq!(words[0], "echo");
        let words = words.iter().skip(1).map(|word| word.replace("0.0.0.0:8080", "127.0.0.1:0"));
        let mut child = Command::new(env!("CARGO_BIN_EXE_echo"))
            .args(words)
            .args(["--driver", driver])
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("its address");
        let address =
            line.trim().rsplit("//").next().expect("a URL").trim_end_matches('/').to_owned();
        Self { child, address }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    }

    /// Asks for /ws with these lines; the head of the answer.
    fn get(&self, lines: &str) -> (TcpStream, String) {
        let mut stream = self.connect();
        write!(stream, "GET /ws HTTP/1.1\r\nHost: localhost:8080\r\n{lines}\r\n")
            .expect("it is sent");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("an answer");
            head.extend_from_slice(&byte);
        }
        (stream, String::from_utf8(head).expect("text"))
    }

    fn upgrade(&self) -> (TcpStream, String) {
        self.get(&format!(
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n"
        ))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn send(stream: &mut TcpStream, opcode: u8, payload: &[u8]) {
    let mut frame = vec![0x80 | opcode];
    match u8::try_from(payload.len()) {
        Ok(len @ 0..=125) => frame.push(0x80 | len),
        _ => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(payload.len()).expect("short").to_be_bytes());
        }
    }
    let key = [0x11, 0x82, 0x33, 0xf4];
    frame.extend(key);
    frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    stream.write_all(&frame).expect("it is sent");
}

fn receive(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    stream.read_exact(&mut head).expect("a frame");
    let mut len = usize::from(head[1]);
    if len == 126 {
        let mut long = [0; 2];
        stream.read_exact(&mut long).expect("a length");
        len = usize::from(u16::from_be_bytes(long));
    }
    let mut payload = vec![0; len];
    stream.read_exact(&mut payload).expect("a payload");
    (head[0] & 0x0f, payload)
}

#[test]
fn checks_of_the_validator_pass() {
    for driver in ["epoll", "uring"] {
        let server = Server::start(driver);
        let (mut stream, head) = server.upgrade();
        assert!(head.starts_with("HTTP/1.1 101 "), "{driver}: {head}");
        let mut headers = head.lines().filter_map(|line| line.split_once(": "));
        let accept = headers.find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-accept"));
        assert_eq!(accept.map(|(_, value)| value), Some(ACCEPT), "{head}");

        send(&mut stream, TEXT, b"HttpArena-validate-00ff");
        assert_eq!(receive(&mut stream), (TEXT, b"HttpArena-validate-00ff".to_vec()));
        let bytes: Vec<u8> = (0..=255).collect();
        send(&mut stream, BINARY, &bytes);
        assert_eq!(receive(&mut stream), (BINARY, bytes));
        for number in 0..5 {
            send(&mut stream, TEXT, format!("msg-{number}").as_bytes());
        }
        for number in 0..5 {
            assert_eq!(receive(&mut stream), (TEXT, format!("msg-{number}").into_bytes()));
        }
        send(&mut stream, CLOSE, &[0x03, 0xe8]);
        assert_eq!(receive(&mut stream), (CLOSE, vec![0x03, 0xe8]));

        let (_, head) = server.get("Connection: keep-alive\r\n");
        let status: u16 = head[9..12].parse().expect("a status");
        assert!((400..500).contains(&status), "{driver}: {head}");

        let (mut stream, _) = server.upgrade();
        send(&mut stream, TEXT, b"health");
        assert_eq!(receive(&mut stream), (TEXT, b"health".to_vec()), "{driver}");
    }
}

#[test]
fn submission_says_what_the_arena_asks() {
    let meta: serde_json::Value = serde_json::from_str(META).expect("JSON");
    for field in ["display_name", "language", "engine", "type", "description"] {
        assert!(meta[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {meta}");
    }
    assert_eq!((&meta["type"], &meta["enabled"]), (&"engine".into(), &true.into()));
    assert_eq!(
        meta["tests"],
        serde_json::json!(["echo-ws", "echo-ws-pipeline", "echo-ws-limited"])
    );
    assert!(DOCKERFILE.lines().any(|line| line == "EXPOSE 8080"));
    let rust = format!("FROM rust:{}-", env!("CARGO_PKG_RUST_VERSION"));
    assert!(DOCKERFILE.contains(&rust), "the compiler is the one that the workspace asks for");
}
