//! The server of a load: one that runs already, named by its URL, or one that is started in this process.

use crate::ask::AskArgs;
use crate::demand::Demand;
use crate::machine;
use crate::own_server::OwnServer;
use crate::procstat::{self, Account};
use crate::target::Target;
use crate::tls::{self, TlsArgs};
use crate::units::CpuList;

/// Flags that name the server.
#[derive(Debug, clap::Args)]
pub(crate) struct ServerArgs {
    /// ws://HOST:PORT/PATH, wss://HOST:PORT/PATH, ws+unix:/SOCKET:/PATH, or tcp://HOST:PORT for a server that returns
    /// raw bytes. Without it, Ringwire's own server is started in this process.
    pub(crate) url: Option<String>,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
    /// Has the server in this process speak TLS, with a certificate made for it.
    #[arg(long = "tls", conflicts_with = "url")]
    pub(crate) own_tls: bool,
    /// Process whose CPU time and memory are the server's.
    #[arg(long, requires = "url")]
    server_pid: Option<u32>,
    /// CPUs of the server in this process, a worker on each; by default the first one.
    #[arg(long, conflicts_with = "url")]
    server_cpu: Option<CpuList>,
    /// Where the server in this process listens; port 0 is any free one.
    #[arg(long, conflicts_with = "url", default_value = "127.0.0.1:0")]
    pub(crate) listen: String,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

/// A server, as a load sees it.
pub(crate) struct Endpoint {
    pub(crate) target: Target,
    /// For a target that speaks TLS.
    pub(crate) tls: Option<tls::Client>,
    /// Whose CPU time and memory are the server's.
    pub(crate) account: Option<Account>,
    /// It, if it is in this process.
    pub(crate) own: Option<OwnServer>,
}

impl ServerArgs {
    /// Finds the server, or starts it and keeps the load off its CPUs where there are others. To be called
    /// before this thread is pinned: the server may use the other CPUs.
    ///
    /// # Errors
    /// When the URL or a file is wrong, or the server does not start.
    pub(crate) fn open(
        &self,
        demand: Demand,
        load_cpu: &mut Option<CpuList>,
    ) -> anyhow::Result<Endpoint> {
        let Some(url) = &self.url else { return self.start(demand, load_cpu) };
        let target = Target::from_url(url)?.with_ask(&self.ask, 0..u32::MAX)?;
        let tls = self.tls.client(&target, None)?;
        Ok(Endpoint { target, tls, account: self.server_pid.map(Account::Process), own: None })
    }

    fn start(&self, demand: Demand, load_cpu: &mut Option<CpuList>) -> anyhow::Result<Endpoint> {
        let mut free = procstat::allowed_cpus(std::process::id())?;
        let first = free.first().copied().unwrap_or_default();
        let server = self.server_cpu.clone().unwrap_or_else(|| CpuList(vec![first]));
        free.retain(|cpu| !server.0.contains(cpu));
        if load_cpu.is_none() && !free.is_empty() {
            *load_cpu = Some(CpuList(free));
        }
        machine::allow_descriptors(demand.connections, 2)?;
        let certificate = self.own_tls.then(OwnServer::make_certificate).transpose()?;
        let own = OwnServer::start(&self.listen, &server.0, demand, certificate)?;
        let target = own.target().with_ask(&self.ask, 0..u32::MAX)?;
        let tls = self.tls.client(&target, own.certificate())?;
        Ok(Endpoint { target, tls, account: Some(own.account()), own: Some(own) })
    }
}
