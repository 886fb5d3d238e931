//! Ends of connections, in all directions.

use std::time::Duration;

use ringwire::CloseCode;
use ringwire::client::ErrorKind;

use super::peer::{builder, connect, url};
use crate::support::{Server, config};

#[test]
fn codes_and_reasons_that_must_not_be_sent() {
    let server = Server::echo(config());
    let mut client = connect(server.addr());
    for (code, reason) in [(1005, String::new()), (1006, String::new()), (1000, "x".repeat(124))] {
        let error = client.close(CloseCode::new(code), &reason).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidMessage);
    }
    client.send("still open").unwrap();
    assert_eq!(client.receive().unwrap(), Some("still open".into()));
    client.close(CloseCode::NORMAL, &"x".repeat(123)).unwrap();
}

#[test]
fn a_shutdown_of_the_engine_is_a_normal_end() {
    let server = Server::echo(config());
    let mut client = builder().connect(url(server.addr())).unwrap();
    server.opened();
    server.handle().shutdown(Duration::from_secs(5));
    assert_eq!(client.receive().unwrap(), None);
    assert_eq!(client.close_frame().map(|(code, _)| code), Some(CloseCode::GOING_AWAY));
}
