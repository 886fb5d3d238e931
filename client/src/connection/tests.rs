//! An open connection whose other end is a socket of the test.

use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::thread;

use super::*;

/// A connection without TLS and extensions, and the other end of its socket.
fn connection() -> (Arc<Connection>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    let settings = Settings {
        protocol: codec::Config::default(),
        read_timeout: None,
        write_timeout: None,
        close_timeout: Duration::from_secs(5),
        ping_interval: None,
        peer_timeout: None,
        heartbeat_thread: false,
    };
    let wire = Wire::new(OwnedFd::from(near)).unwrap();
    let agreed = Agreed { deflate: None, layer: None };
    (Connection::new(wire, None, agreed, &[], settings).unwrap(), far)
}

/// Output that kept a pong back and that the socket takes at once leaves nothing to wait for that would send the pong.
#[test]
fn a_pong_that_had_no_room_goes_out_with_what_was_before_it() {
    let (connection, mut far) = connection();
    let payload = vec![7; 100 << 10];
    {
        let mut core = connection.core();
        core.encode_message(Message::Binary(&payload)).unwrap();
        core.codec
            .receive(&codec::Config::default(), &mut Heap, &mut codec::Input::new(&mut [0x89, 0]))
            .unwrap()
            .unwrap();
        assert!(core.pending_len() > MAX_OWED_LEN && core.codec.wants_transmit());
    }
    let reading = thread::spawn(move || {
        let mut all = Vec::new();
        far.read_to_end(&mut all).unwrap();
        all
    });
    let mut sent = false;
    while !sent {
        let (interest, _) = connection.settle().unwrap();
        let core = connection.core();
        sent = !core.codec.wants_transmit() && core.pending_len() == 0;
        assert!(sent || interest == Interest::Both, "it waits for room");
    }
    connection.wire.shutdown_write();
    let all = reading.join().unwrap();
    // A header of 14 bytes, and a masked pong without a payload.
    assert_eq!(all.len(), 14 + payload.len() + 6);
    assert_eq!(all[all.len() - 6..][..2], [0x8a, 0x80]);
}
