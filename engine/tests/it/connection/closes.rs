//! Every way in which a connection ends: `on_open` and `on_close` are paired, and the cause says why.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests own sockets, count across threads, and keep the client waiting"
)]

use std::io::Write;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use ringwire::{
    Accept, Answer, Backpressure, CloseCause, CloseCode, CloseReason, Config, Ctx, Handler,
    Initiator, Message, Request,
};
use ringwire_codec::{Error, Violation};
use ringwire_peers::{Client, Got, frame};

use crate::support::app::{App, Seen};
use crate::support::{Server, config, ms, wait_until};

/// The cause of the server's one connection, once it has ended, whatever called it.
fn ended(server: &Server) -> CloseCause {
    let seen = server.drained();
    let opens = seen.iter().filter(|seen| **seen == Seen::Open).count();
    let mut causes = seen.into_iter().filter_map(|seen| match seen {
        Seen::Close(cause) => Some(cause),
        _ => None,
    });
    let cause = causes.next().expect("on_close was called");
    assert_eq!((opens, causes.count()), (1, 0), "on_open and on_close are paired");
    let stats = server.stats();
    assert_eq!((stats.open_connections, stats.queued_bytes), (0, 0));
    assert_eq!(stats.closes.total(), 1);
    assert_eq!(stats.closes[cause.reason], 1, "{}", cause.reason);
    assert_eq!((stats.handshakes, stats.handshake_failures), (1, 0));
    cause
}

fn cause(
    reason: CloseReason,
    code: impl Into<Option<u16>>,
    text: &str,
) -> (CloseReason, Option<u16>, String) {
    (reason, code.into(), text.to_owned())
}

fn facts(cause: &CloseCause) -> (CloseReason, Option<u16>, String) {
    (cause.reason, cause.code.map(CloseCode::get), cause.text.clone())
}

/// No deadlines but those that a test sets.
fn quiet() -> Config {
    config().with_idle_timeout(None).with_write_stall_timeout(None)
}

// By the peer

#[test]
fn the_peer_closes() {
    for (code, text) in [(1000, ""), (1001, "leaving"), (3000, "é"), (4999, "done")] {
        let server = Server::echo(config());
        let mut client = server.client();
        client.close(code, text);
        assert_eq!(client.close_frame(), (code, text.to_owned()), "it is answered in kind");
        assert_eq!(client.end(), Got::Eof);
        let ended = ended(&server);
        assert_eq!(facts(&ended), cause(CloseReason::Peer, code, text));
        assert!(ended.is_clean());
        assert_eq!(ended.initiator(), Initiator::Peer);
    }
}

#[test]
fn the_peer_closes_without_a_code() {
    let server = Server::echo(config());
    let mut client = server.client();
    client.answers = false;
    client.raw(&frame(0x88, b""));
    assert_eq!(client.close_frame(), (1005, String::new()));
    assert_eq!(client.end(), Got::Eof);
    assert_eq!(facts(&ended(&server)), cause(CloseReason::Peer, None, ""));
}

#[test]
fn the_peer_closes_and_does_not_wait() {
    let server = Server::echo(config());
    let mut client = server.client();
    client.answers = false;
    client.raw(&[frame(0x81, b"last"), frame(0x88, &1000_u16.to_be_bytes())].concat());
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.text(), "last");
    assert_eq!(client.close_frame().0, 1000);
    assert_eq!(client.end(), Got::Eof);
    assert_eq!(facts(&ended(&server)), cause(CloseReason::Peer, 1000, ""));
}

#[test]
fn what_follows_the_close_frame_is_ignored() {
    let server = Server::echo(config());
    let mut client = server.client();
    client.answers = false;
    let after = frame(0x81, b"too late");
    client.raw(&[frame(0x81, b"in time"), frame(0x88, &1000_u16.to_be_bytes()), after].concat());
    assert_eq!(client.text(), "in time");
    assert_eq!(client.close_frame().0, 1000);
    assert_eq!(client.end(), Got::Eof);
    assert_eq!(facts(&ended(&server)), cause(CloseReason::Peer, 1000, ""));
}

#[test]
fn the_peer_ends_the_stream() {
    let server = Server::echo(config());
    let mut client = server.client();
    client.send("one");
    client.text();
    drop(client);
    let ended = ended(&server);
    assert_eq!(facts(&ended), cause(CloseReason::EndOfStream, None, ""));
    assert!(!ended.is_clean());
    assert_eq!(ended.initiator(), Initiator::Transport);
}

#[test]
fn the_peer_resets_the_connection() {
    let server = Server::echo(config());
    let mut client = server.client();
    client.send("one");
    client.text();
    client.reset();
    let reset = CloseReason::Transport(std::io::ErrorKind::ConnectionReset);
    assert_eq!(facts(&ended(&server)), cause(reset, None, ""));
}

#[test]
fn the_peer_breaks_the_protocol() {
    let server = Server::echo(config());
    let mut client = server.client();
    client.raw(&frame(0xc1, b"reserved bit"));
    assert_eq!(client.close_frame().0, 1002);
    assert_eq!(client.end(), Got::Eof);
    drop(client);
    let error = Error::PeerMisbehaved(Violation::ReservedBits);
    let ended = ended(&server);
    assert_eq!(facts(&ended), cause(CloseReason::Protocol(error), 1002, ""));
    assert_eq!(ended.initiator(), Initiator::Local);
}

// By the application

#[test]
fn the_application_closes() {
    let server = Server::start(config(), |app| {
        app.on_message(|ctx, _| {
            let _ = ctx.send("last words");
            ctx.close(CloseCode::new(4001), "enough").unwrap();
            assert!(!ctx.is_open());
            assert!(ctx.close(CloseCode::NORMAL, "").is_err(), "there is one close frame");
            assert_eq!(ctx.send("too late"), Err(ringwire::SendError::Closing));
        })
    });
    let mut client = server.client();
    client.send("go");
    assert_eq!(client.text(), "last words");
    assert_eq!(client.close_frame(), (4001, "enough".to_owned()));
    assert_eq!(client.end(), Got::Eof);
    let ended = ended(&server);
    assert_eq!(facts(&ended), cause(CloseReason::Local, 4001, "enough"));
    assert!(ended.is_clean());
}

#[test]
fn a_close_that_must_not_be_sent_is_refused() {
    let server = Server::start(config(), |app| {
        app.on_message(|ctx, message| {
            assert!(ctx.close(CloseCode::ABNORMAL, "").is_err());
            assert!(ctx.close(CloseCode::NORMAL, &"x".repeat(124)).is_err());
            assert!(ctx.is_open());
            let _ = ctx.send(message);
        })
    });
    let mut client = server.client();
    client.send("goes on");
    assert_eq!(client.text(), "goes on");
    client.leave();
    assert_eq!(ended(&server).reason, CloseReason::Peer);
}

#[test]
fn a_handle_closes() {
    let server = Server::echo(config());
    let mut client = server.client();
    let id = server.find("on_open", |id, seen| (seen == Seen::Open).then_some(id));
    // A code that must not be sent becomes 1000, a reason is cut at a character.
    server.handle().close(id, CloseCode::ABNORMAL, &"é".repeat(100)).unwrap();
    assert_eq!(client.close_frame(), (1000, "é".repeat(61)));
    assert_eq!(client.end(), Got::Eof);
    assert_eq!(facts(&server.closed()), cause(CloseReason::Local, 1000, &"é".repeat(61)));
    // The connection has ended: what is posted for it is dropped.
    server.handle().close(id, CloseCode::NORMAL, "").unwrap();
    server.handle().send(id, "nobody").unwrap();
    assert_eq!(server.drained(), []);
}

#[test]
fn both_close_at_once() {
    let server = Server::start(config(), |app| {
        app.on_message(|ctx, _| ctx.close(CloseCode::NORMAL, "mine").unwrap())
    });
    let mut client = server.client();
    client.raw(&[frame(0x81, b"go"), frame(0x88, &4000_u16.to_be_bytes())].concat());
    client.answers = false;
    assert_eq!(client.close_frame(), (1000, "mine".to_owned()));
    assert_eq!(client.next(), Got::Eof, "a second close frame is not owed");
    assert_eq!(facts(&ended(&server)), cause(CloseReason::Local, 1000, "mine"));
}

#[test]
fn messages_that_cross_the_close_are_dropped() {
    let server = Server::start(config(), |app| {
        app.on_message(|ctx, _| ctx.close(CloseCode::NORMAL, "").unwrap())
    });
    let mut client = server.client();
    client.answers = false;
    client.send("go");
    assert_eq!(client.close_frame().0, 1000);
    for _ in 0..100 {
        client.raw(&frame(0x82, &[7; 5000]));
    }
    client.raw(&frame(0x89, b"ping"));
    client.raw(&frame(0x88, b""));
    assert_eq!(client.end(), Got::Eof);
    assert_eq!(server.stats().messages_received, 1);
    assert_eq!(facts(&ended(&server)), cause(CloseReason::Local, 1000, ""));
}

#[test]
fn a_close_at_the_end_of_the_turns_budget_loses_no_input() {
    // The peer's close frame is behind what one turn may handle, and the last frame is cut.
    let server = Server::start(config().with_messages_per_turn(1), |app| {
        app.on_message(|ctx, _| ctx.close(CloseCode::NORMAL, "").unwrap())
    });
    let mut client = server.client();
    client.answers = false;
    let mut wire = [frame(0x81, b"go"), frame(0x89, b"a"), frame(0x89, b"b")].concat();
    wire.extend(frame(0x82, &[0xff; 40]));
    let cut = wire.split_off(wire.len() - 20);
    client.raw(&wire);
    assert_eq!(client.close_frame().0, 1000);
    client.raw(&[cut, frame(0x88, &1000_u16.to_be_bytes())].concat());
    assert_eq!(client.end(), Got::Eof);
    let ended = ended(&server);
    assert_eq!(facts(&ended), cause(CloseReason::Local, 1000, ""));
    assert!(ended.is_clean());
}

#[test]
fn a_paused_connection_closes_well() {
    // What lies unread when the close begins is no obstacle to the peer's close frame behind it.
    let server = Server::start(config(), |app| app.on_message(|ctx, _| ctx.pause()));
    let mut client = server.client();
    client.raw(&[frame(0x81, b"pause"), frame(0x81, b"unread")].concat());
    server.find("the message", |_, seen| matches!(seen, Seen::Text(_)).then_some(()));
    server.handle().shutdown(Duration::from_secs(60));
    assert_eq!(client.close_frame().0, 1001);
    assert_eq!(client.end(), Got::Eof);
    assert_eq!(facts(&server.closed()), cause(CloseReason::Shutdown, 1001, ""));
    server.join().unwrap();
}

#[test]
fn garbage_after_the_own_close_does_not_change_its_code() {
    let server = Server::start(config(), |app| {
        app.on_message(|ctx, _| ctx.close(CloseCode::new(4000), "mine").unwrap())
    });
    let mut client = server.client();
    client.answers = false;
    client.send("go");
    assert_eq!(client.close_frame().0, 4000);
    client.raw(&frame(0xf1, b"garbage"));
    assert_eq!(client.end(), Got::Eof, "there is no second close frame");
    drop(client);
    let error = Error::PeerMisbehaved(Violation::ReservedBits);
    assert_eq!(facts(&ended(&server)), cause(CloseReason::Protocol(error), 4000, "mine"));
}

// By a shutdown

#[test]
fn the_server_shuts_down() {
    let server = Server::echo(config());
    let mut client = server.client();
    server.handle().shutdown(Duration::from_secs(60));
    assert_eq!(client.close_frame().0, 1001);
    assert_eq!(client.end(), Got::Eof);
    let ended = ended(&server);
    assert_eq!(facts(&ended), cause(CloseReason::Shutdown, 1001, ""));
    assert!(ended.is_clean());
    server.join().unwrap();
}

// By deadlines

#[test]
fn idle_timeout() {
    let server = Server::echo(quiet().with_idle_timeout(ms(200)));
    let mut client = server.client();
    assert_eq!(client.next(), Got::Close(1001, "idle".to_owned()));
    assert_eq!(client.end(), Got::Eof);
    assert_eq!(facts(&ended(&server)), cause(CloseReason::IdleTimeout, 1001, "idle"));
}

#[test]
fn pong_timeout() {
    let server = Server::echo(quiet().with_ping_interval(ms(200)).with_pong_timeout(ms(200)));
    let mut client = server.client();
    client.answers = false;
    assert_eq!(client.next(), Got::Ping(Vec::new()));
    assert_eq!(client.next(), Got::Eof, "there is nobody to say goodbye to");
    assert_eq!(facts(&ended(&server)), cause(CloseReason::PongTimeout, None, ""));
}

#[test]
fn close_timeout() {
    let server = Server::start(quiet().with_close_timeout(ms(200)), |app| {
        app.on_message(|ctx, _| ctx.close(CloseCode::new(4000), "bye").unwrap())
    });
    let mut client = server.client();
    client.answers = false;
    client.send("go");
    assert_eq!(client.close_frame().0, 4000);
    // It goes on sending, but not the close frame.
    for _ in 0..5 {
        // Its time may be up already.
        let _ = client.stream.write_all(&frame(0x81, b"not listening"));
    }
    client.end();
    assert_eq!(facts(&ended(&server)), cause(CloseReason::CloseTimeout, 4000, "bye"));
}

#[test]
fn a_peer_that_leaves_instead_of_answering_the_close() {
    let server = Server::start(quiet(), |app| {
        app.on_message(|ctx, _| ctx.close(CloseCode::NORMAL, "").unwrap())
    });
    let mut client = server.client();
    client.answers = false;
    client.send("go");
    assert_eq!(client.close_frame().0, 1000);
    drop(client);
    let ended = ended(&server);
    assert_eq!(facts(&ended), cause(CloseReason::EndOfStream, 1000, ""));
    assert!(!ended.is_clean());
}

#[test]
fn write_stall() {
    let config = quiet()
        .with_write_stall_timeout(ms(200))
        .with_backpressure(Backpressure::DropNewest)
        .with_max_queued_len(16 << 20);
    let server = Server::start(config, |app| app.on_message(flood));
    let mut client = server.client();
    client.send("go");
    let cause = server.closed();
    assert_eq!(facts(&cause), self::cause(CloseReason::WriteStall, None, ""));
    assert!(cause.unsent_len > 0);
    assert_eq!(server.drained(), []);
    assert_eq!(server.stats().queued_bytes, 0);
}

#[test]
fn lifetime() {
    let server = Server::echo(quiet().with_max_lifetime(ms(300)));
    let mut client = server.client();
    // Traffic does not lengthen it.
    loop {
        // The close frame may have come already.
        let _ = client.stream.write_all(&frame(0x81, b"still here"));
        match client.next() {
            Got::Text(_) => thread::sleep(ms(10)),
            Got::Close(code, reason) => {
                assert_eq!((code, reason.as_str()), (1001, "open for long enough"));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(client.end(), Got::Eof);
    let ended = ended(&server);
    assert_eq!(facts(&ended), cause(CloseReason::Lifetime, 1001, "open for long enough"));
}

#[test]
fn backpressure() {
    let server = Server::start(quiet(), |app| app.on_message(flood));
    let mut client = server.client();
    client.send("go");
    wait_until("the limit is reached", || server.stats().messages_dropped > 0);
    // A peer that reads at last finds all that was taken, and then the close frame.
    let mut received = 0;
    let frame = loop {
        match client.next() {
            Got::Binary(bytes) => received += bytes.len(),
            Got::Close(code, reason) => break (code, reason),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(frame, (1013, "too much output waits".to_owned()));
    let stats = server.stats();
    assert_eq!(received as u64, stats.messages_sent * FLOOD_LEN as u64);
    assert_eq!(client.end(), Got::Eof);
    let ended = ended(&server);
    assert_eq!(facts(&ended), cause(CloseReason::Backpressure, 1013, &frame.1));
    assert_eq!(ended.initiator(), Initiator::Local);
}

const FLOOD_LEN: usize = 100_000;

/// More than any socket takes while the peer does not read.
fn flood(ctx: &mut Ctx<'_, u32>, _: Message<'_>) {
    for _ in 0..400 {
        let _ = ctx.send(vec![7; FLOOD_LEN].as_slice());
    }
}

// By a panic

/// A handler that panics in one place harms only that connection.
fn panics(build: fn(App) -> App, provoke: fn(&mut Client)) -> CloseCause {
    let server = Server::start(config(), move |app| {
        // Only the first connection is unlucky.
        let mut requests = 0;
        build(app).on_request(move |_| {
            requests += 1;
            Accept::new(requests).into()
        })
    });
    let mut unlucky = server.client();
    let mut other = server.client();
    provoke(&mut unlucky);
    assert_eq!(unlucky.close_frame().0, 1011);
    assert_eq!(unlucky.end(), Got::Eof);
    let cause = server.closed();
    other.send("fine");
    assert_eq!(other.text(), "fine");
    other.leave();
    assert_eq!(server.closed().reason, CloseReason::Peer);
    cause
}

#[test]
fn a_handler_panics() {
    let in_open =
        panics(|app| app.on_open(|ctx| assert!(*ctx.state() != 1, "provoked in on_open")), |_| {});
    let in_message = panics(
        |app| {
            app.on_message(|ctx, message| {
                assert!(*ctx.state() != 1, "provoked in on_message");
                let _ = ctx.send(message);
            })
        },
        |client| client.send("go"),
    );
    let in_drain = panics(
        |app| {
            app.on_message(|ctx, message| {
                let _ = match message.as_bytes() {
                    b"fill" => ctx.send(vec![7; 12 << 20].as_slice()),
                    _ => ctx.send(message),
                };
            })
            .on_drain(|_| panic!("provoked in on_drain"))
        },
        |client| {
            // More than the sockets take.
            client.send("fill");
            assert_eq!(client.binary().len(), 12 << 20);
        },
    );
    for cause in [in_open, in_message, in_drain] {
        assert_eq!(facts(&cause), self::cause(CloseReason::HandlerPanic, 1011, ""));
        assert!(!cause.is_clean());
    }
}

#[test]
fn a_panic_in_on_close_changes_nothing() {
    let server = Server::start(config(), |app| app.on_close(|_| panic!("provoked in on_close")));
    let mut client = server.client();
    client.close(1000, "");
    assert_eq!(client.close_frame().0, 1000);
    assert_eq!(client.end(), Got::Eof);
    assert_eq!(facts(&ended(&server)), cause(CloseReason::Peer, 1000, ""));
    let mut next = server.client();
    next.send("fine");
    assert_eq!(next.text(), "fine");
}

// What is left

#[test]
fn on_close_can_do_nothing_any_more() {
    let server = Server::start(config(), |app| {
        app.on_close(|ctx| {
            assert!(!ctx.is_open());
            assert_eq!(ctx.send("too late"), Err(ringwire::SendError::Closing));
            let _ = ctx.ping(b"too late");
            let _ = ctx.close(CloseCode::NORMAL, "too late");
            ctx.pause();
        })
    });
    for _ in 0..3 {
        // The slot is used again, and is as new.
        let mut client = server.client();
        client.send("one");
        assert_eq!(client.text(), "one");
        drop(client);
        assert_eq!(server.closed().reason, CloseReason::EndOfStream);
    }
}

/// Counts the states that are alive.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(alive))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Counting(Arc<AtomicUsize>);

impl Handler for Counting {
    type State = Counted;

    fn on_request(&mut self, request: &Request<'_>) -> Answer<Counted> {
        match request.path() {
            "/defer" => Answer::Defer,
            "/wrong" => Accept::new(Counted::new(&self.0)).with_subprotocol("unasked").into(),
            _ => Answer::accept(Counted::new(&self.0)),
        }
    }

    fn on_message(&mut self, ctx: &mut Ctx<'_, Counted>, message: Message<'_>) {
        assert!(!message.is_empty(), "provoked by an empty message");
        let _ = ctx.send(message);
    }
}

#[test]
fn states_are_dropped_with_their_connections() {
    let alive = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&alive);
    let server = Server::with_handler(
        config().with_handshake_timeout(ms(2000)),
        &["127.0.0.1:0"],
        move |_, _| Counting(Arc::clone(&counter)),
    );
    let mut polite = server.client();
    let rude = server.client();
    let mut panicking = server.client();
    let _staying = server.client();
    assert_eq!(alive.load(Ordering::Relaxed), 4);
    polite.send("fine");
    polite.text();
    polite.leave();
    drop(rude);
    panicking.send("");
    assert_eq!(panicking.close_frame().0, 1011);
    for path in ["/defer", "/wrong"] {
        let request = ringwire_peers::request().replacen("GET /", &format!("GET {path}"), 1);
        ringwire_peers::http(server.addr(), request);
    }
    wait_until("one state is left", || alive.load(Ordering::Relaxed) == 1);
    drop(server);
    assert_eq!(alive.load(Ordering::Relaxed), 0);
}
