//! A hyper server over tokio-rustls whose WebSockets are Ringwire's: `/ws` is an echo, `/healthz` stays hyper's.
//!
//! The TLS connection goes to the worker with the socket: keys, and what rustls has received and not given away.

#![expect(clippy::disallowed_types, reason = "rustls takes shared settings as Arc")]

use std::convert::Infallible;
use std::future::ready;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, anyhow};
use bytes::Bytes;
use clap::Parser;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Parts};
use hyper_util::rt::TokioIo;
use ringwire::tls::Session;
use ringwire::{Handle, PostError, transport::Adoption};
use ringwire_handover::{Flags, accept, answer, run, upgrade};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;

/// A hyper server over TLS that hands the WebSockets of `/ws` over to Ringwire.
#[derive(Debug, Parser)]
#[command(version)]
struct Program {
    #[command(flatten)]
    flags: Flags,
    /// The certificate chain, a PEM file, leaf first.
    #[arg(long)]
    cert: PathBuf,
    /// Its private key, a PEM file.
    #[arg(long)]
    key: PathBuf,
}

fn main() -> ExitCode {
    ringwire::program::with_log(start)
}

#[tokio::main(flavor = "current_thread")]
async fn start() -> Result<()> {
    let Program { flags, cert, key } = Program::parse();
    let tls = TlsAcceptor::from(Arc::new(tls_settings(&cert, &key)?));
    run(&flags, |listener, sockets| serve(listener, tls, sockets)).await
}

fn tls_settings(cert: &Path, key: &Path) -> Result<ServerConfig> {
    let chain = CertificateDer::pem_file_iter(cert)?.collect::<Result<_, _>>()?;
    let mut settings = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    settings.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(settings)
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, sockets: Handle) -> Result<()> {
    loop {
        let stream = accept(&listener).await;
        let (tls, sockets) = (tls.clone(), sockets.clone());
        tokio::spawn(async move {
            if let Err(error) = serve_connection(stream, tls, sockets).await {
                tracing::debug!(%error, "a connection failed");
            }
        });
    }
}

async fn serve_connection(stream: TcpStream, tls: TlsAcceptor, sockets: Handle) -> Result<()> {
    let stream = TokioIo::new(tls.accept(stream).await?);
    let routes = service_fn(move |request| ready(Ok::<_, Infallible>(route(request, &sockets))));
    Ok(http1::Builder::new().serve_connection(stream, routes).with_upgrades().await?)
}

fn route(request: Request<Incoming>, sockets: &Handle) -> Response<Full<Bytes>> {
    match request.uri().path() {
        "/healthz" => Response::new("ok\n".into()),
        "/ws" => upgrade(request, |upgrade| hand_over(upgrade, sockets.clone())),
        _ => answer(ringwire::Response::new(StatusCode::NOT_FOUND)),
    }
}

/// Waits until hyper has written the 101, and gives the socket away with its TLS connection.
async fn hand_over(upgrade: OnUpgrade, sockets: Handle) -> Result<()> {
    let parts = upgrade.await?.downcast::<TokioIo<TlsStream<TcpStream>>>();
    let Parts { io, read_buf, .. } = parts.map_err(|_| anyhow!("it is no TLS connection"))?;
    let (stream, connection) = io.into_inner().into_inner();
    let adoption = Adoption::new(stream.into_std()?)
        .with_tls(Session::established(connection)?)
        // What hyper has read behind the request goes along.
        .with_received(read_buf.into())
        .with_state(());
    Ok(sockets.adopt_with(adoption).map_err(PostError::from)?)
}
