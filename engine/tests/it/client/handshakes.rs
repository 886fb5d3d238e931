//! Answers to the handshake: refusals, redirects, nonsense, silence.

use std::io::Write;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode, header};
use ringwire::Response;
use ringwire::client::ErrorKind;
use ringwire_peers::server::{read_head, serve};

use super::peer::{builder, refusal_of};
use crate::support::{Server, config};

#[test]
fn refusals_show_status_headers_and_body() {
    let server = Server::start(config(), |app| {
        app.on_request(|_| {
            Response::new(StatusCode::SERVICE_UNAVAILABLE)
                .with_body(HeaderValue::from_static("text/plain"), &b"come back later"[..])
                .with_header(header::RETRY_AFTER, HeaderValue::from_static("7"))
                .into()
        })
    });
    let error = refusal_of(&builder(), server.addr());
    assert_eq!(error.kind(), ErrorKind::Refused);
    let refusal = error.refusal().unwrap();
    assert_eq!(refusal.status, 503);
    assert_eq!(refusal.headers[header::CONTENT_TYPE], "text/plain");
    assert_eq!(refusal.body, b"come back later");
    assert!(refusal.is_complete);
    assert_eq!(refusal.retry_after(), Some(Duration::from_secs(7)));
}

#[test]
fn redirects_are_followed() {
    let target = Server::start(config(), |app| {
        app.on_request(|request| {
            assert_eq!(request.header("authorization"), None, "it was for the other host");
            assert_eq!(request.header("cookie"), None);
            assert_eq!(request.header("x-api-key"), None);
            assert_eq!(request.header("x-marked"), None);
            assert_eq!(request.subprotocols().count(), 0, "one of them is a token");
            assert_eq!(request.header("x-other"), Some(&b"kept"[..]));
            ringwire::Answer::accept(0)
        })
    });
    let location = format!("http://{}/there?x", target.addr());
    let address = serve(move |mut stream, number| {
        let head = read_head(&mut stream);
        assert_eq!(
            ringwire_peers::server::header(&head, "authorization").as_deref(),
            Some("Basic dTpw")
        );
        for (name, value) in [("cookie", "a=b"), ("x-api-key", "k"), ("x-marked", "mine alone")] {
            assert_eq!(ringwire_peers::server::header(&head, name).as_deref(), Some(value));
        }
        let offered = ringwire_peers::server::header(&head, "sec-websocket-protocol");
        assert_eq!(offered.as_deref(), Some("chat, access_token.c2VjcmV0"));
        let location = if number == 0 { "/again" } else { location.as_str() };
        assert_eq!(head.starts_with("GET /again "), number > 0);
        write!(stream, "HTTP/1.1 307 Temporary Redirect\r\nLocation: {location}\r\n\r\n").unwrap();
    });
    let mut marked = HeaderValue::from_static("mine alone");
    marked.set_sensitive(true);
    let mut client = builder()
        .with_max_redirects(2)
        .with_header(header::COOKIE, HeaderValue::from_static("a=b"))
        .with_header(HeaderName::from_static("x-api-key"), HeaderValue::from_static("k"))
        .with_header(HeaderName::from_static("x-marked"), marked)
        .with_subprotocol("chat")
        .with_subprotocol("access_token.c2VjcmV0")
        .with_header(HeaderName::from_static("x-other"), HeaderValue::from_static("kept"))
        .connect(format!("ws://u:p@{address}/"))
        .unwrap();
    client.send("hello").unwrap();
    assert_eq!(client.receive().unwrap(), Some("hello".into()));
}
