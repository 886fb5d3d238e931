//! A peer that reads slowly or not at all: what `send` says, what waits, what is dropped, and what comes out.

#![expect(clippy::disallowed_types, reason = "the test and the application share the statuses")]

use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use ringwire::{Backpressure, CloseCode, Config, Ctx, Message, SendError, Sent};
use ringwire_peers::{Client, Got, frame};

use crate::support::app::{App, Seen};
use crate::support::{PATIENCE, Server, config, ms, wait_until};

/// More than the sockets of both sides take.
const FILLER_LEN: usize = 12 << 20;

fn quiet() -> Config {
    config().with_idle_timeout(None).with_write_stall_timeout(None)
}

/// Room for the filler and more behind it.
fn roomy(policy: Backpressure) -> Config {
    quiet().with_backpressure(policy).with_max_queued_len(FILLER_LEN + (1 << 20))
}

type Status = Result<Sent, SendError>;
type Statuses = mpsc::Receiver<Status>;

/// A server that calls `work` for the message "go", and tells what its sends were answered with.
fn reporting(
    config: Config,
    work: fn(&mut Ctx<'_, u32>, &mut dyn FnMut(Status)),
) -> (Server, Statuses) {
    let (sender, statuses) = mpsc::channel();
    let sender = Arc::new(Mutex::new(sender));
    let server = Server::start(config, move |app: App| {
        let sender = sender.lock().expect("nobody panics with it").clone();
        app.on_message(move |ctx, message| {
            if message.as_bytes() == b"go" {
                work(ctx, &mut |status| sender.send(status).expect("the test waits"));
            } else {
                let _ = ctx.send(message);
            }
        })
    });
    (server, statuses)
}

fn next(statuses: &Statuses) -> Status {
    statuses.recv_timeout(PATIENCE).expect("the application sends")
}

/// Reads the filler and then texts, until `last`.
fn texts_until(client: &mut Client, last: &str) -> Vec<String> {
    let mut texts = Vec::new();
    while texts.last().is_none_or(|text| text != last) {
        match client.next() {
            Got::Text(text) => texts.push(text),
            Got::Binary(bytes) => assert_eq!(bytes.len(), FILLER_LEN),
            other => panic!("{other:?} among the messages"),
        }
    }
    texts
}

#[test]
fn sent_then_queued_then_drained() {
    let (server, statuses) = reporting(roomy(Backpressure::DropNewest), |ctx, report| {
        assert_eq!(ctx.queued_len(), 0);
        report(ctx.send("small"));
        report(ctx.send(vec![7; FILLER_LEN].as_slice()));
        report(ctx.send("behind"));
        assert!(ctx.queued_len() > 0);
    });
    let mut client = server.client();
    client.send("go");
    assert_eq!(next(&statuses), Ok(Sent::OnItsWay));
    let queued = |status| match status {
        Ok(Sent::Waits { len }) => len,
        other => panic!("{other:?} beyond the high-water mark"),
    };
    let first = queued(next(&statuses));
    // What the socket took at once does not wait.
    assert!(first <= FILLER_LEN + 10, "{first}");
    assert_eq!(queued(next(&statuses)), first + 8);
    assert_eq!(client.text(), "small");
    assert_eq!(client.binary().len(), FILLER_LEN);
    assert_eq!(client.text(), "behind");
    server.find("on_drain", |_, seen| (seen == Seen::Drain).then_some(()));
    assert_eq!(server.next_within(ms(50)), None, "one on_drain is enough");
    client.leave();
}

#[test]
fn what_is_in_flight_counts() {
    let (server, statuses) = reporting(roomy(Backpressure::DropNewest), |ctx, report| {
        report(ctx.send(vec![7; FILLER_LEN].as_slice()));
    });
    let mut client = server.client();
    let id = server.opened();
    client.send("go");
    assert!(matches!(next(&statuses), Ok(Sent::Waits { len }) if len <= FILLER_LEN + 10));
    wait_until("the socket is full", || {
        let stats = server.stats();
        stats.bytes_sent > 0 && stats.queued_bytes > 0
    });
    // The kernel may take more meanwhile, but nothing is lost on the way to it.
    let taken_and_waiting = || server.stats().bytes_sent + server.stats().queued_bytes;
    let before = (client.head.len() + FILLER_LEN + 10) as u64;
    server.handle().send(id, "behind").unwrap();
    wait_until("it waits", || server.stats().queued_bytes > 0 && taken_and_waiting() == before + 8);
    texts_until(&mut client, "behind");
    wait_until("nothing waits", || server.stats().queued_bytes == 0);
    server.find("on_drain", |_, seen| (seen == Seen::Drain).then_some(()));
}

#[test]
fn reading_pauses_while_the_peer_does_not_read() {
    let (server, _statuses) = reporting(roomy(Backpressure::DropNewest), |ctx, report| {
        report(ctx.send(vec![7; FILLER_LEN].as_slice()));
    });
    let mut client = server.client();
    client.raw(&[frame(0x81, b"go"), frame(0x81, b"1"), frame(0x81, b"2")].concat());
    client.raw(&frame(0x81, b"3"));
    let text = |text: &str| Seen::Text(text.to_owned());
    server.find("the message", |_, seen| (seen == text("go")).then_some(()));
    assert_eq!(server.next_within(ms(100)), None, "replies would only make it worse");
    assert_eq!(texts_until(&mut client, "3"), ["1", "2", "3"]);
    assert_eq!(server.next().1, Seen::Drain);
    assert_eq!(server.next().1, text("1"));
}

#[test]
fn drop_newest() {
    let (server, statuses) = reporting(roomy(Backpressure::DropNewest), |ctx, report| {
        let _ = ctx.send(vec![7; FILLER_LEN].as_slice());
        for number in 0..100_u32 {
            report(ctx.send(format!("{number:050000}").as_str()));
        }
    });
    let mut client = server.client();
    client.send("go");
    let taken = (0..100).take_while(|_| next(&statuses) != Err(SendError::Full)).count();
    assert!((10..=40).contains(&taken), "about a mebibyte: {taken}");
    wait_until("the others were dropped", || server.stats().messages_dropped == 100 - taken as u64);
    let stats = server.stats();
    assert_eq!(stats.messages_sent, 1 + taken as u64);
    assert!(stats.queued_bytes <= (FILLER_LEN + (2 << 20)) as u64);
    let last = format!("{:050000}", taken - 1);
    let expected: Vec<_> = (0..taken).map(|number| format!("{number:050000}")).collect();
    assert!(texts_until(&mut client, &last) == expected, "the oldest, in order");
    server.find("on_drain", |_, seen| (seen == Seen::Drain).then_some(()));
    wait_until("nothing waits", || server.stats().queued_bytes == 0);
    client.send("and now");
    assert_eq!(client.text(), "and now");
    client.leave();
}

#[test]
fn drop_oldest() {
    let (server, statuses) = reporting(roomy(Backpressure::DropOldest), |ctx, report| {
        report(ctx.send(vec![7; FILLER_LEN].as_slice()));
    });
    let mut client = server.client();
    let id = server.opened();
    client.send("go");
    let _ = next(&statuses);
    wait_until("the socket is full", || server.stats().bytes_sent > 0);
    let handle = server.handle();
    for number in 0..200 {
        let text = format!("{number:050000}");
        wait_until("the mailbox has room", || handle.send(id, text.as_str()).is_ok());
    }
    wait_until("all are read", || server.stats().messages_sent == 201);
    let stats = server.stats();
    assert!(stats.messages_dropped > 0);
    assert!(stats.queued_bytes <= (FILLER_LEN + (2 << 20)) as u64);
    let texts = texts_until(&mut client, &format!("{:050000}", 199));
    let numbers: Vec<u64> = texts.iter().map(|text| text.parse().unwrap()).collect();
    let newest: Vec<u64> = (stats.messages_dropped..200).collect();
    assert_eq!(numbers, newest, "the newest are kept, in order");
    wait_until("nothing waits", || server.stats().queued_bytes == 0);
}

#[test]
fn small_messages_are_charged_what_they_cost() {
    const COUNT: u64 = 100_000;
    let config = quiet()
        .with_backpressure(Backpressure::DropOldest)
        .with_max_queued_len(FILLER_LEN + (1 << 20));
    let (server, statuses) = reporting(config, |ctx, report| {
        // Each is shorter than what would go out at once.
        while ctx.queued_len() < FILLER_LEN + (1 << 20) {
            let _ = ctx.send(vec![7; 60_000].as_slice());
        }
        for _ in 0..COUNT {
            let _ = ctx.send("x");
        }
        report(Ok(Sent::OnItsWay));
    });
    let mut client = server.client();
    client.send("go");
    let _ = next(&statuses);
    let stats = server.stats();
    assert!(stats.messages_sent > COUNT);
    // Each takes a segment of its own, so that it can be dropped: far more than its three bytes.
    let kept = stats.messages_sent - stats.messages_dropped;
    assert!(kept * 64 <= 2 << 20, "{kept} segments wait");
}

/// A server that does what messages say, and reads on whatever waits: `fill` sends more than the sockets take,
/// `text` a text, `key` a text with a key, `full` as much as may wait.
fn scripted(policy: Backpressure) -> (Server, Statuses) {
    let (sender, statuses) = mpsc::channel();
    let sender = Arc::new(Mutex::new(sender));
    let limit = FILLER_LEN + (1 << 20);
    let config = quiet().with_backpressure(policy).with_max_queued_len(limit);
    let server = Server::start(config.with_high_water(limit), move |app: App| {
        let sender = sender.lock().expect("nobody panics with it").clone();
        app.on_message(move |ctx, message| {
            let Message::Text(script) = message else { panic!("a script is text") };
            for line in script.lines() {
                let words: Vec<_> = line.split(' ').collect();
                let status = match words[..] {
                    ["fill"] => ctx.send(vec![7; FILLER_LEN].as_slice()),
                    ["full"] => loop {
                        let status = ctx.send(vec![7; 100_000].as_slice());
                        if status != Ok(Sent::OnItsWay) {
                            break status;
                        }
                    },
                    ["text", text] => ctx.send(text),
                    ["key", key, text] => ctx.send_keyed(key.parse().expect("a number"), text),
                    _ => panic!("{line}: no such command"),
                };
                sender.send(status).expect("the test waits");
            }
        })
    });
    (server, statuses)
}

/// Fills the socket, and has a text wait behind that.
fn hold_up(server: &Server, client: &mut Client, statuses: &Statuses) {
    client.send("fill");
    assert_eq!(next(statuses), Ok(Sent::OnItsWay));
    wait_until("the socket is full", || server.stats().bytes_sent > 64 << 10);
    client.send("text first");
    assert_eq!(next(statuses), Ok(Sent::OnItsWay));
}

#[test]
fn keyed_messages_replace_those_that_wait() {
    let (server, statuses) = scripted(Backpressure::DropNewest);
    let mut client = server.client();
    hold_up(&server, &mut client, &statuses);
    for round in 0..100 {
        client.send(format!("key 0 0={round}\nkey 1 1={round}\nkey 2 2={round}").as_str());
    }
    client.send("text last");
    for _ in 0..301 {
        assert_eq!(next(&statuses), Ok(Sent::OnItsWay));
    }
    assert_eq!(texts_until(&mut client, "last"), ["first", "0=99", "1=99", "2=99", "last"]);
    let stats = server.stats();
    assert_eq!((stats.messages_sent, stats.messages_dropped), (303, 297));
    wait_until("nothing waits", || server.stats().queued_bytes == 0);
}

#[test]
fn a_keyed_message_replaces_even_at_the_limit() {
    for policy in [Backpressure::DropNewest, Backpressure::Close(CloseCode::TRY_AGAIN_LATER)] {
        let (server, statuses) = scripted(policy);
        let mut client = server.client();
        hold_up(&server, &mut client, &statuses);
        client.send("key 1 old\nfull\nkey 1 new\nkey 2 other");
        assert_eq!(next(&statuses), Ok(Sent::OnItsWay));
        assert!(matches!(next(&statuses), Ok(Sent::Waits { .. })));
        assert!(matches!(next(&statuses), Ok(Sent::Waits { .. })), "it takes nobody's place");
        assert_eq!(next(&statuses), Err(SendError::Full), "where there is none to replace");
        let mut texts = Vec::new();
        while texts.len() < 2 {
            if let Got::Text(text) = client.next() {
                texts.push(text);
            }
        }
        assert_eq!(texts, ["first", "new"], "{policy:?}");
    }
}

#[test]
fn a_handle_replaces_keyed_messages_too() {
    let (server, statuses) = reporting(roomy(Backpressure::DropNewest), |ctx, report| {
        report(ctx.send(vec![7; FILLER_LEN].as_slice()));
    });
    let mut client = server.client();
    let id = server.opened();
    client.send("go");
    assert!(matches!(next(&statuses), Ok(Sent::Waits { .. })));
    for price in ["1", "2", "3"] {
        server.handle().send_keyed(id, 1, price).unwrap();
    }
    server.handle().send(id, "last").unwrap();
    assert_eq!(texts_until(&mut client, "last"), ["3", "last"]);
    assert_eq!(server.stats().messages_dropped, 2);
}

#[test]
fn a_keyed_message_with_nothing_before_it_is_an_ordinary_one() {
    let (server, statuses) = reporting(quiet(), |ctx, report| {
        report(ctx.send_keyed(1, "a"));
        report(ctx.send_keyed(1, "b"));
    });
    let mut client = server.client();
    client.send("go");
    assert_eq!((next(&statuses), next(&statuses)), (Ok(Sent::OnItsWay), Ok(Sent::OnItsWay)));
    assert_eq!(client.text(), "a");
    assert_eq!(client.text(), "b");
}

#[test]
fn the_policy_holds_for_a_handle() {
    let server = Server::echo(quiet());
    let mut client = server.client();
    let id = server.opened();
    let payload = vec![7; 100_000];
    wait_until("the limit is reached", || {
        server.handle().send(id, payload.as_slice()).unwrap();
        server.stats().messages_dropped > 0
    });
    let mut received = 0_u64;
    let code = loop {
        match client.next() {
            Got::Binary(_) => received += 1,
            Got::Close(code, _) => break code,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(code, 1013);
    assert_eq!(received, server.stats().messages_sent);
}

#[test]
fn pongs_come_when_the_output_before_them_is_gone() {
    // Output waits, but less than the mark from which reading pauses.
    let config = quiet().with_max_queued_len(64 << 20).with_high_water(64 << 20);
    let (server, statuses) = reporting(config, |ctx, report| {
        report(ctx.send(vec![7; FILLER_LEN].as_slice()));
    });
    let mut client = server.client();
    client.send("go");
    let _ = next(&statuses);
    for payload in ["1", "2", "3"] {
        client.ping(payload.as_bytes());
        let ping = Seen::Ping(payload.as_bytes().to_vec());
        server.find("the ping", |_, seen| (seen == ping).then_some(()));
    }
    assert_eq!(client.binary().len(), FILLER_LEN);
    // What waits behind the send in flight is little, so that none is left out.
    for payload in ["1", "2", "3"] {
        assert_eq!(client.next(), Got::Pong(payload.into()));
    }
}

#[test]
fn what_waits_is_given_back_when_the_connection_ends() {
    let (server, statuses) = reporting(roomy(Backpressure::DropOldest), |ctx, report| {
        let _ = ctx.send(vec![7; FILLER_LEN].as_slice());
        for _ in 0..5 {
            report(ctx.send(Message::Binary(&[7; 100_000])));
        }
    });
    for _ in 0..3 {
        let mut client = server.client();
        client.send("go");
        for _ in 0..5 {
            let _ = next(&statuses);
        }
        wait_until("the socket is full", || server.stats().queued_bytes > 0);
        client.reset();
        let cause = server.closed();
        assert!(cause.unsent_len > 500_000, "{}", cause.unsent_len);
        wait_until("nothing waits", || server.stats().queued_bytes == 0);
    }
}
