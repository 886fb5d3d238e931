//! Connections that this side opens: what is asked for, and what can go wrong before they are open.

use std::any::Any;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use http::{HeaderName, HeaderValue};
use ringwire_codec::deflate::{Offer, WindowBits};
use ringwire_codec::extension::SharedExtension;
use ringwire_codec::handshake::{HandshakeError, client};
use ringwire_tls::ClientConfig;
use ringwire_tls::pki_types::ServerName;

/// A connection to be opened by [`Handle::connect`](crate::Handle::connect). One value serves any number of them.
///
/// Addresses are not looked up here: a worker must not wait for a name server.
#[derive(Clone, Debug)]
pub struct Dial {
    pub(crate) peer: SocketAddr,
    pub(crate) source: Option<SocketAddr>,
    pub(crate) request: client::Request,
    /// What this dial has to say about the offer of compression; none: there is to be none.
    pub(crate) offer: Option<Offer>,
    pub(crate) tls: Option<DialTls>,
}

/// TLS of a connection that this side opens.
pub(crate) type DialTls = (ClientConfig, ServerName<'static>);

impl Dial {
    /// A connection to the server at `peer`, for the resource `target` (path and query, `/` at least) of `host` (with
    /// its port, unless that is 80, or 443 with TLS), as in `ws://host/target`.
    ///
    /// # Errors
    /// `host` is no host, or `target` is no path.
    pub fn new(peer: SocketAddr, host: &str, target: &str) -> Result<Self, HandshakeError> {
        let request = client::Request::new(host, target, [0; 16])?;
        Ok(Self { peer, source: None, request, offer: Some(Offer::default()), tls: None })
    }

    /// The address and port to connect from. Default: what the kernel chooses. With port 0 it chooses that alone, and
    /// late enough for one source address to have 64 K connections to each server address (IP_BIND_ADDRESS_NO_PORT,
    /// ip(7)); more take more source addresses, such as those of 127.0.0.0/8.
    #[must_use]
    pub fn with_source(mut self, source: SocketAddr) -> Self {
        self.source = Some(source);
        self
    }

    /// Connects over TLS to a server of this name. Default: plain.
    #[must_use]
    pub fn with_tls(mut self, config: ClientConfig, name: ServerName<'static>) -> Self {
        self.tls = Some((config, name));
        self
    }

    /// Offers no compression, whatever [`Config::compression`](crate::Config::compression) says. Default: it is offered
    /// as that says.
    #[must_use]
    pub fn without_compression(mut self) -> Self {
        self.offer = None;
        self
    }

    /// The largest window of this side's compressor, as a power of two, and no more than that of
    /// [`Config::compression`](crate::Config::compression), if compression is offered at all. The server is told so
    /// (`client_max_window_bits`, RFC 7692 §7.1.2.2), and may ask for less. Default: that of the settings; if these say
    /// 15 bits, the server is told nothing, which all servers understand, and may not ask.
    #[must_use]
    pub fn with_max_window(mut self, bits: WindowBits) -> Self {
        self.offer = self.offer.map(|offer| offer.with_client_max_window_bits(bits));
        self
    }

    /// Offers a subprotocol, less preferred than those before it. Default: none.
    ///
    /// # Errors
    /// It is no token, or is offered already (RFC 6455 §4.1).
    pub fn with_subprotocol(mut self, name: &str) -> Result<Self, HandshakeError> {
        self.request = self.request.with_subprotocol(name)?;
        Ok(self)
    }

    /// Sets the Origin header. Default: none, as for clients that are no browser.
    #[must_use]
    pub fn with_origin(mut self, origin: HeaderValue) -> Self {
        self.request = self.request.with_origin(origin);
        self
    }

    /// Offers an extension of the application's own, behind compression and those before it. Default: none.
    ///
    /// # Errors
    /// Its name or a parameter of its offer is no token, or its name is permessage-deflate or offered already.
    pub fn with_extension(mut self, extension: SharedExtension) -> Result<Self, HandshakeError> {
        self.request = self.request.with_extension(extension)?;
        Ok(self)
    }

    /// Adds a header, such as Authorization.
    ///
    /// # Errors
    /// The handshake writes that one itself.
    pub fn with_header(
        mut self,
        name: HeaderName,
        value: HeaderValue,
    ) -> Result<Self, HandshakeError> {
        self.request = self.request.with_header(name, value)?;
        Ok(self)
    }
}

/// A socket that connects, on its way to its worker.
#[derive(Debug)]
pub(crate) struct Outbound {
    pub(crate) socket: OwnedFd,
    pub(crate) peer: SocketAddr,
    pub(crate) request: client::Request,
    pub(crate) offer: Option<Offer>,
    pub(crate) tls: Option<DialTls>,
    pub(crate) state: Box<dyn Any + Send>,
}
