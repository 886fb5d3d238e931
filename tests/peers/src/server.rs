//! Servers that are scripts: they say what a test tells them to, byte by byte.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use ringwire_codec::handshake::accept_key;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::frames::push_len;
pub use crate::http::read_head;
use crate::{PATIENCE, wait_until};

/// Runs `talk` on each connection in turn, with its number.
pub fn serve(talk: impl FnMut(TcpStream, usize) + Send + 'static) -> SocketAddr {
    serve_at("127.0.0.1:0", talk)
}

/// The same at this address.
pub fn serve_at(
    address: &str,
    mut talk: impl FnMut(TcpStream, usize) + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind(address).expect("the address is free");
    let address = listener.local_addr().expect("it listens");
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            talk(ready(stream.expect("a client comes")), number);
        }
    });
    address
}

/// Runs `talk` on one connection, for its result.
pub fn serve_one<T: Send + 'static>(
    talk: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (SocketAddr, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it listens");
    let talk = thread::spawn(move || talk(ready(listener.accept().expect("a client comes").0)));
    (address, talk)
}

/// A server's end of a connection over TLS, which is rustls's own. Dropped, it ends with FIN alone.
pub type Secure = StreamOwned<ServerConnection, TcpStream>;

/// Runs `talk` on each connection in turn, over TLS.
pub fn serve_tls(
    config: Arc<ServerConfig>,
    mut talk: impl FnMut(Secure) + Send + 'static,
) -> SocketAddr {
    serve(move |stream, _| {
        let tls = ServerConnection::new(Arc::clone(&config)).expect("settings that can be");
        talk(StreamOwned::new(tls, stream));
    })
}

/// Says that nothing follows (RFC 8446 §6.1).
pub fn close_notify(stream: &mut Secure) {
    stream.conn.send_close_notify();
    stream.flush().expect("the client takes it");
}

fn ready(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).expect("a time above zero");
    stream.set_nodelay(true).expect("TCP_NODELAY can be set");
    stream
}

/// A server that reads the request and answers with these bytes, then holds the connection until the client ends it.
pub fn answering(answer: impl Into<Vec<u8>>) -> SocketAddr {
    let answer = answer.into();
    serve(move |mut stream, _| {
        read_head(&mut stream);
        // A client that has read enough goes.
        let _ = stream.write_all(&answer);
        drain(stream);
    })
}

/// A server that upgrades and then talks.
pub fn upgrading(mut talk: impl FnMut(TcpStream) + Send + 'static) -> SocketAddr {
    serve(move |mut stream, _| {
        upgrade(&mut stream);
        talk(stream);
    })
}

/// Reads a request and agrees to it. Gives the request.
pub fn upgrade(stream: &mut (impl Read + Write)) -> String {
    let head = read_head(stream);
    stream.write_all(agreement(&head, "").as_bytes()).expect("the client takes it");
    head
}

/// The answer that agrees to a request, with further headers, each of which ends its line.
#[must_use]
pub fn agreement(head: &str, more: &str) -> String {
    let key = header(head, "sec-websocket-key").expect("a request has a key");
    let accept = accept_key(key.as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n{more}\r\n",
        String::from_utf8_lossy(&accept)
    )
}

/// The value of a header.
#[must_use]
pub fn header(head: &str, name: &str) -> Option<String> {
    head.lines().find_map(|line| {
        let (each, value) = line.split_once(':')?;
        each.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}

/// Reads until the client ends the stream, and gives what came.
pub fn drain(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the client goes: {error}"),
    }
    let _ = stream.shutdown(Shutdown::Both);
    bytes
}

/// Waits until no more arrives of what the client sends, as the sockets of both sides are full.
pub fn wait_until_full(stream: &TcpStream) {
    let mut bytes = vec![0; 32 << 20];
    let mut before = 0;
    wait_until("the client is stuck", || {
        let len = stream.peek(&mut bytes).expect("the client sends");
        len == std::mem::replace(&mut before, len)
    });
}

/// Reads one frame of a client with a payload below 126 bytes: the first byte, and the payload unmasked.
pub fn read_frame(stream: &mut impl Read) -> (u8, Vec<u8>) {
    let mut head = [0; 6];
    stream.read_exact(&mut head).expect("a frame comes");
    assert_eq!(head[1] & 0x80, 0x80, "a client masks");
    let mut payload = vec![0; usize::from(head[1] & 0x7f)];
    assert!(payload.len() < 126, "a longer frame");
    stream.read_exact(&mut payload).expect("a payload comes");
    for (index, byte) in payload.iter_mut().enumerate() {
        *byte ^= head[2 + index % 4];
    }
    (head[0], payload)
}

/// A frame of a server, from its first byte and its payload.
#[must_use]
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    push_len(0, payload.len() as u64, &mut frame);
    frame.extend_from_slice(payload);
    frame
}

/// A server's close frame.
#[must_use]
pub fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    frame(0x88, &[&code.to_be_bytes(), reason.as_bytes()].concat())
}
