//! Peers that do what a test tells them to, byte by byte.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use ringwire_client::{Builder, Client, Error};
use ringwire_codec::handshake::accept_key;

/// How long anything that must happen may take, on a machine that is busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Runs `talk` on each connection in turn, with its number.
pub(crate) fn serve(talk: impl FnMut(TcpStream, usize) + Send + 'static) -> SocketAddr {
    serve_at("127.0.0.1:0", talk)
}

pub(crate) fn serve_at(
    address: &str,
    mut talk: impl FnMut(TcpStream, usize) + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind(address).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let stream = stream.unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_nodelay(true).unwrap();
            talk(stream, number);
        }
    });
    address
}

/// A server that reads the request and answers with these bytes, then holds the connection until the client ends it.
pub(crate) fn answering(answer: impl Into<Vec<u8>>) -> SocketAddr {
    let answer = answer.into();
    serve(move |mut stream, _| {
        read_head(&mut stream);
        // A client that has read enough goes.
        let _ = stream.write_all(&answer);
        drain(stream);
    })
}

/// A server that upgrades and then talks.
pub(crate) fn upgrading(mut talk: impl FnMut(TcpStream) + Send + 'static) -> SocketAddr {
    serve(move |mut stream, _| {
        upgrade(&mut stream);
        talk(stream);
    })
}

/// Reads a request and agrees to it.
pub(crate) fn upgrade(stream: &mut (impl Read + Write)) -> String {
    let head = read_head(stream);
    stream.write_all(agreement(&head, "").as_bytes()).unwrap();
    head
}

/// The answer that agrees to a request.
pub(crate) fn agreement(head: &str, more: &str) -> String {
    let key = header(head, "sec-websocket-key").unwrap();
    let accept = accept_key(key.as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n{more}\r\n",
        String::from_utf8_lossy(&accept)
    )
}

/// The value of a header.
pub(crate) fn header(head: &str, name: &str) -> Option<String> {
    head.lines().find_map(|line| {
        let (each, value) = line.split_once(':')?;
        each.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}

/// Reads a head to its blank line, and no byte more.
pub(crate) fn read_head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// Reads until the client ends the stream, and gives what came.
pub(crate) fn drain(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the client goes: {error}"),
    }
    let _ = stream.shutdown(Shutdown::Both);
    bytes
}

/// Reads one frame of a client with a payload below 126 bytes: the first byte, and the payload unmasked.
pub(crate) fn read_frame(stream: &mut impl Read) -> (u8, Vec<u8>) {
    let mut head = [0; 6];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(head[1] & 0x80, 0x80, "a client masks");
    let mut payload = vec![0; usize::from(head[1] & 0x7f)];
    stream.read_exact(&mut payload).unwrap();
    for (index, byte) in payload.iter_mut().enumerate() {
        *byte ^= head[2 + index % 4];
    }
    (head[0], payload)
}

/// A server's frame with a payload below 126 bytes.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first, u8::try_from(payload.len()).unwrap()];
    assert!(payload.len() < 126);
    frame.extend_from_slice(payload);
    frame
}

pub(crate) fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    frame(0x88, &[&code.to_be_bytes(), reason.as_bytes()].concat())
}

/// A builder whose limits fit a test: whatever hangs, fails.
pub(crate) fn builder() -> Builder {
    Client::builder().without_proxy().with_read_timeout(PATIENCE).with_close_timeout(ms(500))
}

pub(crate) fn url(address: SocketAddr) -> String {
    format!("ws://{address}/")
}

pub(crate) fn connect(address: SocketAddr) -> Client {
    builder().connect(url(address)).unwrap()
}

/// The error that connecting ends with.
pub(crate) fn refusal_of(builder: &Builder, address: SocketAddr) -> Error {
    builder.connect(url(address)).expect_err("the handshake must fail")
}
