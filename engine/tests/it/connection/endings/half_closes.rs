//! RFC 9293 §3.6: FIN ends one direction. RFC 8446 §6.1 says the same of close_notify.

use std::time::{Duration, Instant};

use ringwire::{Config, compression::CompressionConfig};
use ringwire_codec::Message;
use ringwire_peers::{ENDS, End, Got, Way, frame, get, post, request};

use super::peer::{assert_numbers, assert_whole, connect, numbered, offering, open, serve};
use crate::support::app::Seen;
use crate::support::{Server, config, wait_until};

const COUNT: u32 = 40_000;
const LEN: usize = 100;

#[test]
fn a_message_before_the_end_of_a_stream_is_answered() {
    let server = serve(config(), |app| app);
    for (way, end) in ENDS {
        for _ in 0..5 {
            let mut peer = open(&server, way);
            peer.raw(&frame(0x81, b"hello"));
            peer.end_with(end);
            assert_eq!(peer.rest_as_frames(), [Got::Text("hello".into())], "{way:?}, {end:?}");
            assert_whole(&server.closed());
        }
    }
}

/// Request, message and end in one segment.
#[test]
fn a_peer_that_says_all_at_once_is_answered() {
    let server = serve(config(), |app| app);
    for (way, end) in ENDS {
        let mut peer = connect(&server, way);
        let all = [request().as_bytes(), &frame(0x81, b"hello")].concat();
        peer.raw_and_end(&all, end).join().unwrap();
        let answer = peer.rest();
        assert!(answer.starts_with(b"HTTP/1.1 101 "), "{way:?}, {end:?}");
        assert!(answer.ends_with(b"\r\n\r\n\x81\x05hello"), "{way:?}, {end:?}");
        assert_whole(&server.closed());
    }
}

/// What was read of the socket when its stream ended is more than one turn answers, and more than a socket takes.
#[test]
fn forty_thousand_messages_before_the_end_are_all_answered() {
    let server = serve(config(), |app| app.without_messages());
    let all: Vec<u8> = (0..COUNT).flat_map(|it| frame(0x82, &numbered(it, LEN))).collect();
    for (way, end) in ENDS {
        let mut peer = open(&server, way);
        let read = server.stats().messages_received;
        let sender = peer.raw_and_end(&all, end);
        wait_for_backlog(&server, read + u64::from(COUNT));
        assert_numbers(&peer.rest_as_frames(), COUNT, LEN);
        sender.join().unwrap();
        assert_whole(&server.closed());
    }
}

/// The peer begins to read late: replies wait in the server, if the sockets do not take them all.
fn wait_for_backlog(server: &Server, all: u64) {
    wait_until("replies wait, or are sent", || {
        let stats = server.stats();
        stats.queued_bytes > 0 || stats.messages_received == all
    });
}

#[test]
fn compressed_messages_before_the_end_are_all_answered() {
    // A compressor that forgets takes its time in a build for tests.
    let ways = [
        (CompressionConfig::shared(), 8_000, Way::Plain, End::Fin),
        (CompressionConfig::dedicated(), COUNT, Way::Tls13, End::Notice),
    ];
    for (mode, count, way, end) in ways {
        let messages: Vec<_> = (0..count).map(|it| numbered(it, LEN)).collect();
        let config = config().with_compression(mode.with_threshold(0));
        let server = serve(config, |app| app.without_messages());
        let mut peer = offering(&server, way);
        let all = peer.encode_compressed(messages.iter().map(|it| Message::Binary(it)));
        let read = server.stats().messages_received;
        let sender = peer.raw_and_end(&all, end);
        wait_for_backlog(&server, read + u64::from(count));
        assert_numbers(&peer.rest_as_frames(), count, LEN);
        sender.join().unwrap();
        assert_whole(&server.closed());
    }
}

#[test]
fn a_long_message_before_the_end_of_a_stream_is_answered() {
    let server = serve(roomy(), |app| app.without_messages());
    for (way, end) in ENDS {
        for len in [65_535, 65_536, 1 << 20, 8 << 20] {
            let payload = vec![b'x'; len];
            let mut peer = open(&server, way);
            let sender = peer.raw_and_end(&frame(0x82, &payload), end);
            assert!(peer.rest_as_frames() == [Got::Binary(payload)], "{way:?}, {end:?}, {len}");
            sender.join().unwrap();
            assert_whole(&server.closed());
        }
    }
}

/// Nothing has to be answered, and a peer that ends its stream is not kept waiting.
#[test]
fn a_silent_peer_gets_the_end_of_the_stream_at_once() {
    let server = serve(config().with_close_timeout(Duration::from_secs(60)), |app| app);
    for (way, end) in ENDS {
        let mut peer = open(&server, way);
        let begun = Instant::now();
        peer.end_with(end);
        assert_eq!(peer.rest(), b"");
        assert!(begun.elapsed() < Duration::from_secs(10), "{way:?}, {end:?}");
        assert_whole(&server.closed());
        // The peer's FIN may be missing; its socket is closed all the same once it goes.
        drop(peer);
        wait_until("it is gone", || server.stats().connections == 0);
    }
}

/// A cut message is none: it has no reply, and holds nothing up.
#[test]
fn what_is_cut_by_the_end_is_dropped() {
    let server = serve(config(), |app| app);
    let cut = frame(0x82, &[9; 1000]);
    for (way, end) in ENDS {
        let mut peer = open(&server, way);
        peer.raw(&[frame(0x81, b"whole"), cut[..500].to_vec()].concat());
        peer.end_with(end);
        assert_eq!(peer.rest_as_frames(), [Got::Text("whole".into())]);
        assert_whole(&server.closed());
    }
}

/// A message, its reply, an application that reads on later: what is unread when the stream ends stays.
#[test]
fn a_paused_connection_hears_all_when_it_goes_on() {
    let server = serve(config(), |app| {
        app.on_message(|ctx, message| {
            if message.as_bytes() == b"pause" {
                ctx.pause();
            }
            let _ = ctx.send(message);
        })
    });
    for (way, end) in ENDS {
        let mut peer = open(&server, way);
        let id = server.opened();
        let words = ["pause", "one", "two"];
        let all: Vec<u8> = words.iter().flat_map(|it| frame(0x81, it.as_bytes())).collect();
        peer.raw_and_end(&all, end).join().unwrap();
        server.find("the pause", |_, seen| (seen == Seen::Text("pause".into())).then_some(()));
        server.handle().resume(id).unwrap();
        assert_eq!(peer.rest_as_frames(), words.map(|it| Got::Text(it.into())), "{way:?}, {end:?}");
        assert_whole(&server.closed());
    }
}

#[test]
fn http_requests_before_the_end_of_a_stream_are_all_answered() {
    let long = vec![b'l'; 1 << 20];
    let server = serve(config(), move |app| {
        let long = long.clone();
        app.on_http(move |request| match request.path() {
            "/long" => ringwire::Response::new(http::StatusCode::OK)
                .with_body(http::HeaderValue::from_static("text/plain"), long.clone()),
            path => ringwire::Response::new(http::StatusCode::OK).with_body(
                http::HeaderValue::from_static("text/plain"),
                format!("{path} {}", request.body().len()).into_bytes(),
            ),
        })
    });
    for (way, end) in ENDS {
        let mut peer = connect(&server, way);
        let all = [get("/long"), post("/b", "four"), get("/long"), get("/c")].concat();
        peer.raw_and_end(all.as_bytes(), end).join().unwrap();
        let answers = peer.rest();
        let long = answers.iter().filter(|byte| **byte == b'l').count();
        assert!(long >= 2 << 20, "{way:?}, {end:?}: {long} bytes of the long ones");
        let answers = String::from_utf8(answers).unwrap();
        assert_eq!(answers.matches("HTTP/1.1 200 ").count(), 4, "{way:?}, {end:?}");
        assert!(answers.contains("/b 4HTTP/1.1 ") && answers.ends_with("/c 0"), "{answers:?}");
    }
}

/// For messages of some megabytes.
fn roomy() -> Config {
    config().with_protocol(ringwire_codec::Config::default().with_max_message_len(8 << 20))
}
