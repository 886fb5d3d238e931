//! Which machines a connection has, and what they take.

use ringwire::compression::{CompressionConfig, CompressionMode, WindowBits};
use ringwire_codec::deflate::{Compressor, Decompressor};

use super::accepted::{json, offering, with};
use crate::support::{Server, wait_until};

#[test]
fn a_connection_has_the_machines_that_it_uses() {
    let window = WindowBits::new(12).expect("a window");
    let server = Server::echo(with(
        CompressionConfig::dedicated().with_threshold(0).with_max_window(window),
    ));
    let (compressor, decompressor) =
        (Compressor::memory_len_of(window) as u64, Decompressor::MEMORY_LEN as u64);
    let memory = || server.stats().deflate_memory;
    let mut client = offering(&server);
    assert_eq!(client.extensions(), Some("permessage-deflate; server_max_window_bits=12"));
    assert_eq!(memory(), 0);
    client.send("not compressed");
    assert_eq!(client.text(), "not compressed");
    assert_eq!(memory(), compressor);
    client.send_compressed(json(1000).as_str());
    assert_eq!(client.text(), json(1000));
    assert_eq!(memory(), compressor + decompressor);
    // With the window of the first, the second is a few bytes.
    let before = server.stats();
    client.send_compressed(json(1000).as_str());
    assert_eq!(client.text(), json(1000));
    let after = server.stats();
    assert!(after.deflate_out_bytes - before.deflate_out_bytes < 100);
    assert!(after.inflate_in_bytes - before.inflate_in_bytes < 100);
    client.leave();
    wait_until("the memory is given back", || memory() == 0);
    assert_eq!(CompressionConfig::default().mode, CompressionMode::Off);
}

/// As ws and Bun do, with the settings as they are.
#[test]
fn an_idle_connection_with_machines_of_its_own_holds_less_than_200_kib() {
    const COUNT: u64 = 20;
    let server = Server::echo(with(CompressionConfig::dedicated()));
    let mut clients: Vec<_> = (0..COUNT).map(|_| offering(&server)).collect();
    for client in &mut clients {
        // A window of nobody's choice is not spoken of.
        assert_eq!(client.extensions(), Some("permessage-deflate"));
        for round in 0..2 {
            client.send_compressed(json(600 + round).as_str());
            assert_eq!(client.text(), json(600 + round));
        }
    }
    let stats = server.stats();
    assert_eq!((stats.deflated_messages, stats.inflated_messages), (2 * COUNT, 2 * COUNT));
    let held = stats.deflate_memory / COUNT;
    assert!(held > 100 << 10, "{held} bytes are no compressor and decompressor");
    assert!(held < 200 << 10, "{held} bytes");
    // A larger window is there for the asking.
    let large = CompressionConfig::dedicated().with_max_window(WindowBits::MAX);
    let server = Server::echo(with(large));
    let mut client = offering(&server);
    client.send(json(600).as_str());
    assert_eq!(client.text(), json(600));
    let expected = Compressor::memory_len_of(WindowBits::MAX) as u64;
    assert_eq!(server.stats().deflate_memory, expected);
}

/// Whoever sends documents needs no compressor for each connection, and what comes before and behind is still read.
#[test]
fn a_message_longer_than_the_window_is_the_workers() {
    let server = Server::echo(with(CompressionConfig::dedicated()));
    let compressor = Compressor::memory_len_of(WindowBits::new(12).expect("a window")) as u64;
    let memory = || server.stats().deflate_memory;
    let mut client = offering(&server);
    for round in 0..2 {
        client.send(json(5000 + round).as_str());
        assert_eq!(client.text(), json(5000 + round));
    }
    assert_eq!(memory(), 0);
    for len in [300, 700, 4096, 300, 4097, 300, 60_000, 60_000, 300] {
        client.send(json(len).as_str());
        assert_eq!(client.text(), json(len));
    }
    assert_eq!(memory(), compressor);
    // All are compressed, and what follows a long one refers to no byte of it.
    let before = server.stats();
    for _ in 0..2 {
        client.send(json(300).as_str());
        assert_eq!(client.text(), json(300));
    }
    let after = server.stats();
    assert!(after.deflate_out_bytes - before.deflate_out_bytes < 60, "two in its window");
    client.send(json(9000).as_str());
    assert_eq!(client.text(), json(9000));
    let before = server.stats();
    client.send(json(300).as_str());
    assert_eq!(client.text(), json(300));
    let after = server.stats();
    assert!(after.deflate_out_bytes - before.deflate_out_bytes > 60, "it begins anew");
}
