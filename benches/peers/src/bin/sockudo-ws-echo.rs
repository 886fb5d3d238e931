//! Echo on sockudo-ws: replies are fed, and its read path flushes them before it waits.

use anyhow::anyhow;
use bytes::{Bytes, BytesMut};
use futures_util::{Sink, SinkExt, Stream as Messages, StreamExt};
use ringwire_peers::{COMPRESSION_LEVEL, Compression, MAX_MESSAGE_LEN, Service, Stream};
use sockudo_ws::deflate::negotiate_server_deflate;
use sockudo_ws::handshake::{build_response, generate_accept_key, parse_request, server_handshake};
use sockudo_ws::{
    CompressedWebSocketStream, Config, DeflateConfig, Error, Message, Role, WebSocketStream,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn main() -> anyhow::Result<()> {
    // Calibrates its clock, which its documentation asks for before the runtime exists.
    sockudo_ws::init_clock();
    ringwire_peers::serve::<SockudoWs>()
}

struct SockudoWs;

impl Service for SockudoWs {
    const COMPRESSES: bool = true;

    async fn serve<S: Stream>(
        mut stream: S,
        compression: Option<Compression>,
    ) -> anyhow::Result<()> {
        let config = Config::builder()
            .max_message_size(MAX_MESSAGE_LEN)
            .max_frame_size(MAX_MESSAGE_LEN)
            .idle_timeout(0)
            .auto_ping(false)
            .build();
        let Some(compression) = compression else {
            let leftover = server_handshake(&mut stream).await?.leftover;
            let socket =
                WebSocketStream::from_raw_with_leftover(stream, Role::Server, config, leftover);
            return echo(socket).await;
        };
        let (deflate, leftover) = compressed_handshake(&mut stream, compression).await?;
        echo(CompressedWebSocketStream::server_with_leftover(stream, config, deflate, leftover))
            .await
    }
}

async fn echo<W>(mut socket: W) -> anyhow::Result<()>
where
    W: Messages<Item = Result<Message, Error>> + Sink<Message, Error = Error> + Unpin,
{
    while let Some(message) = socket.next().await {
        let message = message?;
        if matches!(message, Message::Text(_) | Message::Binary(_)) {
            socket.feed(message).await?;
        }
    }
    Ok(())
}

/// The parts of its own handshake, since that one answers no extensions.
async fn compressed_handshake<S: Stream>(
    stream: &mut S,
    compression: Compression,
) -> anyhow::Result<(DeflateConfig, Option<Bytes>)> {
    let alone = compression == Compression::Shared;
    let policy = DeflateConfig {
        server_no_context_takeover: alone,
        client_no_context_takeover: alone,
        compression_level: COMPRESSION_LEVEL,
        compression_threshold: 0,
        ..DeflateConfig::default()
    };
    let mut head = BytesMut::with_capacity(4096);
    loop {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(anyhow!("the end before the request"));
        }
        let Some((request, used)) = parse_request(&head)? else { continue };
        let agreed = request
            .extensions
            .and_then(|offers| negotiate_server_deflate(offers, &policy))
            .ok_or_else(|| anyhow!("no offer that can be taken"))?;
        let accept = generate_accept_key(request.key);
        let response = build_response(&accept, None, Some(&agreed.to_response_header()));
        stream.write_all(&response).await?;
        let leftover = (used < head.len()).then(|| head.split_off(used).freeze());
        return Ok((agreed.config, leftover));
    }
}
