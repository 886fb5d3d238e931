//! An echo server on tokio-tungstenite; the argument is the port. It knows no compression.

use anyhow::{Context, Result};
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};

fn main() -> Result<()> {
    let port = std::env::args().nth(1).context("the port is missing")?.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(port))
}

async fn serve(port: u16) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async {
            if let Err(error) = echo(stream).await {
                eprintln!("{error:#}");
            }
        });
    }
}

async fn echo(stream: TcpStream) -> Result<()> {
    let mut socket = tokio_tungstenite::accept_async(stream).await?;
    while let Some(message) = socket.next().await {
        let message = message?;
        // It answers pings and the close frame itself.
        if message.is_text() || message.is_binary() {
            socket.send(message).await?;
        }
    }
    Ok(())
}
