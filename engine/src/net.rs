//! Socket and process calls outside the drivers: listening, limits of the process.

use std::fs::{self, File, Permissions};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::retry_on_intr;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};

/// Descriptors that are left for everything but connections when the limit is derived.
const RESERVED_DESCRIPTORS: u64 = 64;
/// Numbers that SO_MEMINFO has: SK_MEMINFO_VARS of linux/sock_diag.h.
const MEMINFO_VARS: usize = 9;

/// What went over a socket, in bytes, TLS included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) received: u64,
    pub(crate) sent: u64,
}

/// How far a peer has come with what was sent to it, as it was a moment ago.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Delivery {
    /// Bytes that its side has acknowledged since the connection began, where somebody counts them: not on Unix
    /// sockets.
    pub(crate) acked: Option<u64>,
    /// Up to where it has made room: what was acknowledged and its window. Moves on when its program reads, also where
    /// all is acknowledged.
    pub(crate) window_end: u64,
    /// What the kernel took of sends and still has. On Unix sockets as it takes memory, and buffer by buffer.
    pub(crate) waiting: usize,
}

impl Delivery {
    /// Whether the peer has taken anything since then.
    pub(crate) fn has_moved_since(&self, before: &Self) -> bool {
        self.acked > before.acked
            || self.window_end > before.window_end
            || self.waiting < before.waiting
    }
}

/// TCP options of every connection; accepted sockets inherit them from the listener.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TcpOptions {
    pub(crate) nodelay: bool,
    pub(crate) user_timeout: Option<Duration>,
    pub(crate) keepalive: Option<Keepalive>,
    pub(crate) notsent_lowat: Option<u32>,
    pub(crate) send_buffer_len: Option<usize>,
    pub(crate) receive_buffer_len: Option<usize>,
}

/// The kernel takes an int (socket(7)), and as much of it as `net.core.wmem_max` or `rmem_max` says.
const MAX_SOCKET_BUFFER: usize = i32::MAX as usize;

/// When the kernel asks whether the other side is still there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keepalive {
    pub(crate) time: Duration,
    pub(crate) interval: Duration,
    pub(crate) probes: u32,
}

impl TcpOptions {
    /// Sets all of them, on a socket that somebody else has set up. A Unix socket has none of them.
    pub(crate) fn apply_anew(self, socket: impl AsFd) -> io::Result<()> {
        let known = SockRef::from(&socket);
        if known.domain()? == Domain::UNIX {
            return Ok(());
        }
        // 0 stands for the kernel's own (tcp(7)).
        known.set_tcp_user_timeout(Some(self.user_timeout.unwrap_or_default()))?;
        known.set_keepalive(self.keepalive.is_some())?;
        known.set_tcp_notsent_lowat(self.notsent_lowat.unwrap_or_default())?;
        self.apply(&socket)
    }

    /// Sets the options that differ from the kernel's defaults.
    pub(crate) fn apply(self, socket: impl AsFd) -> io::Result<()> {
        let socket = SockRef::from(&socket);
        socket.set_tcp_nodelay(self.nodelay)?;
        if let Some(timeout) = self.user_timeout {
            socket.set_tcp_user_timeout(Some(timeout))?;
        }
        if let Some(Keepalive { time, interval, probes }) = self.keepalive {
            let keepalive = TcpKeepalive::new();
            let keepalive = keepalive.with_time(time).with_interval(interval).with_retries(probes);
            socket.set_tcp_keepalive(&keepalive)?;
        }
        if let Some(len) = self.notsent_lowat {
            socket.set_tcp_notsent_lowat(len)?;
        }
        // Before listen(2) and connect(2), which settle the scale of the receive window (tcp(7)).
        if let Some(len) = self.send_buffer_len {
            socket.set_send_buffer_size(len.min(MAX_SOCKET_BUFFER))?;
        }
        if let Some(len) = self.receive_buffer_len {
            socket.set_recv_buffer_size(len.min(MAX_SOCKET_BUFFER))?;
        }
        Ok(())
    }
}

/// How sockets listen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ListenOptions {
    pub(crate) tcp: TcpOptions,
    /// Connections that wait to be accepted.
    pub(crate) backlog: u32,
}

/// A listening socket that shares its port with those that are there already, if there are any (SO_REUSEPORT,
/// socket(7)).
pub(crate) fn listen(address: SocketAddr, options: ListenOptions) -> io::Result<OwnedFd> {
    let socket = new_listener(address, options)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    let socket = socket.into();
    start_listening(&socket, options)?;
    Ok(socket)
}

/// The first listening socket at an address, which others may share from now on.
///
/// bind(2) and listen(2) fail with EADDRINUSE where any socket listens at an address that overlaps, unless both have
/// SO_REUSEPORT; this one has not, until it listens. Two that come at once may both be bound, having SO_REUSEADDR, but
/// the kernel checks again in listen(2), so that one of them fails, or both.
pub(crate) fn listen_first(address: SocketAddr, options: ListenOptions) -> io::Result<OwnedFd> {
    let socket = new_listener(address, options)?;
    socket.bind(&address.into())?;
    let socket = socket.into();
    start_listening(&socket, options)?;
    SockRef::from(&socket).set_reuse_port(true)?;
    Ok(socket)
}

fn new_listener(address: SocketAddr, options: ListenOptions) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.cloexec().nonblocking(),
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Connections of a server that was there before may still be in TIME_WAIT.
    socket.set_reuse_address(true)?;
    options.tcp.apply(&socket)?;
    Ok(socket)
}

/// Lets connections wait on a bound socket.
pub(crate) fn start_listening(socket: &OwnedFd, options: ListenOptions) -> io::Result<()> {
    SockRef::from(socket).listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))
}

/// A Unix socket at a path where nothing is, which does not listen yet. Its file has `mode` from the beginning.
pub(crate) fn bind_unix(path: &Path, mode: Option<u32>) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.cloexec().nonblocking(), None)?;
    let socket = if let Some(mode) = mode {
        // On Linux the file is made with the mode of the socket, less the umask.
        let socket = File::from(OwnedFd::from(socket));
        socket.set_permissions(Permissions::from_mode(mode))?;
        Socket::from(OwnedFd::from(socket))
    } else {
        socket
    };
    socket.bind(&SockAddr::unix(path)?)?;
    if let Some(mode) = mode {
        // What the umask took.
        set_mode(path, mode)?;
    }
    Ok(socket.into())
}

/// Gives a socket's file a mode, where it has another: only its owner may (chmod(2)).
pub(crate) fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    if fs::metadata(path)?.permissions().mode() & 0o7777 == mode {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Connects to a Unix socket. A full backlog is an error ([`io::ErrorKind::WouldBlock`]).
pub(crate) fn connect_unix(path: &Path) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.cloexec().nonblocking(), None)?;
    socket.connect(&SockAddr::unix(path)?)?;
    socket.set_nonblocking(false)?;
    Ok(socket.into())
}

/// Whether somebody answers at the Unix socket of that path.
pub(crate) fn is_listened_on(path: &Path) -> io::Result<bool> {
    match connect_unix(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(false),
        // A full backlog.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) => Err(error),
        Ok(_) => Ok(true),
    }
}

/// Makes a listening socket of somebody else's ready for a driver.
pub(crate) fn take_listener(socket: &OwnedFd) -> io::Result<()> {
    let listener = SockRef::from(socket);
    if listener.r#type()? != Type::STREAM || !listener.is_listener()? {
        let problem = "it is no stream socket that listens";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    listener.set_nonblocking(true)?;
    listener.set_cloexec(true)
}

/// Whether others may bind to the address of a socket (SO_REUSEPORT).
pub(crate) fn shares_port(socket: &OwnedFd) -> bool {
    SockRef::from(socket).reuse_port().unwrap_or(false)
}

/// The path of a Unix socket, empty if it has none. `None`: it is another kind of socket.
pub(crate) fn unix_path(socket: &OwnedFd) -> Option<PathBuf> {
    let address = SockRef::from(socket).local_addr().ok()?;
    address.is_unix().then(|| address.as_pathname().map(Path::to_owned).unwrap_or_default())
}

/// A socket that connects to `peer`: it is connected, or has failed, once it is writable.
pub(crate) fn dial(
    peer: SocketAddr,
    source: Option<SocketAddr>,
    options: TcpOptions,
) -> io::Result<OwnedFd> {
    let domain = Domain::for_address(peer);
    let socket = Socket::new(domain, Type::STREAM.cloexec().nonblocking(), Some(Protocol::TCP))?;
    options.apply(&socket)?;
    if let Some(source) = source {
        if source.port() == 0 {
            choose_port_late(&socket)?;
        }
        socket.bind(&source.into())?;
    }
    match socket.connect(&peer.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket.into()),
    }
}

/// Leaves the choice of the port to connect(2), which may use one again for another destination.
fn choose_port_late(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    set_option(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, &on)
}

/// Has the kernel give connections at a port to one of the sockets that share it by the CPU on which they come in:
/// `cores` has that of each socket, in the order in which they began to listen. On other CPUs it is as without.
///
/// The sockets are one group, which has one program (SO_ATTACH_REUSEPORT_CBPF, socket(7)), whichever is asked.
pub(crate) fn choose_by_cpu(socket: &OwnedFd, cores: &[usize]) -> io::Result<()> {
    let mut program = program_by_cpu(cores)?;
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_mut_ptr(),
    };
    set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, &program)
}

/// Takes such a program away, if there is one.
pub(crate) fn choose_by_hash(socket: &OwnedFd) {
    let none: libc::c_int = 0;
    // ENOENT: there was none.
    let _ = set_option(socket, libc::SOL_SOCKET, libc::SO_DETACH_REUSEPORT_BPF, &none);
}

/// Loads the number of the CPU, compares it with each core, and returns the index of the one that is the same. One that
/// no socket has makes the kernel choose by hash.
fn program_by_cpu(cores: &[usize]) -> io::Result<Vec<libc::sock_filter>> {
    // Of linux/bpf_common.h.
    const LOAD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const CPU: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_CPU).cast_unsigned();
    let step = |code, k| libc::sock_filter { code, jt: 0, jf: 0, k };
    let mut program = vec![step(LOAD, CPU)];
    for (index, core) in (0..).zip(cores) {
        let core = u32::try_from(*core).map_err(io::Error::other)?;
        program.push(libc::sock_filter { jf: 1, ..step(JUMP_IF_EQUAL, core) });
        program.push(step(RETURN, index));
    }
    program.push(step(RETURN, u32::MAX));
    Ok(program)
}

/// setsockopt(2), for options of which socket2 has no name.
fn set_option<T>(
    socket: &impl AsRawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0);
    let value = std::ptr::from_ref(value).cast();
    #[expect(unsafe_code, reason = "socket2 has no name for these options")]
    // SAFETY: the kernel reads `len` bytes, which is the size of what it is given. A program that this points to is
    // alive in the caller, who has said how long it is.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value, len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The address that a listening socket was given.
pub(crate) fn local_addr(listener: &OwnedFd) -> io::Result<SocketAddr> {
    let address = SockRef::from(listener).local_addr()?;
    address.as_socket().ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// Who is at the other end of a socket, where it is a TCP socket that is still connected.
pub(crate) fn peer_addr(socket: &OwnedFd) -> Option<SocketAddr> {
    SockRef::from(socket).peer_addr().ok()?.as_socket()
}

/// What the kernel has counted of a TCP connection: what was received, and what was sent, without what was sent again.
/// `None`: it is no TCP socket.
pub(crate) fn traffic(socket: &impl AsRawFd) -> Option<Traffic> {
    let info = tcp_info(socket)?;
    let sent = info.tcpi_bytes_sent.saturating_sub(info.tcpi_bytes_retrans);
    Some(Traffic { received: info.tcpi_bytes_received, sent })
}

/// How far the peer of a socket has come with what was sent to it. `None`: the socket cannot be asked.
pub(crate) fn delivery(socket: &impl AsRawFd) -> Option<Delivery> {
    let mut waiting: libc::c_int = 0;
    #[expect(unsafe_code, reason = "this request has no safe wrapper")]
    // SAFETY: SIOCOUTQ (tcp(7)), which is TIOCOUTQ by another name, writes the one number on this stack.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut waiting) };
    if result != 0 {
        return None;
    }
    let info = tcp_info(socket);
    Some(Delivery {
        acked: info.map(|info| info.tcpi_bytes_acked),
        // Before Linux 5.4 there is no window, and what was acknowledged has to do.
        window_end: info.map_or(0, |info| info.tcpi_bytes_acked + u64::from(info.tcpi_snd_wnd)),
        waiting: usize::try_from(waiting).unwrap_or(0),
    })
}

/// What the kernel holds of what was sent on a socket, in bytes of memory: SO_MEMINFO, or what waits before Linux 4.12.
pub(crate) fn unsent_memory(socket: &impl AsRawFd) -> usize {
    let mut info = [0_u32; MEMINFO_VARS];
    let mut len = libc::socklen_t::try_from(size_of_val(&info)).unwrap_or(0);
    #[expect(unsafe_code, reason = "socket2 has no name for this option")]
    // SAFETY: the kernel writes at most `len` bytes, which is the size of the numbers on this stack.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if result != 0 {
        return delivery(socket).map_or(0, |delivery| delivery.waiting);
    }
    let [_, _, allocated, _, _, queued, ..] = info;
    usize::try_from(allocated.max(queued)).unwrap_or(usize::MAX)
}

/// Has a socket drop what it has not delivered when it is closed, if there is any: SO_LINGER of socket(7) with no time
/// to linger. The kernel would keep it for minutes otherwise, for a peer that does not take it.
pub(crate) fn discard_unsent<S: AsRawFd + AsFd>(socket: &S) {
    if delivery(socket).is_some_and(|delivery| delivery.waiting > 0) {
        // Fails on no socket that is open.
        let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
    }
}

/// TCP_INFO of tcp(7). Fields that the kernel does not know are zero. `None`: it is no TCP socket.
fn tcp_info(socket: &impl AsRawFd) -> Option<libc::tcp_info> {
    #[expect(unsafe_code, reason = "socket2 has no name for this option")]
    // SAFETY: all fields are numbers, for which zero is a value.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut len = libc::socklen_t::try_from(size_of_val(&info)).unwrap_or(0);
    #[expect(unsafe_code, reason = "socket2 has no name for this option")]
    // SAFETY: the kernel writes at most `len` bytes, which is the size of the struct on this stack.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut len,
        )
    };
    (result == 0).then_some(info)
}

/// Raises the soft limit of open descriptors to the hard one and returns it.
pub(crate) fn raise_descriptor_limit() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    }
    // None is no limit.
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// The connections that `descriptors` leave room for.
pub(crate) fn connections_within(descriptors: u64) -> usize {
    let connections = descriptors.saturating_sub(RESERVED_DESCRIPTORS).max(1);
    usize::try_from(connections).unwrap_or(usize::MAX)
}

/// The likely cause of an error, in words.
pub(crate) fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EADDRINUSE) => {
            " (another program listens there, without SO_REUSEPORT or as another user)"
        }
        Some(libc::EADDRNOTAVAIL) => " (no interface of this machine has that address)",
        Some(libc::EACCES) => {
            " (ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE)"
        }
        Some(libc::EMFILE) => {
            " (the process has RLIMIT_NOFILE descriptors open: raise it with ulimit -n or LimitNOFILE=)"
        }
        Some(libc::ENFILE) => " (the machine has fs.file-max files open)",
        _ => "",
    }
}

/// Sends what a socket takes at once, the first piece before the second (sendmsg(2)): so many bytes. 0 where it takes
/// nothing or is broken.
pub(crate) fn send_now(socket: impl AsFd, pieces: [&[u8]; 2]) -> usize {
    let pieces = pieces.map(IoSlice::new);
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let mut control = SendAncillaryBuffer::default();
    retry_on_intr(|| sendmsg(&socket, &pieces, &mut control, flags)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn two_listeners_share_a_port() {
        let config = Config::default();
        let first = listen(([127, 0, 0, 1], 0).into(), (&config).into()).unwrap();
        let address = local_addr(&first).unwrap();
        let second = listen(address, (&config).into()).unwrap();
        assert_eq!(local_addr(&second).unwrap(), address);
    }

    #[test]
    fn the_cpu_chooses_the_listener() {
        let config = Config::default();
        let first = listen_first(([127, 0, 0, 1], 0).into(), (&config).into()).unwrap();
        let address = local_addr(&first).unwrap();
        let listeners = [first, listen(address, (&config).into()).unwrap()];
        let cores = core_affinity::get_core_ids().unwrap();
        let accepted = |index: usize| SockRef::from(&listeners[index]).accept().is_ok();
        let connect = |core| {
            std::thread::spawn(move || {
                assert!(core_affinity::set_for_current(core));
                let peer = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                peer.connect(&address.into()).unwrap();
                peer
            })
            .join()
            .unwrap()
        };
        for core in &cores {
            for chosen in [0, 1] {
                // Which no CPU has.
                let mut program = [usize::from(u16::MAX); 2];
                program[chosen] = core.id;
                choose_by_cpu(&listeners[1], &program).unwrap();
                let _streams: Vec<_> = (0..16).map(|_| connect(*core)).collect();
                // On a busy machine the kernel may queue a connection after its peer has it.
                for _ in 0..16 {
                    let what = format!("listener {chosen}, CPU {}", core.id);
                    ringwire_peers::wait_until(&what, || accepted(chosen));
                }
                assert!(!accepted(1 - chosen));
            }
        }
        choose_by_hash(&listeners[0]);
        let _streams: Vec<_> = (0..64).map(|_| connect(cores[0])).collect();
        for index in [0, 1] {
            ringwire_peers::wait_until("both accept, by hash", || accepted(index));
        }
    }

    #[test]
    fn accepted_sockets_have_the_options() {
        let config = Config::default()
            .with_tcp_keepalive_time(Duration::from_secs(77))
            .with_tcp_keepalive_interval(Duration::from_secs(7))
            .with_tcp_keepalive_probes(5)
            .with_tcp_send_buffer_len(40_000)
            .with_tcp_receive_buffer_len(30_000);
        let plain = listen(([127, 0, 0, 1], 0).into(), (&Config::default()).into()).unwrap();
        assert!(!SockRef::from(&plain).keepalive().unwrap());
        let listener = Socket::from(listen(([127, 0, 0, 1], 0).into(), (&config).into()).unwrap());
        let peer = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        peer.connect(&listener.local_addr().unwrap()).unwrap();
        listener.set_nonblocking(false).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(accepted.keepalive().unwrap());
        assert_eq!(accepted.tcp_keepalive_time().unwrap(), Duration::from_secs(77));
        assert_eq!(accepted.tcp_keepalive_interval().unwrap(), Duration::from_secs(7));
        assert_eq!(accepted.tcp_keepalive_retries().unwrap(), 5);
        assert_eq!(accepted.tcp_user_timeout().unwrap(), Some(Duration::from_secs(30)));
        assert!(accepted.tcp_nodelay().unwrap());
        assert_eq!(accepted.tcp_notsent_lowat().unwrap(), 128 << 10);
        // socket(7): the kernel doubles what is asked for.
        assert_eq!(accepted.send_buffer_size().unwrap(), 80_000);
        assert_eq!(accepted.recv_buffer_size().unwrap(), 60_000);
    }

    /// On a Unix socket SIOCOUTQ is the memory of what was not read, and nobody counts what was.
    #[test]
    fn unix_sockets_say_what_waits() {
        use std::io::{Read as _, Write as _};
        let (mut near, mut far) = std::os::unix::net::UnixStream::pair().unwrap();
        near.write_all(&[0; 9000]).unwrap();
        let first = delivery(&near).unwrap();
        near.write_all(&[0; 9000]).unwrap();
        let full = delivery(&near).unwrap();
        assert!(first.waiting >= 9000 && full.waiting >= 18_000, "{first:?}, {full:?}");
        assert!(!full.has_moved_since(&first));
        far.read_exact(&mut [0; 9000]).unwrap();
        let half = delivery(&near).unwrap();
        assert!(half.has_moved_since(&full), "{full:?}, {half:?}");
        far.read_exact(&mut [0; 9000]).unwrap();
        assert_eq!(delivery(&near), Some(Delivery { acked: None, window_end: 0, waiting: 0 }));
    }

    #[test]
    fn the_descriptor_limit_leaves_a_reserve() {
        let limit = raise_descriptor_limit().unwrap();
        assert!(limit > 0);
        assert_eq!(connections_within(1064), 1000);
        assert_eq!(connections_within(3), 1);
    }
}
