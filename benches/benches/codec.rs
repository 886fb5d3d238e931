//! Micro-benchmarks of the codec: `cargo bench -p ringwire-bench --bench codec [filter]`.
//!
//! What arrives is unmasked where it lies, so a second pass over the same bytes masks them again. Each
//! benchmark makes use of that: its input is never written anew, and headers stay as they are.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use ringwire_codec::deflate::{Compressor, Decompressor, Level, WindowBits};
use ringwire_codec::handshake::server::{Accept, Request, Response};
use ringwire_codec::handshake::{HeadLimits, HeadScanner};
use ringwire_codec::mask::{mask, mask_extend};
use ringwire_codec::{Config, Connection, Event, Heap, Input, Message, Role};

use self::texts::Text;

#[path = "../src/texts.rs"]
mod texts;

const KEY: [u8; 4] = [0x37, 0x7a, 0x21, 0x3d];

/// How many frames one read brings, as with 16 messages in flight.
const FRAME_COUNT: usize = 16;

/// The header that a client's small frame has; payloads lie behind one.
const HEADER_LEN: usize = 6;

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(40)
        .configure_from_args();
    bench_mask(&mut criterion);
    bench_offsets(&mut criterion);
    bench_receive(&mut criterion);
    bench_utf8(&mut criterion);
    bench_send(&mut criterion);
    bench_handshake(&mut criterion);
    bench_deflate(&mut criterion);
    criterion.final_summary();
}

fn len_of(len: usize) -> Throughput {
    Throughput::Bytes(u64::try_from(len).unwrap_or(u64::MAX))
}

/// The definition of masking (RFC 6455 §5.3), and what a compiler makes of it.
fn mask_scalar(buf: &mut [u8], key: [u8; 4]) {
    for (byte, key) in buf.iter_mut().zip(key.into_iter().cycle()) {
        *byte ^= key;
    }
}

fn bench_mask(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mask");
    for len in [5, 16, 64, 125, 1 << 10, 16 << 10, 1 << 20] {
        let mut buf = vec![0x55; HEADER_LEN + len];
        let src = buf.clone();
        let mut out = Vec::with_capacity(64 + len);
        group.throughput(len_of(len));
        group.bench_function(BenchmarkId::new("in_place", len), |bencher| {
            bencher.iter(|| mask(black_box(&mut buf[HEADER_LEN..]), black_box(KEY)));
        });
        group.bench_function(BenchmarkId::new("extend", len), |bencher| {
            bencher.iter(|| {
                out.clear();
                out.extend_from_slice(&[0; HEADER_LEN]);
                mask_extend(black_box(&mut out), black_box(&src[HEADER_LEN..]), black_box(KEY), 0);
            });
        });
        group.bench_function(BenchmarkId::new("scalar", len), |bencher| {
            bencher.iter(|| mask_scalar(black_box(&mut buf[HEADER_LEN..]), black_box(KEY)));
        });
        group.bench_function(BenchmarkId::new("memcpy", len), |bencher| {
            bencher.iter(|| {
                out.clear();
                out.extend_from_slice(&[0; HEADER_LEN]);
                black_box(&mut out).extend_from_slice(black_box(&src[HEADER_LEN..]));
            });
        });
    }
    group.finish();
}

/// Masks and copies of payloads that begin at each of 16 offsets behind a page.
fn bench_offsets(criterion: &mut Criterion) {
    const PAGE: usize = 4 << 10;
    /// Behind the header that a server's long frame has.
    const REPLY_OFFSET: usize = 4;
    let mut group = criterion.benchmark_group("offset");
    // Many of them, which differ by far more than two measurements of one do.
    group.warm_up_time(Duration::from_millis(50)).measurement_time(Duration::from_millis(250));
    group.sample_size(10);
    for len in [64, 512, 1 << 10, 4 << 10, 16 << 10, 128 << 10, 1 << 20] {
        let mut buf = vec![0x55; 2 * PAGE + len];
        let page = buf.as_ptr().align_offset(PAGE);
        let mut out: Vec<u8> = Vec::with_capacity(2 * PAGE + len);
        let reply_at = out.as_ptr().align_offset(PAGE) + REPLY_OFFSET;
        out.resize(reply_at, 0);
        group.throughput(len_of(len));
        for offset in 0..16 {
            let payload = page + offset..page + offset + len;
            let id = |name| BenchmarkId::new(format!("{name}/{len}"), offset);
            group.bench_function(id("mask"), |bencher| {
                bencher.iter(|| mask(black_box(&mut buf[payload.clone()]), black_box(KEY)));
            });
            // A copy as replies have it.
            group.bench_function(id("copy"), |bencher| {
                bencher.iter(|| {
                    out.truncate(reply_at);
                    let bytes = black_box(&buf[payload.clone()]);
                    mask_extend(black_box(&mut out), bytes, black_box([0; 4]), 0);
                });
            });
            group.bench_function(id("memcpy"), |bencher| {
                bencher.iter(|| {
                    out.truncate(reply_at);
                    black_box(&mut out).extend_from_slice(black_box(&buf[payload.clone()]));
                });
            });
        }
    }
    group.finish();
}

/// What a client sends: the message, [`FRAME_COUNT`] times in a row.
fn frames(message: Message<'_>, key: [u8; 4]) -> Vec<u8> {
    let mut client = Connection::new(Role::Client);
    let mut wire = Vec::new();
    for _ in 0..FRAME_COUNT {
        client.send(message, &mut || key, &mut wire).expect("the connection is open");
    }
    wire
}

/// Receives all messages in `wire` and gives the sum of their lengths.
fn receive(server: &mut Connection, config: &Config, wire: &mut [u8]) -> usize {
    let mut input = Input::new(wire);
    let mut sum = 0;
    while let Some(event) = server.receive(config, &mut Heap, &mut input).expect("valid frames") {
        if let Event::Message(message) = event {
            sum += black_box(message.as_bytes()).len();
        }
    }
    sum
}

fn bench_receive(criterion: &mut Criterion) {
    let config = Config::default();
    let mut group = criterion.benchmark_group("receive_16_frames");
    for len in [0, 16, 64, 125, 512, 1 << 10, 16 << 10] {
        let mut wire = frames(Message::Binary(&vec![0x55; len]), KEY);
        let mut server = Connection::new(Role::Server);
        group.throughput(Throughput::Elements(FRAME_COUNT as u64));
        group.bench_function(BenchmarkId::from_parameter(len), |bencher| {
            bencher.iter(|| {
                assert_eq!(receive(&mut server, &config, black_box(&mut wire)), FRAME_COUNT * len);
            });
        });
    }
    group.finish();
}

fn bench_utf8(criterion: &mut Criterion) {
    let config = Config::default();
    let mut group = criterion.benchmark_group("utf8_16_frames");
    for len in [64, 1 << 10, 16 << 10] {
        let ascii = "a".repeat(len);
        let mixed: String = "aä€😀 "
            .chars()
            .cycle()
            .scan(0, |sum, char| {
                *sum += char.len_utf8();
                (*sum <= len).then_some(char)
            })
            .collect();
        // A key of zeros, so that the mixed text is text each time; masking costs the same.
        for (name, message) in [
            ("binary", Message::Binary(ascii.as_bytes())),
            ("ascii", Message::Text(&ascii)),
            ("mixed", Message::Text(&mixed)),
        ] {
            let mut wire = frames(message, [0; 4]);
            let mut server = Connection::new(Role::Server);
            group.throughput(len_of(FRAME_COUNT * message.len()));
            group.bench_function(BenchmarkId::new(name, len), |bencher| {
                bencher.iter(|| receive(&mut server, &config, black_box(&mut wire)));
            });
        }
    }
    group.finish();
}

fn bench_send(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("send");
    for (name, role) in [("server", Role::Server), ("client", Role::Client)] {
        for len in [16, 64, 125, 1 << 10, 16 << 10] {
            let payload = vec![0x55; len];
            let mut connection = Connection::new(role);
            let mut out = Vec::with_capacity(64 + len);
            group.throughput(len_of(len));
            group.bench_function(BenchmarkId::new(name, len), |bencher| {
                bencher.iter(|| {
                    out.clear();
                    let message = Message::Binary(black_box(&payload));
                    connection
                        .send(message, &mut || black_box(KEY), black_box(&mut out))
                        .expect("the connection is open");
                });
            });
        }
    }
    group.finish();
}

/// What a browser sends.
const REQUEST: &[u8] = b"GET /chat HTTP/1.1\r\n\
    Host: localhost:9001\r\n\
    Connection: Upgrade\r\n\
    Pragma: no-cache\r\n\
    Cache-Control: no-cache\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
    Chrome/140.0.0.0 Safari/537.36\r\n\
    Upgrade: websocket\r\n\
    Origin: http://localhost:9001\r\n\
    Sec-WebSocket-Version: 13\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-US,en;q=0.9\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";

fn bench_handshake(criterion: &mut Criterion) {
    let limits = HeadLimits::default();
    let mut group = criterion.benchmark_group("handshake");
    group.throughput(len_of(REQUEST.len()));
    group.bench_function("scan", |bencher| {
        bencher.iter(|| HeadScanner::default().scan(black_box(REQUEST), &limits));
    });
    group.bench_function("parse", |bencher| {
        bencher.iter(|| {
            Request::parse(black_box(REQUEST), &limits)
                .map(|request| request.check_upgrade().is_ok())
        });
    });
    let mut out = Vec::with_capacity(512);
    group.bench_function("accept", |bencher| {
        bencher.iter(|| {
            out.clear();
            let request = Request::parse(black_box(REQUEST), &limits)?;
            Accept::new().encode(&request.check_upgrade()?, black_box(&mut out))
        });
    });
    group.bench_function("refuse", |bencher| {
        bencher.iter(|| {
            out.clear();
            let head = black_box(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            let refused =
                Request::parse(head, &limits).and_then(|request| request.check_upgrade().map(drop));
            if let Err(error) = refused {
                Response::from(error).encode(black_box(&mut out));
            }
        });
    });
    group.finish();
}

/// [`FRAME_COUNT`] messages of that length, in JSON and of random letters.
fn texts(len: usize) -> [(&'static str, Vec<String>); 2] {
    [("json", Text::Json), ("random", Text::Letters)]
        .map(|(name, text)| (name, text.texts(len, FRAME_COUNT)))
}

/// All messages, one after the other: with a compressor that has seen all of them before, or each by itself.
fn bench_deflate(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("deflate_16_messages");
    for len in [512, 4 << 10, 64 << 10] {
        for ((name, messages), takeover) in
            texts(len).into_iter().flat_map(|texts| [(texts.clone(), false), (texts, true)])
        {
            let mode = if takeover { "dedicated" } else { "shared" };
            let mut compressor = Compressor::new(Level::default(), WindowBits::MAX);
            if takeover {
                compressor = compressor.with_takeover();
            }
            let mut decompressor = Decompressor::new();
            let mut wire = vec![Vec::new(); messages.len()];
            let mut out = Vec::with_capacity(2 * len);
            // The first round fills the windows; what the second one makes can be inflated again and again.
            for _ in 0..2 {
                for (message, wire) in messages.iter().zip(&mut wire) {
                    wire.clear();
                    compressor.compress(message.as_bytes(), wire);
                    out.clear();
                    decompressor.decompress(wire, len, &mut out).expect("it is a message");
                }
            }
            group.throughput(len_of(FRAME_COUNT * len));
            group.bench_function(
                BenchmarkId::new(format!("compress/{name}/{mode}"), len),
                |bencher| {
                    bencher.iter(|| {
                        for message in &messages {
                            out.clear();
                            compressor.compress(black_box(message.as_bytes()), black_box(&mut out));
                        }
                    });
                },
            );
            group.bench_function(
                BenchmarkId::new(format!("inflate/{name}/{mode}"), len),
                |bencher| {
                    bencher.iter(|| {
                        for wire in &wire {
                            if !takeover {
                                decompressor.reset();
                            }
                            out.clear();
                            let inflated = decompressor.decompress(black_box(wire), len, &mut out);
                            inflated.expect("it is a message");
                        }
                    });
                },
            );
        }
    }
    group.finish();
}
