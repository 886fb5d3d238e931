//! Messages that may wait for so long and no longer.

use std::time::Duration;

use ringwire::compression::{Compress, CompressionConfig};
use ringwire::{CloseCode, CloseReason, Config, Ctx, Late, SendOptions};
use ringwire_codec::deflate::Offer;

use crate::support::app::Seen;
use crate::support::{PATIENCE, Server, config, ms, wait_until};
use ringwire_peers::{Client, Got};

/// More than the sockets of both sides take.
const FILLER_LEN: usize = 12 << 20;

fn roomy() -> Config {
    config()
        .with_idle_timeout(None)
        .with_write_stall_timeout(None)
        .with_max_queued_len(FILLER_LEN + (1 << 20))
}

fn drop_after(time: Duration) -> SendOptions {
    SendOptions::default().with_deadline(time, Late::Drop)
}

/// A server that has `work` send something, behind as much as keeps it waiting where the message is "block".
fn start(config: Config, work: fn(&mut Ctx<'_, u32>)) -> Server {
    Server::start(config, move |app| {
        app.without_messages().on_message(move |ctx, message| {
            if message.as_bytes() == b"block" {
                let options = SendOptions::default().with_compress(Compress::Never);
                let _ = ctx.send_with(vec![0; FILLER_LEN].as_slice(), options);
            }
            work(ctx);
        })
    })
}

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

fn quotes(ctx: &mut Ctx<'_, u32>) {
    let _ = ctx.send("a word before, and a word behind");
    let _ = ctx.send_with("a word of an hour", drop_after(Duration::from_secs(3600)));
    let _ = ctx.send_with("a word of the moment", drop_after(ms(1000)));
    let _ = ctx.send("a word behind, and a word before");
    // A newer one has a deadline of its own, or none.
    let _ = ctx.send_with("stale", drop_after(ms(50)).with_key(1));
    let _ = ctx.send_with("fresh", SendOptions::default().with_key(1));
    let _ = ctx.send_with("lasts", SendOptions::default().with_key(2));
    let _ = ctx.send_with("lasts not", drop_after(ms(100)).with_key(2));
    let _ = ctx.send("last");
}

#[test]
fn what_waits_for_too_long_is_dropped() {
    let compression = CompressionConfig::dedicated().with_threshold(1);
    for config in [roomy(), roomy().with_compression(compression)] {
        let server = start(config, quotes);
        let mut client = Client::offering(server.addr(), Offer::default());
        client.send("block");
        // One is replaced, which counts as well.
        wait_until("two more are dropped", || server.stats().messages_dropped == 4);
        let texts = texts_until(&mut client, "last");
        let expected = [
            "a word before, and a word behind",
            "a word of an hour",
            "a word behind, and a word before",
            "fresh",
            "last",
        ];
        assert_eq!(texts, expected);
        server.find("on_drain", |_, seen| (seen == Seen::Drain).then_some(()));
        assert_eq!(server.stats().queued_bytes, 0);
        // Where nothing waits, nothing is late.
        client.send("at once");
        let texts = texts_until(&mut client, "last");
        assert!(texts.contains(&"a word of the moment".to_owned()), "{texts:?}");
        client.leave();
    }
}

#[test]
fn a_connection_is_closed_for_a_message_that_waits_for_too_long() {
    let server = start(roomy(), |ctx| {
        let late = Late::Close(CloseCode::new(4000));
        let _ = ctx.send_with("in time", SendOptions::default().with_deadline(ms(50), late));
    });
    let mut prompt = server.client();
    prompt.send("at once");
    assert_eq!(prompt.text(), "in time");
    let mut client = server.client();
    client.ping(b"who");
    client.send("block");
    let id = server.find("its id", |id, seen| matches!(seen, Seen::Ping(_)).then_some(id));
    // What is called with it sees when it has begun to close.
    wait_until("the message has waited for too long", || {
        let (tell, told) = std::sync::mpsc::channel();
        let ask = move |ctx: &mut Ctx<'_, u32>| tell.send(ctx.is_open()).expect("the test waits");
        server.handle().run(id, ask).expect("there is room");
        !told.recv_timeout(PATIENCE).expect("it is asked")
    });
    let frame = loop {
        match client.next() {
            Got::Text(text) => assert_eq!(text, "in time"),
            Got::Binary(bytes) => assert_eq!(bytes.len(), FILLER_LEN),
            Got::Pong(_) => {}
            Got::Close(code, text) => break (code, text),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(frame, (4000, "a message could not go out in time".to_owned()));
    let cause = server.closed();
    assert_eq!((cause.reason, cause.code), (CloseReason::Deadline, Some(CloseCode::new(4000))));
    prompt.leave();
}

#[test]
fn a_handle_may_set_it_as_well() {
    let server = start(roomy(), |_| {});
    let mut client = server.client();
    let id = server.opened();
    client.send("block");
    wait_until("output waits", || server.stats().queued_bytes > 1 << 20);
    server.handle().send_with(id, "late", drop_after(ms(10))).unwrap();
    server.handle().send(id, "last").unwrap();
    wait_until("it is dropped", || server.stats().messages_dropped == 1);
    assert_eq!(texts_until(&mut client, "last"), ["last"]);
}
