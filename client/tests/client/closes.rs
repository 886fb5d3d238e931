//! Ends of connections, in all directions.

use std::io::Write;
use std::net::Shutdown;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use ringwire_client::CloseCode;
use ringwire_client::{Error, ErrorKind, Waiting};
use ringwire_peers::server::{close_frame, drain, frame, read_frame, upgrading};
use ringwire_peers::{PATIENCE, ms};

use crate::peer::{builder, connect, url};

#[test]
fn the_server_closes_normally() {
    for (code, text) in [(1000, "bye"), (1001, "")] {
        let address = upgrading(move |mut stream| {
            stream.write_all(&close_frame(code, text)).unwrap();
            assert_eq!(read_frame(&mut stream).1, code.to_be_bytes());
        });
        let mut client = connect(address);
        assert_eq!(client.receive().unwrap(), None);
        assert_eq!(client.receive().unwrap(), None, "it stays ended");
        assert_eq!(client.close_frame(), Some((CloseCode::new(code), text.to_owned())));
        assert_eq!(client.send("more").unwrap_err().kind(), ErrorKind::Closed);
        client.close(CloseCode::NORMAL, "").unwrap();
    }
}

#[test]
fn the_server_closes_without_a_code() {
    let address = upgrading(|mut stream| {
        stream.write_all(&frame(0x88, b"")).unwrap();
        assert_eq!(read_frame(&mut stream), (0x88, Vec::new()));
    });
    let mut client = connect(address);
    assert_eq!(client.receive().unwrap(), None);
    assert_eq!(client.close_frame(), Some((CloseCode::NO_STATUS, String::new())));
}

#[test]
fn the_server_closes_with_a_reason_to_complain() {
    let address = upgrading(|mut stream| {
        stream.write_all(&close_frame(4001, "token expired")).unwrap();
        read_frame(&mut stream);
    });
    let mut client = connect(address);
    let Err(Error::Closed { code, reason }) = client.receive() else { panic!("no close") };
    assert_eq!((code.get(), reason.as_str()), (4001, "token expired"));
    assert!(matches!(client.send("x"), Err(Error::Closed { code, .. }) if code.get() == 4001));
    assert!(matches!(client.close(CloseCode::NORMAL, ""), Err(Error::Closed { .. })));
}

#[test]
fn this_side_closes_and_what_still_comes_is_dropped() {
    let address = upgrading(|mut stream| {
        assert_eq!(read_frame(&mut stream), (0x88, b"\x0f\xa0why".to_vec()));
        stream.write_all(&frame(0x81, b"too late")).unwrap();
        stream.write_all(&close_frame(4000, "")).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert!(drain(stream).is_empty());
    });
    let mut client = connect(address);
    client.close(CloseCode::new(4000), "why").unwrap();
    assert_eq!(client.receive().unwrap(), None);
    let error = client.close(CloseCode::new(1005), "").err();
    assert!(error.is_none(), "it is closed already");
}

#[test]
fn a_server_that_does_not_answer_the_close_frame() {
    let address = upgrading(|stream| {
        drain(stream);
    });
    let mut client = connect(address);
    let begin = Instant::now();
    let error = client.close(CloseCode::NORMAL, "").unwrap_err();
    assert!(matches!(error, Error::Timeout(Waiting::Close)), "{error}");
    assert!(begin.elapsed() >= ms(500), "the close timeout of the test's builder");
}

/// There is always something to read, so that silence never comes.
#[test]
fn a_server_that_floods_instead_of_answering_the_close_frame() {
    for has_heartbeat in [false, true] {
        let address = upgrading(|mut stream| {
            read_frame(&mut stream);
            let messages = [0x82, 0].repeat(32 << 10);
            while stream.write_all(&messages).is_ok() {}
        });
        let (sender, ended) = mpsc::channel();
        thread::spawn(move || {
            let builder = builder().with_heartbeat_thread(has_heartbeat);
            let mut client = builder.connect(url(address)).unwrap();
            sender.send(client.close(CloseCode::NORMAL, "")).unwrap();
        });
        let error = ended.recv_timeout(PATIENCE).expect("it ends").unwrap_err();
        assert!(matches!(error, Error::Timeout(Waiting::Close)), "{error}");
    }
}

#[test]
fn a_server_that_answers_and_leaves_the_stream_open() {
    let address = upgrading(|mut stream| {
        let (_, payload) = read_frame(&mut stream);
        stream.write_all(&frame(0x88, &payload)).unwrap();
        drain(stream);
    });
    let begin = Instant::now();
    connect(address).close(CloseCode::NORMAL, "").unwrap();
    assert!(begin.elapsed() < Duration::from_secs(15));
}

#[test]
fn a_server_that_goes_without_a_word() {
    for cut in [&b""[..], b"\x81", b"\x81\x05hel", b"\x01\x01a"] {
        let address = upgrading(move |mut stream| {
            stream.write_all(cut).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            drain(stream);
        });
        let mut client = connect(address);
        let error = client.receive().unwrap_err();
        assert!(matches!(error, Error::Lost(_)), "{error}");
        assert_eq!(error.kind(), ErrorKind::Closed);
        assert_eq!(error.to_string().contains("inside a message"), !cut.is_empty());
        assert_eq!(client.close(CloseCode::NORMAL, "").unwrap_err().kind(), ErrorKind::Closed);
    }
}

#[test]
fn a_server_that_goes_instead_of_answering_the_close_frame() {
    let address = upgrading(|mut stream| {
        read_frame(&mut stream);
    });
    let error = connect(address).close(CloseCode::NORMAL, "").unwrap_err();
    assert!(matches!(error, Error::Lost(_)), "{error}");
}

#[test]
fn a_server_that_breaks_the_protocol_is_told() {
    for (bytes, code) in [
        (vec![0xc1, 0], 1002_u16),
        (vec![0x81, 0x80, 1, 2, 3, 4], 1002),
        (vec![0x83, 0], 1002),
        (vec![0x80, 0], 1002),
        (vec![0x81, 1, 0xff], 1007),
        (vec![0x82, 0x7f, 0, 0, 1, 0, 0, 0, 0, 0], 1009),
        (frame(0x88, &[3]), 1002),
        (frame(0x88, &1005_u16.to_be_bytes()), 1002),
    ] {
        let (sender, told) = mpsc::channel();
        let sent = bytes.clone();
        let address = upgrading(move |mut stream| {
            stream.write_all(&sent).unwrap();
            sender.send(read_frame(&mut stream)).unwrap();
            assert!(drain(stream).is_empty());
        });
        let mut client = connect(address);
        let error = client.receive().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{bytes:?}");
        let (first, payload) = told.recv().unwrap();
        assert_eq!((first, payload[..2].to_vec()), (0x88, code.to_be_bytes().to_vec()));
    }
}

#[test]
fn a_flood_of_pings_is_not_for_ever() {
    let address = upgrading(|mut stream| {
        let pings = frame(0x89, b"x").repeat(1000);
        while stream.write_all(&pings).is_ok() {}
    });
    let error = connect(address).receive().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
}
