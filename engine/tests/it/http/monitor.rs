//! What a server says about itself over HTTP.

use std::time::Duration;

use ringwire::{CloseCode, Message, Router, StatusCode, on_message, shutdown::Drain};
use ringwire_peers::{Client, http, read_answer};

use crate::support::{Server, config, wait_until};

fn server(workers: usize) -> Server {
    let config = config().with_io_workers(workers).with_compute_workers(1);
    Server::with_handler(config, &["127.0.0.1:0"], |_, context| {
        let echo = on_message(|ctx, message| ctx.send(message));
        Router::new().monitoring(context.handle()).websocket("/", echo)
    })
}

fn get(server: &Server, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    http(server.addr(), request)
}

#[test]
fn metrics_health_and_stats() {
    let server = server(2);
    let mut client = Client::connect(server.addr());
    client.send(Message::Text("hello"));
    assert_eq!(client.text(), "hello");
    let metrics = get(&server, "/metrics");
    assert!(metrics.starts_with("HTTP/1.1 200 "), "{metrics}");
    assert!(metrics.contains("text/plain; version=0.0.4"), "{metrics}");
    let of = |name: &str| -> f64 {
        let samples = metrics.lines().filter_map(|line| line.strip_prefix(name)?.split_once(' '));
        samples.map(|(_, value)| value.parse::<f64>().expect("a number")).sum()
    };
    assert!((of("ringwire_messages_received_total{") - 1.0).abs() < 0.1);
    assert!((of("ringwire_open_connections{") - 1.0).abs() < 0.1);
    assert!(metrics.contains("ringwire_compute_threads 1"), "{metrics}");
    assert!(metrics.contains("ringwire_closes_total{worker=\"1\",reason=\"pong_timeout\"} 0"));
    let stats = get(&server, "/stats");
    let (_, body) = stats.split_once("\r\n\r\n").expect("a body");
    let json: serde_json::Value = serde_json::from_str(body).expect("it is JSON");
    assert_eq!(json["total"]["messages_sent"], 1);
    assert_eq!(json["workers"].as_array().map(Vec::len), Some(2));
    for (path, word) in [("/healthz", "ok\n"), ("/readyz", "ready\n")] {
        let answer = get(&server, path);
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(word), "{answer}");
        assert!(answer.to_ascii_lowercase().contains("cache-control: no-store"), "{answer}");
    }
    assert!(get(&server, "/other").starts_with("HTTP/1.1 404 "));
}

/// RFC 9110 §15.5.2: what a guard refuses it refuses whatever stands behind it.
#[test]
fn an_application_adds_its_metrics_and_keeps_them_back() {
    let server = Server::with_handler(config(), &["127.0.0.1:0"], |_, context| {
        Router::new()
            .monitoring_with(context.handle(), |text| text.gauge("app_rooms", "Rooms.", 3.0))
            .guard("/metrics", |request| match request.bearer_token() {
                Some("sesame") => Ok(()),
                _ => Err(StatusCode::UNAUTHORIZED),
            })
    });
    assert!(get(&server, "/metrics").starts_with("HTTP/1.1 401 "));
    let head = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    let metrics = http(server.addr(), format!("{head}Authorization: Bearer sesame\r\n\r\n"));
    let of = |name: &str| -> f64 {
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.expect(name).parse().expect("a number")
    };
    assert!((of("app_rooms") - 3.0).abs() < 0.1);
    assert!(of("process_resident_memory_bytes") > 1e6, "{metrics}");
    assert!(of("process_cpu_seconds_total") > 0.0, "{metrics}");
    assert!(metrics.contains("# TYPE process_cpu_seconds_total counter"), "{metrics}");
    assert!(metrics.contains("# TYPE app_rooms gauge"), "{metrics}");
    assert!(get(&server, "/readyz").starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_server_that_drains_is_not_ready() {
    let server = server(1);
    let client = Client::connect(server.addr());
    let drain = Drain::new(Duration::from_secs(20), CloseCode::GOING_AWAY).with_listeners_kept();
    server.handle().drain_with(&drain);
    wait_until("it is seen", || get(&server, "/readyz").starts_with("HTTP/1.1 503 "));
    assert!(get(&server, "/readyz").ends_with("draining\n"));
    assert!(get(&server, "/healthz").starts_with("HTTP/1.1 200 "));
    let mut refused = ringwire_peers::connect(server.addr());
    std::io::Write::write_all(&mut refused, ringwire_peers::request().as_bytes()).expect("it goes");
    assert!(read_answer(&mut refused).starts_with("HTTP/1.1 503 "), "no new WebSocket");
    drop(client);
}
