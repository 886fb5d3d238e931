//! Several HTTP requests on a connection: their bodies, the order of the answers, limits, and upgrades behind them.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the test and the application share the reports, and tests wait"
)]

use std::net::Shutdown;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use http::{HeaderValue, StatusCode, header};
use ringwire::{Config, Responder, Response};
use ringwire_peers::{Client, Http, get, plain_request, post, stays_so_for};

use crate::support::process::{ran_alone, resident_len};
use crate::support::{PATIENCE, Server, config, ms, wait_until};

/// Answers with what the request was: method, path and body.
fn mirror(config: Config) -> Server {
    Server::start(config, |app| {
        app.on_http(|request| {
            let body = String::from_utf8_lossy(request.body());
            let response =
                Response::text(format!("{} {} {body}", request.method(), request.path()));
            match request.path() {
                "/last" => {
                    response.with_header(header::CONNECTION, HeaderValue::from_static("close"))
                }
                "/empty" => response.with_status(StatusCode::NO_CONTENT),
                "/broken" => panic!("the application panics in on_http"),
                "/len" => Response::text(request.body().len().to_string()),
                "/long" => Response::text("x".repeat(1 << 20)),
                _ => response,
            }
        })
    })
}

// One after the other

#[test]
fn a_connection_stays_for_the_next_request() {
    let server = mirror(config());
    let mut http = Http::connect(server.addr());
    for number in 0..50 {
        let answer = http.get(&format!("/{number}"));
        assert_eq!((answer.status(), answer.text()), (200, &*format!("GET /{number} ")));
        assert_eq!(answer.header("connection"), None);
        let date = answer.header("date").expect("RFC 9110 §6.6.1");
        assert!(date.len() == 29 && date.ends_with(" GMT"), "{date}");
        assert_eq!(http.post("/p", "hello").text(), "POST /p hello");
    }
    let stats = server.stats();
    assert_eq!((stats.http_requests, stats.accepts, stats.handshake_failures), (100, 1, 0));
    drop(http);
    wait_until("it is gone", || server.stats().connections == 0);
    assert_eq!(server.stats().handshake_failures, 0);
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let server = mirror(config().with_max_http_requests(u16::MAX));
    let requests: String = (0..3000)
        .map(|number| match number % 3 {
            0 => get(&format!("/{number}")),
            1 => post(&format!("/{number}"), "hello"),
            _ => format!(
                "PUT /{number} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                 2;ext=\"1\"\r\nhe\r\n3\r\nllo\r\n0\r\nX-Trailer: y\r\n\r\n"
            ),
        })
        .collect();
    for cut in [requests.len(), 1000, 7] {
        let mut http = Http::connect(server.addr());
        let mut sender = http.stream.try_clone().unwrap();
        let wire = requests.clone();
        let sending = std::thread::spawn(move || {
            use std::io::Write;
            wire.as_bytes().chunks(cut).for_each(|piece| sender.write_all(piece).unwrap());
        });
        for number in 0..3000 {
            let expected = match number % 3 {
                0 => format!("GET /{number} "),
                1 => format!("POST /{number} hello"),
                _ => format!("PUT /{number} hello"),
            };
            assert_eq!(http.answer().text(), expected);
        }
        sending.join().unwrap();
    }
}

#[test]
fn old_clients_are_told_that_it_stays() {
    let server = mirror(config());
    let mut http = Http::connect(server.addr());
    http.send("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let answer = http.answer();
    assert_eq!((answer.text(), answer.header("connection")), ("GET /a ", Some("keep-alive")));
    http.send("GET /b HTTP/1.0\r\n\r\n");
    let answer = http.answer();
    assert_eq!((answer.text(), answer.header("connection")), ("GET /b ", Some("close")));
    http.end();
}

#[test]
fn head_and_empty_answers_have_no_body() {
    let server = mirror(config());
    let mut http = Http::connect(server.addr());
    http.send("HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = http.head();
    assert_eq!((head.status(), head.header("content-length")), (200, Some("8")));
    let empty = http.get("/empty");
    assert_eq!((empty.status(), empty.header("content-length")), (204, None));
    assert_eq!(http.get("/b").text(), "GET /b ");
}

#[test]
fn either_side_may_say_that_it_was_the_last() {
    let server = mirror(config());
    let mut http = Http::connect(server.addr());
    http.send([get("/a"), get("/last"), get("/dropped")].concat());
    assert_eq!(http.answer().text(), "GET /a ");
    let last = http.answer();
    assert_eq!((last.text(), last.header("connection")), ("GET /last ", Some("close")));
    http.end();

    let mut http = Http::connect(server.addr());
    let closing = get("/b").replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1);
    http.send([&*closing, &*get("/dropped")].concat());
    assert_eq!(http.answer().header("connection"), Some("close"));
    http.end();
    assert_eq!(server.stats().http_requests, 3);
}

#[test]
fn a_panic_ends_its_connection_only() {
    let server = mirror(config());
    let mut other = Http::connect(server.addr());
    assert_eq!(other.get("/").status(), 200);
    let mut http = Http::connect(server.addr());
    http.send([get("/broken"), get("/dropped")].concat());
    assert_eq!(http.answer().status(), 500);
    http.end();
    assert_eq!(other.get("/").status(), 200);
}

#[test]
fn a_half_closed_client_gets_all_answers() {
    let server = mirror(config());
    let mut http = Http::connect(server.addr());
    http.send([get("/a"), get("/long"), get("/b")].concat());
    http.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(http.answer().text(), "GET /a ");
    assert_eq!(http.answer().body.len(), 1 << 20);
    assert_eq!(http.answer().text(), "GET /b ");
    http.end();
    wait_until("it is gone", || server.stats().connections == 0);
}

/// Requests wait while their answers do: a client that does not read can't make the server hold many.
#[test]
fn a_client_that_does_not_read_holds_up_itself() {
    let server = mirror(config().with_write_stall_timeout(ms(500)));
    let mut other = Http::connect(server.addr());
    let mut http = Http::connect(server.addr());
    http.send(get("/long").repeat(1000));
    wait_until("the first is answered", || server.stats().http_requests > 0);
    stays_so_for(ms(200), "few answers of 1 MiB for one that does not read", || {
        let stats = server.stats();
        stats.http_requests < 40 && stats.queued_bytes < 4 << 20
    });
    assert_eq!(other.get("/").status(), 200);
    wait_until("it is cut off", || server.stats().connections == 1);
}

// Bodies

#[test]
fn bodies_come_whole_however_they_are_cut() {
    let server = mirror(config());
    let mut http = Http::connect(server.addr());
    let chunked = "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
        5;a=\"b\"\r\nhello\r\n1\r\n!\r\n0\r\nX-Trailer: y\r\n\r\n";
    for request in [post("/c", "hello!"), chunked.to_owned()] {
        for byte in request.as_bytes() {
            http.send([*byte]);
        }
        assert_eq!(http.answer().text(), "POST /c hello!");
    }
}

#[test]
fn the_limit_on_bodies_is_exact() {
    let server = mirror(config().with_max_body_len(100_000));
    let mut http = Http::connect(server.addr());
    let chunks = |len: usize| {
        let chunk = format!("{len:x}\r\n{}\r\n", "x".repeat(len));
        format!(
            "POST /len HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n{chunk}0\r\n\r\n"
        )
    };
    assert_eq!(http.post("/len", &"x".repeat(100_000)).text(), "100000");
    http.send(chunks(99_999));
    assert_eq!(http.answer().text(), "100000");
    for request in [post("/len", &"x".repeat(100_001)), chunks(100_000)] {
        let mut http = Http::connect(server.addr());
        http.send(request);
        assert_eq!(http.answer().status(), 413);
        http.end();
    }
    assert_eq!(server.stats().http_requests, 2);
}

#[test]
fn a_client_may_wait_for_100_continue() {
    let server = mirror(config().with_max_body_len(10));
    let expecting = |len: usize| {
        format!(
            "POST /e HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {len}\r\n\r\n"
        )
    };
    let mut http = Http::connect(server.addr());
    http.send(expecting(5));
    assert_eq!(http.head().head, "HTTP/1.1 100 Continue\r\n\r\n");
    http.send("hello");
    assert_eq!(http.answer().text(), "POST /e hello");
    // One that does not wait needs none.
    http.send(expecting(5) + "hello");
    assert_eq!(http.answer().text(), "POST /e hello");
    // And one that would be refused is refused before it sends anything.
    http.send(expecting(11));
    assert_eq!(http.answer().status(), 413);
    http.end();
}

/// What is declared costs nothing: 200 bodies of 1 MiB each, of which a byte has come.
#[test]
fn declared_length_no_allocation() {
    if ran_alone(declared_length_no_allocation) {
        return;
    }
    let server = mirror(config());
    let before = resident_len();
    let request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1048576\r\n\r\nx";
    let clients: Vec<_> = (0..200)
        .map(|_| {
            let mut http = Http::connect(server.addr());
            http.send(request);
            http
        })
        .collect();
    wait_until("all are in", || server.stats().bytes_received == 200 * request.len() as u64);
    let grown = resident_len().saturating_sub(before);
    assert!(grown < 50 << 20, "{grown} bytes");
    drop(clients);
}

#[test]
fn framing_errors_end_the_connection() {
    let server = mirror(config());
    for (request, status) in [
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;a\nx\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    ] {
        let mut http = Http::connect(server.addr());
        // It is so on a connection that has proved itself as well.
        assert_eq!(http.get("/").status(), 200);
        http.send([request, &get("/smuggled")].concat());
        let answer = http.answer();
        assert_eq!(answer.status(), status, "{request}");
        assert_eq!(answer.header("connection"), Some("close"), "{request}");
        http.end();
    }
    let mut http = Http::connect(server.addr());
    http.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(20_000)));
    assert_eq!(http.answer().status(), 431);
    http.end();
    assert_eq!(server.stats().http_requests, 11, "nothing was smuggled");
}

/// RFC 9112 §2.2: an empty line before a request line is ignored, also one that comes by itself.
#[test]
fn an_empty_line_before_a_request_is_ignored() {
    let server = mirror(config().with_handshake_timeout(ms(1000)));
    let mut http = Http::connect(server.addr());
    http.send(format!("\r\n{}", get("/first")));
    assert_eq!(http.answer().text(), "GET /first ");
    http.send(format!("{}\r\n{}", post("/second", "body"), get("/third")));
    assert_eq!(http.answer().text(), "POST /second body");
    assert_eq!(http.answer().text(), "GET /third ");
    // It begins no request, whose time would run out.
    http.send("\r\n");
    stays_so_for(ms(1500), "it is connected", || server.stats().connections == 1);
    http.send("\r");
    http.send(format!("\n\r\n{}", get("/fourth")));
    assert_eq!(http.answer().text(), "GET /fourth ");

    let mut upgrade = Http::connect(server.addr());
    upgrade.send(
        "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    assert_eq!(upgrade.head().header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(server.stats().handshake_failures, 0);
}

/// RFC 9112 §3: a space in the target makes the request line malformed; RFC 9110 §7.2: Host has a port that exists.
#[test]
fn a_malformed_request_line_or_host_is_a_bad_request() {
    let server = mirror(config());
    for (request, status) in [
        ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1 x\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTQ/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a:99999999\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", 400),
        ("GET http://a:65536/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a:65535\r\n\r\n", 200),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    ] {
        let mut http = Http::connect(server.addr());
        http.send(request);
        assert_eq!(http.answer().status(), status, "{request}");
    }
}

#[test]
fn a_431_names_the_limit() {
    let server = mirror(config());
    let line = format!("X: {}\r\n", "x".repeat(8_180));
    for (headers, limit) in [
        (line.replace("x\r\n", &"x".repeat(20)), "max_line_len"),
        (line.repeat(3), "max_head_len"),
        ("X: x\r\n".repeat(100), "max_header_count"),
    ] {
        let mut http = Http::connect(server.addr());
        http.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{headers}\r\n"));
        let answer = http.answer();
        assert_eq!(answer.status(), 431);
        assert!(answer.text().contains(limit), "{}", answer.text());
    }
}

// Time

/// AWS's balancers keep a connection for 60 s of silence by default, and give a client 502 when the server closes
/// earlier.
#[test]
fn keep_alive_outlasts_the_usual_balancer() {
    assert!(Config::default().http_keep_alive_timeout > Some(Duration::from_secs(60)));
}

#[test]
fn a_silent_connection_is_closed() {
    let server = mirror(config().with_http_keep_alive_timeout(ms(1500)));
    let mut http = Http::connect(server.addr());
    // Longer than that together, and each far shorter.
    for _ in 0..3 {
        std::thread::sleep(ms(600));
        assert_eq!(http.get("/").status(), 200);
    }
    http.end();
    drop(http);
    wait_until("it is gone", || server.stats().connections == 0);
    assert_eq!(server.stats().handshake_failures, 0);
}

#[test]
fn a_request_has_its_time() {
    let server = mirror(config().with_handshake_timeout(ms(2000)));
    let slow = [
        "GET / HTTP/1.1\r\nHost: a\r\nX: ",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n",
    ];
    let mut clients = slow.map(|slow| (Http::connect(server.addr()), slow));
    // The time of the first is not taken from the second.
    for _ in 0..2 {
        std::thread::sleep(ms(1100));
        for (http, _) in &mut clients {
            assert_eq!(http.get("/").status(), 200);
        }
    }
    let trickling = clients.each_mut().map(|(http, slow)| {
        http.send(*slow);
        let mut sender = http.stream.try_clone().unwrap();
        std::thread::spawn(move || {
            use std::io::Write;
            // Until the server closes, which it does although something comes all the time.
            let start = std::time::Instant::now();
            while sender.write_all(b"x").is_ok() {
                assert!(start.elapsed() < PATIENCE, "the server waits on");
                std::thread::sleep(ms(20));
            }
        })
    });
    wait_until("all are cut off", || server.stats().connections == 0);
    drop(clients);
    trickling.into_iter().for_each(|trickling| trickling.join().unwrap());
    assert_eq!(server.stats().handshake_failures, 3);
}

#[test]
fn requests_of_a_connection_are_counted() {
    let server = mirror(config().with_max_http_requests(3));
    let mut http = Http::connect(server.addr());
    http.send(get("/").repeat(4));
    assert_eq!(http.answer().header("connection"), None);
    assert_eq!(http.answer().header("connection"), None);
    assert_eq!(http.answer().header("connection"), Some("close"));
    http.end();
    assert_eq!(server.stats().http_requests, 3);
}

#[test]
fn a_shutdown_ends_connections_between_requests() {
    let server = mirror(config());
    let mut http = Http::connect(server.addr());
    assert_eq!(http.get("/").status(), 200);
    server.handle().shutdown(PATIENCE);
    http.end();
    drop(http);
    server.join().unwrap();
}

// Upgrades

#[test]
fn a_connection_may_upgrade_later() {
    let server = mirror(config());
    let mut http = Http::connect(server.addr());
    assert_eq!(http.get("/a").status(), 200);
    assert_eq!(http.post("/b", "hello").text(), "POST /b hello");
    let mut client = Client::upgrade(http.into_stream(), &plain_request());
    client.send("frames from here on");
    assert_eq!(client.text(), "frames from here on");
    client.leave();
    assert!(server.closed().is_clean());

    // The upgrade and its first message with the requests before it.
    let mut http = Http::connect(server.addr());
    let mut wire = get("/a").into_bytes();
    plain_request().encode(&mut wire);
    wire.extend(ringwire_peers::frame(0x81, b"eager"));
    http.send(wire);
    let answer = http.answer();
    assert_eq!(answer.text(), "GET /a ");
    assert_eq!(http.head().status(), 101);
    assert_eq!(http.bytes(7), b"\x81\x05eager");
}

// Answers given later

/// A server that puts off what is asked of `/later`, and gives its responder away.
fn deferring(config: Config) -> (Server, mpsc::Receiver<Responder>) {
    let (sender, receiver) = mpsc::channel();
    let sender = Arc::new(Mutex::new(sender));
    let server = Server::start(config, move |app| {
        let sender = sender.lock().expect("nobody panics with it").clone();
        app.on_http_with(move |request, responder| match request.path() {
            "/later" => sender.send(responder).expect("the test waits"),
            path => responder.send(Response::text(path.to_owned())),
        })
    });
    (server, receiver)
}

#[test]
fn what_follows_a_deferred_request_waits() {
    let (server, responders) = deferring(config());
    let mut http = Http::connect(server.addr());
    http.send([get("/a"), get("/later"), get("/b")].concat());
    assert_eq!(http.answer().text(), "/a");
    let responder = responders.recv_timeout(PATIENCE).unwrap();
    // What is answered elsewhere, and what is no answer to this, changes nothing.
    assert_eq!(Http::connect(server.addr()).get("/c").text(), "/c");
    server.handle().accept(responder.conn(), ringwire::Accept::new(0_u32)).unwrap();
    server.handle().send(responder.conn(), "no WebSocket").unwrap();
    server.looks();
    assert_eq!(server.stats().http_requests, 3);
    responder.send(Response::text("at last"));
    assert_eq!(http.answer().text(), "at last");
    assert_eq!(http.answer().text(), "/b");
    http.send(post("/later", "x"));
    let responder = responders.recv_timeout(PATIENCE).unwrap();
    responder.send(Response::text("bye").with_close());
    assert_eq!(http.answer().text(), "bye");
    http.end();
}

#[test]
fn a_half_closed_client_gets_its_deferred_answer() {
    let (server, responders) = deferring(config());
    let mut http = Http::connect(server.addr());
    http.send(get("/later"));
    http.stream.shutdown(Shutdown::Write).unwrap();
    let responder = responders.recv_timeout(PATIENCE).unwrap();
    server.looks();
    responder.send(Response::text("at last"));
    assert_eq!(http.answer().text(), "at last");
    http.end();
    wait_until("it is gone", || server.stats().connections == 0);
}

#[test]
fn an_answer_that_nobody_gives_is_503() {
    // The request has to come within that as well.
    let (server, responders) = deferring(config().with_handshake_timeout(ms(1000)));
    let mut http = Http::connect(server.addr());
    http.send([get("/later"), get("/dropped")].concat());
    let responder = responders.recv_timeout(PATIENCE).unwrap();
    assert_eq!(http.answer().status(), 503);
    http.end();
    responder.send(Response::text("too late"));
    assert_eq!(server.stats().http_requests, 1);
}

#[test]
fn a_shutdown_waits_for_deferred_answers() {
    let (server, responders) = deferring(config());
    let mut http = Http::connect(server.addr());
    http.send(get("/later"));
    let responder = responders.recv_timeout(PATIENCE).unwrap();
    server.handle().shutdown(PATIENCE);
    server.looks();
    responder.send(Response::text("at last"));
    let answer = http.answer();
    assert_eq!((answer.text(), answer.header("connection")), ("at last", Some("close")));
    http.end();
    drop(http);
    server.join().unwrap();
}
