//! What the programs share: flags, Ringwire's workers, which listen nowhere, and answers.
//!
//! Each program is an HTTP server of another library that goes on answering all its routes. Where it has agreed to an
//! upgrade, the connection goes to a worker, with what was read of it already.

use std::future::Future;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use hyper::upgrade::OnUpgrade;
use ringwire::program::{announce, handle_signals};
use ringwire::{Config, Handle, Server, Sizing, handshake::answer_upgrade};
use ringwire_examples::{DriverFlag, Echo};
use tokio::net::{TcpListener, TcpStream};

/// How long WebSockets may take to close on SIGTERM or SIGINT.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

/// From an accept that failed to the next one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An HTTP server that hands the WebSockets of `/ws` over to Ringwire.
#[derive(Clone, Debug, Parser)]
#[command(version)]
pub struct Flags {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:9003")]
    pub listen: SocketAddr,
    /// Ringwire's threads. Default: one for each core.
    #[arg(long)]
    pub io_workers: Option<usize>,
    /// The kernel back end of Ringwire.
    #[arg(long, value_enum, default_value_t)]
    pub driver: DriverFlag,
}

/// Starts workers that echo messages, and runs an HTTP server that hands WebSockets over to them, until SIGTERM or
/// SIGINT.
///
/// # Errors
/// The address cannot be listened on, or either server failed.
pub async fn run<F>(flags: &Flags, serve: impl FnOnce(TcpListener, Handle) -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    let io_workers = flags.io_workers.map_or(Sizing::Auto, Sizing::Fixed);
    let config = Config::default().with_io_workers(io_workers).with_driver(flags.driver.into());
    // Without a listener: what they serve is handed over.
    let workers = Server::new(config).start(|_worker| Echo)?;
    let handle = workers.handle();
    handle_signals(handle.clone(), SHUTDOWN_LIMIT).context("cannot handle signals")?;
    let listener = TcpListener::bind(flags.listen).await?;
    announce([format!("listening on {}", listener.local_addr()?)]);
    tokio::select! {
        result = serve(listener, handle) => result,
        ended = tokio::task::spawn_blocking(|| workers.join()) => Ok(ended??),
    }
}

/// The next connection. Where there is none since descriptors have run out, say, it tries again after a pause, as
/// `axum::serve` does: connections that end give back what is missing.
pub async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            // It was this connection's (accept(2)).
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionAborted
                        | ErrorKind::ConnectionReset
                        | ErrorKind::ConnectionRefused
                ) => {}
            Err(error) => {
                tracing::warn!(%error, "no connection was accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Answers a request for an upgrade, and once the answer is written, hands the connection over.
pub fn upgrade<B, A, F>(
    mut request: http::Request<B>,
    hand_over: impl FnOnce(OnUpgrade) -> F,
) -> http::Response<A>
where
    A: From<Vec<u8>>,
    F: Future<Output = Result<()>> + Send + 'static,
{
    let accepted = match answer_upgrade(&request) {
        Ok(accepted) => accepted,
        Err(error) => return answer(error),
    };
    let handed_over = hand_over(hyper::upgrade::on(&mut request));
    tokio::spawn(async move {
        if let Err(error) = handed_over.await {
            tracing::warn!(%error, "a WebSocket was not handed over");
        }
    });
    accepted.map(|()| Vec::new().into())
}

/// One of Ringwire's answers, such as the refusal of an upgrade, in the types of the others.
pub fn answer<B: From<Vec<u8>>>(response: impl Into<ringwire::Response>) -> http::Response<B> {
    let response = response.into();
    let mut answer = http::Response::new(response.body().to_vec().into());
    *answer.status_mut() = response.status();
    for (name, value) in response.headers() {
        answer.headers_mut().append(name, value.clone());
    }
    answer
}
