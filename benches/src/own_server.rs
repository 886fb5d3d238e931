//! Ringwire's echo server on threads of this process, for a load without a URL.

use std::time::Duration;

use anyhow::{Context as _, bail};
use ringwire::{Config, Pinning, Running, Server, on_message};

use crate::procstat::{self, Account};
use crate::target::Target;

/// The longest message taken, unless the load's are longer.
const MIN_MAX_MESSAGE_LEN: usize = 1 << 20;

/// A running server. Dropping it ends its threads.
pub(crate) struct OwnServer {
    running: Option<Running>,
    thread_ids: Vec<u32>,
    target: Target,
}

impl OwnServer {
    /// Starts a worker on each of `cpus`, which takes messages of up to `payload_len` bytes.
    pub(crate) fn start(cpus: &[usize], payload_len: usize) -> anyhow::Result<Self> {
        let before = procstat::thread_ids(std::process::id())?;
        let config = Config::default()
            .with_io_workers(cpus.len())
            .with_pinning(Pinning::Cores(cpus.to_vec()))
            .with_max_message_len(payload_len.max(MIN_MAX_MESSAGE_LEN))
            .with_idle_timeout(Duration::ZERO)
            .with_ping_interval(Duration::ZERO);
        let running = Server::new(config)
            .listen("127.0.0.1:0")
            .start(|_worker| {
                on_message(|ctx, message| {
                    ctx.send(message);
                })
            })
            .context("cannot start the server")?;
        let mut thread_ids = procstat::thread_ids(std::process::id())?;
        thread_ids.retain(|id| !before.contains(id));
        let [address] = running.local_addrs() else { bail!("the server listens nowhere") };
        let target = Target::from_url(&format!("ws://{address}/"))?;
        Ok(Self { running: Some(running), thread_ids, target })
    }

    /// Where it listens.
    pub(crate) fn target(&self) -> Target {
        self.target.clone()
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
