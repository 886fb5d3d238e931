//! Requests that are slow, malformed, or not what they seem.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use http::StatusCode;
use ringwire::{Response, admission::OriginPolicy, handshake::HeadLimits};
use ringwire_peers::{Client, Got, connect, http, plain_request, read_answer, request};

use super::{quiet, round_trip, status_of};
use crate::support::{Server, config, ms, wait_until};

#[test]
fn handshake_deadline() {
    const COUNT: usize = 500;
    // The good clients have that long as well, on a machine that is busy.
    let limit = ms(2000);
    let server = Server::echo(quiet().with_handshake_timeout(limit));
    let mut early = server.client();
    let began = Instant::now();
    let mut slow: Vec<_> = (0..COUNT).map(|_| connect(server.addr())).collect();
    let head = request();
    // A byte each 50 ms would take seven seconds, and a deadline for each read would never pass.
    let mut fresh = Vec::new();
    for byte in head.as_bytes() {
        for stream in &mut slow {
            // Those whose time is up are closed.
            let _ = stream.write_all(&[*byte]);
        }
        let mut client = server.client();
        round_trip(&mut client);
        fresh.push(client);
        if server.stats().handshake_failures == COUNT as u64 {
            break;
        }
        thread::sleep(ms(50));
    }
    let took = began.elapsed();
    assert!(took >= limit, "after {took:?}");
    assert!(took < ms(50) * u32::try_from(head.len()).unwrap(), "after {took:?}");
    for stream in &mut slow {
        assert!(!matches!(stream.read(&mut [0; 64]), Ok(len) if len > 0), "nothing to be read");
    }
    // The deadline ends with the upgrade.
    round_trip(&mut early);
    for client in &mut fresh {
        round_trip(client);
    }
    wait_until("the slow ones are gone", || server.stats().connections == 1 + fresh.len() as u64);
    assert_eq!(server.stats().handshake_failures, COUNT as u64);
}

#[test]
fn handshake_header_linear() {
    let limits = HeadLimits::default();
    assert_eq!((limits.max_line_len, limits.max_head_len), (8 << 10, 16 << 10));
    let server = Server::echo(config());
    let with = |headers: &str| request().replacen("\r\n\r\n", &format!("\r\n{headers}\r\n\r\n"), 1);
    let long_line = with(&format!("X: {}", "x".repeat(8 << 10)));
    let long_head = with(&vec![format!("X: {}", "x".repeat(1000)); 17].join("\r\n"));
    let many = with(&vec!["X: y"; 100].join("\r\n"));
    for head in [long_line, long_head, many] {
        // Also where it does not end: the limit is found before that.
        for head in [head.as_str(), head.trim_end()] {
            assert_eq!(status_of(&http(server.addr(), head)), "431");
        }
    }
    // Byte by byte, as much as may be.
    let head = with(&vec![format!("X: {}", "x".repeat(1000)); 15].join("\r\n"));
    let mut stream = connect(server.addr());
    for byte in head.as_bytes() {
        stream.write_all(&[*byte]).unwrap();
    }
    let mut client = Client::await_upgrade(stream, &plain_request());
    round_trip(&mut client);
}

#[test]
fn handshake_missing_headers() {
    let server = Server::echo(config());
    let whole = request();
    let mut lines: Vec<&str> = whole.trim_end().split("\r\n").collect();
    let first = lines.remove(0);
    assert_eq!(lines.len(), 5);
    let head = |lines: &[String]| format!("{first}\r\n{}\r\n\r\n", lines.join("\r\n"));
    let refused = |what: &str, lines: &[String]| {
        let answer = http(server.addr(), head(lines));
        assert!(status_of(&answer).starts_with('4'), "{what} {lines:?}: {answer}");
    };
    // Every subset but the whole.
    for subset in 0..(1 << lines.len()) - 1 {
        let kept = lines.iter().enumerate().filter(|(index, _)| subset & (1 << index) != 0);
        refused("missing", &kept.map(|(_, line)| (*line).to_owned()).collect::<Vec<_>>());
    }
    for index in 0..lines.len() {
        let mut changed: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        let name = changed[index].split_once(':').unwrap().0.to_owned();
        changed[index] = format!("{name}:");
        refused("empty", &changed);
        // Lists may come in several lines (RFC 9110 §5.3), the others may not.
        if !["Upgrade", "Connection"].contains(&name.as_str()) {
            changed[index] = lines[index].to_owned();
            changed.push(lines[index].to_owned());
            refused("doubled", &changed);
        }
    }
    assert_eq!(server.stats().handshakes, 0);
    round_trip(&mut server.client());
}

#[test]
fn handshake_smuggling() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let server = Server::start(config(), move |app| {
        let calls = Arc::clone(&counter);
        app.on_http(move |_| {
            calls.fetch_add(1, Ordering::Relaxed);
            Response::new(StatusCode::OK)
        })
    });
    let smuggled = "GET /admin HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let with = |headers: &str| request().replacen("\r\n\r\n", &format!("\r\n{headers}\r\n\r\n"), 1);
    let len = smuggled.len();
    for head in [
        with(&format!("Content-Length: {len}")),
        with(&format!("Content-Length: {len}\r\nTransfer-Encoding: chunked")),
        with(&format!("Content-Length: {len}\r\nContent-Length: {len}")),
        with("Content-Length: +5"),
        with("Transfer-Encoding: xchunked"),
        with("Transfer-Encoding: chunked"),
        with("Transfer-Encoding : chunked"),
        with("X: y\nTransfer-Encoding: chunked"),
        request().replace("\r\n", "\n"),
        request().replacen("Host: localhost", " folded\r\nHost: localhost", 1),
    ] {
        let answer = http(server.addr(), format!("{head}{smuggled}"));
        assert_eq!(status_of(&answer), "400", "{head}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "one answer: {answer}");
    }
    // A refusal for any other cause, and a last request, end the connection as well.
    let old = request().replacen("Version: 13", "Version: 8", 1);
    let answer = http(server.addr(), format!("{old}{smuggled}"));
    assert_eq!((status_of(&answer), answer.matches("HTTP/1.1").count()), ("426", 1));
    assert_eq!(calls.load(Ordering::Relaxed), 0, "what followed was dropped");
    let answer = http(server.addr(), smuggled.repeat(2));
    assert_eq!((status_of(&answer), answer.matches("HTTP/1.1").count()), ("200", 1));
    assert_eq!(calls.load(Ordering::Relaxed), 1);

    // What follows a good one is frames: here one with reserved bits, without a mask.
    let mut stream = connect(server.addr());
    stream.write_all(format!("{}{smuggled}", request()).as_bytes()).unwrap();
    let mut client = Client::await_upgrade(stream, &plain_request());
    assert_eq!(client.close_frame().0, 1002);
    assert_eq!(client.end(), Got::Eof);
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

/// Scripts of foreign pages are kept out, however their origin is dressed up.
#[test]
fn origin_policy() {
    let ask = |server: &Server, origin: &str| {
        let request = request().replace("\r\n\r\n", &format!("\r\n{origin}\r\n\r\n"));
        let mut stream = connect(server.addr());
        stream.write_all(request.as_bytes()).expect("the request goes out");
        let mut status = [0; 12];
        stream.read_exact(&mut status).expect("the server answers");
        String::from_utf8_lossy(&status[9..]).into_owned()
    };
    let listed = OriginPolicy::list([
        "https://example.org",
        "https://*.example.org",
        "https://xn--bcher-kva.example",
    ])
    .expect("good patterns");
    let server = Server::echo(config().with_origin_policy(listed.clone()));
    for origin in [
        "https://example.org",
        "https://EXAMPLE.org:443",
        "https://a.b.example.org",
        "https://xn--bcher-kva.example",
    ] {
        assert_eq!(ask(&server, &format!("Origin: {origin}")), "101", "{origin}");
    }
    let foreign = [
        "http://example.org",
        "https://example.org:8443",
        "https://evilexample.org",
        "https://.example.org",
        "https://example.org.evil.net",
        "https://example.org@evil.net",
        "https://evil.net@a.example.org",
        "https://evil.net/.example.org",
        "https://xn--bcher-kva.example.evil.net",
        "null",
        "",
    ];
    for origin in foreign {
        assert_eq!(ask(&server, &format!("Origin: {origin}")), "403", "{origin}");
    }
    assert_eq!(server.stats().origin_refusals, foreign.len() as u64);
    let mut refused = connect(server.addr());
    refused
        .write_all(request().replace("\r\n\r\n", "\r\nOrigin: null\r\n\r\n").as_bytes())
        .unwrap();
    assert!(read_answer(&mut refused).contains("origin_policy"), "it says why");
    assert_eq!(ask(&server, "Origin: https://b\u{fc}cher.example"), "400", "no origin at all");
    let twice = "Origin: https://example.org\r\nOrigin: https://evil.net";
    assert_eq!(ask(&server, twice), "400");
    // Whoever is no browser sends none.
    assert_eq!(ask(&server, "X-Other: 1"), "101");
    let strict = config().with_origin_policy(listed).with_requires_origin(true);
    assert_eq!(ask(&Server::echo(strict), "X-Other: 1"), "403");

    let server = Server::echo(config().with_origin_policy(OriginPolicy::Same));
    assert_eq!(ask(&server, "Origin: http://localhost"), "101");
    for origin in ["http://localhost:81", "http://evil.localhost", "null"] {
        assert_eq!(ask(&server, &format!("Origin: {origin}")), "403", "{origin}");
    }
    let server = Server::echo(config());
    assert_eq!(ask(&server, "Origin: https://anyone.example"), "101", "open by default");
}
