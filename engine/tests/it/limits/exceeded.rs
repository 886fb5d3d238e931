//! Limits that protect a server, each gone beyond by a peer, over real sockets.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests own sockets and look at the clock"
)]

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant, SystemTime};

use ringwire::{
    CloseCode, CloseReason, SendError,
    admission::{Excess, RateLimit},
};
use ringwire_peers::{Client, Got, connect, request};

use crate::support::app::Seen;
use crate::support::{PATIENCE, Server, config, ms, wait_until};

const EXPIRED: CloseCode = CloseCode::new(4401);
const TOO_FAST: CloseCode = CloseCode::new(4109);

#[test]
fn a_connection_is_closed_when_its_deadline_comes() {
    // So long that all of them have said what they have to say before, on a machine that is busy.
    const FIRST: Duration = ms(3000);
    const LATER: Duration = ms(4000);
    let server = Server::start(config(), |app| {
        app.on_open(|ctx| {
            let wrong = ctx.set_deadline(PATIENCE, CloseCode::ABNORMAL);
            assert_eq!(wrong, Err(SendError::BadCloseCode));
            ctx.set_deadline(FIRST, EXPIRED).expect("it is open");
        })
        .on_message(|ctx, message| {
            match message.as_bytes() {
                b"valid until" => ctx.set_deadline(SystemTime::now() + LATER, EXPIRED),
                b"expired" => ctx.set_deadline(SystemTime::UNIX_EPOCH, EXPIRED),
                b"in words" => ctx.set_deadline_with(ms(0), EXPIRED, "expired: refresh first"),
                _ => {
                    assert!(ctx.clear_deadline(), "there was one");
                    Ok(())
                }
            }
            .expect("it is open");
            let _ = ctx.send(message);
        })
    });
    let began = Instant::now();
    let mut forgets = server.client();
    let mut renews = server.client();
    let mut late = server.client();
    let mut stays = server.client();
    let mut told = server.client();
    for (client, word) in [
        (&mut renews, "valid until"),
        (&mut late, "expired"),
        (&mut stays, "for ever"),
        (&mut told, "in words"),
    ] {
        client.send(word);
        assert_eq!(client.text(), word);
    }
    assert_eq!(late.close_frame(), (4401, "the time is up".to_owned()));
    assert_eq!(told.close_frame(), (4401, "expired: refresh first".to_owned()));
    assert_eq!(forgets.close_frame().0, 4401);
    assert!(began.elapsed() >= FIRST);
    assert_eq!(renews.close_frame().0, 4401);
    assert!(began.elapsed() >= LATER);
    for client in [&mut late, &mut told, &mut forgets, &mut renews] {
        assert_eq!(client.end(), Got::Eof);
    }
    for _ in 0..4 {
        let cause = server.find("on_close", |_, seen| match seen {
            Seen::Close(cause) => Some(cause),
            _ => None,
        });
        assert_eq!((cause.reason, cause.code), (CloseReason::Deadline, Some(EXPIRED)));
    }
    assert_eq!(stays.next_within(Duration::from_millis(200)), None);
    assert_eq!(server.stats().closes[CloseReason::Deadline], 4);
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
                let _ = ctx.send(message);
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
    // Three of the four seconds' worth had to wait, which are counted in ticks, however much was received at once.
    assert!(began.elapsed() >= ms(2700), "{:?}", began.elapsed());
    assert!(server.stats().throttles > 0);
    client.leave();
}

#[test]
fn a_peer_that_says_too_much_is_sent_away_where_that_is_asked_for() {
    let limit = RateLimit::default()
        .with_messages_per_second(1)
        .with_message_burst(20)
        .with_excess(Excess::Close(TOO_FAST));
    let server = Server::echo(config().with_rate_limit(limit));
    let mut client = server.client();
    for _ in 0..40 {
        client.send("too much");
    }
    assert_eq!(client.close_frame(), (TOO_FAST.get(), "too much at once".to_owned()));
    assert_eq!(client.end(), Got::Eof);
    let cause = server.closed();
    assert_eq!((cause.reason, cause.code), (CloseReason::RateLimit, Some(TOO_FAST)));
    assert_eq!(server.stats().closes[CloseReason::RateLimit], 1);
    assert_eq!(server.stats().throttles, 0);
}

#[test]
fn an_address_has_so_many_connections() {
    let config = config().with_io_workers(2).with_max_connections_per_address(5);
    let server = Server::echo(config);
    let mut clients: Vec<_> = (0..5).map(|_| server.client()).collect();
    for _ in 0..20 {
        let mut refused = connect(server.addr());
        // The end or a reset, and no answer.
        let mut answer = Vec::new();
        let _ = refused.write_all(request().as_bytes());
        let _ = refused.read_to_end(&mut answer);
        assert!(answer.is_empty());
    }
    assert_eq!(server.stats().address_refusals, 20);
    for client in &mut clients {
        client.send("undisturbed");
        assert_eq!(client.text(), "undisturbed");
    }
    // Places are free again, however a connection ended.
    clients.pop().expect("there are five").leave();
    clients.pop().expect("there are four").reset();
    wait_until("both are gone", || server.stats().connections == 3);
    clients.extend((0..2).map(|_| server.client()));
    // One that was adopted counts.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let adopted = connect(listener.local_addr().expect("it listens"));
    let (stream, _) = listener.accept().expect("it is connected");
    server.handle().adopt(stream, Vec::new()).expect("a worker takes it");
    let mut adopted = Client::upgrade(adopted, &ringwire_peers::plain_request());
    clients.pop().expect("there are five").leave();
    wait_until("one is gone", || server.stats().connections == 5);
    assert_eq!(connect(server.addr()).read(&mut [0]).unwrap_or(0), 0);
    adopted.send("in");
    assert_eq!(adopted.text(), "in");
}

/// Places that become free one by one are not filled faster, and nobody waits for long afterwards.
#[test]
fn accepting_has_a_rate_where_there_are_as_many_as_may_be() {
    // A machine that is busy with others is slow now and then, and not each time.
    let waited: Vec<_> =
        (0..5).map(|_| wait_after_a_rate()).take_while(|it| *it >= ms(1000)).collect();
    assert!(waited.len() < 5, "{waited:?}");
}

/// How long two wait who come when forty have come one by one, at a rate of twenty a second.
fn wait_after_a_rate() -> Duration {
    let config = config().with_io_workers(1).with_max_connections(2);
    let server = Server::echo(config.with_max_accepts_per_second(20));
    let stays = Client::connect(server.addr());
    let began = Instant::now();
    for _ in 0..40 {
        Client::connect(server.addr()).leave();
        wait_until("it is gone", || server.stats().connections == 1);
    }
    assert!(began.elapsed() >= ms(900), "{:?}", began.elapsed());
    stays.leave();
    let began = Instant::now();
    let _others = [Client::connect(server.addr()), Client::connect(server.addr())];
    began.elapsed()
}

#[test]
fn accepting_has_a_rate() {
    // It rests again and again for a moment, unless a busy machine lets the worker sleep for longer.
    let rests: Vec<_> = (0..5).map(|_| rests_of_a_rate()).take_while(|it| *it <= 5).collect();
    assert!(rests.len() < 5, "{rests:?}");
}

/// How often accepting rests where sixty come at once, at a rate of twenty a second.
fn rests_of_a_rate() -> u64 {
    let server = Server::echo(config().with_max_accepts_per_second(20));
    let began = Instant::now();
    let streams: Vec<_> = (0..60).map(|_| connect(server.addr())).collect();
    wait_until("all are accepted", || server.stats().connections == streams.len() as u64);
    // Forty had to wait, counted in ticks.
    assert!(began.elapsed() >= ms(1700), "{:?}", began.elapsed());
    let stats = server.stats();
    assert_eq!((stats.accepts, stats.accept_failures), (60, 0));
    stats.accept_rests
}
