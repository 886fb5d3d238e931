//! Where connections come from: addresses, Unix sockets, and listening sockets that somebody else made.

use std::fmt;
use std::fs;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use ringwire_tls::ServerConfig;

use crate::config::Config;
use crate::error::Error;
use crate::net;
use crate::proxied::ProxyProtocol;

/// A place to listen on, and what is spoken there. For [`Server::listen_with`](crate::Server::listen_with).
///
/// ```no_run
/// use ringwire::{Config, Listener, Server, on_message};
///
/// let server = Server::new(Config::default())
///     .listen_with(Listener::unix("/run/echo/echo.sock").with_mode(0o660))
///     .start(|_worker| on_message(|ctx, message| { ctx.send(message); }))?;
/// # server.handle().shutdown(std::time::Duration::ZERO);
/// # Ok::<(), ringwire::Error>(())
/// ```
#[derive(Debug)]
pub struct Listener {
    place: Place,
    terms: Terms,
}

#[derive(Debug)]
enum Place {
    Address(String),
    Unix { path: PathBuf, mode: Option<u32> },
    Socket(OwnedFd),
}

/// What is spoken on a listener.
#[derive(Clone, Debug, Default)]
pub(crate) struct Terms {
    pub(crate) tls: Option<ServerConfig>,
    pub(crate) proxy: ProxyProtocol,
    /// It is a Unix socket.
    pub(crate) is_unix: bool,
}

impl Terms {
    /// Whether connections begin with a header of the PROXY protocol.
    pub(crate) fn wants_proxy_header(&self) -> bool {
        self.proxy != ProxyProtocol::Off
    }

    /// Whether a peer may connect.
    pub(crate) fn allow(&self, peer: Option<SocketAddr>) -> bool {
        match &self.proxy {
            ProxyProtocol::Off => true,
            ProxyProtocol::Required { .. } if self.is_unix => true,
            ProxyProtocol::Required { trusted } => {
                peer.is_some_and(|peer| trusted.iter().any(|network| network.contains(peer.ip())))
            }
        }
    }
}

impl From<Option<ServerConfig>> for Terms {
    fn from(tls: Option<ServerConfig>) -> Self {
        Self { tls, ..Self::default() }
    }
}

impl Listener {
    /// An address, such as `127.0.0.1:9001`, `[::]:80` or `localhost:0` (a free port). Every worker gets a listening
    /// socket of its own there, and the kernel spreads the connections (SO_REUSEPORT, socket(7)).
    pub fn address(address: impl fmt::Display) -> Self {
        Self::new(Place::Address(address.to_string()))
    }

    /// A Unix socket at this path (unix(7); at most 107 bytes).
    ///
    /// One that is there already is replaced if nobody listens on it, and an error otherwise. The file goes when the
    /// last worker has ended, unless it is another's by then. The workers share one listening socket: which of them gets
    /// a connection is a matter of chance, and [`Assignment::LeastLoaded`](crate::Assignment::LeastLoaded) spreads them
    /// evenly. Peers have no address: [`Ctx::peer_addr`](crate::Ctx::peer_addr) is the unspecified one, `[::]:0`.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self::new(Place::Unix { path: path.into(), mode: None })
    }

    /// A stream socket that listens already, TCP or Unix: one that a service manager made
    /// ([`activation`](crate::activation)), or an earlier process. The workers share it, as a [Unix socket](Self::unix). It
    /// is left as it is at the end, but for TCP options, which [`Config`] says, so another process can go on with it.
    pub fn socket(socket: impl Into<OwnedFd>) -> Self {
        Self::new(Place::Socket(socket.into()))
    }

    fn new(place: Place) -> Self {
        Self { place, terms: Terms::default() }
    }

    /// Speaks TLS (`wss://`) here. Plain and TLS listeners serve the same handler.
    #[must_use]
    pub fn with_tls(mut self, tls: ServerConfig) -> Self {
        self.terms.tls = Some(tls);
        self
    }

    /// Whether connections here begin with a header of the PROXY protocol, and from whom.
    #[must_use]
    pub fn with_proxy_protocol(mut self, proxy: ProxyProtocol) -> Self {
        self.terms.proxy = proxy;
        self
    }

    /// The permissions of a Unix socket's file: who may write to it may connect. Default: what the umask leaves of 0o777.
    /// Changes nothing elsewhere.
    #[must_use]
    pub fn with_mode(mut self, new: u32) -> Self {
        if let Place::Unix { mode, .. } = &mut self.place {
            *mode = Some(new);
        }
        self
    }

    /// What TLS is spoken, if it is.
    pub(crate) fn tls(&self) -> Option<&ServerConfig> {
        self.terms.tls.as_ref()
    }
}

/// Listeners that listen.
#[derive(Debug)]
pub(crate) struct Listening {
    /// Of each worker, one for each of the rest.
    pub(crate) sockets: Vec<Vec<OwnedFd>>,
    pub(crate) terms: Vec<Terms>,
    /// Whether it is one socket for all workers, and perhaps for other processes.
    pub(crate) shared: Vec<bool>,
    pub(crate) names: Vec<Name>,
    /// What is removed at the end.
    pub(crate) files: Vec<SocketFile>,
}

/// Where a listener listens.
#[derive(Clone, Debug)]
pub(crate) enum Name {
    Address(SocketAddr),
    Path(PathBuf),
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Path(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Name {
    fn of(socket: &OwnedFd) -> io::Result<Self> {
        match net::unix_path(socket) {
            Some(path) => Ok(Self::Path(path)),
            None => net::local_addr(socket).map(Self::Address),
        }
    }

    /// As the URL of a server there.
    pub(crate) fn url(&self, secure: bool) -> String {
        let scheme = if secure { "wss" } else { "ws" };
        match self {
            Self::Address(address) => format!("{scheme}://{address}"),
            Self::Path(path) => format!("{scheme}+unix:{}", path.display()),
        }
    }
}

/// Listens everywhere.
pub(crate) fn listen_all(
    listeners: Vec<Listener>,
    workers: usize,
    config: &Config,
) -> Result<Listening, Error> {
    let mut all = Listening {
        sockets: (0..workers).map(|_| Vec::with_capacity(listeners.len())).collect(),
        terms: Vec::new(),
        shared: Vec::new(),
        names: Vec::new(),
        files: Vec::new(),
    };
    for Listener { place, terms } in listeners {
        match place {
            Place::Address(address) => {
                for address in resolve(&address)? {
                    all.listen_at(address, &terms, config)?;
                }
            }
            Place::Unix { path, mode } => {
                let error = |source| Error::Listen { address: path.display().to_string(), source };
                let (socket, file) = listen_unix(&path, mode, config).map_err(error)?;
                all.files.push(file);
                all.share(socket, &terms).map_err(error)?;
            }
            Place::Socket(socket) => {
                let address = "a socket that was passed on".to_owned();
                net::take_listener(&socket, config)
                    .and_then(|()| all.share(socket, &terms))
                    .map_err(|source| Error::Listen { address, source })?;
            }
        }
    }
    Ok(all)
}

impl Listening {
    /// A socket for each worker.
    fn listen_at(
        &mut self,
        wanted: SocketAddr,
        terms: &Terms,
        config: &Config,
    ) -> Result<(), Error> {
        let error = |source| Error::Listen { address: wanted.to_string(), source };
        // The first socket finds out a port that was left open.
        let mut address = wanted;
        for worker in &mut self.sockets {
            let socket = net::listen(address, config).map_err(error)?;
            address = net::local_addr(&socket).map_err(error)?;
            worker.push(socket);
        }
        self.note(Name::Address(address), terms, false);
        Ok(())
    }

    /// The same socket for all workers.
    fn share(&mut self, socket: OwnedFd, terms: &Terms) -> io::Result<()> {
        let name = Name::of(&socket)?;
        for worker in &mut self.sockets {
            worker.push(socket.try_clone()?);
        }
        self.note(name, terms, true);
        Ok(())
    }

    fn note(&mut self, name: Name, terms: &Terms, shared: bool) {
        let is_unix = matches!(name, Name::Path(_));
        self.names.push(name);
        self.terms.push(Terms { is_unix, ..terms.clone() });
        self.shared.push(shared);
    }
}

fn resolve(address: &str) -> Result<Vec<SocketAddr>, Error> {
    let listen_error = |source| Error::Listen { address: address.to_owned(), source };
    let found: Vec<_> = address.to_socket_addrs().map_err(listen_error)?.collect();
    if found.is_empty() {
        return Err(listen_error(io::ErrorKind::AddrNotAvailable.into()));
    }
    Ok(found)
}

/// The file of a Unix socket, which goes with this, unless another has taken its place.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|file| (file.dev(), file.ino()) == (self.device, self.inode));
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a socket's file could not be removed");
        }
    }
}

fn listen_unix(
    path: &Path,
    mode: Option<u32>,
    config: &Config,
) -> io::Result<(OwnedFd, SocketFile)> {
    match fs::symlink_metadata(path) {
        Ok(file) if !file.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is another file"));
        }
        Ok(_) if net::is_listened_on(path)? => {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there"));
        }
        Ok(_) => fs::remove_file(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let socket = net::bind_unix(path, mode)?;
    let file = fs::symlink_metadata(path)?;
    let file = SocketFile { path: path.to_owned(), device: file.dev(), inode: file.ino() };
    net::start_listening(&socket, config)?;
    Ok((socket, file))
}
