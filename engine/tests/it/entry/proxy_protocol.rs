//! Connections through proxies: the PROXY protocol, and the headers that proxies set.

#![expect(clippy::disallowed_types, reason = "tests own sockets, and rustls takes shared settings")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use ringwire::tls::pki_types::UnixTime;
use ringwire::tls::{CertificateSource, ServerConfig, ServerSettings};
use ringwire::{
    Answer, Ctx, Handler, Message, Request, Responder, Response, Running,
    admission::{Network, ProxyProtocol},
    stats::WorkerStats,
    transport::Listener,
};
use ringwire_peers::Identity;

use crate::support::{PATIENCE, config, join_in_time, wait_until};

/// Answers ordinary requests with who is there.
struct Who;

impl Handler for Who {
    type State = ();

    fn on_request(&mut self, _: &Request<'_>) -> Answer<()> {
        Answer::accept(())
    }

    fn on_http(&mut self, request: &Request<'_>, responder: Responder) {
        let text = format!(
            "peer {} by X-Forwarded-For {:?} by Forwarded {:?}",
            request.peer_addr(),
            request.forwarded_for(2),
            request.forwarded(1)
        );
        let response = Response::new(http::StatusCode::OK)
            .with_body(http::HeaderValue::from_static("text/plain"), text.into_bytes())
            .with_close();
        responder.send(response);
    }

    fn on_message(&mut self, _: &mut Ctx<'_, ()>, _: Message<'_>) {}
}

struct Server(Option<Running>);

impl Server {
    fn start(listener: Listener) -> Self {
        Self::start_with(config(), listener)
    }

    fn start_with(config: ringwire::Config, listener: Listener) -> Self {
        let server = ringwire::Server::new(config).listen_with(listener);
        Self(Some(server.start(|_| Who).expect("it starts")))
    }

    /// One that believes this machine.
    fn trusting(listener: Listener) -> Self {
        Self::start(listener.with_proxy_protocol(trusted("127.0.0.0/8")))
    }

    fn running(&self) -> &Running {
        self.0.as_ref().expect("it runs")
    }

    fn connect(&self) -> TcpStream {
        ringwire_peers::connect(self.running().local_addrs()[0])
    }

    fn stats(&self) -> WorkerStats {
        self.running().handle().stats().total()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(running) = self.0.take() {
            running.handle().shutdown(Duration::ZERO);
            join_in_time(running).expect("every worker ends well");
        }
    }
}

fn trusted(network: &str) -> ProxyProtocol {
    let network: Network = network.parse().expect("it is one");
    ProxyProtocol::required([network])
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Everything until the end of the stream; a reset counts as one.
fn read(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => panic!("{error}"),
        _ => String::from_utf8_lossy(&all).into_owned(),
    }
}

fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let len = u16::try_from(block.len()).expect("it is short").to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &len, block].concat()
}

#[test]
fn the_address_behind_a_proxy() {
    let server = Server::trusting(Listener::address("127.0.0.1:0"));
    let v4 = [192, 0, 2, 9, 192, 0, 2, 1, 0, 80, 1, 0xbb];
    let cases = [
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 5000 443\r\n".to_vec(), Some("192.0.2.7:5000")),
        (b"PROXY TCP6 2001:db8::7 ::1 5000 443\r\n".to_vec(), Some("[2001:db8::7]:5000")),
        (v2(0x21, 0x11, &v4), Some("192.0.2.9:80")),
        (v2(0x20, 0x00, &[]), None),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
    ];
    for (header, peer) in &cases {
        let mut stream = server.connect();
        let own = stream.local_addr().unwrap().to_string();
        stream.write_all(&[header, REQUEST].concat()).unwrap();
        let expected = format!("peer {} ", peer.unwrap_or(&own));
        let answer = read(&mut stream);
        assert!(answer.contains(&expected), "{expected}: {answer}");
    }
    assert_eq!(server.stats().proxy_failures, 0);
}

#[test]
fn a_header_in_pieces() {
    let server = Server::trusting(Listener::address("127.0.0.1:0"));
    let mut stream = server.connect();
    for byte in b"PROXY TCP4 192.0.2.7 192.0.2.1 5000 443\r\n".iter().chain(REQUEST) {
        stream.write_all(&[*byte]).unwrap();
    }
    assert!(read(&mut stream).contains("peer 192.0.2.7:5000 "));
}

#[test]
fn what_is_no_header_is_closed_and_counted() {
    let server = Server::trusting(Listener::address("127.0.0.1:0"));
    let wrong: [&[u8]; 4] = [REQUEST, b"PROXY TCP4 nobody\r\n", &v2(0x31, 0, &[]), &[b'P'; 70_000]];
    for (count, bytes) in (1..).zip(wrong) {
        let mut stream = server.connect();
        // It may be closed before all of it is sent.
        let _ = stream.write_all(bytes);
        assert_eq!(read(&mut stream), "", "not a word");
        wait_until("it is counted", || server.stats().proxy_failures == count);
    }
    wait_until("all are gone", || server.stats().connections == 0);
    assert_eq!(server.stats().http_requests, 0);
}

#[test]
fn strangers_are_closed_and_counted() {
    let listener = Listener::address("127.0.0.1:0").with_proxy_protocol(trusted("10.0.0.0/8"));
    let server = Server::start(listener);
    let mut stream = server.connect();
    let _ = stream.write_all(b"PROXY TCP4 192.0.2.7 192.0.2.1 5000 443\r\n");
    assert_eq!(read(&mut stream), "");
    wait_until("it is counted", || server.stats().proxy_failures == 1);
}

#[test]
fn a_header_that_nobody_asked_for_is_a_bad_request() {
    let server = Server::start(Listener::address("127.0.0.1:0"));
    let mut stream = server.connect();
    stream.write_all(b"PROXY TCP4 192.0.2.7 192.0.2.1 5000 443\r\n\r\n").unwrap();
    let answer = read(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 ") && !answer.contains("peer"), "{answer}");
    assert_eq!(server.stats().http_requests, 0);
}

#[test]
fn the_header_has_to_come_in_time() {
    let listener = Listener::address("127.0.0.1:0").with_proxy_protocol(trusted("127.0.0.1"));
    let settings = config().with_handshake_timeout(Duration::from_millis(300));
    let server = ringwire::Server::new(settings).listen_with(listener);
    let server = Server(Some(server.start(|_| Who).expect("it starts")));
    let mut stream = server.connect();
    stream.write_all(b"PROXY TCP4 192.0.2.7").unwrap();
    assert!(!read(&mut stream).contains("200"), "the stream ends");
}

/// What a TLS listener shows, and what a client that trusts it has.
fn tls() -> (ServerConfig, Arc<rustls::ClientConfig>) {
    let identity = Identity::localhost();
    let client = identity.client(rustls::ALL_VERSIONS);
    let source = CertificateSource::pem(identity.chain, identity.key);
    let server = ServerSettings::new(source).build(UnixTime::now()).expect("a server");
    (server, client)
}

/// The header, a whole handshake and a request, with the signature made by the worker or on a thread beside it.
#[test]
fn a_tls_handshake_after_it() {
    let (tls, trusting) = tls();
    let v4 = [192, 0, 2, 7, 192, 0, 2, 1, 0x13, 0x88, 1, 0xbb];
    let headers = [b"PROXY TCP4 192.0.2.7 192.0.2.1 5000 443\r\n".to_vec(), v2(0x21, 0x11, &v4)];
    for threads in [0, 1] {
        let listener = Listener::address("127.0.0.1:0").with_tls(tls.clone());
        let listener = listener.with_proxy_protocol(trusted("127.0.0.0/8"));
        let server = Server::start_with(config().with_compute_workers(threads), listener);
        for header in &headers {
            // In one segment with the first words of TLS, in pieces, and before them.
            for cut in [0, 3, header.len()] {
                let mut stream = server.connect();
                let (early, late) = header.split_at(cut);
                stream.write_all(early).unwrap();
                let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
                let mut client = rustls::ClientConnection::new(trusting.clone(), name).unwrap();
                let mut hello = late.to_vec();
                client.write_tls(&mut hello).unwrap();
                stream.write_all(&hello).unwrap();
                let mut stream = rustls::StreamOwned::new(client, stream);
                stream.write_all(REQUEST).unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).expect("it ends with close_notify");
                assert!(answer.contains("peer 192.0.2.7:5000 "), "{answer}");
            }
        }
        let stats = server.stats();
        assert_eq!((stats.tls_handshakes, stats.tls_failures, stats.proxy_failures), (6, 0, 0));
    }
}

#[test]
fn tls_comes_after_it() {
    let (tls, _) = tls();
    let server = Server::trusting(Listener::address("127.0.0.1:0").with_tls(tls));
    let mut stream = server.connect();
    stream.write_all(b"PROXY TCP4 192.0.2.7 192.0.2.1 5000 443\r\n").unwrap();
    // The beginning of a record that is none: TLS answers with an alert (RFC 8446 §6.2).
    stream.write_all(&[0x16, 3, 1, 0, 4, 9, 0, 0, 0]).unwrap();
    let mut alert = [0; 1];
    stream.read_exact(&mut alert).unwrap();
    assert_eq!(alert, [0x15]);
    wait_until("it is counted", || server.stats().tls_failures == 1);
    assert_eq!(server.stats().proxy_failures, 0);
}

#[test]
fn who_may_connect_to_a_unix_socket_is_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("server.sock");
    let listener = Listener::unix(&path).with_proxy_protocol(ProxyProtocol::required([]));
    let server = Server::start(listener);
    let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"PROXY TCP4 192.0.2.7 192.0.2.1 5000 443\r\n").unwrap();
    stream.write_all(REQUEST).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("peer 192.0.2.7:5000 "), "{answer}");
    drop(server);
}

#[test]
fn headers_count_from_the_end() {
    let server = Server::start(Listener::address("127.0.0.1:0"));
    let mut stream = server.connect();
    stream
        .write_all(
            b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6, 192.0.2.7\r\n\
              Forwarded: for=6.6.6.6\r\nx-forwarded-for: 10.0.0.1\r\n\
              Forwarded: proto=https;For=\"[2001:db8::7]:4711\"\r\n\r\n",
        )
        .unwrap();
    let answer = read(&mut stream);
    assert!(answer.contains("by X-Forwarded-For Some(192.0.2.7)"), "{answer}");
    assert!(answer.contains("by Forwarded Some(2001:db8::7)"), "{answer}");
    let mut stream = server.connect();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n").unwrap();
    let answer = read(&mut stream);
    assert!(answer.contains("by X-Forwarded-For None by Forwarded None"), "{answer}");
}

/// The limit for an address is for the clients behind the proxy, not for the proxy.
#[test]
fn connections_of_an_address_behind_a_proxy() {
    let listener = Listener::address("127.0.0.1:0").with_proxy_protocol(trusted("127.0.0.0/8"));
    let server = Server::start_with(config().with_max_connections_per_address(1), listener);
    let header = |client: u8| format!("PROXY TCP4 192.0.2.{client} 192.0.2.1 5000 443\r\n");
    let mut first = server.connect();
    first.write_all(header(1).as_bytes()).expect("it is open");
    wait_until("it is read", || server.stats().bytes_received > 0);
    let mut second = server.connect();
    second.write_all(&[header(1).as_bytes(), REQUEST].concat()).expect("it is open");
    assert_eq!(read(&mut second), "", "its address has one already");
    let mut other = server.connect();
    other.write_all(&[header(2).as_bytes(), REQUEST].concat()).expect("it is open");
    assert!(read(&mut other).contains("peer 192.0.2.2:5000"));
    first.write_all(REQUEST).expect("it is open");
    assert!(read(&mut first).contains("peer 192.0.2.1:5000"));
    wait_until("all are gone", || server.stats().connections == 0);
    let mut again = server.connect();
    again.write_all(&[header(1).as_bytes(), REQUEST].concat()).expect("it is open");
    assert!(read(&mut again).contains("peer 192.0.2.1:5000"));
    assert_eq!(server.stats().address_refusals, 1);
}
