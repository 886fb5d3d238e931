//! Requests and the answers to them: acceptance, refusal, answers given later, ordinary HTTP.

#![expect(clippy::disallowed_types, reason = "the test and the application share the reports")]

use std::io::Write;
use std::net::{IpAddr, Shutdown};
use std::sync::{Arc, Mutex, mpsc};

use http::{HeaderName, HeaderValue, StatusCode, header};
use ringwire::{Accept, Answer, ConnId, Response};
use ringwire_peers::{
    Client, Got, client_request, connect, frame, http, plain_request, read_answer, request,
};

use crate::support::app::{App, Seen};
use crate::support::{PATIENCE, Server, config, ms, wait_until};

fn status_of(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

fn body_of(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

// Acceptance and refusal

#[test]
fn the_request_is_as_it_was_sent() {
    let (sender, receiver) = mpsc::channel();
    let sender = Mutex::new(sender);
    let server = Server::start(config(), move |app| {
        let sender = sender.lock().unwrap().clone();
        app.on_request(move |request| {
            let facts = vec![
                request.method().to_owned(),
                request.target().to_owned(),
                request.path().to_owned(),
                request.query().unwrap_or("none").to_owned(),
                request.host().unwrap_or("none").to_owned(),
                request.origin().unwrap_or("none").to_owned(),
                request.header_str("x-TOKEN").unwrap_or("none").to_owned(),
                request.subprotocols().collect::<Vec<_>>().join("+"),
                request.extensions().count().to_string(),
                request.headers().count().to_string(),
            ];
            sender.send((facts, request.peer_addr(), request.id())).unwrap();
            Answer::accept(0)
        })
    });
    let stream = connect(server.addr());
    let local_addr = stream.local_addr().unwrap();
    let request = client_request("/chat/room%20one?user=7&x")
        .with_origin(HeaderValue::from_static("https://example.org"))
        .with_subprotocol("chat")
        .unwrap()
        .with_subprotocol("superchat")
        .unwrap()
        .with_header(HeaderName::from_static("x-token"), HeaderValue::from_static("secret"))
        .unwrap();
    let _client = Client::upgrade(stream, &request);
    let (facts, peer, id) = receiver.recv_timeout(PATIENCE).unwrap();
    assert_eq!(
        facts,
        [
            "GET",
            "/chat/room%20one?user=7&x",
            "/chat/room%20one",
            "user=7&x",
            "localhost",
            "https://example.org",
            "secret",
            "chat+superchat",
            "0",
            "8",
        ]
    );
    assert_eq!(peer, local_addr);
    assert_eq!(server.opened(), id);
    assert_eq!(id.worker(), 0);
}

#[test]
fn a_refusal_says_what_the_application_wants() {
    let server = Server::start(config(), |app| {
        app.on_request(|request| match request.path() {
            "/private" => Response::new(StatusCode::UNAUTHORIZED)
                .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
                .with_body(HeaderValue::from_static("text/plain"), b"who are you?".as_slice())
                .into(),
            "/broken" => panic!("the application panics in on_request"),
            _ => Answer::accept(0),
        })
    });
    let answer = http(server.addr(), request().replacen("GET / ", "GET /private ", 1));
    assert!(answer.starts_with("HTTP/1.1 401 Unauthorized\r\n"), "{answer}");
    assert!(answer.contains("www-authenticate: Bearer\r\n"), "{answer}");
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    assert!(answer.contains("content-length: 12\r\n"), "{answer}");
    assert_eq!(body_of(&answer), "who are you?");
    let answer = http(server.addr(), request().replacen("GET / ", "GET /broken ", 1));
    assert_eq!(status_of(&answer), "500");

    let mut client = server.client();
    client.send("others are served");
    assert_eq!(client.text(), "others are served");
    let stats = server.stats();
    assert_eq!((stats.handshakes, stats.handshake_failures), (1, 2));
    client.leave();
    let opens = server.drained().iter().filter(|seen| **seen == Seen::Open).count();
    assert_eq!(opens, 1, "a refused connection was never open");
}

#[test]
fn a_subprotocol_is_chosen_from_those_offered() {
    let server = Server::start(config(), |app| {
        app.on_request(|request| {
            let accept = Accept::new(0);
            match request.path() {
                "/offered" => accept.with_subprotocol(request.subprotocols().last().unwrap()),
                "/invented" => accept.with_subprotocol("mine"),
                "/injected" => accept.with_subprotocol("chat\r\nX: y"),
                "/headers" => accept
                    .with_header(header::SET_COOKIE, HeaderValue::from_static("a=1"))
                    .with_header(header::SET_COOKIE, HeaderValue::from_static("b=2")),
                "/reserved" => accept
                    .with_header(header::SEC_WEBSOCKET_ACCEPT, HeaderValue::from_static("forged")),
                _ => accept,
            }
            .into()
        })
    });
    let offer = |target: &str| {
        let request = client_request(target).with_subprotocol("chat").unwrap();
        request.with_subprotocol("superchat").unwrap()
    };
    // The client checks that what was chosen is one that it offers.
    let client = Client::upgrade(connect(server.addr()), &offer("/offered"));
    assert!(client.head.contains("Sec-WebSocket-Protocol: superchat\r\n"), "{}", client.head);
    let client = Client::upgrade(connect(server.addr()), &offer("/"));
    assert!(!client.head.to_lowercase().contains("sec-websocket-protocol"), "{}", client.head);
    let client = Client::upgrade(connect(server.addr()), &offer("/headers"));
    assert!(client.head.contains("set-cookie: a=1\r\nset-cookie: b=2\r\n"), "{}", client.head);
    for target in ["/invented", "/injected", "/reserved"] {
        let mut wire = Vec::new();
        offer(target).encode(&mut wire);
        let answer = http(server.addr(), wire);
        assert_eq!(status_of(&answer), "500", "{target}: {answer}");
        assert!(!answer.contains("forged") && !answer.contains("X: y"), "{answer}");
    }
    let stats = server.stats();
    assert_eq!((stats.handshakes, stats.handshake_failures), (3, 3));
}

// Answers given later

/// A server that defers each request and tells its id.
fn deferring(config: ringwire::Config) -> (Server, mpsc::Receiver<ConnId>) {
    let (sender, receiver) = mpsc::channel();
    let sender = Arc::new(Mutex::new(sender));
    let server = Server::start(config, move |app: App| {
        let sender = sender.lock().expect("nobody panics with it").clone();
        app.on_request(move |request| {
            sender.send(request.id()).expect("the test waits");
            Answer::Defer
        })
        .on_message(|ctx, message| {
            assert_eq!(*ctx.state(), 7, "the state given with the acceptance");
            let _ = ctx.send(message);
        })
    });
    (server, receiver)
}

#[test]
fn a_deferred_request_is_accepted_later() {
    let (server, ids) = deferring(config());
    let request = client_request("/").with_subprotocol("chat").unwrap();
    let mut stream = connect(server.addr());
    let mut wire = Vec::new();
    request.encode(&mut wire);
    // An eager client sends on before the answer, with the request and after it.
    wire.extend(frame(0x81, b"one"));
    stream.write_all(&wire).unwrap();
    let id = ids.recv_timeout(PATIENCE).unwrap();
    stream.write_all(&frame(0x81, b"two")).unwrap();
    assert_eq!(server.next_within(ms(50)), None, "nothing is handed over before the answer");

    let accept = Accept::new(7_u32)
        .with_subprotocol("chat")
        .with_header(header::SERVER, HeaderValue::from_static("later"));
    server.handle().accept(id, accept).unwrap();
    let mut client = Client::await_upgrade(stream, &request);
    assert!(client.head.contains("server: later\r\n"), "{}", client.head);
    assert_eq!(server.opened(), id);
    assert_eq!(client.text(), "one");
    assert_eq!(client.text(), "two");
    // The second answer to the same request is void.
    server.handle().reject(id, Response::new(StatusCode::FORBIDDEN)).unwrap();
    client.send("three");
    assert_eq!(client.text(), "three");
    client.leave();
    assert!(server.closed().is_clean());
}

#[test]
fn a_deferred_request_is_refused_later() {
    let (server, ids) = deferring(config());
    let mut stream = connect(server.addr());
    stream.write_all(request().as_bytes()).unwrap();
    let id = ids.recv_timeout(PATIENCE).unwrap();
    stream.write_all(&frame(0x81, b"eager")).unwrap();
    server.handle().reject(id, Response::new(StatusCode::FORBIDDEN)).unwrap();
    assert_eq!(status_of(&read_answer(&mut stream)), "403");
    drop(stream);
    assert_eq!(server.drained(), [], "it was never open");
    assert_eq!(server.stats().handshake_failures, 1);
}

#[test]
fn a_deferred_request_wrongly_accepted_is_a_500() {
    let (server, ids) = deferring(config());
    let mut stream = connect(server.addr());
    stream.write_all(request().as_bytes()).unwrap();
    let id = ids.recv_timeout(PATIENCE).unwrap();
    let accept = Accept::new(7_u32).with_subprotocol("not offered");
    server.handle().accept(id, accept).unwrap();
    assert_eq!(status_of(&read_answer(&mut stream)), "500");
    drop(stream);
    assert_eq!(server.drained(), []);
}

#[test]
fn a_deferred_request_that_nobody_answers_times_out() {
    // The request has to come within that as well.
    let (server, ids) = deferring(config().with_handshake_timeout(ms(1000)));
    let mut stream = connect(server.addr());
    stream.write_all(request().as_bytes()).unwrap();
    let id = ids.recv_timeout(PATIENCE).unwrap();
    assert_eq!(read_answer(&mut stream), "");
    server.handle().accept(id, Accept::new(0_u32)).unwrap();
    assert_eq!(server.drained(), [], "an answer that comes too late is void");
    assert_eq!(server.stats().handshake_failures, 1);
}

#[test]
fn a_client_may_leave_before_the_answer() {
    let (server, ids) = deferring(config());
    let mut stream = connect(server.addr());
    stream.write_all(request().as_bytes()).unwrap();
    let id = ids.recv_timeout(PATIENCE).unwrap();
    drop(stream);
    server.handle().accept(id, Accept::new(0_u32)).unwrap();
    let seen = server.find("on_close", |_, seen| match seen {
        Seen::Close(cause) => Some(cause),
        _ => None,
    });
    assert!(!seen.is_clean());
    wait_until("the connection is gone", || server.stats().connections == 0);
}

// Ordinary HTTP

fn pages(app: App) -> App {
    app.on_http(|request| match (request.method(), request.path()) {
        ("GET" | "HEAD", "/") => Response::new(StatusCode::OK)
            .with_body(HeaderValue::from_static("text/html"), b"<p>hello".as_slice()),
        ("POST", "/") => Response::new(StatusCode::METHOD_NOT_ALLOWED)
            .with_header(header::ALLOW, HeaderValue::from_static("GET, HEAD")),
        (_, "/broken") => panic!("the application panics in on_http"),
        _ => Response::new(StatusCode::NOT_FOUND),
    })
}

#[test]
fn ordinary_requests_get_ordinary_answers() {
    let server = Server::start(config(), pages);
    let get = |line: &str| {
        http(
            server.addr(),
            format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
        )
    };
    let page = get("GET /");
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    assert!(page.contains("content-type: text/html\r\n"), "{page}");
    assert!(page.contains("content-length: 8\r\n"), "{page}");
    assert_eq!(body_of(&page), "<p>hello");
    let head = get("HEAD /");
    assert!(head.contains("content-length: 8\r\n"), "{head}");
    assert_eq!(body_of(&head), "", "the answer to HEAD has no body (RFC 9110 §9.3.2)");
    assert_eq!(status_of(&get("GET /nowhere")), "404");
    assert_eq!(status_of(&get("GET /broken")), "500");
    let with_body =
        "POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(status_of(&http(server.addr(), with_body)), "405");
    assert_eq!(status_of(&http(server.addr(), "GET / HTTP/1.0\r\n\r\n")), "200");
    let stats = server.stats();
    assert_eq!((stats.http_requests, stats.handshakes, stats.handshake_failures), (6, 0, 0));
    assert_eq!(stats.closes.total(), 0, "no WebSocket was closed");
}

#[test]
fn without_pages_the_answer_is_426() {
    let server = Server::echo(config());
    let answer = http(server.addr(), "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 426 Upgrade Required\r\n"), "{answer}");
    assert!(answer.contains("upgrade: websocket\r\n"), "{answer}");
    assert!(answer.contains("sec-websocket-version: 13\r\n"), "{answer}");
}

#[test]
fn a_client_that_has_ended_its_side_gets_its_page() {
    let server = Server::start(config(), pages);
    let mut stream = connect(server.addr());
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(body_of(&read_answer(&mut stream)), "<p>hello");
    wait_until("the connection is gone", || server.stats().connections == 0);
}

#[test]
fn a_page_longer_than_the_socket_takes_at_once() {
    const LEN: usize = 16 << 20;
    let server = Server::start(config(), |app| {
        app.on_http(|_| {
            let media_type = HeaderValue::from_static("application/octet-stream");
            Response::new(StatusCode::OK).with_body(media_type, vec![b'x'; LEN])
        })
    });
    let page =
        http(server.addr(), "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_eq!(body_of(&page).len(), LEN);
}

#[test]
fn the_loopback_peer_is_named() {
    let server = Server::start(config(), |app| {
        app.on_open(|ctx| {
            let IpAddr::V4(ip) = ctx.peer_addr().ip() else { panic!("not an IPv4 address") };
            assert!(ip.is_loopback());
            let _ = ctx.send(ctx.peer_addr().to_string().as_str());
        })
    });
    let mut client = Client::upgrade(connect(server.addr()), &plain_request());
    let own = client.stream.local_addr().unwrap();
    assert_eq!(client.next(), Got::Text(own.to_string()));
}
