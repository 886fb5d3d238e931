//! Echo on sockudo-ws: replies are fed, and its read path flushes them before it waits.

use futures_util::{SinkExt, StreamExt};
use ringwire_peers::{Echo, MAX_MESSAGE_LEN, Stream};
use sockudo_ws::handshake::server_handshake;
use sockudo_ws::{Config, Message, Role, WebSocketStream};

fn main() -> anyhow::Result<()> {
    // Calibrates its clock, which its documentation asks for before the runtime exists.
    sockudo_ws::init_clock();
    ringwire_peers::serve::<SockudoWs>()
}

struct SockudoWs;

impl Echo for SockudoWs {
    async fn echo<S: Stream>(stream: S) -> anyhow::Result<()> {
        echo(stream).await
    }
}

async fn echo<S: Stream>(mut stream: S) -> anyhow::Result<()> {
    let config = Config::builder()
        .max_message_size(MAX_MESSAGE_LEN)
        .max_frame_size(MAX_MESSAGE_LEN)
        .idle_timeout(0)
        .auto_ping(false)
        .build();
    let leftover = server_handshake(&mut stream).await?.leftover;
    let mut socket =
        WebSocketStream::from_raw_with_leftover(stream, Role::Server, config, leftover);
    while let Some(message) = socket.next().await {
        let message = message?;
        if matches!(message, Message::Text(_) | Message::Binary(_)) {
            socket.feed(message).await?;
        }
    }
    Ok(())
}
