//! How connections end (RFC 6455 §7).

use std::time::Duration;

use futures_util::FutureExt as _;
use ringwire_tokio::codec::{self, AbnormalClosure, Limit, SendError, Violation};
use ringwire_tokio::{CloseCode, Config, Error, Timeout};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::{Socket, pair, run, run_paused, text};

/// A server whose client is bytes, and the client's end.
fn raw(config: &Config) -> (tokio::io::DuplexStream, Socket) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let (_, mut server) = pair(config, 1);
    *server.transport_mut() = far;
    (near, server)
}

/// A masked frame, with a mask of zeros.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let len = u8::try_from(payload.len()).unwrap();
    assert!(len < 126);
    [&[first, 0x80 | len, 0, 0, 0, 0], payload].concat()
}

#[test]
fn a_close_by_the_client() {
    run(async {
        let (mut client, mut server) = pair(&Config::default(), 100);
        let serving = tokio::spawn(async move {
            assert_eq!(server.receive().await.unwrap(), text("last words"));
            assert_eq!(server.receive().await.unwrap(), None);
            assert_eq!(server.close_frame(), Some((CloseCode::new(3000), "bye")));
            let error = server.send("late").await.unwrap_err();
            assert!(error.is_closed(), "{error}");
            assert_eq!(server.receive().await.unwrap(), None, "again");
        });
        client.send("last words").await.unwrap();
        client.close(CloseCode::new(3000), "bye").await.unwrap();
        assert_eq!(client.close_frame(), Some((CloseCode::new(3000), "")));
        assert_eq!(client.receive().await.unwrap(), None);
        client.close(CloseCode::NORMAL, "").await.unwrap();
        serving.await.unwrap();
    });
}

#[test]
fn a_close_by_the_server_drops_what_still_comes() {
    run(async {
        let (mut client, mut server) = pair(&Config::default(), 10_000);
        client.send("crossing").await.unwrap();
        let closing =
            tokio::spawn(async move { server.close(CloseCode::GOING_AWAY, "restart").await });
        assert_eq!(client.receive().await.unwrap(), None);
        assert_eq!(client.close_frame(), Some((CloseCode::GOING_AWAY, "restart")));
        closing.await.unwrap().unwrap();
    });
}

#[test]
fn codes_and_reasons_that_cannot_be_sent() {
    run(async {
        let (mut client, mut server) = pair(&Config::default(), 1000);
        let error = client.close(CloseCode::ABNORMAL, "").await.unwrap_err();
        assert!(matches!(error, Error::Send(SendError::BadCloseCode)), "{error}");
        let error = client.close(CloseCode::NORMAL, &"x".repeat(124)).await.unwrap_err();
        assert!(matches!(error, Error::Send(SendError::ReasonTooLong)), "{error}");
        let error = client.ping(&[0; 126]).await.unwrap_err();
        assert!(matches!(error, Error::Send(SendError::ControlTooLong)), "{error}");
        client.send("still open").await.unwrap();
        assert_eq!(server.receive().await.unwrap(), text("still open"));
    });
}

/// RFC 6455 §5.5.1: no data after the close frame. What is owed goes out first: the pong, and what was fed.
#[test]
fn what_is_owed_goes_out_before_the_answer_to_a_close() {
    run(async {
        let (mut client, mut server) = raw(&Config::default());
        let sent = [masked(0x89, b"ping"), masked(0x81, b"text"), masked(0x88, b"\x03\xe8bye")];
        client.write_all(&sent.concat()).await.unwrap();
        let message = server.receive().await.unwrap().unwrap();
        server.feed(message).await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(server.receive().await.unwrap(), None);
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"\x8a\x04ping\x81\x04text\x88\x02\x03\xe8");
    });
}

#[test]
fn violations_are_told_and_then_reported() {
    let too_long = 0x82_u8;
    for (frame, error, code) in [
        (
            vec![0x81, 1, b'a'],
            codec::Error::PeerMisbehaved(Violation::UnmaskedClientFrame),
            CloseCode::PROTOCOL_ERROR,
        ),
        (
            masked(0xc1, b"a"),
            codec::Error::PeerMisbehaved(Violation::ReservedBits),
            CloseCode::PROTOCOL_ERROR,
        ),
        (masked(0x81, b"\xff"), codec::Error::InvalidUtf8, CloseCode::INVALID_PAYLOAD),
        (
            [&[too_long, 0xfe, 0x03, 0xe9, 0, 0, 0, 0], &[0; 1001][..]].concat(),
            codec::Error::LimitExceeded(Limit::MessageLen),
            CloseCode::MESSAGE_TOO_BIG,
        ),
    ] {
        run(async {
            let config = Config::default().with_max_message_len(1000);
            let (mut client, mut server) = raw(&config);
            client.write_all(&[masked(0x81, b"before"), frame].concat()).await.unwrap();
            assert_eq!(server.receive().await.unwrap(), text("before"));
            let reading = tokio::spawn(async move {
                let mut all = Vec::new();
                client.read_to_end(&mut all).await.unwrap();
                all
            });
            match server.receive().await.unwrap_err() {
                Error::Protocol(found) => assert_eq!(found, error),
                other => panic!("{other}"),
            }
            assert_eq!(server.receive().await.unwrap(), None, "an error comes once");
            let [high, low] = code.get().to_be_bytes();
            assert_eq!(reading.await.unwrap(), [0x88, 2, high, low], "{error}");
        });
    }
}

/// A client that has sent more than was read would be reset by a close, and not get to read why (RFC 9293 §3.10.7).
#[test]
fn last_words_are_not_lost_in_a_reset() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let mut server = ringwire_tokio::WebSocketStream::from_upgraded(
            stream,
            ringwire_tokio::Role::Server,
            Config::default(),
            Vec::new(),
        );
        // A violation, and far more than one read takes behind it.
        let flood = [vec![0x81, 1, b'a'], vec![0; 1 << 20]].concat();
        let serving = tokio::spawn(async move { server.receive().await });
        client.write_all(&flood).await.unwrap();
        client.shutdown().await.unwrap();
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, [0x88, 2, 0x03, 0xea]);
        assert!(matches!(serving.await.unwrap(), Err(Error::Protocol(_))));
    });
}

/// What a peer said before its FIN is answered in full.
#[test]
fn a_half_closed_connection_is_answered() {
    run(async {
        let (mut client, mut server) = raw(&Config::default());
        client.write_all(&masked(0x81, b"question").repeat(3)).await.unwrap();
        client.shutdown().await.unwrap();
        let serving = tokio::spawn(async move {
            for _ in 0..3 {
                let message = server.receive().await.unwrap().unwrap();
                server.feed(message).await.unwrap();
            }
            server.receive().await
        });
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"\x81\x08question".repeat(3));
        let error = serving.await.unwrap().unwrap_err();
        assert!(matches!(error, Error::Ended(AbnormalClosure::BetweenMessages)), "{error}");
    });
}

#[test]
fn an_end_inside_a_message() {
    run(async {
        let (mut client, mut server) = raw(&Config::default());
        client.write_all(&masked(0x81, b"cut")[..8]).await.unwrap();
        drop(client);
        let error = server.receive().await.unwrap_err();
        assert!(matches!(error, Error::Ended(AbnormalClosure::InsideMessage)), "{error}");
    });
}

#[test]
fn a_peer_that_does_not_answer_a_close() {
    run_paused(async {
        let (_client, mut server) = raw(&Config::default());
        let began = tokio::time::Instant::now();
        let error = server.close(CloseCode::NORMAL, "").await.unwrap_err();
        assert!(matches!(error, Error::Timeout(Timeout::Close)), "{error}");
        assert_eq!(began.elapsed().as_secs(), 5);
    });
}

/// Whoever answers the close but never closes its end holds nobody up for longer than the timeout, and is no error.
#[test]
fn a_peer_that_does_not_end_its_stream() {
    run_paused(async {
        let config = Config::default().with_close_timeout(Duration::from_secs(2));
        let (mut client, mut server) = raw(&config);
        client.write_all(&masked(0x88, b"")).await.unwrap();
        let began = tokio::time::Instant::now();
        assert_eq!(server.receive().await.unwrap(), None);
        assert_eq!(server.close_frame(), Some((CloseCode::NO_STATUS, "")));
        assert_eq!(began.elapsed().as_secs(), 2);
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, [0x88, 0]);
    });
}

/// A client that waits for the server to close first (RFC 6455 §7.1.1) ends the transport itself after the timeout.
#[test]
fn a_server_that_does_not_end_its_stream() {
    run_paused(async {
        let (mut client, _) = pair(&Config::default(), 1);
        let (near, mut far) = tokio::io::duplex(100);
        *client.transport_mut() = near;
        far.write_all(&[0x88, 0]).await.unwrap();
        assert_eq!(client.receive().await.unwrap(), None);
        let mut all = Vec::new();
        far.read_to_end(&mut all).await.unwrap();
        assert_eq!(all.len(), 6, "a masked close frame, and the end: {all:?}");
    });
}

/// A peer that sends without end and never closes does not keep a connection beyond the timeout.
#[test]
fn a_flood_behind_the_end() {
    run(async {
        let config = Config::default().with_close_timeout(Duration::from_millis(200));
        let (mut client, mut server) = raw(&config);
        client.write_all(&masked(0x88, b"")).await.unwrap();
        let flooding =
            tokio::spawn(async move { while client.write_all(&[0; 4096]).await.is_ok() {} });
        assert_eq!(server.receive().await.unwrap(), None);
        drop(server);
        flooding.await.unwrap();
    });
}

/// Nobody polls it meanwhile: another branch of a `select!`, say, takes its time.
#[test]
fn an_answer_to_a_close_that_is_looked_at_late() {
    run_paused(async {
        let config = Config::default().with_close_timeout(Duration::from_millis(50));
        let (mut client, mut server) = raw(&config);
        let mut closing = std::pin::pin!(server.close(CloseCode::NORMAL, ""));
        assert!(closing.as_mut().now_or_never().is_none());
        client.read_exact(&mut [0; 4]).await.unwrap();
        client.write_all(&masked(0x88, b"\x03\xe8")).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        closing.await.unwrap();
    });
}

/// The same while the answer to this side's close frame is waited for. Each poll spends all of the task's budget.
#[test]
fn a_flood_instead_of_an_answer_to_a_close() {
    run(async {
        let config = Config::default().with_close_timeout(Duration::from_millis(200));
        let (near, far) = tokio::io::duplex(16 << 20);
        let (_, mut server) = pair(&config, 1);
        *server.transport_mut() = far;
        let (mut reading, mut writing) = tokio::io::split(near);
        // More at once than a poll reads: 128 times 32 KiB.
        let frame = [&[0x82, 0xfe, 0x40, 0, 0, 0, 0, 0][..], &[7; 16 << 10]].concat();
        let frames = frame.repeat(512);
        let flooding =
            tokio::spawn(async move { while writing.write_all(&frames).await.is_ok() {} });
        let error = server.close(CloseCode::NORMAL, "").await.unwrap_err();
        assert!(matches!(error, Error::Timeout(Timeout::Close)), "{error}");
        drop(server);
        let mut all = Vec::new();
        reading.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, [0x88, 2, 0x03, 0xe8]);
        flooding.await.unwrap();
    });
}
