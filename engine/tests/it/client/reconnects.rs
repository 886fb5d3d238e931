//! Connections that are lost and made again, for real.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use http::{HeaderValue, StatusCode, header};
use ringwire::client::{
    Backoff, Delivery, Error, ErrorKind, JsonIds, Reconnecting, Requests, RetryPolicy, Update,
};
use ringwire::{Answer, CloseCode, Response};

use super::peer::{builder, url};
use crate::support::app::Seen;
use crate::support::{PATIENCE, Server, config, ms};

fn quick() -> RetryPolicy {
    let backoff = Backoff::default().with_first_delay(ms(20)).with_max_delay(ms(50));
    RetryPolicy::default().with_backoff(backoff)
}

fn client(address: std::net::SocketAddr) -> Reconnecting {
    Reconnecting::new(builder(), url(address)).with_policy(quick())
}

/// What happens next, which must be something.
fn next(client: &mut Reconnecting) -> Update {
    client.next_update_timeout(PATIENCE).unwrap().unwrap()
}

#[test]
fn a_server_that_is_killed_and_started_again() {
    let mut server = Server::echo(config());
    let address = server.addr();
    let subscriptions = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&subscriptions);
    let mut client = client(address).on_connect(move |client| {
        counted.fetch_add(1, Ordering::Relaxed);
        client.send("subscribe")?;
        assert_eq!(client.receive()?, Some("subscribe".into()));
        Ok(())
    });
    let sender = client.sender();
    assert!(matches!(next(&mut client), Update::Connected { attempts: 1, dropped: 0 }));
    for round in 1..=3 {
        assert_eq!(sender.send("hello").unwrap(), Delivery::Sent);
        assert!(matches!(next(&mut client), Update::Message(message) if message == "hello".into()));
        // The end of the server is the end of the connection: 1001, after which clients come back.
        drop(server);
        let Update::Disconnected { error, .. } = next(&mut client) else { panic!("no loss") };
        assert_eq!(error.kind(), ErrorKind::Closed);
        assert!(!sender.is_connected());
        assert_eq!(sender.send("one").unwrap(), Delivery::Queued);
        assert_eq!(sender.send("two").unwrap(), Delivery::Queued);
        let Update::Disconnected { error, .. } = next(&mut client) else { panic!("no failure") };
        assert_eq!(error.kind(), ErrorKind::ConnectFailed);
        server = Server::start_at(config(), &[&address.to_string()], |app| app);
        loop {
            match next(&mut client) {
                Update::Disconnected { .. } => {}
                Update::Connected { dropped, .. } => break assert_eq!(dropped, 0),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(client.receive().unwrap(), Some("one".into()));
        assert_eq!(client.receive().unwrap(), Some("two".into()));
        assert_eq!(subscriptions.load(Ordering::Relaxed), round + 1);
    }
    let closing = thread::spawn(move || sender.close(CloseCode::NORMAL, "enough"));
    assert!(client.next_update().unwrap().is_none());
    closing.join().unwrap().unwrap();
    assert!(client.next_update().unwrap().is_none());
    assert_eq!(client.sender().send("too late").unwrap_err().kind(), ErrorKind::Closed);
}

/// What the server sees: in each of four attempts one Authorization header and one token in the URL, the newest.
#[test]
fn each_attempt_brings_the_newest_token_alone() {
    let (sender, seen) = mpsc::channel();
    let server = Server::start(config(), move |app| {
        let sender = sender.clone();
        app.on_request(move |request| {
            let name = header::AUTHORIZATION;
            let values =
                request.headers().filter(|(each, _)| each.eq_ignore_ascii_case(name.as_str()));
            let values: Vec<_> =
                values.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect();
            let target = request.target().to_owned();
            let is_right = values == ["Bearer 4"];
            sender.send((target, values)).unwrap();
            if is_right {
                Answer::accept(0)
            } else {
                Response::new(StatusCode::UNAUTHORIZED).into()
            }
        })
    });
    let builder =
        builder().with_header(header::AUTHORIZATION, HeaderValue::from_static("Bearer old"));
    let mut client = Reconnecting::new(builder, format!("{}?token=old", url(server.addr())))
        .with_policy(quick().with_max_renewals(3))
        .prepare(|attempt, _| {
            let token = attempt.number().to_string();
            attempt.set_query("token", &token);
            let value = HeaderValue::try_from(format!("Bearer {token}"))?;
            attempt.set_header(header::AUTHORIZATION, value);
            Ok(())
        });
    for _ in 0..3 {
        let Update::Disconnected { error, .. } = next(&mut client) else { panic!("connected") };
        assert_eq!(error.kind(), ErrorKind::Authentication);
    }
    assert!(matches!(next(&mut client), Update::Connected { attempts: 4, .. }));
    for number in 1..=4 {
        let expected = (format!("/?token={number}"), vec![format!("Bearer {number}")]);
        assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), expected);
    }
}

/// A server that takes the handshake and closes with 4401 is as much asked again as one that answers 401.
#[test]
fn a_token_that_is_refused_for_ever() {
    for is_late in [false, true] {
        let (sender, seen) = mpsc::channel();
        let server = Server::start(config(), move |app| {
            let sender = sender.clone();
            app.on_request(move |_| {
                sender.send(()).unwrap();
                if is_late {
                    Answer::accept(0)
                } else {
                    Response::new(StatusCode::UNAUTHORIZED).into()
                }
            })
            .on_open(|ctx| {
                let _ = ctx.close(CloseCode::new(4401), "expired");
            })
        });
        let mut client = client(server.addr()).prepare(|_, _| Ok(()));
        let kind = client.receive().unwrap_err().kind();
        assert_eq!(kind, if is_late { ErrorKind::Closed } else { ErrorKind::Authentication });
        assert_eq!(seen.try_iter().count(), 2, "once more with another token");
    }
}

/// A server that restarts under requests: those that may be sent again are answered by the next one.
#[test]
fn requests_outlive_a_server() {
    let silent = Server::start(config(), |app| app.on_message(|_, _| {}));
    let address = silent.addr();
    let client = client(address);
    let (requests, mut pushes) = Requests::split_reconnecting(client, JsonIds::new("id", "id"), 10);
    let receiving = thread::spawn(move || pushes.receive());
    let again = requests.begin_idempotent(r#"{"do":"again"}"#).unwrap();
    let once = requests.begin(r#"{"do":"once"}"#).unwrap();
    for text in [r#"{"do":"again","id":1}"#, r#"{"do":"once","id":2}"#] {
        silent.find("the request", |_, seen| {
            matches!(seen, Seen::Text(found) if found == text).then_some(())
        });
    }
    drop(silent);
    let error = once.wait(PATIENCE).unwrap_err();
    assert!(matches!(error, Error::Unanswered { was_sent: true }), "{error}");
    let _server = Server::start_at(config(), &[&address.to_string()], |app| app);
    assert_eq!(again.wait(PATIENCE).unwrap(), r#"{"do":"again","id":1}"#.into());
    let _ = requests.close(CloseCode::NORMAL, "");
    assert!(receiving.join().unwrap().unwrap().is_none());
}
