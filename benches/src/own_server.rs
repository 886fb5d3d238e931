//! Ringwire's example servers on threads of this process, for a load without a URL.

use std::time::Duration;

use anyhow::{Context as _, bail};
use ringwire::program::handle_signals;
use ringwire::tls::pki_types::UnixTime;
use ringwire::tls::{CertificateSource, ServerSettings};
use ringwire::{Config, Running, Server, compression::CompressionConfig, tuning::Pinning};
use ringwire_examples::{Broadcast, Echo, note};

use crate::cert::{KeyKind, SelfSigned};
use crate::demand::{Demand, Service};
use crate::procstat::{self, Account};
use crate::target::Target;

/// The longest message taken, unless the load's are longer.
const MIN_MAX_MESSAGE_LEN: usize = 1 << 20;

/// Longer than it runs.
const CERTIFICATE_DAYS: u32 = 30;

/// Time for a client's request to be there, unless the load asks for another.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long connections may take to close on a signal.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

/// A running server. Dropping it ends its threads.
pub(crate) struct OwnServer {
    running: Option<Running>,
    thread_ids: Vec<u32>,
    target: Target,
    certificate: Option<SelfSigned>,
}

impl OwnServer {
    /// Listens on `listen` and starts a worker on each of `cpus`, or one wherever the scheduler likes without any,
    /// which does what the load demands. With a certificate it speaks TLS.
    pub(crate) fn start(
        listen: &str,
        cpus: &[usize],
        demand: Demand,
        certificate: Option<SelfSigned>,
    ) -> anyhow::Result<Self> {
        let before = procstat::own_thread_ids()?;
        let pinning = if cpus.is_empty() { Pinning::Off } else { Pinning::Cores(cpus.to_vec()) };
        let config = Config::default()
            .with_driver(demand.driver.into())
            .with_io_workers(cpus.len().max(1))
            .with_pinning(pinning)
            .with_handshake_timeout(demand.handshake_timeout.unwrap_or(HANDSHAKE_TIMEOUT))
            .with_max_message_len(demand.payload_len.max(MIN_MAX_MESSAGE_LEN))
            .with_compression(
                CompressionConfig::default().with_mode(demand.compression.into()).with_threshold(0),
            )
            .with_exclusive(!demand.shares_port)
            .with_idle_timeout(None)
            .with_ping_interval(None)
            .with_topics(Broadcast::topics());
        let config = match demand.silence_limit {
            Some(limit) => config
                .with_ping_interval(limit / 2)
                .with_pong_timeout(limit / 2)
                .with_write_stall_timeout(limit),
            None => config,
        };
        let config = match demand.max_memory {
            Some(len) => config.with_max_memory(len),
            None => config,
        };
        let server = Server::new(config);
        let server = match &certificate {
            Some(own) => {
                let source = CertificateSource::pem(own.certificate.as_str(), own.key.as_str());
                server.listen_tls(listen, ServerSettings::new(source).build(UnixTime::now())?)
            }
            None => server.listen(listen),
        };
        let running = match demand.service {
            Service::Echo => Echo::start(server),
            Service::Broadcast => Broadcast::start(server),
        };
        let running = running.context("cannot start the server")?;
        let mut thread_ids = procstat::own_thread_ids()?;
        thread_ids.retain(|id| !before.contains(id));
        let Some(&address) = running.local_addrs().first() else {
            bail!("the server listens nowhere")
        };
        let scheme = if certificate.is_some() { "wss" } else { "ws" };
        let target = Target::from_url(&format!("{scheme}://{address}/"))?;
        Ok(Self { running: Some(running), thread_ids, target, certificate })
    }

    /// A certificate for a server that speaks TLS.
    pub(crate) fn make_certificate() -> anyhow::Result<SelfSigned> {
        SelfSigned::generate(KeyKind::EcdsaP256, &[], CERTIFICATE_DAYS)
    }

    /// The URL of its page for browsers.
    pub(crate) fn page(&self) -> String {
        // http for ws, https for wss.
        self.target.to_string().replacen("ws", "http", 1)
    }

    /// Its certificate, in PEM, if it speaks TLS.
    pub(crate) fn certificate(&self) -> Option<&str> {
        Some(&self.certificate.as_ref()?.certificate)
    }

    /// It, for a load.
    pub(crate) fn target(&self) -> Target {
        self.target.clone()
    }

    /// Serves until SIGTERM or SIGINT.
    pub(crate) fn stay(mut self) -> anyhow::Result<()> {
        let Some(running) = self.running.take() else { return Ok(()) };
        handle_signals(running.handle(), SHUTDOWN_LIMIT).context("cannot handle signals")?;
        running.join().context("the server failed")
    }

    /// Its threads.
    pub(crate) fn account(&self) -> Account {
        Account::Threads(self.thread_ids.clone())
    }
}

#[cfg(test)]
impl OwnServer {
    /// One with a worker on the first CPU, which lives as long as it.
    pub(crate) fn for_tests(demand: Demand, secure: bool) -> Self {
        let certificate = secure.then(|| Self::make_certificate().unwrap());
        Self::start("127.0.0.1:0", &[0], demand, certificate).unwrap()
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.handle().shutdown(Duration::ZERO);
            if let Err(error) = running.join() {
                note!("the server ended with: {error}");
            }
        }
    }
}
