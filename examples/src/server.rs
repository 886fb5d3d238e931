//! What the servers among the programs share: their flags, and a run from start to signal.

use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use ringwire::{Compression, CompressionLevel, Config, Handler, Server};

use crate::units::{parse_bytes, parse_duration};
use crate::{
    AssignmentFlag, Certificate, CompressionFlag, Cores, DriverFlag, handle_signals, parse_level,
};

/// How long connections may take to close on SIGTERM or SIGINT.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

/// Flags of a server. They stay as they are, since scripts use them; each can also be given in the environment, as
/// `RINGWIRE_` and its name.
#[derive(Debug, Args)]
pub struct ServerFlags {
    /// Where to listen; port 0 takes a free one. May be given several times.
    #[arg(long, env = "RINGWIRE_LISTEN", default_value = "127.0.0.1:9001", value_delimiter = ',')]
    listen: Vec<String>,
    /// Where to listen for TLS as well. May be given several times.
    #[arg(long, env = "RINGWIRE_TLS_LISTEN", value_delimiter = ',', requires = "cert")]
    tls_listen: Vec<String>,
    #[command(flatten)]
    certificate: Certificate,
    /// Threads that do IO; 0: one for each core.
    #[arg(long, env = "RINGWIRE_IO_WORKERS", default_value_t = 0)]
    io_workers: usize,
    /// Threads beside them that take over the costly part of TLS handshakes.
    #[arg(long, env = "RINGWIRE_COMPUTE_WORKERS", default_value_t = 0)]
    compute_workers: usize,
    /// The kernel back end.
    #[arg(long, env = "RINGWIRE_DRIVER", value_enum, default_value_t)]
    driver: DriverFlag,
    /// The cores of the IO workers: a list such as 0,1, `none`, or `auto`, one core for each.
    #[arg(long, env = "RINGWIRE_PIN", default_value = "auto")]
    pin: Cores,
    /// Which worker gets a connection that comes in.
    #[arg(long, env = "RINGWIRE_ASSIGNMENT", value_enum, default_value_t)]
    assignment: AssignmentFlag,
    /// The longest message, such as 64MiB.
    #[arg(long, env = "RINGWIRE_MAX_MESSAGE", default_value = "1MiB", value_parser = parse_bytes)]
    max_message: u64,
    /// How long a connection may be silent, such as 90s; 0: for ever, and no pings are sent.
    #[arg(long, env = "RINGWIRE_IDLE_TIMEOUT", default_value = "120s", value_parser = parse_duration)]
    idle_timeout: Duration,
    /// Compression of messages (permessage-deflate).
    #[arg(long, env = "RINGWIRE_COMPRESSION", value_enum, default_value_t)]
    compression: CompressionFlag,
    /// The shortest message that is compressed, such as 1KiB.
    #[arg(long, env = "RINGWIRE_COMPRESSION_THRESHOLD", default_value = "256", value_parser = parse_bytes)]
    compression_threshold: u64,
    /// How much work is done for a smaller output: 1 to 9.
    #[arg(long, env = "RINGWIRE_COMPRESSION_LEVEL", default_value = "2", value_parser = parse_level)]
    compression_level: CompressionLevel,
}

impl ServerFlags {
    /// The settings that they ask for.
    #[must_use]
    pub fn config(&self) -> Config {
        let threshold = usize::try_from(self.compression_threshold).unwrap_or(usize::MAX);
        let compression = Compression::default()
            .with_mode(self.compression.into())
            .with_threshold(threshold)
            .with_level(self.compression_level);
        let config = Config::default()
            .with_driver(self.driver.into())
            .with_io_workers(self.io_workers)
            .with_compute_workers(self.compute_workers)
            .with_pinning(self.pin.clone().into())
            .with_assignment(self.assignment.into())
            .with_max_message_len(usize::try_from(self.max_message).unwrap_or(usize::MAX))
            .with_idle_timeout(self.idle_timeout)
            .with_compression(compression);
        if self.idle_timeout.is_zero() { config.with_ping_interval(Duration::ZERO) } else { config }
    }

    /// Serves with these settings until SIGTERM or SIGINT, each worker with a copy of the handler.
    ///
    /// # Errors
    /// A certificate cannot be used, an address cannot be listened on, or a worker failed.
    pub fn serve<H: Handler + Copy + Send + Sync + 'static>(
        &self,
        config: Config,
        handler: H,
    ) -> Result<()> {
        let mut server = Server::new(config);
        for address in &self.listen {
            server = server.listen(address);
        }
        if !self.tls_listen.is_empty() {
            let tls = self.certificate.server()?;
            for address in &self.tls_listen {
                server = server.listen_tls(address, tls.clone());
            }
        }
        let server = server.start(move |_worker| handler)?;
        handle_signals(server.handle(), SHUTDOWN_LIMIT).context("cannot handle signals")?;
        for url in server.urls() {
            println!("listening on {url}");
        }
        server.join()?;
        Ok(())
    }
}
