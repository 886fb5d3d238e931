// A server for the examples in the documentation: it echoes short messages to who has the right request.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use ringwire_codec::handshake::accept_key;

/// Starts it. `is_right` has each request and its number, and the others get 401.
pub fn start(mut is_right: impl FnMut(&str, usize) -> bool + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let request = read_request(&mut stream);
            if is_right(&request, number) {
                echo(stream, &request);
            } else {
                let refusal = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n";
                stream.write_all(refusal).unwrap();
            }
        }
    });
    address
}

fn read_request(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn echo(mut stream: TcpStream, request: &str) {
    let key = request.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("sec-websocket-key").then_some(value)
    });
    let accept = accept_key(key.unwrap().as_bytes());
    write!(
        stream,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        std::str::from_utf8(&accept).unwrap()
    )
    .unwrap();
    let mut head = [0; 6];
    while stream.read_exact(&mut head).is_ok() {
        let len = head[1] & 0x7f;
        let mut payload = vec![0; usize::from(len)];
        stream.read_exact(&mut payload).unwrap();
        for (index, byte) in payload.iter_mut().enumerate() {
            *byte ^= head[2 + index % 4];
        }
        stream.write_all(&[&[head[0], len], &payload[..]].concat()).unwrap();
    }
}
