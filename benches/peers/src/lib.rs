//! What the servers share: the command line, the runtime, the accept loop and TLS.
//!
//! Every server runs alone on one thread, as it would on one core of a sharded deployment.

#![expect(clippy::disallowed_types, reason = "rustls takes shared settings as Arc")]

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpSocket;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The largest message that is taken, in bytes: the same for every server in a comparison.
pub const MAX_MESSAGE_LEN: usize = 64 << 20;

/// Connections that may wait for `accept`: a load generator opens thousands in one burst.
const BACKLOG: u32 = 65_535;

/// How much work compression does, of 1 to 9: the same for every server in a comparison whose level can be set.
pub const COMPRESSION_LEVEL: u32 = 1;

const USAGE: &str =
    "usage: --listen IPV4:PORT [--cert FILE --key FILE] [--compression shared|dedicated]";

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A TCP stream, or one with TLS on it.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for S {}

/// What permessage-deflate (RFC 7692) is agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// No context takeover, either way.
    Shared,
    /// Context takeover both ways.
    Dedicated,
}

/// What a server does with a connection. It is compiled for TCP and for TLS, so that neither pays for the other.
pub trait Service: 'static {
    /// Whether it can compress.
    const COMPRESSES: bool = false;

    /// Makes the upgrade and serves until the connection ends. With `compression`, it agrees to that and
    /// compresses all that it sends.
    fn serve<S: Stream>(
        stream: S,
        compression: Option<Compression>,
    ) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// Serves `--listen ADDRESS` on the current thread, one task a connection, until the process is killed. With
/// `--cert FILE --key FILE` it speaks TLS, with `--compression MODE` it compresses.
///
/// # Errors
/// The command line is wrong, a file cannot be used, or the address cannot be listened on.
pub fn serve<E: Service>() -> anyhow::Result<()> {
    let flags = Flags::read()?;
    if flags.compression.is_some() && !E::COMPRESSES {
        bail!("this server cannot compress");
    }
    raise_descriptor_limit().context("raising the limit of open files")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(accept::<E>(flags))
}

async fn accept<E: Service>(flags: Flags) -> anyhow::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    let address = flags.listen;
    socket.bind(address).with_context(|| format!("binding {address}"))?;
    let compression = flags.compression;
    let tls = match &flags.certificate {
        Some((chain, key)) => Some(acceptor(chain, key)?),
        None => None,
    };
    let listener = socket.listen(BACKLOG)?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // How a connection ends says nothing about the server: peers vanish, and conformance tests
        // provoke errors on purpose.
        match tls.clone() {
            None => drop(tokio::spawn(async move { drop(E::serve(stream, compression).await) })),
            Some(tls) => drop(tokio::spawn(async move {
                if let Ok(stream) = tls.accept(stream).await {
                    drop(E::serve(stream, compression).await);
                }
            })),
        }
    }
}

/// With rustls's own settings, on the same cryptography as Ringwire.
fn acceptor(chain: &Path, key: &Path) -> anyhow::Result<TlsAcceptor> {
    let named = |path: &Path| format!("reading {}", path.display());
    let certificates = CertificateDer::pem_file_iter(chain).with_context(|| named(chain))?;
    let certificates = certificates.collect::<Result<_, _>>().with_context(|| named(chain))?;
    let key = PrivateKeyDer::from_pem_file(key).with_context(|| named(key))?;
    let config =
        ServerConfig::builder().with_no_client_auth().with_single_cert(certificates, key)?;
    Ok(Arc::new(config).into())
}

struct Flags {
    listen: SocketAddr,
    /// Chain and key.
    certificate: Option<(PathBuf, PathBuf)>,
    compression: Option<Compression>,
}

impl Flags {
    fn read() -> anyhow::Result<Self> {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let (mut listen, mut chain, mut key, mut compression) = (None, None, None, None);
        let (pairs, rest) = arguments.as_chunks();
        for [flag, value] in pairs {
            match (flag.as_str(), value.as_str()) {
                ("--listen", address) => {
                    let parsed = address.parse();
                    listen = Some(parsed.with_context(|| format!("not an address: {address}"))?);
                }
                ("--cert", file) => chain = Some(file.into()),
                ("--key", file) => key = Some(file.into()),
                ("--compression", "shared") => compression = Some(Compression::Shared),
                ("--compression", "dedicated") => compression = Some(Compression::Dedicated),
                _ => bail!(USAGE),
            }
        }
        match listen {
            Some(listen) if rest.is_empty() && chain.is_some() == key.is_some() => {
                Ok(Self { listen, certificate: chain.zip(key), compression })
            }
            _ => bail!(USAGE),
        }
    }
}

fn raise_descriptor_limit() -> anyhow::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit)?;
    Ok(())
}
