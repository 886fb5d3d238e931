//! Echo on ringwire-tokio: replies are fed, and go out before it waits for more.

#![expect(clippy::disallowed_types, reason = "connections share their settings")]

use std::sync::{Arc, OnceLock};

use ringwire_peers::{COMPRESSION_LEVEL, Compression, MAX_MESSAGE_LEN, Service, Stream};
use ringwire_tokio::codec::deflate::Level;
use ringwire_tokio::handshake::server::Accept;
use ringwire_tokio::{CompressionConfig, Config, accept_with};

fn main() -> anyhow::Result<()> {
    ringwire_peers::serve::<RingwireTokio>()
}

struct RingwireTokio;

impl Service for RingwireTokio {
    const COMPRESSES: bool = true;

    async fn serve<S: Stream>(stream: S, compression: Option<Compression>) -> anyhow::Result<()> {
        let mut socket = accept_with(stream, config(compression), |_| Ok(Accept::new())).await?;
        while let Some(message) = socket.receive().await? {
            socket.feed(message).await?;
        }
        Ok(())
    }
}

/// The same for all connections of the thread.
fn config(compression: Option<Compression>) -> Arc<Config> {
    static CONFIG: OnceLock<Arc<Config>> = OnceLock::new();
    Arc::clone(CONFIG.get_or_init(|| {
        let config = Config::default().with_max_message_len(MAX_MESSAGE_LEN);
        let Some(compression) = compression else { return Arc::new(config) };
        let level = u8::try_from(COMPRESSION_LEVEL).ok().and_then(Level::new).unwrap_or_default();
        let compression = CompressionConfig::default()
            .with_takeover(compression == Compression::Dedicated)
            .with_threshold(0)
            .with_level(level);
        Arc::new(config.with_compression(compression))
    }))
}
