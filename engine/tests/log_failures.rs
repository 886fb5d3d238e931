//! A subscriber that panics at every line, as `tracing-subscriber`'s own does where nothing takes what it writes: the
//! line is lost, and nothing else.

#[expect(dead_code, reason = "the other programs use the rest")]
mod support;

use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use ringwire::on_message;
use ringwire_peers::{Client, connect, plain_request};
use support::{Server, config, wait_until};

/// Lines that were lost.
static LOST: AtomicUsize = AtomicUsize::new(0);

struct Panics;

impl Write for Panics {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        LOST.fetch_add(1, Relaxed);
        panic!("no room for this line");
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_subscriber_that_panics_ends_nothing() {
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(|| Panics)
        .finish();
    tracing::subscriber::set_global_default(subscriber).expect("it is the only one here");
    let server = Server::with_handler(config(), &["127.0.0.1:0"], |_, _| {
        on_message(|ctx, message| {
            assert!(message.as_bytes() != b"panic", "as asked for");
            let _ = ctx.send(message);
        })
    });
    let mut stays = server.client();
    for _ in 0..30 {
        let mut wrong = server.client();
        // All reserved bits (RFC 6455 §5.2): protocol error (§7.4.1).
        wrong.raw(b"\xf1\x80\0\0\0\0");
        assert_eq!(wrong.close_frame().0, 1002);
    }
    // What the engine says of a handler that panics is lost too, and the peer is told: internal error.
    let mut panics = server.client();
    panics.send("panic");
    assert_eq!(panics.close_frame().0, 1011);
    // A request that is refused, and one that is cut off.
    let refused = ringwire_peers::http(server.addr(), "GET / HTTP/1.1\r\n\r\n");
    assert!(refused.starts_with("HTTP/1.1 400 "), "{refused}");
    Client::upgrade(connect(server.addr()), &plain_request()).reset();
    wait_until("all but one are gone", || server.stats().open_connections == 1);
    assert!(LOST.load(Relaxed) >= 30, "{} lines", LOST.load(Relaxed));
    stays.send("hello");
    assert_eq!(stays.text(), "hello");
    stays.leave();
}
