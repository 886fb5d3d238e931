//! Echoes, for conformance suites: `autobahn-server --listen ADDRESS [--compression shared|dedicated]`.

#![expect(clippy::disallowed_types, reason = "connections share their settings")]

use std::io;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use ringwire_tokio::handshake::server::Accept;
use ringwire_tokio::{CompressionConfig, Config, Error, accept_with};
use tokio::net::{TcpListener, TcpStream};

/// The longest message of the cases is of 16 MiB.
const MAX_MESSAGE_LEN: usize = 64 << 20;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut config = Config::default().with_max_message_len(MAX_MESSAGE_LEN);
    let mut address = None;
    for pair in arguments.chunks(2) {
        match pair {
            [flag, value] if flag == "--listen" => address = Some(value),
            [flag, mode] if flag == "--compression" => {
                let compression = CompressionConfig::default().with_threshold(0);
                let takeover = match mode.as_str() {
                    "shared" => false,
                    "dedicated" => true,
                    _ => bail!("--compression is shared or dedicated"),
                };
                config = config.with_compression(compression.with_takeover(takeover));
            }
            _ => bail!("usage: --listen ADDRESS [--compression shared|dedicated]"),
        }
    }
    let listener = TcpListener::bind(address.context("--listen is missing")?).await?;
    let config = Arc::new(config);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let config = Arc::clone(&config);
        tokio::spawn(async move {
            match echo(stream, config).await {
                Ok(()) => {}
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {}
                Err(error) => eprintln!("{error}"),
            }
        });
    }
}

async fn echo(stream: TcpStream, config: Arc<Config>) -> Result<(), Error> {
    let mut socket = accept_with(stream, config, |_| Ok(Accept::new())).await?;
    while let Some(message) = socket.receive().await? {
        socket.feed(message).await?;
    }
    Ok(())
}
