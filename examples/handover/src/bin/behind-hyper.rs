//! A hyper server whose WebSockets are Ringwire's: `/ws` is an echo, `/healthz` stays hyper's.

use std::convert::Infallible;
use std::future::ready;
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use bytes::Bytes;
use clap::Parser as _;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Parts};
use hyper_util::rt::TokioIo;
use ringwire::Handle;
use ringwire_handover::{Flags, accept, answer, run, upgrade};
use tokio::net::{TcpListener, TcpStream};

fn main() -> ExitCode {
    ringwire::program::with_log(start)
}

#[tokio::main(flavor = "current_thread")]
async fn start() -> Result<()> {
    run(&Flags::parse(), serve).await
}

async fn serve(listener: TcpListener, sockets: Handle) -> Result<()> {
    loop {
        let stream = accept(&listener).await;
        let sockets = sockets.clone();
        let routes =
            service_fn(move |request| ready(Ok::<_, Infallible>(route(request, &sockets))));
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), routes);
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a connection failed");
            }
        });
    }
}

fn route(request: Request<Incoming>, sockets: &Handle) -> Response<Full<Bytes>> {
    match request.uri().path() {
        "/healthz" => Response::new("ok\n".into()),
        "/ws" => upgrade(request, |upgrade| hand_over(upgrade, sockets.clone())),
        _ => answer(ringwire::Response::new(StatusCode::NOT_FOUND)),
    }
}

/// Waits until hyper has written the 101, and gives the socket away.
async fn hand_over(upgrade: OnUpgrade, sockets: Handle) -> Result<()> {
    let parts = upgrade.await?.downcast::<TokioIo<TcpStream>>();
    let Parts { io, read_buf, .. } = parts.map_err(|_| anyhow!("it is no TCP connection"))?;
    let stream = io.into_inner().into_std()?;
    // What hyper has read behind the request goes along.
    Ok(sockets.adopt_upgraded(stream, read_buf.into(), ())?)
}
