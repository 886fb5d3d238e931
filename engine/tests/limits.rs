//! Limits that protect a server, each gone beyond by a peer, over real sockets.

#![expect(clippy::disallowed_methods, reason = "tests look at the clock")]

mod support;

use std::time::{Duration, Instant, SystemTime};

use ringwire::{CloseCode, CloseReason, SendError};
use support::app::Seen;
use support::client::Got;
use support::{PATIENCE, Server, config, ms};

const EXPIRED: CloseCode = CloseCode::new(4401);

#[test]
fn a_connection_is_closed_when_its_deadline_comes() {
    let server = Server::start(config(), |app| {
        app.on_open(|ctx| {
            let wrong = ctx.set_deadline(PATIENCE, CloseCode::ABNORMAL);
            assert_eq!(wrong, Err(SendError::BadCloseCode));
            ctx.set_deadline(ms(300), EXPIRED).expect("it is open");
        })
        .on_message(|ctx, message| {
            match message.as_bytes() {
                b"valid until" => ctx.set_deadline(SystemTime::now() + ms(900), EXPIRED),
                b"expired" => ctx.set_deadline(SystemTime::UNIX_EPOCH, EXPIRED),
                _ => {
                    assert!(ctx.clear_deadline(), "there was one");
                    Ok(())
                }
            }
            .expect("it is open");
            ctx.send(message);
        })
    });
    let began = Instant::now();
    let mut forgets = server.client();
    let mut renews = server.client();
    let mut late = server.client();
    let mut stays = server.client();
    for (client, word) in
        [(&mut renews, "valid until"), (&mut late, "expired"), (&mut stays, "for ever")]
    {
        client.send(word);
        assert_eq!(client.text(), word);
    }
    assert_eq!(late.close_frame(), (4401, "the time is up".to_owned()));
    assert_eq!(forgets.close_frame().0, 4401);
    assert!(began.elapsed() >= ms(300));
    assert_eq!(renews.close_frame().0, 4401);
    assert!(began.elapsed() >= ms(900));
    for client in [&mut late, &mut forgets, &mut renews] {
        assert_eq!(client.end(), Got::Eof);
    }
    for _ in 0..3 {
        let cause = server.find("on_close", |_, seen| match seen {
            Seen::Close(cause) => Some(cause),
            _ => None,
        });
        assert_eq!((cause.reason, cause.code), (CloseReason::Deadline, Some(EXPIRED)));
    }
    assert_eq!(stays.next_within(Duration::from_millis(200)), None);
    assert_eq!(server.stats().closes[CloseReason::Deadline.index()], 3);
}
