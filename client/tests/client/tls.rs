//! wss, against a server that is rustls in the test's own hands.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use ringwire_client::CloseCode;
use ringwire_client::{Builder, Error, ErrorKind, Event, OwnedMessage, Waiting};
use ringwire_peers::server::{
    close_frame, close_notify, drain, frame, read_frame, serve, serve_tls, upgrade,
};
use ringwire_peers::{Identity, PATIENCE, ms};
use ringwire_tls::pki_types::UnixTime;
use ringwire_tls::{ClientConfig, ClientSettings, Roots};

use crate::peer::{builder, refusal_of};

/// A certificate for localhost, and a client that trusts it.
fn identity() -> (Arc<rustls::ServerConfig>, ClientConfig) {
    let identity = Identity::new(&["localhost", "127.0.0.1"]);
    let server = identity.server(rustls::ALL_VERSIONS);
    let client = ClientSettings::new(Roots::pem(identity.chain)).build(UnixTime::now()).unwrap();
    (server, client)
}

fn url(host: &str, address: SocketAddr) -> String {
    format!("wss://{host}:{}/", address.port())
}

fn trusting(client: ClientConfig) -> Builder {
    builder().with_tls(client)
}

#[test]
fn messages_of_every_length_and_a_clean_end() {
    use std::io::{Read, Write};
    let (server, client) = identity();
    let address = serve_tls(server, |mut stream| {
        upgrade(&mut stream);
        // One message of many records, header with a 64-bit length.
        let mut head = [0; 14];
        stream.read_exact(&mut head).unwrap();
        let len = u64::from_be_bytes(head[2..10].try_into().unwrap());
        let mut payload = vec![0; usize::try_from(len).unwrap()];
        stream.read_exact(&mut payload).unwrap();
        for (index, byte) in payload.iter_mut().enumerate() {
            *byte ^= head[10 + index % 4];
        }
        let mut answer = vec![0x82, 127];
        answer.extend_from_slice(&len.to_be_bytes());
        answer.extend_from_slice(&payload);
        answer.extend(frame(0x89, b"ping"));
        stream.write_all(&answer).unwrap();
        assert_eq!(read_frame(&mut stream), (0x8a, b"ping".to_vec()));
        let (_, code) = read_frame(&mut stream);
        stream.write_all(&frame(0x88, &code)).unwrap();
        close_notify(&mut stream);
    });
    for host in ["localhost", "127.0.0.1"] {
        let patient = trusting(client.clone()).with_close_timeout(PATIENCE);
        let mut client = patient.connect(url(host, address)).unwrap();
        let bytes: Vec<u8> = (0..=250).cycle().take(300_000).collect();
        client.send_binary(&bytes).unwrap();
        assert!(client.receive().unwrap() == Some(OwnedMessage::Binary(bytes)));
        assert_eq!(client.receive_event(PATIENCE).unwrap(), Some(Event::Ping(b"ping".to_vec())));
        client.close(CloseCode::NORMAL, "").unwrap();
        assert_eq!(client.receive().unwrap(), None);
    }
}

#[test]
fn certificates_that_are_not_trusted() {
    let (server, _) = identity();
    let address = serve_tls(server, |mut stream| {
        use std::io::Read;
        assert!(stream.read(&mut [0]).is_err(), "the client sends an alert");
    });
    let (_, other) = identity();
    let error = trusting(other).connect(url("localhost", address)).unwrap_err();
    assert!(matches!(error, Error::Tls(ringwire_tls::Error::PeerCertificate(_))), "{error}");
    assert_eq!(error.kind(), ErrorKind::Tls);
    // The authorities of this machine do not know it either.
    let error = builder().connect(url("localhost", address)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
}

#[test]
fn a_name_that_the_certificate_does_not_cover() {
    let (server, client) = identity();
    let address = serve_tls(server, |mut stream| {
        use std::io::Read;
        let _ = stream.read(&mut [0]);
    });
    let stream = TcpStream::connect(address).unwrap();
    let error = trusting(client).from_stream("wss://other.example/", stream).unwrap_err();
    assert!(matches!(error, Error::Tls(ringwire_tls::Error::PeerCertificate(_))), "{error}");
}

#[test]
fn without_verification_anybody_will_do() {
    let (server, _) = identity();
    let address = serve_tls(server, |mut stream| {
        use std::io::Write;
        upgrade(&mut stream);
        stream.write_all(&close_frame(1000, "")).unwrap();
        read_frame(&mut stream);
    });
    let any = ClientSettings::dangerous_without_certificate_verification();
    let any = any.build(UnixTime::now()).unwrap();
    let mut client = trusting(any).connect(url("localhost", address)).unwrap();
    // The stream ends without close_notify, which does not matter after close frames.
    assert_eq!(client.receive().unwrap(), None);
}

#[test]
fn a_stream_that_ends_without_goodbye() {
    let (server, client) = identity();
    let mut number = 0;
    let address = serve_tls(server, move |mut stream| {
        upgrade(&mut stream);
        number += 1;
        if number == 1 {
            close_notify(&mut stream);
        }
    });
    for _ in 0..2 {
        let mut client = trusting(client.clone()).connect(url("localhost", address)).unwrap();
        let error = client.receive().unwrap_err();
        assert!(matches!(error, Error::Lost(_)), "{error}");
    }
}

#[test]
fn garbage_in_the_middle_of_a_session() {
    use std::io::Write;
    let (server, client) = identity();
    let address = serve_tls(server, |mut stream| {
        upgrade(&mut stream);
        assert_eq!(read_frame(&mut stream).1, b"go on");
        stream.write_all(&frame(0x81, b"before")).unwrap();
        stream.sock.write_all(&[0x17, 3, 3, 0, 32]).unwrap();
        stream.sock.write_all(&[0; 32]).unwrap();
        drain(stream.sock);
    });
    let mut client = trusting(client).connect(url("localhost", address)).unwrap();
    client.send("go on").unwrap();
    assert_eq!(client.receive().unwrap(), Some("before".into()));
    assert_eq!(client.receive().unwrap_err().kind(), ErrorKind::Tls);
    assert_eq!(client.send("x").unwrap_err().kind(), ErrorKind::Tls);
}

/// The session has failed, and the server does not go: what can never be sent is not said to be.
#[test]
fn nothing_is_sent_once_the_session_has_failed() {
    use std::io::Write;
    let (server, client) = identity();
    let (until, end) = std::sync::mpsc::channel::<()>();
    let address = serve_tls(server, move |mut stream| {
        upgrade(&mut stream);
        assert_eq!(read_frame(&mut stream).1, b"go on");
        stream.sock.write_all(&[0x17, 3, 3, 0, 32]).unwrap();
        stream.sock.write_all(&[0; 32]).unwrap();
        let _ = end.recv();
    });
    let mut client = trusting(client).connect(url("localhost", address)).unwrap();
    client.send("go on").unwrap();
    while client.is_open() {
        let error = client.receive_timeout(ms(10)).unwrap_err();
        assert!(matches!(error, Error::Timeout(Waiting::Receive)), "{error}");
    }
    assert_eq!(client.send("x").unwrap_err().kind(), ErrorKind::Tls);
    assert_eq!(client.ping(b"x").unwrap_err().kind(), ErrorKind::Tls);
    drop(until);
}

#[test]
fn handshakes_that_cannot_work() {
    use std::io::Write;
    let (_, client) = identity();
    let client = trusting(client);
    let hasty = client.clone().with_handshake_timeout(ms(400));
    let silent = serve(|stream, _| {
        drain(stream);
    });
    let error = hasty.connect(url("localhost", silent)).unwrap_err();
    assert!(matches!(error, Error::Timeout(Waiting::Handshake)), "{error}");
    let plain = serve(|mut stream, _| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        drain(stream);
    });
    let error = client.connect(url("localhost", plain)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls, "{error}");
    let gone = serve(|stream, _| drop(stream));
    let error = client.connect(url("localhost", gone)).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Tls | ErrorKind::Closed), "{error}");
    // A client without TLS at a TLS port.
    let (server, _) = identity();
    let address = serve_tls(server, |mut stream| {
        use std::io::Read;
        let _ = stream.read(&mut [0]);
    });
    let error = refusal_of(&builder(), address);
    assert!(matches!(error.kind(), ErrorKind::Protocol | ErrorKind::Closed), "{error}");
}

/// RFC 9112 §9.8: without a length and without close_notify a body may have been cut. After close_notify no FIN is
/// waited for.
#[test]
fn a_body_that_ends_without_goodbye() {
    use std::io::Write;
    for says_goodbye in [false, true] {
        let (server, client) = identity();
        let (until, end) = std::sync::mpsc::channel::<()>();
        let address = serve_tls(server, move |mut stream| {
            ringwire_peers::server::read_head(&mut stream);
            stream.write_all(b"HTTP/1.1 404 Not Found\r\n\r\nby").unwrap();
            if says_goodbye {
                close_notify(&mut stream);
                let _ = end.recv();
            }
        });
        let error = trusting(client).connect(url("localhost", address)).unwrap_err();
        let refusal = error.refusal().unwrap();
        assert_eq!((&*refusal.body, refusal.is_complete), (&b"by"[..], says_goodbye));
        drop(until);
    }
}

#[test]
fn a_redirect_from_tls_to_plain_text_is_not_followed() {
    use std::io::Write;
    let (server, client) = identity();
    let address = serve_tls(server, |mut stream| {
        ringwire_peers::server::read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1:1/\r\n\r\n");
    });
    let builder = trusting(client).with_max_redirects(1);
    let error = builder.connect(url("localhost", address)).unwrap_err();
    assert!(error.to_string().contains("plain text"), "{error}");
}
