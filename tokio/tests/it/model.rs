//! A client and a server, whatever the transport makes of their bytes.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::{io, iter};

use proptest::prelude::*;
use ringwire_tokio::handshake::server::Accept;
use ringwire_tokio::{
    CloseCode, CompressionConfig, Config, Error, Message, WebSocketStream, accept_with, client,
    request,
};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use crate::run;

/// Cuts reads and writes at lengths of its own, and is not ready every now and then.
struct Choppy {
    inner: DuplexStream,
    random: u64,
    vectored: bool,
}

impl Choppy {
    /// A number below `limit`; xorshift.
    fn below(&mut self, limit: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random % limit as u64).unwrap()
    }

    fn is_late(&mut self, cx: &Context<'_>) -> bool {
        let late = self.below(4) == 0;
        if late {
            cx.waker().wake_by_ref();
        }
        late
    }

    fn len(&mut self) -> usize {
        let most = [1, 7, 300, 70_000][self.below(4)];
        1 + self.below(most)
    }
}

impl AsyncRead for Choppy {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_late(cx) {
            return Poll::Pending;
        }
        let len = self.len().min(buffer.remaining());
        let mut part = vec![0; len];
        let mut target = ReadBuf::new(&mut part);
        let polled = Pin::new(&mut self.inner).poll_read(cx, &mut target);
        buffer.put_slice(target.filled());
        polled
    }
}

impl AsyncWrite for Choppy {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_late(cx) {
            return Poll::Pending;
        }
        let len = self.len().min(bytes.len());
        Pin::new(&mut self.inner).poll_write(cx, &bytes[..len])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
        self.poll_write(cx, &all)
    }

    fn is_write_vectored(&self) -> bool {
        self.vectored
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_late(cx) {
            return Poll::Pending;
        }
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_late(cx) {
            return Poll::Pending;
        }
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

fn messages() -> impl Strategy<Value = Vec<Message>> {
    let len = prop_oneof![0_usize..300, 120_usize..130, 4000_usize..4200, 65_000_usize..66_000];
    let message = (len, any::<bool>(), any::<u8>()).prop_map(|(len, is_text, seed)| {
        if is_text {
            let letters = ["a", "é", "€", "😀", "\0"];
            let text: String = iter::repeat_n(letters[usize::from(seed) % 5], len).collect();
            Message::from(text)
        } else {
            let bytes = (0..len).map(|at| seed.wrapping_mul(31) ^ (at * at).to_le_bytes()[0]);
            Message::from(bytes.collect::<Vec<u8>>())
        }
    });
    prop::collection::vec(message, 0..12)
}

fn configs() -> impl Strategy<Value = Config> {
    prop_oneof![Just(None), Just(Some(false)), Just(Some(true))].prop_map(|takeover| {
        // Repeats of one character compress beyond what a stranger's messages may.
        let limits = ringwire_tokio::codec::Config::default().with_inflate_ratio_floor(1 << 20);
        let config = Config::default().with_high_water(10_000).with_limits(limits);
        match takeover {
            None => config,
            Some(takeover) => config.with_compression(
                CompressionConfig::default().with_takeover(takeover).with_threshold(20),
            ),
        }
    })
}

/// Sends all of it, some one by one and some together, and closes.
async fn send_all<S: AsyncRead + AsyncWrite + Unpin>(
    mut sender: ringwire_tokio::Sender<S>,
    messages: Vec<Message>,
    closes: bool,
) -> Result<(), Error> {
    for (index, message) in messages.into_iter().enumerate() {
        if index % 3 == 0 {
            sender.send(message).await?;
        } else {
            sender.feed(message).await?;
        }
        if index % 4 == 0 {
            sender.ping(b"still there?").await?;
        }
    }
    sender.flush().await?;
    if closes { sender.close(CloseCode::new(4000), "that was all").await } else { Ok(()) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// What one end sends the other receives, in order and unharmed; both see the close.
    #[test]
    fn a_model_of_both_ends(
        to_server in messages(),
        to_client in messages(),
        client_config in configs(),
        server_config in configs(),
        seed in 1_u64..,
        room in 50_usize..100_000,
        vectored: bool,
    ) {
        run(async {
            let (near, far) = tokio::io::duplex(room);
            let near = Choppy { inner: near, random: seed, vectored };
            let far = Choppy { inner: far, random: seed.rotate_left(17) | 1, vectored };
            let server = accept_with(far, server_config, |_| Ok(Accept::new()));
            let client = client(near, request("localhost", "/").unwrap(), client_config);
            let (server, client) = tokio::join!(server, client);
            let (server, client) = (server.unwrap(), client.unwrap().0);
            assert_eq!(server.is_compressed(), client.is_compressed());

            // The client's close ends both, so it comes when the client has got all.
            let got_all = std::sync::Arc::new(tokio::sync::Notify::new());
            let notify = std::sync::Arc::clone(&got_all);
            let (expected, sent) = (to_client.clone(), to_client);
            let (client_sender, mut client_receiver) = client.split();
            let (server_sender, server_receiver) = server.split();
            let clients = tokio::spawn(async move {
                let mut all = Vec::new();
                while all.len() < expected.len() {
                    all.push(client_receiver.receive().await.unwrap().unwrap());
                }
                notify.notify_one();
                assert_eq!(client_receiver.receive().await.unwrap(), None);
                assert_eq!(
                    client_receiver.close_frame(),
                    Some((CloseCode::new(4000), String::new())),
                    "the answer has the code it answers"
                );
                assert!(all == expected);
            });
            let servers = tokio::spawn(send_all(server_sender, sent, false));
            let at_server = tokio::spawn(receive_all(server_receiver));
            let mine = to_server.clone();
            let sending = tokio::spawn(async move {
                let mut sender = client_sender;
                for message in mine {
                    sender.feed(message).await.unwrap();
                }
                sender.flush().await.unwrap();
                got_all.notified().await;
                sender.close(CloseCode::new(4000), "that was all").await
            });
            let (clients, servers, at_server, sending) =
                tokio::join!(clients, servers, at_server, sending);
            clients.unwrap();
            servers.unwrap().unwrap();
            sending.unwrap().unwrap();
            let (received, close_frame) = at_server.unwrap().unwrap();
            assert!(received == to_server);
            assert_eq!(close_frame, Some((CloseCode::new(4000), "that was all".to_owned())));
        });
    }

    /// A receive that is dropped before it is ready loses nothing.
    #[test]
    fn dropped_receives_lose_nothing(sent in messages(), seed in 1_u64.., room in 50_usize..9000) {
        run(async {
            let (near, far) = tokio::io::duplex(room);
            let (mut client, _) = crate::pair(&Config::default(), 1);
            *client.transport_mut() = near;
            let far = Choppy { inner: far, random: seed, vectored: true };
            let role = ringwire_tokio::Role::Server;
            let mut server = WebSocketStream::from_upgraded(far, role, Config::default(), Vec::new());
            let expected = sent.clone();
            let sending = tokio::spawn(async move {
                for message in sent {
                    client.send(message).await.unwrap();
                }
                client.close(CloseCode::NORMAL, "").await.unwrap();
            });
            let mut received = Vec::new();
            loop {
                // Each receive is polled once.
                let next = tokio::select! {
                    biased;
                    next = server.receive() => next.unwrap(),
                    () = tokio::task::yield_now() => continue,
                };
                match next {
                    Some(message) => received.push(message),
                    None => break,
                }
            }
            sending.await.unwrap();
            assert!(received == expected);
        });
    }
}

type All = (Vec<Message>, Option<(CloseCode, String)>);

async fn receive_all<S: AsyncRead + AsyncWrite + Unpin>(
    mut receiver: ringwire_tokio::Receiver<S>,
) -> Result<All, Error> {
    let mut all = Vec::new();
    while let Some(message) = receiver.receive().await? {
        all.push(message);
    }
    Ok((all, receiver.close_frame()))
}
