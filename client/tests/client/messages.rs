//! Messages there and back, halves on two threads, streams that others made.

use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

use ringwire_client::CloseCode;
use ringwire_client::{Client, Error, ErrorKind, OwnedMessage};
use ringwire_peers::server::{frame, read_frame, upgrade, upgrading, wait_until_full};

use crate::peer::{builder, connect};

#[test]
fn messages_that_arrive_together_come_one_by_one() {
    let address = upgrading(|mut stream| {
        use std::io::Write;
        let mut bytes = frame(0x81, b"one");
        bytes.extend(frame(0x89, b"ping"));
        bytes.extend(frame(0x02, b"t"));
        bytes.extend(frame(0x80, b"wo"));
        bytes.extend(frame(0x88, &1000_u16.to_be_bytes()));
        stream.write_all(&bytes).unwrap();
        assert_eq!(read_frame(&mut stream), (0x8a, b"ping".to_vec()));
        assert_eq!(read_frame(&mut stream), (0x88, 1000_u16.to_be_bytes().to_vec()));
    });
    let mut client = connect(address);
    let all: Result<Vec<_>, _> = client.messages().collect();
    assert_eq!(all.unwrap(), ["one".into(), OwnedMessage::Binary(b"two".to_vec())]);
    assert_eq!(client.close_frame(), Some((CloseCode::NORMAL, String::new())));
    assert!(!client.is_open());
}

#[test]
fn a_receiver_answers_pings_while_a_sender_waits_for_the_socket() {
    use std::io::{Read, Write};
    let address = upgrading(|mut stream| {
        // Nothing is read until the client is stuck, then a ping, then all that waited.
        wait_until_full(&stream);
        stream.write_all(&frame(0x89, b"p")).unwrap();
        let mut bytes = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        while !bytes.ends_with(b"end!") {
            let len = stream.read(&mut buffer).unwrap();
            assert!(len > 0, "the client stays until the pong was seen");
            bytes.extend_from_slice(&buffer[..len]);
            if bytes.len() > 20 << 20 {
                break;
            }
        }
        stream.write_all(&frame(0x81, b"enough")).unwrap();
        let _ = stream.read_to_end(&mut bytes);
        // The pong follows the one message of 20 MiB: FIN and pong, masked, one byte.
        let pong = &bytes[14 + (20 << 20)..];
        assert_eq!(pong[..2], [0x8a, 0x81]);
        assert_eq!(pong[2] ^ pong[6], b'p');
    });
    let (sender, mut receiver) = connect(address).split();
    let sending = thread::spawn(move || sender.send(vec![0; 20 << 20].as_slice()).map(|()| sender));
    assert_eq!(receiver.receive().unwrap(), Some("enough".into()));
    drop(receiver);
    drop(sending.join().unwrap().unwrap());
}

#[test]
fn unix_sockets_by_url_and_as_streams() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let server = thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            let head = upgrade(&mut stream);
            assert!(head.starts_with("GET /chat?x HTTP/1.1\r\nHost: localhost\r\n"), "{head}");
            let (_, payload) = read_frame(&mut stream);
            use std::io::Write;
            stream.write_all(&frame(0x81, &payload)).unwrap();
            assert_eq!(read_frame(&mut stream).0, 0x88);
        }
    });
    let url = format!("ws+unix:{}:/chat?x", path.display());
    // The server has one client at a time.
    let connects: [&dyn Fn() -> Result<Client, Error>; 2] = [&|| builder().connect(&url), &|| {
        builder().from_stream(&url, UnixStream::connect(&path).unwrap())
    }];
    for connect in connects {
        let mut client = connect().unwrap();
        client.send("hello").unwrap();
        assert_eq!(client.receive().unwrap(), Some("hello".into()));
    }
    server.join().unwrap();
    let error = builder().connect("ws+unix:/nowhere/at/all:/").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectFailed);
    assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
}

#[test]
fn masks_differ_from_frame_to_frame() {
    use std::io::Read;
    let address = upgrading(|mut stream| {
        let mut masks = std::collections::HashSet::new();
        for _ in 0..100 {
            let mut bytes = [0; 7];
            stream.read_exact(&mut bytes).unwrap();
            masks.insert([bytes[2], bytes[3], bytes[4], bytes[5]]);
        }
        assert!(masks.len() > 95);
        use std::io::Write;
        stream.write_all(&frame(0x81, b"fine")).unwrap();
    });
    let mut client = connect(address);
    for _ in 0..100 {
        client.send("x").unwrap();
    }
    assert_eq!(client.receive().unwrap(), Some("fine".into()));
}
