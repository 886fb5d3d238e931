//! What the echo servers share: the command line, the runtime and the accept loop.
//!
//! Every server runs alone on one thread, as it would on one core of a sharded deployment.

use std::future::Future;
use std::net::SocketAddr;

use anyhow::{Context, bail};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::net::{TcpSocket, TcpStream};

/// The largest message that is echoed, in bytes: the same for every server in a comparison.
pub const MAX_MESSAGE_LEN: usize = 64 << 20;

/// Connections that may wait for `accept`: a load generator opens thousands in one burst.
const BACKLOG: u32 = 65_535;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Serves `--listen ADDRESS` on the current thread, one task a connection, until the process is killed.
///
/// # Errors
/// The command line is wrong or the address cannot be listened on.
pub fn serve<F>(connection: fn(TcpStream) -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let address = listen_address()?;
    raise_descriptor_limit().context("raising the limit of open files")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(accept(address, connection))
}

async fn accept<F>(address: SocketAddr, connection: fn(TcpStream) -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address).with_context(|| format!("binding {address}"))?;
    let listener = socket.listen(BACKLOG)?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // How a connection ends says nothing about the server: peers vanish, and conformance tests
        // provoke errors on purpose.
        tokio::spawn(async move { drop(connection(stream).await) });
    }
}

fn listen_address() -> anyhow::Result<SocketAddr> {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next(), arguments.next()) {
        (Some("--listen"), Some(address), None) => {
            address.parse().with_context(|| format!("not an address: {address}"))
        }
        _ => bail!("usage: --listen IPV4:PORT"),
    }
}

fn raise_descriptor_limit() -> anyhow::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    Ok(())
}
