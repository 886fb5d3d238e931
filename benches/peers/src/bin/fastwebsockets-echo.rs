//! Echo on fastwebsockets: frames are unmasked in place, fragments collected, each reply one write.

use std::convert::Infallible;

use anyhow::anyhow;
use fastwebsockets::{FragmentCollector, OpCode, Role, WebSocket, upgrade};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use ringwire_peers::{Compression, MAX_MESSAGE_LEN, Service, Stream};

fn main() -> anyhow::Result<()> {
    ringwire_peers::serve::<Fastwebsockets>()
}

struct Fastwebsockets;

impl Service for Fastwebsockets {
    async fn serve<S: Stream>(stream: S, _: Option<Compression>) -> anyhow::Result<()> {
        connection(stream).await
    }
}

/// Hyper serves the upgrade request, then hands the bare socket over: frames pass no boxed stream.
async fn connection<S: Stream>(stream: S) -> anyhow::Result<()> {
    let service = service_fn(async |request| Ok::<_, Infallible>(upgrade(request)));
    let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let parts = served.without_shutdown().await?;
    if !parts.read_buf.is_empty() {
        return Err(anyhow!("frames before the handshake was answered"));
    }
    // Its own example runs the connection outside tokio's cooperative budget.
    tokio::task::unconstrained(echo(parts.io.into_inner())).await
}

fn upgrade(request: Request<Incoming>) -> Response<Empty<Bytes>> {
    match upgrade::upgrade(request) {
        Ok((response, _)) => response,
        Err(_) => {
            let mut response = Response::new(Empty::new());
            *response.status_mut() = StatusCode::BAD_REQUEST;
            response
        }
    }
}

async fn echo<S: Stream>(stream: S) -> anyhow::Result<()> {
    let mut socket = WebSocket::after_handshake(stream, Role::Server);
    socket.set_max_message_size(MAX_MESSAGE_LEN + 1);
    let mut socket = FragmentCollector::new(socket);
    loop {
        let frame = socket.read_frame().await?;
        match frame.opcode {
            OpCode::Close => return Ok(()),
            OpCode::Text | OpCode::Binary => socket.write_frame(frame).await?,
            _ => {}
        }
    }
}
