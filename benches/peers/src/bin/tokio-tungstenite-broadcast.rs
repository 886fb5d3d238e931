//! Broadcast on tokio-tungstenite and the broadcast channel of tokio: messages are fed while some are at hand and
//! flushed together.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{SinkExt, StreamExt};
use ringwire_peers::{Compression, MAX_MESSAGE_LEN, Service, Stream};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{self, Sender};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// Messages that may wait for the slowest subscriber; it misses older ones.
const CAPACITY: usize = 1024;

/// What was said, and the number of the connection that said it.
static SAID: LazyLock<Sender<(u64, Message)>> = LazyLock::new(|| broadcast::channel(CAPACITY).0);

/// The number of the next connection.
static NEXT: AtomicU64 = AtomicU64::new(0);

fn main() -> anyhow::Result<()> {
    ringwire_peers::serve::<TokioTungstenite>()
}

struct TokioTungstenite;

impl Service for TokioTungstenite {
    async fn serve<S: Stream>(stream: S, _: Option<Compression>) -> anyhow::Result<()> {
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_MESSAGE_LEN))
            .max_frame_size(Some(MAX_MESSAGE_LEN));
        let mut socket = tokio_tungstenite::accept_async_with_config(stream, Some(config)).await?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut heard = SAID.subscribe();
        loop {
            tokio::select! {
                biased;
                said = heard.recv() => {
                    let mut next = match said {
                        Ok(said) => Some(said),
                        Err(RecvError::Lagged(_)) => None,
                        Err(RecvError::Closed) => return Ok(()),
                    };
                    while let Some((from, message)) = next {
                        if from != number {
                            socket.feed(message).await?;
                        }
                        next = heard.try_recv().ok();
                    }
                    socket.flush().await?;
                }
                message = socket.next() => {
                    let Some(message) = message else { return Ok(()) };
                    let message = message?;
                    if message.is_text() || message.is_binary() {
                        SAID.send((number, message))?;
                    }
                }
            }
        }
    }
}
