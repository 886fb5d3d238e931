//! Echo on yawc: replies are fed while messages are at hand and flushed together.

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::OnceLock;
use std::task::Poll;

use anyhow::anyhow;
use futures_util::{SinkExt, StreamExt};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::header::SEC_WEBSOCKET_EXTENSIONS;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use ringwire_peers::{COMPRESSION_LEVEL, Compression, MAX_MESSAGE_LEN, Service, Stream};
use yawc::{
    CompressionLevel, DeflateOptions, DeflatePool, Frame, HttpWebSocket, OpCode, Options, Role,
    WebSocket,
};

fn main() -> anyhow::Result<()> {
    ringwire_peers::serve::<Yawc>()
}

/// States of each kind that wait for messages: a thread that handles one message at a time has one of each out.
const POOL_LEN: usize = 16;

struct Yawc;

impl Service for Yawc {
    const COMPRESSES: bool = true;

    async fn serve<S: Stream>(stream: S, compression: Option<Compression>) -> anyhow::Result<()> {
        connection(stream, options(compression)).await
    }
}

/// The same for all connections. Without takeover they take its compressors from a pool.
fn options(compression: Option<Compression>) -> &'static Options {
    static OPTIONS: OnceLock<Options> = OnceLock::new();
    OPTIONS.get_or_init(|| {
        // Its limits are exclusive.
        let options = Options::default()
            .with_limits(MAX_MESSAGE_LEN + 1, 2 * MAX_MESSAGE_LEN)
            .with_utf8()
            .with_no_delay();
        let Some(compression) = compression else { return options.without_compression() };
        let alone = compression == Compression::Shared;
        Options {
            compression: Some(DeflateOptions {
                level: CompressionLevel::new(COMPRESSION_LEVEL),
                server_no_context_takeover: alone,
                client_no_context_takeover: alone,
                compression_threshold: 0,
                pool: alone.then(|| DeflatePool::new(POOL_LEN)),
                ..DeflateOptions::default()
            }),
            ..options
        }
    })
}

/// Hyper serves the upgrade request, then hands the bare socket over: frames pass no boxed stream.
async fn connection<S: Stream>(stream: S, options: &Options) -> anyhow::Result<()> {
    let agreed = OnceLock::new();
    let service =
        service_fn(async |request| Ok::<_, Infallible>(upgrade(request, options, &agreed)));
    let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let parts = served.without_shutdown().await?;
    if !parts.read_buf.is_empty() {
        return Err(anyhow!("frames before the handshake was answered"));
    }
    let extensions = agreed.get().map(String::as_str);
    let stream = parts.io.into_inner();
    let mut socket =
        WebSocket::from_stream_with_extensions(stream, Role::Server, extensions, options.clone())?;
    while let Some(frame) = next(&mut socket).await {
        match frame.opcode() {
            OpCode::Close => return Ok(()),
            OpCode::Text | OpCode::Binary => {
                let reply = Frame::from((frame.opcode(), frame.into_payload()));
                socket.feed(reply).await?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Answers, and keeps what was agreed on.
fn upgrade(
    mut request: Request<Incoming>,
    options: &Options,
    agreed: &OnceLock<String>,
) -> Response<Empty<Bytes>> {
    match HttpWebSocket::upgrade_with_options(&mut request, options.clone()) {
        Ok((response, _)) => {
            let extensions = response.headers().get(SEC_WEBSOCKET_EXTENSIONS);
            if let Some(Ok(extensions)) = extensions.map(|value| value.to_str()) {
                agreed.get_or_init(|| extensions.to_owned());
            }
            response
        }
        Err(_) => {
            let mut response = Response::new(Empty::new());
            *response.status_mut() = StatusCode::BAD_REQUEST;
            response
        }
    }
}

/// The next frame; what was fed goes out when none is at hand, as `Stream::forward` does it.
async fn next<S: Stream>(socket: &mut WebSocket<S>) -> Option<Frame> {
    poll_fn(|cx| match socket.poll_next_unpin(cx) {
        Poll::Ready(next) => Poll::Ready(next),
        Poll::Pending => match socket.poll_flush_unpin(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(None),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        },
    })
    .await
}
