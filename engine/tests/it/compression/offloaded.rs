//! Long messages that compute threads compress: their order, and the contexts of those around them.

use ringwire::{
    Backpressure, CloseCode, Config, Ctx, SendError, SendOptions, Sent,
    compression::{Compress, CompressionConfig},
};
use ringwire_codec::deflate::Offer;
use ringwire_peers::{Client, Got};

use crate::support::app::Seen;
use crate::support::{Gate, Server, config, ms, wait_until};

/// Bytes from which a message is for the threads here.
const LONG: usize = 2000;

fn compressing(compression: CompressionConfig) -> Config {
    config()
        .with_compute_workers(2)
        .with_compression(compression.with_threshold(1).with_offload_threshold(LONG))
}

/// Text that compresses well, of which each refers to those before it if it may.
fn text(number: usize, len: usize) -> String {
    let mut text = format!("{number}:");
    while text.len() < len {
        text.push_str(&format!("the {number}th of many words, "));
    }
    text.truncate(len);
    text
}

/// Short ones and long ones, in no order.
fn text_of(number: usize) -> String {
    text(number, if number.is_multiple_of(3) { LONG + number * 7919 % 50_000 } else { 100 })
}

fn done(server: &Server) -> u64 {
    server.handle().stats().compute.done
}

#[test]
fn order_and_contexts_are_kept() {
    const COUNT: usize = 60;
    let policies = [Backpressure::DropNewest, Backpressure::DropOldest];
    for compression in [CompressionConfig::shared(), CompressionConfig::dedicated()] {
        for policy in policies {
            let config = compressing(compression)
                .with_backpressure(policy)
                .with_high_water(16 << 20)
                .with_max_queued_len(16 << 20);
            let server = Server::start(config, |app| {
                app.on_message(|ctx, _| {
                    for number in 0..COUNT {
                        assert_eq!(ctx.send(text_of(number).as_str()), Ok(Sent::OnItsWay));
                    }
                })
            });
            let mut client = Client::offering(server.addr(), Offer::default());
            assert!(client.is_compressed());
            for _ in 0..2 {
                client.send("go");
                for number in 0..COUNT {
                    assert_eq!(client.text(), text_of(number), "{compression:?} {policy:?}");
                }
            }
            assert_eq!(done(&server), 2 * COUNT as u64 / 3, "the long ones");
            let stats = server.stats();
            assert_eq!(stats.deflated_messages, 2 * COUNT as u64);
            assert!(stats.deflate_out_bytes * 5 < stats.deflate_in_bytes);
            client.leave();
            wait_until("nothing is left", || server.stats().queued_bytes == 0);
        }
    }
}

/// A server whose one thread is held up by the message `hold` until the gate opens, and whose application has `go` for
/// every other.
fn held_up(
    config: Config,
    gate: &Gate,
    go: impl Fn(&mut Ctx<'_, u32>) + Clone + Send + Sync + 'static,
) -> Server {
    let gate = gate.clone();
    Server::start(config.with_compute_workers(1), move |app| {
        let (gate, go) = (gate.clone(), go.clone());
        app.on_message(move |ctx, message| {
            if message.as_bytes() == b"hold" {
                let gate = gate.clone();
                return ctx.offload(move || gate.pass(), |_, _| {}).expect("there is room");
            }
            go(ctx);
        })
    })
}

/// A client of it, when the thread is held up and the application has begun.
fn gone(server: &Server) -> Client {
    let mut client = Client::offering(server.addr(), Offer::default());
    client.send("hold");
    wait_until("the thread is held up", || server.handle().stats().compute.running == 1);
    client.send("go");
    wait_until("a message waits for it", || server.handle().stats().compute.waiting > 0);
    client
}

/// Sends a long message and a short one.
fn two(ctx: &mut Ctx<'_, u32>, len: usize) -> Result<Sent, SendError> {
    let status = ctx.send(text(0, len).as_str());
    let _ = ctx.send("behind it");
    assert!(ctx.queued_len() >= len, "what is not compressed yet counts");
    status
}

#[test]
fn what_is_behind_waits() {
    let gate = Gate::new();
    let server = held_up(compressing(CompressionConfig::dedicated()), &gate, |ctx| {
        assert_eq!(two(ctx, LONG), Ok(Sent::OnItsWay));
    });
    let mut client = gone(&server);
    let id = server.opened();
    server.handle().send(id, "from elsewhere").unwrap();
    server.handle().close(id, CloseCode::NORMAL, "bye").unwrap();
    assert_eq!(client.next_within(ms(50)), None);
    gate.open();
    assert_eq!(client.text(), text(0, LONG));
    assert_eq!(client.text(), "behind it");
    assert_eq!(client.text(), "from elsewhere");
    assert_eq!(client.next(), Got::Close(1000, "bye".into()));
    assert!(server.closed().is_clean());
}

#[test]
fn a_drain_follows_what_was_queued() {
    const LEN: usize = 300 << 10;
    let gate = Gate::new();
    let server = held_up(compressing(CompressionConfig::shared()), &gate, |ctx| {
        assert!(matches!(two(ctx, LEN), Ok(Sent::Waits { len: LEN })));
    });
    let mut client = gone(&server);
    gate.open();
    assert_eq!(client.text(), text(0, LEN));
    assert_eq!(client.text(), "behind it");
    server.find("on_drain", |_, seen| matches!(seen, Seen::Drain).then_some(()));
}

#[test]
fn a_connection_may_end_meanwhile() {
    let gate = Gate::new();
    let server = held_up(compressing(CompressionConfig::dedicated()), &gate, |ctx| {
        let _ = two(ctx, LONG);
    });
    // A FIN would leave the message to be waited for.
    gone(&server).reset();
    let cause = server.closed();
    assert!(cause.unsent_len >= LONG, "{cause:?}");
    gate.open();
    wait_until("the message is not compressed", || server.handle().stats().compute.cancelled == 1);
    assert_eq!(server.stats().queued_bytes, 0);
    server.client().leave();
}

#[test]
fn what_finds_no_room_is_compressed_by_the_worker() {
    let refusing = compressing(CompressionConfig::shared()).with_compute_queue_len(0);
    let threadless = compressing(CompressionConfig::shared()).with_compute_workers(0);
    let switched_off = compressing(CompressionConfig::shared()).with_compression(
        CompressionConfig::shared().with_threshold(1).with_offload_threshold(None),
    );
    for config in [refusing, threadless, switched_off] {
        let server = Server::echo(config);
        let mut client = Client::offering(server.addr(), Offer::default());
        for number in 0..12 {
            client.send(text_of(number).as_str());
            assert_eq!(client.text(), text_of(number));
        }
        assert_eq!(done(&server), 0);
        assert_eq!(server.stats().deflated_messages, 12);
    }
}

#[test]
fn what_waits_may_be_dropped() {
    let gate = Gate::new();
    let config = compressing(CompressionConfig::dedicated())
        .with_backpressure(Backpressure::DropOldest)
        .with_high_water(1000)
        .with_max_queued_len(64 << 10);
    let server = held_up(config, &gate, |ctx| {
        // The first is on its way; the second waits behind it, and is dropped with the third for the fourth.
        let _ = ctx.send(text(0, LONG).as_str());
        let _ = ctx.send(text(1, LONG).as_str());
        let plain = SendOptions::default().with_compress(Compress::Never);
        let _ = ctx.send_with(&[7; 80_000][..], plain);
        assert!(matches!(ctx.send("the last"), Ok(Sent::Waits { .. })));
    });
    let mut client = gone(&server);
    wait_until("messages were dropped", || server.stats().messages_dropped == 2);
    gate.open();
    assert_eq!(client.text(), text(0, LONG));
    assert_eq!(client.text(), "the last");
    wait_until("the second was compressed for nothing", || done(&server) == 3);
    client.leave();
}

/// A long message that is compressed elsewhere is a job, but takes no room that a future of the next message needs.
#[test]
fn a_future_of_each_message_finds_room_beside_long_ones() {
    const COUNT: usize = 30;
    for max_jobs in [1, 2, 3] {
        let config =
            compressing(CompressionConfig::shared()).with_max_jobs_per_connection(max_jobs);
        let server = Server::start(config, |app| {
            app.on_message(|ctx, message| {
                let number = message.as_text().expect("a number").to_owned();
                for _ in 0..2 {
                    let _ = ctx.send(text(0, LONG).as_str());
                }
                let spawned = ctx.spawn_or_pause(async { number }, |ctx, number| {
                    let _ = ctx.send(number.as_str());
                });
                assert_eq!(spawned, Ok(()));
            })
        });
        let mut client = Client::offering(server.addr(), Offer::default());
        for number in 0..COUNT {
            client.send(number.to_string().as_str());
        }
        let texts: Vec<_> = (0..3 * COUNT).map(|_| client.text()).collect();
        let (long, numbers): (Vec<_>, Vec<_>) = texts.into_iter().partition(|it| it.len() == LONG);
        assert_eq!(long.len(), 2 * COUNT);
        assert!(numbers.into_iter().eq((0..COUNT).map(|number| number.to_string())));
        // The last room is none for them.
        assert_eq!(done(&server) == 0, max_jobs == 1);
        client.leave();
    }
}
