//! Ringwire's example servers on threads of this process, for a load without a URL.

use std::time::Duration;

use anyhow::{Context as _, bail};
use ringwire::tls::pki_types::UnixTime;
use ringwire::tls::{CertificateSource, ServerSettings};
use ringwire::{Compression, Config, Pinning, Running, Server};
use ringwire_examples::{Broadcast, Echo, handle_signals};

use crate::cert::{KeyKind, SelfSigned};
use crate::endpoint::{Demand, Service};
use crate::procstat::{self, Account};
use crate::target::Target;

/// The longest message taken, unless the load's are longer.
const MIN_MAX_MESSAGE_LEN: usize = 1 << 20;

/// Longer than it runs.
const CERTIFICATE_DAYS: u32 = 30;

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
    /// Listens on `listen` and starts a worker on each of `cpus`, which does what the load demands.
    /// `secure`: for TLS, with a certificate of its own.
    pub(crate) fn start(
        listen: &str,
        cpus: &[usize],
        demand: Demand,
        secure: bool,
    ) -> anyhow::Result<Self> {
        let before = procstat::thread_ids(std::process::id())?;
        let config = Config::default()
            .with_io_workers(cpus.len())
            .with_pinning(Pinning::Cores(cpus.to_vec()))
            .with_max_message_len(demand.payload_len.max(MIN_MAX_MESSAGE_LEN))
            .with_compression(
                Compression::default().with_mode(demand.compression.into()).with_threshold(0),
            )
            .with_idle_timeout(Duration::ZERO)
            .with_ping_interval(Duration::ZERO)
            .with_topics(Broadcast::topics());
        let (mut server, mut certificate) = (Server::new(config), None);
        if secure {
            let own = SelfSigned::generate(KeyKind::EcdsaP256, &[], CERTIFICATE_DAYS)?;
            let source = CertificateSource::pem(own.certificate.as_str(), own.key.as_str());
            server = server.listen_tls(listen, ServerSettings::new(source).build(UnixTime::now())?);
            certificate = Some(own);
        } else {
            server = server.listen(listen);
        }
        let running = match demand.service {
            Service::Echo => server.start(|_worker| Echo),
            Service::Broadcast => server.start(|_worker| Broadcast),
        };
        let running = running.context("cannot start the server")?;
        let mut thread_ids = procstat::thread_ids(std::process::id())?;
        thread_ids.retain(|id| !before.contains(id));
        let Some(&address) = running.local_addrs().first() else {
            bail!("the server listens nowhere")
        };
        let scheme = if secure { "wss" } else { "ws" };
        let target = Target::from_url(&format!("{scheme}://{address}/"))?;
        Ok(Self { running: Some(running), thread_ids, target, certificate })
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

impl Drop for OwnServer {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.handle().shutdown(Duration::ZERO);
            if let Err(error) = running.join() {
                eprintln!("the server ended with: {error}");
            }
        }
    }
}
