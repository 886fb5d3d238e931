//! Connections that are lost and made again, for real.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use ringwire::CloseCode;
use ringwire::client::{Backoff, Delivery, ErrorKind, Reconnecting, RetryPolicy, Update};

use super::peer::{builder, url};
use crate::support::{PATIENCE, Server, config, ms};

fn quick() -> RetryPolicy {
    let backoff = Backoff::default().with_first_delay(ms(20)).with_max_delay(ms(50));
    RetryPolicy::default().with_backoff(backoff)
}

fn client(address: std::net::SocketAddr) -> Reconnecting {
    Reconnecting::new(builder(), &url(address)).with_policy(quick())
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
