//! What inflating costs a server, and how little of that a peer gets for a few bytes: a turn's share, the rate, the
//! ratio, and what is held of messages that are not whole. The arithmetic of turns is tested in `limits/work.rs`, whole
//! turns in the simulation.

use ringwire::{
    CloseCode, CloseReason, Config,
    admission::{Excess, RateLimit},
    compression::{CompressionConfig, CompressionLevel, WindowBits},
};
use ringwire_codec::deflate::{Compressor, Offer};
use ringwire_codec::{Error, Limit};
use ringwire_peers::{Client, frame};

use crate::support::app::Seen;
use crate::support::{Server, config, wait_until};

/// A little less than three messages of [`FLOOR`] with their frames, whose compressed forms are 80 bytes or so.
const BURST: u32 = 3 << 16;
/// The length up to which any ratio is allowed by default.
const FLOOR: usize = 64 << 10;

fn modes() -> [CompressionConfig; 2] {
    [CompressionConfig::shared(), CompressionConfig::dedicated()]
}

fn with(compression: CompressionConfig) -> Config {
    config().with_compression(compression)
}

/// A server that answers nothing.
fn silent(config: Config) -> Server {
    Server::start(config, |app| app.on_message(|_, _| {}))
}

fn offering(server: &Server) -> Client {
    Client::offering(server.addr(), Offer::default())
}

/// The compressed form of that many zeros, which refers to nothing before it.
fn zeros(len: usize) -> Vec<u8> {
    let mut payload = Vec::new();
    Compressor::new(CompressionLevel::SMALLEST, WindowBits::MAX)
        .compress(&vec![0; len], &mut payload);
    payload
}

// The share of a turn

/// Thirty peers have 45 MiB to be inflated and compressed again, and two others a word to say, one compressed and one
/// plain. With a message for each of the thirty in a turn, they would wait for 4 MiB at least, and for 30 with a MiB
/// for each.
#[test]
fn bombers_share_a_turn_and_others_do_not_wait_for_all_of_them() {
    const BOMBERS: usize = 30;
    const EACH: usize = 12;
    const LEN: usize = 128 << 10;
    let limits = ringwire_codec::Config::default().with_inflate_ratio_floor(LEN as u64);
    for compression in modes() {
        let server =
            Server::start(with(compression).with_protocol(limits), |app| app.without_messages());
        let bombs = frame(0xc2, &zeros(LEN)).repeat(EACH);
        let mut bombers: Vec<_> = (0..BOMBERS).map(|_| offering(&server)).collect();
        let (mut compressed, mut plain) = (offering(&server), server.client());
        let inflated = || server.stats().inflate_out_bytes;
        // Where this thread has to wait for a core, more is inflated meanwhile; not each time.
        let (mut least, mut rounds, mut total) = ([u64::MAX; 2], 0, 0);
        wait_until("ten rounds are seen beside them", || {
            if inflated() >= total {
                let before = server.stats().inflated_messages;
                bombers.iter_mut().for_each(|bomber| bomber.raw(&bombs));
                total += (BOMBERS * EACH * LEN) as u64;
                wait_until("all have had something", || {
                    server.stats().inflated_messages >= before + 2 * BOMBERS as u64
                });
            }
            let meanwhile = [&mut compressed, &mut plain].map(|client| {
                let before = inflated();
                if client.is_compressed() {
                    client.send_compressed("a word");
                } else {
                    client.send("a word");
                }
                assert_eq!(client.text(), "a word");
                inflated() - before
            });
            // Where the bombers were done before, it says nothing.
            if inflated() < total {
                rounds += 1;
                least = [0, 1].map(|index: usize| least[index].min(meanwhile[index]));
            }
            rounds == 10
        });
        assert!(least.iter().all(|least| *least <= 2 << 20), "{least:?}");
        wait_until("the bombers get what they are owed", || inflated() >= total);
    }
}

#[test]
fn who_waits_for_a_turn_gets_all_that_is_owed_in_order() {
    let compression = CompressionConfig::shared().with_threshold(0).with_work_per_turn(1);
    let server = Server::echo(with(compression));
    let mut clients: Vec<_> = (0..5).map(|_| offering(&server)).collect();
    for client in &mut clients {
        let frames: Vec<u8> = (0..50).flat_map(|i| compressed(&format!("{i} na na na"))).collect();
        client.raw(&frames);
        client.raw(&frame(0x88, &1000_u16.to_be_bytes()));
    }
    for client in &mut clients {
        for i in 0..50 {
            assert_eq!(client.text(), format!("{i} na na na"));
        }
        assert_eq!(client.close_frame().0, 1000);
    }
}

fn compressed(text: &str) -> Vec<u8> {
    let mut payload = Vec::new();
    Compressor::new(CompressionLevel::default(), WindowBits::MAX)
        .compress(text.as_bytes(), &mut payload);
    frame(0xc1, &payload)
}

// The rate

#[test]
fn what_inflates_counts_for_the_rate_with_its_inflated_length() {
    for compression in modes() {
        // The third message goes past it, and takes a minute to be made up for.
        let rate = RateLimit::default().with_bytes_per_second(1000).with_byte_burst(BURST);
        let server = silent(with(compression).with_rate_limit(rate));
        let mut client = offering(&server);
        client.raw(&frame(0xc2, &zeros(FLOOR)).repeat(20));
        wait_until("it is held up", || server.stats().throttles > 0);
        assert_eq!(server.stats().inflated_messages, 3, "and what came of their frames");

        let server = silent(
            with(compression)
                .with_rate_limit(rate.with_excess(Excess::Close(CloseCode::POLICY_VIOLATION))),
        );
        let mut client = offering(&server);
        client.raw(&frame(0xc2, &zeros(FLOOR)).repeat(20));
        assert_eq!(client.close_frame(), (1008, "too much at once".to_owned()));
        assert_eq!(server.stats().inflated_messages, 3);
        // The same in parts, and plain.
        let server = Server::start(
            with(compression)
                .with_rate_limit(rate.with_excess(Excess::Close(CloseCode::POLICY_VIOLATION))),
            |app| app.on_request(|_| ringwire::Accept::new(0).with_streaming().into()),
        );
        let mut client = offering(&server);
        client.raw(&frame(0xc2, &zeros(FLOOR)).repeat(20));
        assert_eq!(client.close_frame().0, 1008);
        let mut client = offering(&server);
        client.send_compressed(vec![0; FLOOR].as_slice());
        client.leave();
    }
}

// The ratio

#[test]
fn past_the_floor_a_message_may_not_be_too_much_longer() {
    for compression in modes() {
        let server = silent(with(compression));
        let mut client = offering(&server);
        client.raw(&frame(0xc2, &zeros(FLOOR)));
        client.leave();
        let mut client = offering(&server);
        client.raw(&frame(0xc2, &zeros(FLOOR + 1)));
        assert_eq!(client.close_frame().0, 1009);
        let reason = server.find("its end", |_, seen| match seen {
            Seen::Close(cause) if cause.reason != CloseReason::Peer => Some(cause.reason),
            _ => None,
        });
        assert_eq!(reason, CloseReason::Protocol(Error::LimitExceeded(Limit::InflateRatio)));
    }
}

// What is held

#[test]
fn an_unfinished_message_holds_what_has_arrived_of_it() {
    const LEN: usize = 1 << 20;
    let limits = ringwire_codec::Config::default().with_inflate_ratio_floor(LEN as u64);
    for compression in modes() {
        let server = silent(with(compression).with_protocol(limits));
        let mut client = offering(&server);
        let wire = frame(0xc2, &zeros(LEN));
        assert!(wire.len() < 1200, "{}", wire.len());
        let (begin, end) = wire.split_at(wire.len() - 1);
        client.raw(begin);
        wait_until("it has arrived", || server.stats().memory_input > 0);
        let held = server.stats().memory_input;
        assert!(held < 8 << 10, "{held} bytes for {}", begin.len());
        assert_eq!(server.stats().inflate_out_bytes, 0);
        client.raw(end);
        client.leave();
        assert_eq!(server.stats().inflate_out_bytes, LEN as u64);
    }
}
