//! Producers on other threads: no faster than the peer reads, whatever the policy, and told of the end.

#![expect(clippy::disallowed_types, reason = "a waker is shared between threads")]

use std::future::Future;
use std::io::ErrorKind;
use std::pin::pin;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use ringwire::compression::CompressionConfig;
use ringwire::senders::{SendClosed, TrySendError};
use ringwire::{Backpressure, CloseCause, CloseCode, CloseReason, Config, ConnId, Sender};
use ringwire_codec::deflate::Offer;

use crate::support::app::Seen;
use crate::support::{Gate, Server, config, in_time, ms, wait_until};
use ringwire_peers::{Client, Got};

/// More than the sockets of both sides take, in messages of [`LEN`].
const COUNT: usize = 5000;
const LEN: usize = 4 << 10;

/// A message that says its number and does not compress to nothing.
fn message(number: usize) -> String {
    let mut text = format!("{number}:");
    let mut word = number.wrapping_mul(0x9e37_79b9) | 1;
    while text.len() < LEN {
        word = word.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        text.push_str(&format!("{:x}", word >> 32));
    }
    text.truncate(LEN);
    text
}

/// A figure of the server's.
fn number(figure: u64) -> usize {
    figure.try_into().expect("it fits")
}

fn sender(server: &Server, id: ConnId) -> Sender {
    server.handle().sender(id).expect("the worker lives")
}

fn number_of(text: &str) -> usize {
    text.split(':').next().and_then(|number| number.parse().ok()).expect("a number")
}

/// A thread that sends so many messages, and tells each time when it finds no room. Gives how many were taken, and how
/// the connection ended meanwhile.
struct Producer {
    thread: JoinHandle<(usize, Option<CloseCause>)>,
    full: mpsc::Receiver<()>,
}

impl Producer {
    fn start(sender: Sender, count: usize) -> Self {
        let (tell, full) = mpsc::channel();
        let thread = thread::spawn(move || {
            for number in 0..count {
                let text = message(number);
                let sent = match sender.try_send(text.as_str()) {
                    Err(TrySendError::Full) => {
                        // The test may not listen any more.
                        let _ = tell.send(());
                        sender.send(text.as_str()).map_err(TrySendError::from)
                    }
                    other => other,
                };
                match sent {
                    Ok(()) => {}
                    Err(TrySendError::Closed(cause)) => return (number, Some(cause)),
                    Err(error) => panic!("{error}"),
                }
            }
            (count, None)
        });
        Self { thread, full }
    }

    /// Waits until there is no room, or all is sent.
    fn wait(&self) {
        let _ = self.full.recv_timeout(crate::support::PATIENCE);
    }

    fn end(self) -> (usize, Option<CloseCause>) {
        in_time("the producer ends", || self.thread.join().expect("it does not panic"))
    }
}

/// Reads so many messages, in their order.
fn read(client: &mut Client, numbers: impl IntoIterator<Item = usize>) {
    for number in numbers {
        assert_eq!(client.text(), message(number));
    }
}

/// Messages until the close frame, which is given with their number.
fn read_to_close(client: &mut Client) -> (usize, u16) {
    for count in 0.. {
        match client.next() {
            Got::Text(text) => assert_eq!(text, message(count)),
            Got::Close(code, _) => return (count, code),
            other => panic!("{other:?} among the messages"),
        }
    }
    unreachable!("the loop ends by itself")
}

fn start(config: Config) -> Server {
    Server::start(config, |app| app.without_messages())
}

/// All comes, in order, to one who reads as fast as it can and to one who reads only when nothing more fits.
fn floods_a_slow_and_a_fast_reader(
    config: Config,
    count: usize,
    connect: impl Fn(&Server) -> Client,
) {
    let server = start(config);
    let mut fast = connect(&server);
    let to_fast = Producer::start(sender(&server, server.opened()), count);
    let mut slow = connect(&server);
    let to_slow = Producer::start(sender(&server, server.opened()), count);
    let reader = thread::spawn(move || {
        read(&mut fast, 0..count);
        fast
    });
    for start in (0..count).step_by(500) {
        to_slow.wait();
        read(&mut slow, start..start + 500);
    }
    let fast = in_time("the fast one has all", || reader.join().expect("all comes in order"));
    for producer in [to_fast, to_slow] {
        assert_eq!(producer.end(), (count, None));
    }
    for client in [fast, slow] {
        client.leave();
        let cause = server.find("the end", |_, seen| match seen {
            Seen::Close(cause) => Some(cause),
            seen => panic!("{seen:?}: what a sender has taken holds nothing up"),
        });
        assert_eq!((cause.reason, cause.lost_messages), (CloseReason::Peer, 0));
    }
    let stats = server.stats();
    assert_eq!((stats.messages_sent, stats.messages_dropped), (2 * count as u64, 0));
}

fn plain(server: &Server) -> Client {
    server.client()
}

#[test]
fn all_comes_to_slow_and_to_fast_readers() {
    floods_a_slow_and_a_fast_reader(config(), COUNT, plain);
}

#[test]
fn with_whatever_policy_and_marks() {
    for policy in [Backpressure::DropNewest, Backpressure::DropOldest] {
        let config = config().with_high_water(5000).with_max_queued_len(9000);
        floods_a_slow_and_a_fast_reader(config.with_backpressure(policy), COUNT, plain);
    }
}

#[test]
fn with_compression() {
    for (compression, threads) in [
        (CompressionConfig::shared(), 0),
        (CompressionConfig::dedicated(), 0),
        (CompressionConfig::shared(), 1),
    ] {
        let compression = compression.with_offload_threshold(LEN);
        let config = config().with_compression(compression).with_compute_workers(threads);
        floods_a_slow_and_a_fast_reader(config, 1000, |server| {
            let client = Client::offering(server.addr(), Offer::default());
            assert!(client.is_compressed());
            client
        });
    }
}

#[cfg(feature = "tls")]
#[test]
fn over_tls() {
    let authority = crate::tls::Authority::new();
    let tls = crate::tls::build_server(authority.server());
    let server = Server::secure(config(), tls, |app| app.without_messages());
    let mut client = crate::tls::foreign(server.addrs()[1], &authority, &rustls::version::TLS13);
    let producer = Producer::start(sender(&server, server.opened()), COUNT);
    producer.wait();
    for number in 0..COUNT {
        let received = client.read().expect("a message");
        assert_eq!(received.to_text().expect("text"), message(number));
    }
    assert_eq!(producer.end(), (COUNT, None));
}

/// A producer that is ahead of a peer which has not read yet, and has more than both sockets take.
fn ahead(server: &Server) -> (Client, Producer) {
    let client = server.client();
    let producer = Producer::start(sender(server, server.opened()), 10 * COUNT);
    producer.wait();
    wait_until("the worker has taken some of it", || server.stats().messages_sent > 0);
    (client, producer)
}

#[test]
fn a_reset_releases_who_waits() {
    let server = start(config());
    let (client, producer) = ahead(&server);
    client.reset();
    let (taken, cause) = producer.end();
    let cause = cause.expect("the connection has ended");
    assert!(matches!(cause.reason, CloseReason::Transport(_)), "{cause:?}");
    assert_eq!(server.closed(), cause, "the handler is told the same");
    let stats = server.stats();
    assert_eq!(number(stats.messages_sent) + cause.lost_messages, taken);
    assert_eq!(number(stats.messages_dropped), cause.lost_messages);
}

#[test]
fn a_close_of_the_peer_releases_who_waits() {
    let server = start(config());
    let (mut client, producer) = ahead(&server);
    client.close(4000, "enough");
    assert_eq!(client.close_frame().0, 4000);
    let (taken, cause) = producer.end();
    let cause = cause.expect("the connection has ended");
    assert_eq!((cause.reason, cause.code), (CloseReason::Peer, Some(CloseCode::new(4000))));
    // What waited for room could not follow the close frame.
    assert_eq!(number(server.stats().messages_sent) + cause.lost_messages, taken);
}

#[test]
fn a_close_of_this_side_comes_behind_all_that_was_taken() {
    let server = start(config());
    let mut client = server.client();
    let id = server.opened();
    let handle = server.handle();
    // The worker has heard of neither when it reads the close.
    let sender = handle.sender(id).unwrap();
    for number in 0..20 {
        sender.try_send(message(number).as_str()).unwrap();
    }
    handle.close(id, CloseCode::NORMAL, "done").unwrap();
    assert_eq!(read_to_close(&mut client), (20, 1000));
    wait_until("it is closed", || sender.is_closed());
    let cause = sender.closed().expect("it is");
    assert_eq!((cause.reason, cause.lost_messages), (CloseReason::Local, 0));
    assert_eq!(sender.send("more"), Err(SendClosed { cause }));
}

#[test]
fn a_shutdown_sends_what_was_taken_and_releases_who_waits() {
    let server = start(config());
    let (mut client, producer) = ahead(&server);
    server.handle().shutdown(Duration::from_secs(60));
    let (received, code) = read_to_close(&mut client);
    assert_eq!(code, 1001);
    let (taken, cause) = producer.end();
    let cause = cause.expect("the connection has ended");
    assert_eq!((cause.reason, cause.lost_messages), (CloseReason::Shutdown, 0));
    assert_eq!(received, taken);
    server.join().expect("every worker ends well");
}

#[test]
fn a_peer_that_has_said_all_still_gets_what_was_taken() {
    let server = start(config());
    let (mut client, producer) = ahead(&server);
    client.stream.shutdown(std::net::Shutdown::Write).expect("it is connected");
    let mut received = 0;
    while let Got::Text(text) = client.next() {
        assert_eq!(text, message(received));
        received += 1;
    }
    let (taken, cause) = producer.end();
    // It goes on as long as the producer keeps it busy, or ends in between.
    if let Some(cause) = cause {
        assert_eq!(cause.reason, CloseReason::EndOfStream);
        assert_eq!(received + cause.lost_messages, taken);
    } else {
        assert_eq!(received, taken);
    }
}

#[test]
fn two_senders_take_turns() {
    // A busy machine may hold one of the threads up while the other goes on, and not each time.
    let others: Vec<_> =
        (0..5).map(|_| other_when_one_has_all()).take_while(|it| *it <= EACH / 2).collect();
    assert!(others.len() < 5, "one had {others:?} when the other had all");
}

/// What each of two senders has to send.
const EACH: usize = 2000;

/// How many messages of one have come when all of the other have.
fn other_when_one_has_all() -> usize {
    let server = start(config());
    let mut client = server.client();
    let id = server.opened();
    let producers = [0, 1].map(|_| Producer::start(sender(&server, id), EACH));
    producers.iter().for_each(Producer::wait);
    // Each one's messages come in its order; the order tells whose it may be.
    let mut next = [0, 0];
    let mut ends = Vec::new();
    for _ in 0..2 * EACH {
        let number = number_of(&client.text());
        let whose = next.iter().position(|next| *next == number).expect("in order");
        next[whose] += 1;
        if next[whose] == EACH {
            ends.push(*next.iter().min().expect("two"));
        }
    }
    assert_eq!(next, [EACH, EACH]);
    for producer in producers {
        assert_eq!(producer.end(), (EACH, None));
    }
    ends[0]
}

#[test]
fn clones_share_their_room() {
    let server = start(config());
    let _client = server.client();
    let gate = Gate::new();
    let blocked = gate.clone();
    let id = server.opened();
    server.handle().run(id, move |_: &mut ringwire::Ctx<'_, u32>| blocked.pass()).unwrap();
    let sender = server.handle().sender_with_capacity(id, 300).unwrap();
    assert_eq!((sender.capacity(), sender.id()), (300, id));
    let clone = sender.clone();
    // 100 bytes and 64 each.
    assert_eq!(sender.try_send([0; 100].as_slice()), Ok(()));
    assert_eq!(clone.try_send([0; 100].as_slice()), Err(TrySendError::Full));
    assert_eq!(clone.send_timeout([0; 100].as_slice(), ms(10)), Err(TrySendError::Full));
    drop(sender);
    gate.open();
    assert_eq!(in_time("there is room", move || clone.send([0; 100].as_slice())), Ok(()));
    let most = server.handle().sender_with_capacity(id, usize::MAX).unwrap();
    assert_eq!(most.capacity(), Config::default().max_queued_len);
}

/// Others may fill the queue up to its limit: what a sender has taken waits, and trips nothing.
#[test]
fn what_else_is_sent_does_not_make_it_trip_the_policy() {
    let server = start(config());
    let (mut client, producer) = ahead(&server);
    let id = producer_id(&server, &mut client);
    let handle = server.handle();
    let filler = vec![7; 50 << 10];
    wait_until("the queue is at its limit", || {
        if server.stats().queued_bytes >= 256 << 10 {
            return true;
        }
        handle.send(id, filler.as_slice()).unwrap();
        // The sockets may still take some of what waits.
        server.looks();
        false
    });
    let mut next = 0;
    while next < COUNT {
        match client.next() {
            Got::Text(text) => {
                assert_eq!(text, message(next));
                next += 1;
            }
            Got::Binary(bytes) => assert_eq!(bytes, filler),
            Got::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(server.stats().messages_dropped, 0);
    client.reset();
    producer.end();
}

/// The id of the one connection, by what the application reports of a ping.
fn producer_id(server: &Server, client: &mut Client) -> ConnId {
    client.ping(b"who");
    server.find("the ping", |id, seen| matches!(seen, Seen::Ping(_)).then_some(id))
}

#[test]
fn a_connection_that_is_not_open() {
    let server = start(config());
    let client = server.client();
    let id = server.opened();
    client.leave();
    server.closed();
    let sender = server.handle().sender(id).unwrap();
    wait_until("it is closed", || sender.is_closed());
    let Err(TrySendError::Closed(cause)) = sender.try_send("lost") else { panic!("it is closed") };
    assert_eq!(cause.reason, CloseReason::Transport(ErrorKind::NotConnected));
    assert_eq!(sender.send("lost"), Err(SendClosed { cause }));
}

/// What is posted without a sender and can't be taken is counted, and the close frame says what happened.
#[test]
fn what_a_flood_loses_is_in_the_cause() {
    const POSTED: usize = 500;
    let server = start(config());
    let mut client = server.client();
    let id = server.opened();
    let handle = server.handle();
    let (begun, gate) = (Gate::new(), Gate::new());
    let (begins, blocked) = (begun.clone(), gate.clone());
    let hold_up = move |_: &mut ringwire::Ctx<'_, u32>| {
        begins.open();
        blocked.pass();
    };
    handle.run(id, hold_up).unwrap();
    // So that all of them are read in one turn, before the peer can answer the close frame.
    begun.pass();
    for number in 0..POSTED {
        handle.send(id, message(number).as_str()).unwrap();
    }
    gate.open();
    let (received, code) = read_to_close(&mut client);
    assert_eq!(code, 1013);
    let cause = server.closed();
    assert_eq!(cause.reason, CloseReason::Backpressure);
    assert_eq!(cause.text, "too much output waits");
    assert_eq!(received + cause.lost_messages, POSTED);
    assert_eq!(number(server.stats().messages_dropped), cause.lost_messages);
}

/// Runs a future on this thread.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn tasks_wait_without_a_thread() {
    let server = start(config());
    let mut client = server.client();
    let sender = server.handle().sender(server.opened()).unwrap();
    let tasks = thread::spawn(move || {
        block_on(async {
            for number in 0..COUNT {
                let text = message(number);
                sender.send_async(text.as_str()).await?;
            }
            // It has gone away by now, or will have soon.
            loop {
                sender.send_async("more").await?;
            }
        })
    });
    read(&mut client, 0..COUNT);
    client.reset();
    let ended: Result<(), SendClosed> =
        in_time("the task ends", || tasks.join().expect("it does not panic"));
    let SendClosed { cause } = ended.expect_err("the connection has ended");
    assert!(matches!(cause.reason, CloseReason::Transport(_)), "{cause:?}");
}
