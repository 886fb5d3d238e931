//! Compression against a running server: what is agreed on, what is sent how, and the rows of hostile peers that
//! concern it. Time, memory and full queues are tested in the simulation.

use rand_core::{Rng, SeedableRng};
use ringwire::{
    Accept, CloseReason, Config, SendOptions,
    compression::{Compress, CompressionConfig, CompressionLevel, CompressionMode, WindowBits},
};
use ringwire_codec::deflate::{Compressor, Offer};
use ringwire_codec::{Error, Limit, Violation};
use ringwire_peers::{Client, Got, connect, frame, plain_request};

use crate::support::app::Seen;
use crate::support::{Server, config, wait_until};

const LIMIT: usize = 1 << 20;

pub(super) fn with(compression: CompressionConfig) -> Config {
    config().with_compression(compression)
}

/// The same where messages of a byte over and over may be as long as any.
fn lenient(compression: CompressionConfig) -> Config {
    let limits = ringwire_codec::Config::default().with_inflate_ratio_floor(LIMIT as u64);
    with(compression).with_protocol(limits)
}

/// Each way to have it, for messages of any length.
fn modes() -> [CompressionConfig; 2] {
    [
        CompressionConfig::shared().with_threshold(0),
        CompressionConfig::dedicated().with_threshold(0),
    ]
}

pub(super) fn offering(server: &Server) -> Client {
    Client::offering(server.addr(), Offer::default())
}

/// A compressed binary message in fragments of `len` bytes.
fn fragments(payload: &[u8], len: usize) -> Vec<u8> {
    let count = payload.chunks(len).len();
    let pieces = payload.chunks(len).enumerate();
    let frames = pieces.map(|(index, piece)| {
        let first = if index == 0 { 0x42 } else { 0 };
        frame(first | if index + 1 == count { 0x80 } else { 0 }, piece)
    });
    frames.flatten().collect()
}

pub(super) fn json(len: usize) -> String {
    let mut text = String::new();
    for number in 0.. {
        if text.len() >= len {
            break;
        }
        text +=
            &format!("{{\"id\":{number},\"name\":\"water\",\"value\":{}}},", number * 7919 % 1000);
    }
    text.truncate(len);
    text
}

/// The compressed form of that many bytes, which refers to nothing before it.
fn bomb(len: usize) -> Vec<u8> {
    let mut payload = Vec::new();
    Compressor::new(CompressionLevel::SMALLEST, WindowBits::MAX)
        .compress(&vec![b'x'; len], &mut payload);
    assert!(payload.len() < len / 900, "1000:1, not {} bytes", payload.len());
    payload
}

// What is agreed on

#[test]
fn offers_of_all_kinds() {
    const SHARED: &str =
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    let small = WindowBits::new(10).expect("a window");
    let table = [
        (Offer::default(), SHARED.to_owned(), "permessage-deflate".to_owned()),
        (Offer::shared(), SHARED.to_owned(), SHARED.to_owned()),
        (
            Offer::default().with_server_max_window_bits(small),
            format!("{SHARED}; server_max_window_bits=10"),
            "permessage-deflate; server_max_window_bits=10".to_owned(),
        ),
        (
            Offer::default().with_client_max_window_bits(small),
            SHARED.to_owned(),
            "permessage-deflate".to_owned(),
        ),
        (
            Offer::default().with_server_no_context_takeover(true),
            SHARED.to_owned(),
            "permessage-deflate; server_no_context_takeover".to_owned(),
        ),
        (
            Offer::default().with_client_no_context_takeover(true),
            SHARED.to_owned(),
            "permessage-deflate; client_no_context_takeover".to_owned(),
        ),
    ];
    let [shared, dedicated] = modes().map(|compression| Server::echo(with(compression)));
    let text = json(40_000);
    for (offer, if_shared, if_dedicated) in table {
        for (server, answer) in [(&shared, if_shared), (&dedicated, if_dedicated)] {
            let mut client = Client::offering(server.addr(), offer);
            assert_eq!(client.extensions(), Some(&*answer), "{offer:?}");
            for part in [&text[..300], &text[100..], "", &text[..300], "a", &text] {
                client.send_compressed(part);
                assert_eq!(client.text(), part, "{offer:?}");
                client.send(part.as_bytes());
                assert_eq!(client.binary(), part.as_bytes(), "{offer:?}");
            }
            client.leave();
        }
    }
    // The client leaves two of six as they are, since compression would make them longer.
    let stats = shared.stats();
    assert_eq!((stats.deflated_messages, stats.inflated_messages), (72, 24));
}

#[test]
fn off_by_default_and_nobody_has_to() {
    let server = Server::echo(config());
    let mut client = offering(&server);
    assert!(!client.is_compressed() && client.extensions().is_none());
    client.raw(&frame(0xc1, b"\0"));
    assert_eq!(client.close_frame().0, 1002);
    for compression in modes() {
        let server = Server::echo(with(compression));
        let mut client = server.client();
        assert_eq!(client.extensions(), None);
        client.send(json(2000).as_str());
        assert_eq!(client.text(), json(2000));
        assert_eq!(server.stats().deflated_messages, 0);
    }
}

#[test]
fn a_request_may_be_denied_compression() {
    let server = Server::start(with(CompressionConfig::shared()), |app| {
        let app = app.on_request(|request| match request.path() {
            "/plain" => Accept::new(0).without_compression().into(),
            _ => Accept::new(0).into(),
        });
        app.on_open(|ctx| {
            let _ = ctx.send(if ctx.is_compressed() { "compressed" } else { "plain" });
        })
    });
    for path in ["/plain", "/compressed"] {
        let request = ringwire_peers::client_request(path).with_deflate(Offer::default());
        let mut client = Client::upgrade(connect(server.addr()), &request);
        assert_eq!(client.is_compressed(), path == "/compressed");
        assert_eq!(client.text(), path[1..]);
    }
}

/// RFC 7692 §7.1.2.1: 8 to 15, and the compressor has no 8.
#[test]
fn window_bits() {
    for compression in modes() {
        let server = Server::echo(with(compression));
        for bits in ["0", "7", "8", "16", "999", "abc", "", "\"\"", "015", "+9", "-1"] {
            let offer = format!(
                "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits={bits}\r\n\r\n"
            );
            let mut stream = connect(server.addr());
            let head = ringwire_peers::request().replacen("\r\n\r\n", &format!("\r\n{offer}"), 1);
            std::io::Write::write_all(&mut stream, head.as_bytes()).expect("it goes out");
            if matches!(bits, "" | "\"\"") {
                // The grammar wants a token (RFC 6455 §9.1).
                let answer = ringwire_peers::read_answer(&mut stream);
                assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
                continue;
            }
            let mut client = Client::await_upgrade(stream, &plain_request());
            assert_eq!(client.extensions(), None, "{bits}");
            client.send("it goes without");
            assert_eq!(client.text(), "it goes without");
        }
        for bits in 9..=15 {
            let window = WindowBits::new(bits).expect("a window");
            let offer = Offer::default().with_server_max_window_bits(window);
            let mut client = Client::offering(server.addr(), offer);
            let answer = client.extensions().expect("an answer").to_owned();
            assert!(answer.contains(&format!("server_max_window_bits={bits}")), "{answer}");
            client.send(json(70_000).as_str());
            assert_eq!(client.text(), json(70_000));
        }
    }
}

// What is sent how

#[test]
fn what_is_long_enough_is_compressed_unless_told_otherwise() {
    let compression = CompressionConfig::shared().with_threshold(1000);
    let server = Server::start(with(compression), |app| {
        app.on_message(|ctx, message| {
            let options = SendOptions::default();
            let options = match message.as_bytes().first() {
                Some(b'!') => options.with_compress(Compress::Always),
                Some(b'-') => options.with_compress(Compress::Never),
                _ => options,
            };
            let _ = ctx.send_with(message, options);
        })
    });
    let mut client = offering(&server);
    let mut compressed = 0;
    for (first, len, is) in
        [("a", 999, 0), ("a", 1000, 1), ("!", 999, 1), ("-", 1000, 0), ("-", 999, 0), ("!", 1, 1)]
    {
        let text = first.repeat(len);
        client.send(text.as_str());
        assert_eq!(client.text(), text);
        compressed += is;
        assert_eq!(server.stats().deflated_messages, compressed, "{len} times {first}");
    }
    // The same from outside.
    let id = server.opened();
    let text = "b".repeat(1000);
    server.handle().send(id, text.as_str()).expect("it lives");
    let never = SendOptions::default().with_compress(Compress::Never);
    server.handle().send_with(id, text.as_str(), never).expect("it lives");
    assert_eq!((client.text(), client.text()), (text.clone(), text));
    let stats = server.stats();
    assert_eq!(stats.deflated_messages, compressed + 1);
    assert_eq!(stats.deflate_in_bytes, 1000 + 999 + 1 + 1000);
    assert!(stats.deflate_out_bytes < 100, "{}", stats.deflate_out_bytes);
}

#[test]
fn a_server_may_only_decompress() {
    for compression in modes() {
        let server = Server::start(with(compression.with_decompress_only(true)), |app| {
            app.on_message(|ctx, message| {
                let _ =
                    ctx.send_with(message, SendOptions::default().with_compress(Compress::Always));
            })
        });
        let mut client = offering(&server);
        let text = json(5000);
        for _ in 0..3 {
            client.send_compressed(text.as_str());
            assert_eq!(client.text(), text);
        }
        let stats = server.stats();
        assert_eq!((stats.inflated_messages, stats.deflated_messages), (3, 0));
        assert_eq!(stats.inflate_out_bytes, 15_000);
        assert!(stats.inflate_in_bytes < 5000, "{}", stats.inflate_in_bytes);
        // The client need not keep a window for nothing.
        assert!(client.extensions().is_some_and(|text| text.contains("server_no_context")));
    }
}

#[test]
fn more_work_makes_less_to_send() {
    let sent = [1, 9].map(|level| {
        let level = CompressionLevel::new(level).expect("a level");
        let server = Server::echo(with(CompressionConfig::shared().with_level(level)));
        let mut client = offering(&server);
        client.send(json(30_000).as_str());
        assert_eq!(client.text(), json(30_000));
        server.stats().deflate_out_bytes
    });
    assert!(sent[1] < sent[0] * 9 / 10, "{sent:?}");
}

#[test]
fn streamed_messages_come_in_parts() {
    for compression in modes() {
        let server = Server::start(with(compression), |app| {
            app.on_request(|_| Accept::new(0).with_streaming().into())
        });
        let mut client = offering(&server);
        let text = json(200_000);
        client.send_compressed(text.as_str());
        client.send("plain");
        for expected in [text.as_str(), "plain"] {
            let mut whole = Vec::new();
            loop {
                let (part, first, last) = server.find("a part", |_, seen| match seen {
                    Seen::Part { bytes, is_text: true, is_first, is_last } => {
                        Some((bytes, is_first, is_last))
                    }
                    _ => None,
                });
                assert_eq!(first, whole.is_empty());
                whole.extend(part);
                if last {
                    break;
                }
            }
            assert_eq!(whole, expected.as_bytes());
        }
        assert_eq!(server.stats().inflated_messages, 1);
        assert_eq!(server.stats().inflate_out_bytes, 200_000);
    }
}

// Hostile peers

#[test]
fn compression_bomb() {
    let lens = [(LIMIT, true), (LIMIT + 1, false), (3 * LIMIT, false)];
    let bombs = lens.map(|(len, fits)| (bomb(len), fits));
    for compression in modes() {
        let server = Server::start(lenient(compression), |app| app.on_message(|_, _| {}));
        let bystander = offering(&server);
        for (payload, fits) in &bombs {
            for fragment_len in [payload.len(), 7] {
                let mut client = offering(&server);
                client.raw(&fragments(payload, fragment_len));
                if *fits {
                    client.leave();
                    let seen = server.find("a message", |_, seen| match seen {
                        Seen::Binary(bytes) => Some(bytes),
                        _ => None,
                    });
                    assert!(seen == vec![b'x'; LIMIT]);
                } else {
                    assert_eq!(client.close_frame().0, 1009);
                    drop(client);
                    let reason = server.find("its end", |_, seen| match seen {
                        Seen::Close(cause) if cause.reason != CloseReason::Peer => {
                            Some(cause.reason)
                        }
                        _ => None,
                    });
                    let expected = Error::LimitExceeded(Limit::MessageLen);
                    assert_eq!(reason, CloseReason::Protocol(expected));
                }
            }
        }
        bystander.leave();
    }
}

/// What is hardly longer than a reference to the message before.
#[test]
fn compression_bomb_with_context_takeover() {
    let [_, dedicated] = modes();
    for (len, fits) in [(20_000, true), (20_001, false)] {
        let server = Server::echo(with(dedicated).with_max_message_len(20_000));
        let mut client = offering(&server);
        let mut noise = vec![0; 20_000];
        rand_chacha::ChaCha12Rng::seed_from_u64(1).fill_bytes(&mut noise);
        let first = client.compress(&noise);
        client.raw(&fragments(&first, 1000));
        assert!(client.binary() == noise);
        let again: Vec<u8> = noise.iter().copied().cycle().take(len).collect();
        let second = client.compress(&again);
        assert!(second.len() < 500, "{} bytes", second.len());
        client.raw(&fragments(&second, 9));
        if fits {
            assert!(client.binary() == again);
        } else {
            assert_eq!(client.close_frame().0, 1009);
        }
    }
}

/// A turn takes a MiB or so of what a peer has in store, and then the others get theirs.
#[test]
fn compression_bombs_take_turns() {
    const COUNT: usize = 20;
    for compression in modes() {
        let server = Server::start(lenient(compression), |app| {
            app.without_messages().on_message(|ctx, message| {
                *ctx.state_mut() += 1;
                if message.len() == 4 {
                    let count = ctx.state().to_string();
                    let _ = ctx.send(count.as_str());
                }
            })
        });
        let mut client = offering(&server);
        let before = server.stats().turns;
        let wire = frame(0xc2, &bomb(LIMIT)).repeat(COUNT);
        assert!(wire.len() < 60_000, "{} bytes", wire.len());
        client.raw(&wire);
        client.send("done");
        assert_eq!(client.text(), (COUNT + 1).to_string());
        let turns = server.stats().turns - before;
        assert!(turns >= COUNT as u64, "{turns} turns");
    }
}

#[test]
fn strangers_have_a_smaller_limit() {
    for compression in [CompressionConfig::default(), modes()[0], modes()[1]] {
        let compressed = compression.mode != CompressionMode::Off;
        let config = lenient(compression).with_max_unauthenticated_len(1000);
        let server = Server::start(config, |app| {
            app.on_message(|ctx, message| {
                if message.as_bytes() == b"password" {
                    ctx.set_authenticated();
                }
                let _ = ctx.send("taken");
            })
        });
        let say = |client: &mut Client, bytes: &[u8], fragment_len: usize| {
            if compressed {
                let payload = client.compress(bytes);
                client.raw(&fragments(&payload, fragment_len));
            } else {
                let parts: Vec<_> = bytes.chunks(fragment_len).map(Into::into).collect();
                client.send_fragments(&parts);
            }
        };
        for fragment_len in [3, 5000] {
            let mut client = offering(&server);
            assert_eq!(client.is_compressed(), compressed);
            say(&mut client, &[b'x'; 1000], fragment_len);
            assert_eq!(client.text(), "taken");
            say(&mut client, &[b'x'; 1001], fragment_len);
            assert_eq!(client.close_frame().0, 1009);
            // Who has said the password has the limit of all.
            let mut client = offering(&server);
            client.send(&b"password"[..]);
            assert_eq!(client.text(), "taken");
            say(&mut client, &vec![b'x'; LIMIT], fragment_len * 1000);
            assert_eq!(client.text(), "taken");
            say(&mut client, &vec![b'x'; LIMIT + 1], fragment_len * 1000);
            assert_eq!(client.close_frame().0, 1009);
        }
    }
}

#[test]
fn others_may_say_that_a_peer_is_authenticated() {
    let config = config().with_max_unauthenticated_len(10);
    let server = Server::start(config, |app| {
        app.on_request(|request| match request.path() {
            "/parts" => Accept::new(0).with_streaming().into(),
            _ => Accept::new(0).into(),
        })
    });
    let mut client = server.client();
    let id = server.opened();
    client.send("0123456789");
    assert_eq!(client.text(), "0123456789");
    server.handle().set_authenticated(id).expect("it lives");
    // Letters are read in their order.
    server.handle().send(id, "now").expect("it lives");
    assert_eq!(client.text(), "now");
    client.send("01234567890");
    assert_eq!(client.text(), "01234567890");
    // The limit is for streams as well.
    let request = ringwire_peers::client_request("/parts");
    let mut client = Client::upgrade(connect(server.addr()), &request);
    client.send("0123456789");
    client.send("01234567890");
    assert_eq!(client.close_frame().0, 1009);
}

#[test]
fn inflate_garbage() {
    let mut random = rand_chacha::ChaCha12Rng::seed_from_u64(7);
    for compression in modes() {
        let server = Server::start(with(compression), |app| app.on_message(|_, _| {}));
        let mut bystander = offering(&server);
        let mut whole = Vec::new();
        Compressor::new(CompressionLevel::default(), WindowBits::MAX)
            .compress(json(3000).as_bytes(), &mut whole);
        let cut = |len: usize| whole[..len].to_vec();
        let mut cases = vec![
            vec![0x06, 0xff],
            vec![0xff; 50],
            cut(1),
            cut(whole.len() / 2),
            cut(whole.len() - 1),
        ];
        // A reference to what lies before the beginning, and one block of a wrong length.
        cases.push(vec![0x63, 0x00, 0x12]);
        cases.push(vec![0x00, 0x05, 0x00, 0x00, 0x00, 1, 2, 3, 4, 5]);
        for len in 1..60 {
            let mut noise = vec![0; len];
            random.fill_bytes(&mut noise);
            cases.push(noise);
        }
        for case in &cases {
            for fragment_len in [1, case.len()] {
                let mut client = offering(&server);
                client.raw(&fragments(case, fragment_len));
                client.ping(b"end");
                // Some noise is a message.
                match client.next() {
                    Got::Close(code, _) => assert_eq!(code, 1007, "{case:02x?}"),
                    got => assert_eq!(got, Got::Pong(b"end".to_vec()), "{case:02x?}"),
                }
            }
        }
        for case in &cases[..5] {
            let mut client = offering(&server);
            client.raw(&frame(0xc2, case));
            assert_eq!(client.close_frame().0, 1007, "{case:02x?}");
        }
        // RSV1 where it has no meaning (RFC 7692 §6.1).
        for wire in [
            frame(0xc9, b""),
            frame(0xc8, b""),
            [frame(0x42, b"\0"), frame(0xc0, b"\0")].concat(),
            frame(0xe2, b"\0"),
        ] {
            let mut client = offering(&server);
            client.raw(&wire);
            assert_eq!(client.close_frame().0, 1002, "{wire:02x?}");
        }
        let reason = server.find("its end", |_, seen| match seen {
            Seen::Close(cause)
                if cause.reason
                    == CloseReason::Protocol(Error::PeerMisbehaved(Violation::ReservedBits)) =>
            {
                Some(cause.reason)
            }
            _ => None,
        });
        assert!(matches!(reason, CloseReason::Protocol(_)));
        bystander.send_compressed("still here");
        bystander.leave();
        wait_until("all are gone", || server.stats().connections == 0);
        assert_eq!(server.stats().deflate_memory, 0);
    }
}

#[test]
fn what_cannot_be_set_is_named() {
    let table = [
        (
            CompressionConfig::dedicated().with_max_dedicated_len(1000),
            "compression.max_dedicated_len",
        ),
        (CompressionConfig::shared().with_work_per_turn(0), "compression.work_per_turn"),
    ];
    for (compression, setting) in table {
        let started =
            ringwire::Server::new(with(compression)).start(|_| ringwire::on_message(|_, _| {}));
        let error = started.expect_err("it is too little").to_string();
        assert!(error.contains(setting), "{error}");
    }
}
