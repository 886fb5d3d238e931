//! A client that was built without TLS.

#![cfg(not(feature = "tls"))]
#![expect(clippy::disallowed_types, reason = "a test owns its sockets")]

use std::io::ErrorKind;
use std::net::TcpListener;

use ringwire_client::tls::ConfigError;
use ringwire_client::{Client, Error};
use ringwire_peers::server::answering;

#[test]
fn wss_says_what_is_missing_and_connects_to_nobody() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("wss://{}/", listener.local_addr().expect("it listens"));
    let error = Client::builder().without_proxy().connect(&url).expect_err("there is no TLS");
    assert!(matches!(error, Error::TlsSettings(ConfigError::NoTls)), "{error}");
    assert!(error.to_string().contains("the feature `tls`"), "{error}");

    listener.set_nonblocking(true).expect("a listener can");
    let nobody = listener.accept().expect_err("nobody has connected");
    assert_eq!(nobody.kind(), ErrorKind::WouldBlock);
}

#[test]
fn ws_needs_none() {
    let address = answering("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    let url = format!("ws://{address}/");
    let error = Client::builder().without_proxy().connect(&url).expect_err("it is refused");
    assert!(error.refusal().is_some_and(|refusal| refusal.status == 404), "{error}");
}
