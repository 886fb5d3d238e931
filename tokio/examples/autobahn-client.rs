//! Runs the cases of an Autobahn fuzzing server: `autobahn-client ADDRESS --agent NAME [--deflate]`. Echoes what it
//! sends, one connection a case. Its report says what went wrong; the exit code only whether all cases ran.

#![expect(clippy::disallowed_types, reason = "connections share their settings")]

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use ringwire_tokio::{CompressionConfig, Config, Message, connect, connect_with};

/// The longest message of the cases is of 16 MiB.
const MAX_MESSAGE_LEN: usize = 64 << 20;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (server, agent, deflate) = match arguments.as_slice() {
        [server, flag, agent] if flag == "--agent" => (server, agent, false),
        [server, flag, agent, last] if flag == "--agent" && last == "--deflate" => {
            (server, agent, true)
        }
        _ => bail!("usage: ADDRESS --agent NAME [--deflate]"),
    };
    let config = Config::default().with_max_message_len(MAX_MESSAGE_LEN);
    let config = if deflate {
        let compression = CompressionConfig::default().with_takeover(true).with_threshold(0);
        config.with_compression(compression)
    } else {
        config
    };
    let config = Arc::new(config);
    let count = ask(server, "/getCaseCount").await?;
    let count = count.as_ref().and_then(Message::as_text).context("there is no count")?;
    let count: u32 = count.parse().context("the count is no number")?;
    for case in 1..=count {
        let url = format!("ws://{server}/runCase?case={case}&agent={agent}");
        run(&url, Arc::clone(&config)).await.with_context(|| url.clone())?;
    }
    ask(server, &format!("/updateReports?agent={agent}")).await?;
    println!("{count} cases");
    Ok(())
}

/// What the server says on this path, and then closes.
async fn ask(server: &str, path: &str) -> Result<Option<Message>> {
    let mut socket = connect(&format!("ws://{server}{path}")).await?;
    let mut last = None;
    while let Some(message) = socket.receive().await? {
        last = Some(message);
    }
    Ok(last)
}

/// Echoes until the connection ends, in whatever way: most cases end it with an error.
async fn run(url: &str, config: Arc<Config>) -> Result<()> {
    let (mut socket, _) = connect_with(url, config, Ok).await?;
    while let Ok(Some(message)) = socket.receive().await {
        // Why it ended comes with what is left to receive.
        let _ = socket.feed(message).await;
    }
    Ok(())
}
