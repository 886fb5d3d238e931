//! Limits that protect a server, each gone beyond by a peer, over real sockets.

#![expect(clippy::disallowed_methods, reason = "tests look at the clock")]

mod support;

use std::time::{Duration, Instant, SystemTime};

use ringwire::{CloseCode, CloseReason, Excess, RateLimit, SendError};
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

#[test]
fn a_peer_that_says_too_much_is_held_up() {
    let limit = RateLimit::default().with_messages_per_second(100).with_message_burst(50);
    let server = Server::echo(config().with_rate_limit(limit));
    let mut other = server.client();
    let mut client = server.client();
    let began = Instant::now();
    for number in 0..200 {
        client.send(number.to_string().as_str());
    }
    for number in 0..200 {
        assert_eq!(client.text(), number.to_string());
        if number == 20 {
            other.send("undisturbed");
            assert_eq!(other.text(), "undisturbed");
        }
    }
    // 150 of them had to wait for 100 in a second, which are counted in ticks.
    assert!(began.elapsed() >= ms(1300), "{:?}", began.elapsed());
    assert!(server.stats().throttles > 0);
    client.leave();
}

#[test]
fn a_peer_that_sends_too_many_bytes_is_held_up() {
    let limit = RateLimit::default().with_bytes_per_second(1_000_000);
    let server = Server::start(config().with_rate_limit(limit), |app| {
        app.without_messages().on_message(|ctx, message| {
            if message.is_text() {
                ctx.send(message);
            }
        })
    });
    let mut client = server.client();
    let began = Instant::now();
    for _ in 0..40 {
        client.send(vec![7; 100_000].as_slice());
    }
    client.send("the end");
    assert_eq!(client.text(), "the end");
    // Three of the four seconds' worth had to wait, less what was received at once.
    assert!(began.elapsed() >= ms(1500), "{:?}", began.elapsed());
    assert!(server.stats().throttles > 0);
    client.leave();
}

#[test]
fn a_peer_that_says_too_much_is_sent_away_where_that_is_asked_for() {
    let limit = RateLimit::default()
        .with_messages_per_second(1)
        .with_message_burst(20)
        .with_excess(Excess::Close);
    let server = Server::echo(config().with_rate_limit(limit));
    let mut client = server.client();
    for _ in 0..40 {
        client.send("too much");
    }
    assert_eq!(client.close_frame(), (1008, "too much at once".to_owned()));
    assert_eq!(client.end(), Got::Eof);
    let cause = server.closed();
    assert_eq!(
        (cause.reason, cause.code),
        (CloseReason::RateLimit, Some(CloseCode::POLICY_VIOLATION))
    );
    assert_eq!(server.stats().closes[CloseReason::RateLimit.index()], 1);
    assert_eq!(server.stats().throttles, 0);
}
