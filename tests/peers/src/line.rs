//! Bytes to and from the end that is tested, and the ends of their stream.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, SupportedProtocolVersion, version};
use socket2::{Domain, SockRef, Socket, Type};

use crate::PATIENCE;

/// How a line goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Nothing but TCP.
    Plain,
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl Way {
    /// The version of TLS.
    #[must_use]
    pub fn version(self) -> Option<&'static SupportedProtocolVersion> {
        match self {
            Self::Plain => None,
            Self::Tls12 => Some(&version::TLS12),
            Self::Tls13 => Some(&version::TLS13),
        }
    }
}

/// How a peer ends what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// FIN, and over TLS no close_notify before it.
    Fin,
    /// close_notify alone: the TCP connection stays open both ways.
    Notice,
    /// close_notify, and FIN behind it.
    NoticeAndFin,
}

/// Each way to be connected with each way to end.
pub const ENDS: [(Way, End); 6] = [
    (Way::Plain, End::Fin),
    (Way::Tls13, End::Fin),
    (Way::Tls13, End::Notice),
    (Way::Tls13, End::NoticeAndFin),
    (Way::Tls12, End::Notice),
    (Way::Tls12, End::NoticeAndFin),
];

/// A stream of bytes to a server: TCP or a Unix socket, and TLS by rustls's own connection.
#[derive(Debug)]
pub struct Line {
    /// The socket.
    pub stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    /// What came and was not looked at.
    pub(crate) heard: Vec<u8>,
}

/// What a read gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Perhaps bytes, and not yet the end.
    Some,
    /// The server's end of the stream.
    End,
    Reset,
    /// Not in time.
    Nothing,
}

impl From<TcpStream> for Line {
    fn from(stream: TcpStream) -> Self {
        Self { stream, tls: None, heard: Vec::new() }
    }
}

impl Line {
    /// A plain connection.
    #[must_use]
    pub fn connect(addr: SocketAddr) -> Self {
        connect(addr).into()
    }

    /// A connection to a Unix socket.
    #[must_use]
    pub fn connect_unix(path: &Path) -> Self {
        let stream = UnixStream::connect(path).expect("the server accepts");
        // To read, write and shut down, a socket is a socket.
        let stream = TcpStream::from(OwnedFd::from(stream));
        limit_waits(&stream);
        stream.into()
    }

    /// A connection to `localhost` whose TLS handshake is over.
    #[must_use]
    pub fn connect_tls(addr: SocketAddr, config: &Arc<ClientConfig>) -> Self {
        let mut stream = connect(addr);
        let name = ServerName::try_from("localhost").expect("a name");
        let mut tls = ClientConnection::new(Arc::clone(config), name).expect("a connection");
        tls.set_buffer_limit(None);
        while tls.is_handshaking() {
            tls.complete_io(&mut stream).expect("the server shakes hands");
        }
        Self { stream, tls: Some(Box::new(tls)), heard: Vec::new() }
    }

    // What it says

    /// Sends bytes as they are, over TLS in records.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.try_raw(bytes).expect("the server takes it");
    }

    /// The same to a server that may be gone.
    pub(crate) fn try_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.tls.is_none() {
            return self.stream.write_all(bytes);
        }
        let bytes = self.seal(bytes);
        self.stream.write_all(&bytes)
    }

    /// What goes over the wire for these bytes.
    fn seal(&mut self, bytes: &[u8]) -> Vec<u8> {
        let Some(tls) = &mut self.tls else { return bytes.to_vec() };
        tls.writer().write_all(bytes).expect("it takes all");
        drain(tls)
    }

    /// Ends what it says.
    pub fn end_with(&mut self, how: End) {
        let notice = self.last_words(how);
        end(&mut self.stream, &notice, how);
    }

    /// Says this and ends its stream, on a thread, while it may read already.
    pub fn raw_and_end(&mut self, bytes: &[u8], how: End) -> JoinHandle<()> {
        let bytes = self.seal(bytes);
        let notice = self.last_words(how);
        let mut stream = self.stream.try_clone().expect("a loopback socket works");
        thread::spawn(move || {
            stream.write_all(&bytes).expect("the server takes it");
            end(&mut stream, &notice, how);
        })
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("SO_LINGER can be set");
    }

    /// close_notify, where that is a part of the end.
    fn last_words(&mut self, how: End) -> Vec<u8> {
        match &mut self.tls {
            Some(tls) if how != End::Fin => {
                tls.send_close_notify();
                drain(tls)
            }
            _ => Vec::new(),
        }
    }

    // What it hears

    /// All until the server's end of the stream, which over TLS is close_notify and FIN (RFC 8446 §6.1). A reset fails.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.hear() {}
        std::mem::take(&mut self.heard)
    }

    /// Reads once. `false`: the stream has ended. A reset fails, and so does silence.
    pub(crate) fn hear(&mut self) -> bool {
        match self.hear_within(PATIENCE) {
            Heard::Some => true,
            Heard::End => false,
            other => panic!("{other:?} where bytes or FIN were expected"),
        }
    }

    /// Reads once.
    pub(crate) fn hear_within(&mut self, time: Duration) -> Heard {
        self.stream.set_read_timeout(Some(time)).expect("a time above zero");
        let mut buffer = vec![0; 64 << 10];
        let len = loop {
            match self.stream.read(&mut buffer) {
                Ok(len) => break len,
                // A thread that made a ring may be interrupted for it.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    return Heard::Nothing;
                }
                Err(_) => return Heard::Reset,
            }
        };
        let ended = match &mut self.tls {
            Some(tls) => open(tls, &buffer[..len], &mut self.heard),
            None => {
                self.heard.extend_from_slice(&buffer[..len]);
                true
            }
        };
        if len > 0 {
            return Heard::Some;
        }
        assert!(ended, "FIN without close_notify");
        Heard::End
    }
}

/// Takes records in, and says whether close_notify has come.
fn open(tls: &mut ClientConnection, mut records: &[u8], plaintext: &mut Vec<u8>) -> bool {
    let mut ended = false;
    while !records.is_empty() {
        tls.read_tls(&mut records).expect("a slice can be read");
        let state = tls.process_new_packets().expect("correct records");
        let start = plaintext.len();
        plaintext.resize(start + state.plaintext_bytes_to_read(), 0);
        tls.reader().read_exact(&mut plaintext[start..]).expect("it is there");
        ended |= state.peer_has_closed();
    }
    ended || matches!(tls.reader().read(&mut [0]), Ok(0))
}

fn end(stream: &mut TcpStream, notice: &[u8], how: End) {
    stream.write_all(notice).expect("the server takes it");
    if how != End::Notice {
        stream.shutdown(Shutdown::Write).expect("it is connected");
    }
}

fn drain(tls: &mut ClientConnection) -> Vec<u8> {
    let mut out = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut out).expect("memory takes it");
    }
    out
}

/// A connection to the server, before any request.
#[must_use]
pub fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&addr, PATIENCE).expect("the server accepts");
    stream.set_nodelay(true).expect("TCP_NODELAY can be set");
    limit_waits(&stream);
    stream
}

/// The same with a receive buffer of about `len` bytes, as a peer has it that reads slowly.
#[must_use]
pub fn narrow(addr: SocketAddr, len: usize) -> TcpStream {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).expect("a socket");
    // Before it connects: the window is agreed on with SYN.
    socket.set_recv_buffer_size(len).expect("SO_RCVBUF can be set");
    socket.connect(&addr.into()).expect("the server accepts");
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true).expect("TCP_NODELAY can be set");
    limit_waits(&stream);
    stream
}

/// An address that refuses connections: nobody listens there, and nobody else gets it while the socket is kept.
///
/// # Panics
///
/// If there are no ports left.
#[must_use]
pub fn unheard() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("sockets can be had");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port is free");
    let addr = socket.local_addr().expect("it is bound");
    (socket, addr.as_socket().expect("it is an IP address"))
}

fn limit_waits(stream: &TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).expect("a time above zero");
    stream.set_write_timeout(Some(PATIENCE)).expect("a time above zero");
}
