//! Checks the echo server with the Rust client tokio-tungstenite; the argument is the server's URL. For `wss://` it
//! speaks TLS through rustls and trusts what `SSL_CERT_FILE` holds.

use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use futures_util::future::try_join_all;
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

const LENGTHS: [usize; 7] = [0, 1, 125, 126, 65_535, 65_536, 1 << 20];
const UNICODE: &str = "Grüße, 世界, \u{1f44b}\u{1f3fd}, e\u{301}, \0 and \u{10ffff}";
const CONNECTIONS: usize = 50;
const MESSAGES: usize = 20;
const DEADLINE: Duration = Duration::from_secs(60);

fn main() -> Result<ExitCode> {
    let url = std::env::args().nth(1).context("the server's URL is missing")?;
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow!("another provider of cryptography is installed"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let failures = runtime.block_on(async {
        [
            report("text and binary, empty to 1 MiB", echoes(&url)).await,
            report("unicode", unicode(&url)).await,
            report("fragmented message with a ping inside", fragments(&url)).await,
            report("ping answered with its payload", ping(&url)).await,
            report("unsolicited pong", unsolicited_pong(&url)).await,
            report("close code and reason echoed", close(&url)).await,
            report("50 connections at once", concurrent(&url)).await,
        ]
        .into_iter()
        .filter(|passed| !passed)
        .count()
    });
    Ok(if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn report(name: &str, check: impl Future<Output = Result<()>>) -> bool {
    let result = timeout(DEADLINE, check).await.unwrap_or_else(|_| bail!("not done in time"));
    match &result {
        Ok(()) => println!("ok tokio-tungstenite: {name}"),
        Err(error) => println!("FAILED tokio-tungstenite: {name}\n{error:?}"),
    }
    result.is_ok()
}

async fn echoes(url: &str) -> Result<()> {
    let mut socket = connect(url).await?;
    for length in LENGTHS {
        echo(&mut socket, Message::text("x".repeat(length))).await?;
        let bytes: Vec<u8> = (0..251).cycle().take(length).collect();
        echo(&mut socket, Message::binary(bytes)).await?;
    }
    Ok(())
}

async fn unicode(url: &str) -> Result<()> {
    echo(&mut connect(url).await?, Message::text(UNICODE)).await
}

async fn fragments(url: &str) -> Result<()> {
    let mut socket = connect(url).await?;
    let part = |text: &'static str, opcode, is_final| {
        Message::Frame(Frame::message(text, OpCode::Data(opcode), is_final))
    };
    socket.feed(part("one, ", Data::Text, false)).await?;
    socket.feed(Message::Ping("between fragments".into())).await?;
    socket.feed(part("zwei – ", Data::Continue, false)).await?;
    socket.feed(part("三", Data::Continue, true)).await?;
    socket.flush().await?;
    expect(&mut socket, Message::Pong("between fragments".into())).await?;
    expect(&mut socket, Message::text("one, zwei – 三")).await
}

async fn ping(url: &str) -> Result<()> {
    let mut socket = connect(url).await?;
    for length in [0, 14, 125] {
        let payload = vec![b'p'; length];
        socket.send(Message::Ping(payload.clone().into())).await?;
        expect(&mut socket, Message::Pong(payload.into())).await?;
    }
    Ok(())
}

async fn unsolicited_pong(url: &str) -> Result<()> {
    let mut socket = connect(url).await?;
    socket.send(Message::Pong("nobody asked".into())).await?;
    echo(&mut socket, Message::text("still here")).await
}

async fn close(url: &str) -> Result<()> {
    let mut socket = connect(url).await?;
    let frame =
        CloseFrame { code: CloseCode::Library(4001), reason: "that is all – danke".into() };
    socket.close(Some(frame.clone())).await?;
    expect(&mut socket, Message::Close(Some(frame))).await?;
    ensure!(socket.next().await.is_none(), "messages after the close frame");
    Ok(())
}

async fn concurrent(url: &str) -> Result<()> {
    try_join_all((0..CONNECTIONS).map(|number| async move {
        let mut socket = connect(url).await?;
        for index in 0..MESSAGES {
            let text = format!("connection {number}, message {index}");
            echo(&mut socket, Message::text(text)).await?;
        }
        anyhow::Ok(())
    }))
    .await?;
    Ok(())
}

async fn connect(url: &str) -> Result<Socket> {
    Ok(connect_async(url).await?.0)
}

async fn echo(socket: &mut Socket, message: Message) -> Result<()> {
    socket.send(message.clone()).await?;
    expect(socket, message).await
}

async fn expect(socket: &mut Socket, expected: Message) -> Result<()> {
    let received = socket.next().await.context("the connection ended")??;
    ensure!(
        received == expected,
        "expected a message of {} bytes, got one of {} or another kind",
        expected.len(),
        received.len()
    );
    Ok(())
}
