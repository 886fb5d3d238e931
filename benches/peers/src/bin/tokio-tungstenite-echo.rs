//! Echo on tokio-tungstenite: replies are fed while messages are at hand and flushed together.

use std::future::poll_fn;
use std::task::Poll;

use futures_util::{SinkExt, StreamExt};
use ringwire_peers::{Compression, MAX_MESSAGE_LEN, Service, Stream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};

fn main() -> anyhow::Result<()> {
    ringwire_peers::serve::<TokioTungstenite>()
}

struct TokioTungstenite;

impl Service for TokioTungstenite {
    async fn serve<S: Stream>(stream: S, _: Option<Compression>) -> anyhow::Result<()> {
        echo(stream).await
    }
}

async fn echo<S: Stream>(stream: S) -> anyhow::Result<()> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE_LEN))
        .max_frame_size(Some(MAX_MESSAGE_LEN));
    let mut socket = tokio_tungstenite::accept_async_with_config(stream, Some(config)).await?;
    while let Some(message) = next(&mut socket).await {
        let message = message?;
        if message.is_text() || message.is_binary() {
            socket.feed(message).await?;
        }
    }
    Ok(())
}

/// The next message; what was fed goes out when none is at hand, as `Stream::forward` does it.
async fn next<S: Stream>(socket: &mut WebSocketStream<S>) -> Option<Result<Message, Error>> {
    poll_fn(|cx| match socket.poll_next_unpin(cx) {
        Poll::Ready(next) => Poll::Ready(next),
        Poll::Pending => match socket.poll_flush_unpin(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Some(Err(error))),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        },
    })
    .await
}
