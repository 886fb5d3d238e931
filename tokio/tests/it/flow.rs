//! Back-pressure, cancelling, halves on tasks of their own, and fairness.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use ringwire_tokio::{CloseCode, Config, Error, Message};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;

use crate::{pair, run, run_paused, text};

/// Waits until a future waits; gives what it gives if it does not.
async fn once<R>(work: impl Future<Output = R>) -> Option<R> {
    let mut work = std::pin::pin!(work);
    poll_fn(|cx| {
        Poll::Ready(match work.as_mut().poll(cx) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        })
    })
    .await
}

#[test]
fn feeding_stops_at_the_high_water_mark() {
    run(async {
        let config = Config::default().with_high_water(1000);
        let (mut client, mut server) = pair(&config, 100);
        let mut count = 0;
        while once(server.feed(Message::from(vec![7_u8; 300]))).await.is_some() {
            count += 1;
            assert!(server.waiting_len() < 1400, "the mark and a message");
        }
        // 303 bytes a frame; the pipe has taken 100 bytes by then.
        assert_eq!(count, 4);
        // A feed that was dropped while it waited has taken nothing.
        let flushing = tokio::spawn(async move { server.flush().await.map(|()| server) });
        for _ in 0..count {
            assert_eq!(client.receive().await.unwrap().unwrap().len(), 300);
        }
        let server = flushing.await.unwrap().unwrap();
        assert_eq!((server.waiting_len(), server.buffered_len()), (0, 0));
        assert!(once(client.receive()).await.is_none());
    });
}

/// A send that is dropped after its message was taken sends it with the next one, whole.
#[test]
fn a_dropped_send_is_whole_or_nothing() {
    run(async {
        let (mut client, mut server) = pair(&Config::default(), 10);
        assert!(once(server.send("a message that does not fit")).await.is_none());
        let sending = tokio::spawn(async move {
            server.send("another").await.unwrap();
            server
        });
        assert_eq!(client.receive().await.unwrap(), text("a message that does not fit"));
        assert_eq!(client.receive().await.unwrap(), text("another"));
        sending.await.unwrap();
    });
}

/// What was fed goes out before receiving waits, in one write.
#[test]
fn receiving_sends_what_was_fed() {
    run(async {
        let (mut client, mut server) = pair(&Config::default(), 1 << 20);
        for text in ["one", "two", "three"] {
            client.feed(text).await.unwrap();
        }
        assert!(once(client.receive()).await.is_none());
        for expected in ["one", "two", "three"] {
            assert_eq!(server.receive().await.unwrap(), text(expected));
        }
    });
}

/// The peer pings and reads nothing: one pong waits in the connection, whatever the number of pings.
#[test]
fn pings_of_a_peer_that_does_not_read_pile_nothing_up() {
    run(async {
        let limits = ringwire_tokio::codec::Config::default().with_max_control_count(u16::MAX);
        let config = Config::default().with_high_water(100).with_limits(limits);
        let (near, far) = tokio::io::duplex(64);
        let (_, mut server) = pair(&config, 1);
        *server.transport_mut() = far;
        let (mut reading, mut writing) = tokio::io::split(near);
        let serving = tokio::spawn(async move { server.receive().await.map(|_| server) });
        let ping = [&[0x89, 0x80 | 100, 0, 0, 0, 0][..], &[1; 100]].concat();
        for _ in 0..1000 {
            writing.write_all(&ping).await.unwrap();
        }
        writing.write_all(&[0x81, 0x80, 0, 0, 0, 0]).await.unwrap();
        let mut server = serving.await.unwrap().unwrap();
        assert!(server.waiting_len() <= 202, "{}", server.waiting_len());
        let flushing = tokio::spawn(async move { server.flush().await });
        let mut pong = [0; 102];
        reading.read_exact(&mut pong).await.unwrap();
        assert_eq!(pong[..2], [0x8a, 100]);
        drop((reading, writing));
        let _ = flushing.await.unwrap();
    });
}

/// Both halves wait for the same direction of the transport, and both are woken.
#[test]
fn halves_that_wait_for_the_same_thing() {
    run(async {
        let (near, far) = tokio::io::duplex(64);
        let (_, mut server) = pair(&Config::default(), 1);
        *server.transport_mut() = far;
        let (mut sender, mut receiver) = server.split();
        let (mut reading, mut writing) = tokio::io::split(near);
        let sending = tokio::spawn(async move {
            sender.send(Message::from(vec![9; 1000])).await.map(|()| sender)
        });
        tokio::task::yield_now().await;
        // The receiving half takes over the transport's waker for the pong that it owes, and is dropped while it waits.
        writing.write_all(&[0x89, 0x80, 0, 0, 0, 0]).await.unwrap();
        assert!(once(receiver.receive()).await.is_none());
        let mut frame = vec![0; 4 + 1000 + 2];
        reading.read_exact(&mut frame).await.unwrap();
        assert_eq!(frame[1004..], [0x8a, 0]);
        let mut sender = sending.await.unwrap().unwrap();

        // Now both wait for the peer's close frame.
        let receiving =
            tokio::spawn(async move { receiver.receive().await.map(|end| (end, receiver)) });
        tokio::task::yield_now().await;
        let closing =
            tokio::spawn(async move { sender.close(CloseCode::NORMAL, "").await.map(|()| sender) });
        let mut close = [0; 4];
        reading.read_exact(&mut close).await.unwrap();
        writing.write_all(&[0x88, 0x82, 0, 0, 0, 0, 3, 0xe8]).await.unwrap();
        writing.shutdown().await.unwrap();
        let (end, receiver) = receiving.await.unwrap().unwrap();
        assert_eq!(end, None);
        let sender = closing.await.unwrap().unwrap();
        let whole = sender.reunite(receiver).unwrap();
        assert_eq!(whole.close_frame(), Some((CloseCode::NORMAL, "")));
    });
}

/// The halves that futures make, with the wakers of two tasks.
#[test]
fn as_stream_and_sink() {
    run(async {
        let (client, server) = pair(&Config::default(), 50);
        let (mut sink, mut stream) = client.split_for_futures();
        let (server_sink, server_stream) = server.split_for_futures();
        // An echo: ends by closing its sink, when the stream has ended.
        let echo = tokio::spawn(server_stream.forward(server_sink));
        let sending = tokio::spawn(async move {
            let messages = (0..100).map(|at| Ok(Message::from("x".repeat(at))));
            sink.send_all(&mut futures_util::stream::iter(messages)).await.unwrap();
            sink
        });
        for at in 0..100 {
            assert_eq!(stream.next().await.unwrap().unwrap().len(), at);
        }
        let mut sink = sending.await.unwrap();
        let (closed, end) = tokio::join!(sink.close(), stream.next());
        closed.unwrap();
        assert!(end.is_none(), "{end:?}");
        echo.await.unwrap().unwrap();
    });
}

/// `StreamExt::split`, which a method of the connection hides.
trait SplitForFutures:
    futures_util::Stream + futures_util::Sink<Message, Error = Error> + Sized
{
    fn split_for_futures(
        self,
    ) -> (futures_util::stream::SplitSink<Self, Message>, futures_util::stream::SplitStream<Self>)
    {
        futures_util::StreamExt::split(self)
    }
}

impl<T: futures_util::Stream + futures_util::Sink<Message, Error = Error>> SplitForFutures for T {}

/// A task that is flooded lets the others run, even if one read brought all of it.
#[test]
fn a_flood_lets_others_run() {
    run(async {
        let (mut client, mut server) = pair(&Config::default(), 1 << 20);
        for _ in 0..5000 {
            client.feed("").await.unwrap();
        }
        client.flush().await.unwrap();
        let (told, mut heard) = oneshot::channel();
        let serving = tokio::spawn(async move {
            let mut count = 0;
            while count < 5000 {
                server.receive().await.unwrap().unwrap();
                count += 1;
                if heard.try_recv().is_ok() {
                    return count;
                }
            }
            count
        });
        tokio::task::yield_now().await;
        let _ = told.send(());
        let count = serving.await.unwrap();
        assert!(count <= 256, "{count} messages before another task ran");
    });
}

/// A payload that is long enough is not copied: the transport is given the memory that the application gave.
#[test]
fn long_payloads_are_not_copied() {
    struct Addresses(Vec<(usize, usize)>);
    impl tokio::io::AsyncRead for Addresses {
        fn poll_read(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            _: &mut tokio::io::ReadBuf<'_>,
        ) -> Poll<std::io::Result<()>> {
            Poll::Pending
        }
    }
    impl tokio::io::AsyncWrite for Addresses {
        fn poll_write(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            bytes: &[u8],
        ) -> Poll<std::io::Result<usize>> {
            self.0.push((bytes.as_ptr().addr(), bytes.len()));
            Poll::Ready(Ok(bytes.len()))
        }
        fn poll_write_vectored(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            pieces: &[std::io::IoSlice<'_>],
        ) -> Poll<std::io::Result<usize>> {
            self.0.extend(pieces.iter().map(|piece| (piece.as_ptr().addr(), piece.len())));
            Poll::Ready(Ok(pieces.iter().map(|piece| piece.len()).sum()))
        }
        fn is_write_vectored(&self) -> bool {
            true
        }
        fn poll_flush(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }
    run(async {
        for role in [ringwire_tokio::Role::Server, ringwire_tokio::Role::Client] {
            let mut socket = ringwire_tokio::WebSocketStream::from_upgraded(
                Addresses(Vec::new()),
                role,
                Config::default(),
                Vec::new(),
            );
            let payload = vec![1_u8; 100_000];
            let address = payload.as_ptr().addr();
            socket.send(payload).await.unwrap();
            assert_eq!(socket.transport().0[1], (address, 100_000), "{role:?}");
        }
    });
}

/// Long binary messages come in the buffer that they were read into, and with the right bytes.
#[test]
fn long_messages_that_are_lent_the_read_buffer() {
    run(async {
        let (mut client, mut server) = pair(&Config::default(), 1 << 20);
        let message = |seed: u8| Message::from(vec![seed; 16 << 10]);
        // One read brings one, then one and a half, and the end of that is put together.
        client.send(message(1)).await.unwrap();
        let first = server.receive().await.unwrap().unwrap();
        for seed in 2..6 {
            client.feed(message(seed)).await.unwrap();
        }
        client.flush().await.unwrap();
        for seed in 2..6 {
            assert!(server.receive().await.unwrap().unwrap() == message(seed), "{seed}");
        }
        assert!(first == message(1), "nobody else has written to it");
        assert_eq!(server.buffered_len(), 0);
    });
}

/// A receive that waits does so without a timer of its own.
#[test]
fn waiting_costs_no_time() {
    run_paused(async {
        let (_client, mut server) = pair(&Config::default(), 10);
        let waited = tokio::time::timeout(Duration::from_secs(1 << 20), server.receive()).await;
        assert!(waited.is_err());
    });
}
