//! An axum application whose WebSockets are Ringwire's: `/ws` is an echo, all other routes stay axum's.

use std::process::ExitCode;

use anyhow::{Result, anyhow};
use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::get;
use clap::Parser as _;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::upgrade::{Parts, downcast};
use ringwire::Handle;
use ringwire_handover::{Flags, run, upgrade};
use tokio::net::{TcpListener, TcpStream};

fn main() -> ExitCode {
    ringwire::program::with_log(start)
}

#[tokio::main(flavor = "current_thread")]
async fn start() -> Result<()> {
    run(&Flags::parse(), serve).await
}

async fn serve(listener: TcpListener, sockets: Handle) -> Result<()> {
    let application = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/ws", get(web_socket))
        .with_state(sockets);
    Ok(axum::serve(listener, application).await?)
}

async fn web_socket(State(sockets): State<Handle>, request: Request) -> Response {
    upgrade(request, |upgrade| hand_over(upgrade, sockets))
}

/// Waits until the 101 is written, and gives the socket away that `axum::serve` has accepted.
async fn hand_over(upgrade: OnUpgrade, sockets: Handle) -> Result<()> {
    let parts = downcast::<TokioIo<TcpStream>>(upgrade.await?);
    let Parts { io, read_buf, .. } = parts.map_err(|_| anyhow!("it is no TCP connection"))?;
    let stream = io.into_inner().into_std()?;
    // What was read behind the request goes along.
    Ok(sockets.adopt_upgraded(stream, read_buf.into(), ())?)
}
