//! Where connections come from: addresses, Unix sockets, and listening sockets that somebody else made.

use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use ringwire_tls::ServerConfig;

use crate::config::{Assignment, Config};
use crate::entry::claim::{self, Claims, SocketFile};
use crate::entry::proxy::ProxyProtocol;
use crate::error::Error;
use crate::net::{self, TcpOptions};

/// A place to listen on, and what is spoken there. For [`Server::listen_with`](crate::Server::listen_with).
///
/// ```no_run
/// use ringwire::{Config, Server, on_message, transport::Listener};
///
/// let server = Server::new(Config::default())
///     .listen_with(Listener::unix("/run/echo/echo.sock").with_mode(0o660))
///     .start(|_worker| on_message(|ctx, message| ctx.send(message)))?;
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
    /// Other workers, and perhaps other processes, accept on the same socket.
    pub(crate) is_shared: bool,
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
    /// last worker has ended, unless it is another's by then. The workers share one listening socket: which of them
    /// gets a connection is a matter of chance, and [`Assignment::LeastLoaded`](crate::tuning::Assignment::LeastLoaded)
    /// spreads them evenly. Peers have no address: [`Ctx::peer_addr`](crate::Ctx::peer_addr) is the unspecified one,
    /// `[::]:0`.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self::new(Place::Unix { path: path.into(), mode: None })
    }

    /// A stream socket that listens already, TCP or Unix: one that a service manager made
    /// ([`activation`](crate::activation)), or an earlier process. The workers share it, as a [Unix
    /// socket](Self::unix). It is left as it is at the end, but for TCP options, which [`Config`] says, so another
    /// process can go on with it.
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

    /// The permissions of a Unix socket's file: who may write to it may connect. Default: what the umask leaves of
    /// 0o777. Changes nothing elsewhere.
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
    /// Where, and whether TLS is spoken there.
    pub(crate) names: Vec<(Name, bool)>,
    /// What is removed at the end.
    pub(crate) files: Vec<SocketFile>,
    /// A descriptor of each socket.
    pub(crate) all: Vec<OwnedFd>,
    /// Of files that a predecessor has made.
    modes: Vec<(PathBuf, u32)>,
    /// Whether somebody else made all of them, and goes on with them.
    pub(crate) borrowed: bool,
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// Listens everywhere, on the sockets of a predecessor where it has listened.
pub(crate) fn listen_all(
    listeners: Vec<Listener>,
    inherited: Vec<OwnedFd>,
    workers: usize,
    config: &Config,
) -> Result<Listening, Error> {
    let mut inheritance = Inheritance::new(inherited)?;
    let mut claims = Claims::new(inheritance.addresses());
    let mut all = Listening {
        sockets: (0..workers).map(|_| Vec::with_capacity(listeners.len())).collect(),
        terms: Vec::new(),
        names: Vec::new(),
        files: Vec::new(),
        all: Vec::new(),
        modes: Vec::new(),
        borrowed: !listeners.is_empty()
            && listeners.iter().all(|it| matches!(it.place, Place::Socket(_))),
    };
    let found = listeners.into_iter().map(|listener| Found::of(listener, &mut inheritance));
    let found = found.collect::<Result<Vec<_>, _>>()?;
    claims.take(found.iter().flat_map(Found::new_addresses), config)?;
    for Found { place, terms } in found {
        match place {
            FoundPlace::Addresses(addresses) => {
                for (address, sockets) in addresses {
                    match sockets.is_empty() {
                        true => all.listen_at(address, &mut claims, &terms, config)?,
                        false => all.go_on_at(sockets, &terms, config)?,
                    }
                }
            }
            FoundPlace::Unix { path, mode, inherited } => {
                let error = |source| Error::Listen { address: path.display().to_string(), source };
                let (socket, file) = match inherited {
                    Some(socket) => {
                        let file = SocketFile::inherited(&path).map_err(error)?;
                        all.modes.extend(mode.map(|mode| (path.clone(), mode)));
                        (socket, file)
                    }
                    None => claim::listen_unix(&path, mode, config).map_err(error)?,
                };
                all.files.push(file);
                all.share(socket, &terms).map_err(error)?;
            }
            FoundPlace::Socket(socket) => {
                net::take_listener(&socket)
                    .and_then(|()| all.share(socket, &terms))
                    .map_err(passed_on)?;
            }
        }
    }
    inheritance.end();
    Ok(all)
}

/// A listener, and what a predecessor had at its place.
struct Found {
    place: FoundPlace,
    terms: Terms,
}

enum FoundPlace {
    /// Those without a socket are new.
    Addresses(Vec<(SocketAddr, Vec<OwnedFd>)>),
    Unix {
        path: PathBuf,
        mode: Option<u32>,
        inherited: Option<OwnedFd>,
    },
    Socket(OwnedFd),
}

impl Found {
    fn of(listener: Listener, inheritance: &mut Inheritance) -> Result<Self, Error> {
        let Listener { place, terms } = listener;
        let place = match place {
            Place::Address(address) => {
                let found = resolve(&address)?.into_iter();
                FoundPlace::Addresses(found.map(|it| (it, inheritance.claim(it))).collect())
            }
            Place::Unix { path, mode } => {
                let inherited = inheritance.claim_path(&path);
                FoundPlace::Unix { path, mode, inherited }
            }
            Place::Socket(socket) => FoundPlace::Socket(socket),
        };
        Ok(Self { place, terms })
    }

    fn new_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let addresses = match &self.place {
            FoundPlace::Addresses(addresses) => addresses.as_slice(),
            _ => &[],
        };
        addresses.iter().filter(|(_, sockets)| sockets.is_empty()).map(|(address, _)| *address)
    }
}

fn passed_on(source: io::Error) -> Error {
    Error::Listen { address: "a socket that was passed on".to_owned(), source }
}

/// Listening sockets of a predecessor, for those who listen at the same places.
struct Inheritance(Vec<(Name, OwnedFd)>);

impl Inheritance {
    fn new(sockets: Vec<OwnedFd>) -> Result<Self, Error> {
        let named = |socket: OwnedFd| {
            net::take_listener(&socket)?;
            Ok((Name::of(&socket)?, socket))
        };
        sockets.into_iter().map(named).collect::<io::Result<_>>().map(Self).map_err(passed_on)
    }

    /// Where they listen.
    fn addresses(&self) -> Vec<SocketAddr> {
        let address = |(name, _): &(Name, OwnedFd)| match name {
            Name::Address(address) => Some(*address),
            Name::Path(_) => None,
        };
        self.0.iter().filter_map(address).collect()
    }

    /// All sockets at an address; where its port was left open, those at the first that the predecessor was given.
    fn claim(&mut self, mut address: SocketAddr) -> Vec<OwnedFd> {
        if address.port() == 0 {
            let given = self.0.iter().find_map(|(name, _)| match name {
                Name::Address(given) if given.ip() == address.ip() => Some(*given),
                _ => None,
            });
            address = given.unwrap_or(address);
        }
        let wanted = Name::Address(address);
        self.0.extract_if(.., |(name, _)| *name == wanted).map(|(_, socket)| socket).collect()
    }

    fn claim_path(&mut self, path: &Path) -> Option<OwnedFd> {
        let wanted = Name::Path(path.to_owned());
        let index = self.0.iter().position(|(name, _)| *name == wanted)?;
        // Those behind it stay in their order: a port that was left open goes by it.
        Some(self.0.remove(index).1)
    }

    /// Gives up what nobody has claimed.
    fn end(self) {
        for (name, _) in &self.0 {
            crate::base::event::warn!(
                %name,
                "an inherited socket is closed: this server is not set to listen on its address"
            );
        }
    }
}

impl Listening {
    /// Gives the files and sockets of others the modes and options of this server. A predecessor has them as well, and
    /// goes on with them where this server comes to nothing, so it is the last step before the workers start.
    pub(crate) fn settle(&self, options: TcpOptions) -> Result<(), Error> {
        for (path, mode) in &self.modes {
            let error = |source| Error::Listen { address: path.display().to_string(), source };
            net::set_mode(path, *mode).map_err(error)?;
        }
        self.all.iter().try_for_each(|socket| options.apply_anew(socket)).map_err(passed_on)
    }

    /// Has the kernel give a connection to the worker on the core that received it; `cores` has that of each worker.
    /// Nothing changes where the workers share a socket.
    pub(crate) fn choose_by_cpu(&self, cores: &[usize]) -> Result<(), Error> {
        let Some((first, [_, ..])) = self.sockets.split_first() else { return Ok(()) };
        for (socket, terms) in first.iter().zip(&self.terms).filter(|(_, terms)| !terms.is_unix) {
            match net::choose_by_cpu(socket, cores) {
                Err(error) if terms.is_shared => {
                    crate::base::event::info!(%error, "a listener is not assigned by cpu: workers share its socket");
                }
                result => result.map_err(|error| Error::Setting {
                    setting: "assignment",
                    problem: format!(
                        "the kernel cannot assign by cpu ({error}): use another assignment"
                    ),
                })?,
            }
        }
        Ok(())
    }

    /// A socket for each worker.
    fn listen_at(
        &mut self,
        wanted: SocketAddr,
        claims: &mut Claims,
        terms: &Terms,
        config: &Config,
    ) -> Result<(), Error> {
        let error = |source| Error::Listen { address: wanted.to_string(), source };
        // The first socket has found out a port that was left open.
        let mut first = Some(claims.first(wanted, config).map_err(error)?);
        let mut address = wanted;
        for worker in &mut self.sockets {
            let socket = match first.take() {
                Some(first) => first,
                None => net::listen(address, config.into()).map_err(error)?,
            };
            address = net::local_addr(&socket).map_err(error)?;
            worker.push(socket.try_clone().map_err(error)?);
            self.all.push(socket);
        }
        let name = Name::Address(address);
        self.note(&name, terms, false);
        self.names.push((name, terms.tls.is_some()));
        Ok(())
    }

    /// The sockets of a predecessor, which may have had another number of workers. Connections may wait on each of them
    /// and come to each of them, so each is accepted from: they are dealt out in rows of one for each worker. Those
    /// that the last row lacks are duplicates, or new ones if there is no other row.
    fn go_on_at(
        &mut self,
        mut found: Vec<OwnedFd>,
        terms: &Terms,
        config: &Config,
    ) -> Result<(), Error> {
        let workers = self.sockets.len();
        let Some(first) = found.first() else { return Ok(()) };
        let name = Name::of(first).map_err(passed_on)?;
        if config.assignment != Assignment::Cpu {
            net::choose_by_hash(first);
        }
        while let Name::Address(address) = &name
            && found.len() < workers
            && net::shares_port(&found[0])
        {
            match net::listen(*address, config.into()) {
                Ok(socket) => found.push(socket),
                Err(error) => {
                    crate::base::event::info!(%address, %error, "workers share the sockets of the predecessor");
                    break;
                }
            }
        }
        for row in found.chunks(workers) {
            for (worker, socket) in self.sockets.iter_mut().zip(row.iter().cycle()) {
                worker.push(socket.try_clone().map_err(passed_on)?);
            }
            // Perhaps with the predecessor, who goes on with them if this process does not get so far.
            self.note(&name, terms, true);
        }
        self.all.extend(found);
        self.names.push((name, terms.tls.is_some()));
        Ok(())
    }

    /// The same socket for all workers.
    fn share(&mut self, socket: OwnedFd, terms: &Terms) -> io::Result<()> {
        let name = Name::of(&socket)?;
        for worker in &mut self.sockets {
            worker.push(socket.try_clone()?);
        }
        self.note(&name, terms, true);
        self.all.push(socket);
        self.names.push((name, terms.tls.is_some()));
        Ok(())
    }

    fn note(&mut self, name: &Name, terms: &Terms, is_shared: bool) {
        let is_unix = matches!(name, Name::Path(_));
        self.terms.push(Terms { is_unix, is_shared, ..terms.clone() });
    }
}

fn resolve(address: &str) -> Result<Vec<SocketAddr>, Error> {
    let listen_error = |source| Error::Listen { address: address.to_owned(), source };
    if !has_host_and_port(address) {
        let text = "an address is ADDRESS:PORT, such as 127.0.0.1:9001 or [::]:9001";
        return Err(listen_error(io::Error::new(io::ErrorKind::InvalidInput, text)));
    }
    let found: Vec<_> = address.to_socket_addrs().map_err(listen_error)?.collect();
    if found.is_empty() {
        return Err(listen_error(io::ErrorKind::AddrNotAvailable.into()));
    }
    Ok(found)
}

/// The resolver would take some of what is neither for the name of a host, and say that it does not know it.
fn has_host_and_port(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else { return false };
    !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok()
}
