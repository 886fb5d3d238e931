//! Every time limit, and peers that are dead.

use std::thread;
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair};
use ringwire::client::{DeflateConfig, Error, ErrorKind, Waiting};
use ringwire::tls::pki_types::UnixTime;
use ringwire::tls::{
    CertificateSource, ClientConfig, ClientSettings, Roots, ServerConfig, ServerSettings,
};
use ringwire::{CloseCode, CloseReason};

use super::peer::{builder, url};
use crate::support::app::Seen;
use crate::support::{Server, config, ms, wait_until};

fn timed_out(error: &Error) -> Waiting {
    assert_eq!(error.kind(), ErrorKind::Timeout);
    match error {
        Error::Timeout(waiting) => *waiting,
        other => panic!("{other}"),
    }
}

#[test]
fn receiving_takes_as_long_as_it_may_and_can_go_on() {
    let server = Server::echo(config());
    let mut client = builder().with_read_timeout(ms(100)).connect(url(server.addr())).unwrap();
    let begin = Instant::now();
    assert_eq!(timed_out(&client.receive().unwrap_err()), Waiting::Receive);
    assert!(begin.elapsed() >= ms(100));
    assert_eq!(timed_out(&client.receive_timeout(ms(50)).unwrap_err()), Waiting::Receive);
    assert_eq!(timed_out(&client.receive_timeout(Duration::ZERO).unwrap_err()), Waiting::Receive);
    assert_eq!(timed_out(&client.receive_event(Duration::ZERO).unwrap_err()), Waiting::Receive);
    client.send("hello").unwrap();
    assert_eq!(client.receive_timeout(ms(5_000)).unwrap(), Some("hello".into()));
    client.send("again").unwrap();
    wait_until("the echo is made", || server.stats().messages_sent == 2);
    // It is counted before its bytes are.
    server.looks();
    wait_until("the echo has come", || server.stats().queued_bytes == 0);
    assert_eq!(client.receive_timeout(Duration::ZERO).unwrap(), Some("again".into()));
    client.close(CloseCode::NORMAL, "").unwrap();
}

#[test]
fn silence_does_not_count_while_nobody_receives() {
    const DEAD: Duration = ms(1500);
    // More than the peer may be silent for.
    const AWAY: Duration = ms(1700);
    let server = Server::echo(config());
    let mut client = builder()
        .with_ping_interval(ms(50))
        .with_peer_timeout(DEAD)
        .connect(url(server.addr()))
        .unwrap();
    thread::sleep(AWAY);
    assert_eq!(timed_out(&client.receive_timeout(ms(1)).unwrap_err()), Waiting::Receive);
    client.send("hello").unwrap();
    assert_eq!(client.receive().unwrap(), Some("hello".into()));
    thread::sleep(AWAY);
    // Many short calls add up to silence that is answered.
    let begin = Instant::now();
    while begin.elapsed() < AWAY {
        assert_eq!(timed_out(&client.receive_timeout(ms(10)).unwrap_err()), Waiting::Receive);
    }
    thread::sleep(AWAY);
    client.close(CloseCode::NORMAL, "").unwrap();
}

fn tls() -> (ClientConfig, ServerConfig) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let chain = params.self_signed(&key).unwrap().pem();
    let source = CertificateSource::pem(chain.clone(), key.serialize_pem());
    let now = UnixTime::now();
    let client = ClientSettings::new(Roots::pem(chain)).build(now).unwrap();
    (client, ServerSettings::new(source).build(now).unwrap())
}

/// The server pings and wants an answer. Who receives nothing gives one only with a thread for it.
#[test]
fn a_heartbeat_answers_a_server_while_nobody_receives() {
    let (client_tls, server_tls) = tls();
    let config = config().with_ping_interval(ms(100)).with_pong_timeout(ms(1500));
    let server = Server::secure(config, server_tls, |app| app);
    let secure = format!("wss://{}/", server.addrs()[1]);
    for url in [url(server.addr()), secure] {
        for has_thread in [false, true] {
            let mut client = builder()
                .with_tls(client_tls.clone())
                .with_compression(DeflateConfig::default())
                .with_heartbeat_thread(has_thread)
                .connect(&url)
                .unwrap();
            server.opened();
            if !has_thread {
                assert_eq!(server.closed().reason, CloseReason::PongTimeout);
                continue;
            }
            // More of them than fit into the time of one.
            for _ in 0..16 {
                server.find("a pong", |_, seen| matches!(seen, Seen::Pong(_)).then_some(()));
            }
            client.send("hello").unwrap();
            assert_eq!(client.receive().unwrap(), Some("hello".into()));
            client.close(CloseCode::NORMAL, "").unwrap();
            assert_eq!(server.closed().reason, CloseReason::Peer);
        }
    }
}
