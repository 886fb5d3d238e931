//! What a client is told before it connects.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use ringwire_codec::Config as ProtocolConfig;
use ringwire_codec::extension::SharedExtension;
use ringwire_tls::ClientConfig;

use crate::blocking::Client;
use crate::channel::Channel;
use crate::compression::{Deflate, DeflateConfig};
use crate::connection::Settings;
use crate::dial;
use crate::error::{Error, RedirectProblem, UrlProblem};
use crate::handshake::{Outcome, Upgraded, upgrade};
use crate::offer::Handshake;
use crate::proxy::{Choice, Proxy};
use crate::url::{Place, Url};
use crate::wire::{Wire, after};

/// Settings of a client, and what connects it. One builder may connect any number of clients.
///
/// The default is fit for the open internet. `None` for a duration switches off what it limits. Zero is an
/// [`Error::Setting`] when it connects, except for the read and the close timeout.
///
/// ```
/// use std::time::Duration;
/// use ringwire_client::http::{HeaderValue, header};
/// use ringwire_client::{Client, DeflateConfig, OwnedMessage, Url};
///
/// # mod server { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doc/server.rs")); }
/// # let address = server::start(|request, _| request.contains("Bearer secret"));
/// let mut token = HeaderValue::from_static("Bearer secret");
/// token.set_sensitive(true);
/// let builder = Client::builder()
///     .with_header(header::AUTHORIZATION, token)
///     .with_subprotocol("chat")
///     .with_compression(DeflateConfig::default())
///     .with_read_timeout(Duration::from_secs(10))
///     .with_ping_interval(None)
///     .without_proxy();
/// let url: Url = format!("ws://{address}/").parse()?;
/// let mut client = builder.connect(url.with_query("room", "Nº 7"))?;
/// client.send_text("hello")?;
/// assert_eq!(client.receive()?, Some(OwnedMessage::from("hello")));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Builder {
    pub(super) handshake: Handshake,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) handshake_timeout: Option<Duration>,
    pub(super) read_timeout: Option<Duration>,
    pub(super) write_timeout: Option<Duration>,
    pub(super) close_timeout: Duration,
    pub(super) ping_interval: Option<Duration>,
    pub(super) peer_timeout: Option<Duration>,
    pub(super) heartbeat_thread: bool,
    pub(super) protocol: ProtocolConfig,
    pub(super) nodelay: bool,
    pub(super) tls: Option<ClientConfig>,
    pub(super) proxy: Choice,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            handshake: Handshake::default(),
            connect_timeout: Some(Duration::from_secs(10)),
            handshake_timeout: Some(Duration::from_secs(10)),
            read_timeout: None,
            write_timeout: Some(Duration::from_secs(20)),
            close_timeout: Duration::from_secs(5),
            ping_interval: Some(Duration::from_secs(30)),
            peer_timeout: Some(Duration::from_secs(60)),
            heartbeat_thread: false,
            // A client has chosen its server, whose messages may be nearly empty up to their greatest length.
            protocol: ProtocolConfig::default().with_inflate_ratio_floor(1 << 20),
            nodelay: true,
            tls: None,
            proxy: Choice::Environment,
        }
    }
}

impl Client {
    /// Settings for a client, by which it is connected.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }
}

impl Builder {
    /// Sets a header of the request in place of all of its name. To another host that a redirect leads to it is not
    /// sent if its value is marked as sensitive ([`HeaderValue::set_sensitive`]), or its name sounds like a credential:
    /// Authorization, Cookie, `X-Api-Key`, and what has `token`, `secret`, `session`, `auth` and the like in it.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.handshake.set_header(name, value);
        self
    }

    /// Adds a header to the request beside others of its name; the rest is as with [`with_header`](Self::with_header).
    #[must_use]
    pub fn append_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.handshake.headers.push((name, value));
        self
    }

    /// Offers a subprotocol, less preferred than those before it. Default: none. If one of them may be a token (its
    /// name sounds so, or has 32 characters or more), none is offered to another host that a redirect leads to.
    #[must_use]
    pub fn with_subprotocol(mut self, name: &str) -> Self {
        self.handshake.subprotocols.push(name.to_owned());
        self
    }

    /// Sets the Origin header, which browsers send and servers may check. Default: none.
    #[must_use]
    pub fn with_origin(mut self, origin: HeaderValue) -> Self {
        self.handshake.origin = Some(origin);
        self
    }

    /// For finding the host's addresses and connecting to one of them, and for the proxy's part. Default: 10 s.
    #[must_use]
    pub fn with_connect_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.connect_timeout = timeout.into();
        self
    }

    /// For TLS, the request and the answer together. Default: 10 s. Each redirect has both times anew.
    #[must_use]
    pub fn with_handshake_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.handshake_timeout = timeout.into();
        self
    }

    /// The longest time that [`receive`](Client::receive) waits. Default: none, for ever.
    #[must_use]
    pub fn with_read_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.read_timeout = timeout.into();
        self
    }

    /// The longest time that the socket may take for one message. Default: 20 s. After it the connection is over,
    /// since half a message cannot be taken back.
    #[must_use]
    pub fn with_write_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.write_timeout = timeout.into();
        self
    }

    /// For the peer's part of the close handshake. Default: 5 s. Zero does not wait for it, and reports a timeout.
    #[must_use]
    pub fn with_close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
    }

    /// After how much silence of the peer it is sent a ping. Default: 30 s.
    ///
    /// Pings go out, and the peer's silence counts, while somebody receives, or always with
    /// [`with_heartbeat_thread`](Self::with_heartbeat_thread).
    #[must_use]
    pub fn with_ping_interval(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.ping_interval = interval.into();
        self
    }

    /// After how much silence the peer is taken for dead. Default: 60 s. It has to be longer than the ping interval, so
    /// that the peer has a ping to answer; otherwise connecting fails with [`Error::Setting`].
    #[must_use]
    pub fn with_peer_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.peer_timeout = timeout.into();
        self
    }

    /// Whether the connection has a thread of its own that does what is owed while nobody receives: it answers pings,
    /// sends them, and ends the connection when the peer is dead. Default: no.
    ///
    /// It reads ahead, and messages wait for who receives, as do pongs that are not empty; pings and empty pongs are
    /// not reported then. With 256 KiB of them it stops, so that the peer is held up as it would be without the thread:
    /// from then on pings still go out, and the peer's stay unanswered. Worst case in memory: so much and one message,
    /// and the thread's stack.
    #[must_use]
    pub fn with_heartbeat_thread(mut self, heartbeat_thread: bool) -> Self {
        self.heartbeat_thread = heartbeat_thread;
        self
    }

    /// The longest message that is received, in bytes. Default: 1 MiB. Worst case in memory: this much, once the peer
    /// has sent it.
    #[must_use]
    pub fn with_max_message_len(mut self, len: usize) -> Self {
        self.protocol = self.protocol.with_max_message_len(len);
        self
    }

    /// All limits of the protocol. Control frames are counted by the second. Default: that of [`ProtocolConfig`], but
    /// [`inflate_ratio_floor`](ProtocolConfig::inflate_ratio_floor) is 1 MiB, so that no message of the greatest
    /// default length is refused for how well it compresses.
    #[must_use]
    pub fn with_protocol(mut self, config: ProtocolConfig) -> Self {
        self.protocol = config;
        self
    }

    /// Offers an extension of the application's own, behind compression and those before it. One whose name or
    /// parameters are no tokens, or that is offered twice, is an error of [`connect`](Self::connect). Default: none.
    #[must_use]
    pub fn with_extension(mut self, extension: SharedExtension) -> Self {
        self.handshake.extensions.push(extension);
        self
    }

    /// Offers compression to the server. Default: none is offered.
    #[must_use]
    pub fn with_compression(mut self, config: DeflateConfig) -> Self {
        self.handshake.compression = Some(config);
        self
    }

    /// Whether small messages go out at once, without Nagle's algorithm (TCP_NODELAY, tcp(7)). Default: yes.
    #[must_use]
    pub fn with_tcp_nodelay(mut self, nodelay: bool) -> Self {
        self.nodelay = nodelay;
        self
    }

    /// The most redirects that are followed. Default: 0, as in browsers: a redirect is a refusal, whose
    /// [`headers`](crate::Refusal::headers) say where to.
    ///
    /// None is followed from `wss` to `ws`, nor away from a Unix socket or to one. Credentials (of the URL, and what
    /// [`with_header`](Self::with_header) and [`with_subprotocol`](Self::with_subprotocol) take for such) stay with the
    /// host they are for.
    #[must_use]
    pub fn with_max_redirects(mut self, count: u32) -> Self {
        self.handshake.max_redirects = count;
        self
    }

    /// The longest body of a refusal that is kept, in bytes. Default: 16 KiB. Worst case in memory: twice as much,
    /// while it arrives.
    #[must_use]
    pub fn with_max_refusal_len(mut self, len: usize) -> Self {
        self.handshake.max_refusal_len = len;
        self
    }

    /// The TLS configuration for `wss`. Default: the authorities of the system and those of Mozilla
    /// ([`ClientConfig::shared`]).
    #[must_use]
    pub fn with_tls(mut self, config: ClientConfig) -> Self {
        self.tls = Some(config);
        self
    }

    /// Connects through this proxy. Default: the one that the environment names.
    ///
    /// `https_proxy` is for `wss`, `http_proxy` for `ws`, `all_proxy` for both, each also in capitals, except for
    /// `HTTP_PROXY` in a CGI program, where it is a request's header (CVE-2016-5385). This machine and what `no_proxy`
    /// lists are connected to directly. Unix sockets have no proxy.
    #[must_use]
    pub fn with_proxy(mut self, proxy: Proxy) -> Self {
        self.proxy = Choice::One(proxy);
        self
    }

    /// Connects through the proxy that a function of the URL chooses, or directly where it gives none. It is asked anew
    /// for each connection and after each redirect, but not for Unix sockets, nor for addresses with a zone, which mean
    /// nothing to a proxy.
    ///
    /// ```
    /// use ringwire_client::{Client, Proxy};
    ///
    /// let proxy: Proxy = "http://proxy.example:3128".parse()?;
    /// let builder = Client::builder().with_proxy_by(move |url| {
    ///     let is_ours = url.host().is_some_and(|host| host.ends_with(".internal.example"));
    ///     (!is_ours).then(|| proxy.clone())
    /// });
    /// # Ok::<(), ringwire_client::Error>(())
    /// ```
    #[must_use]
    pub fn with_proxy_by(
        mut self,
        choose: impl Fn(&Url) -> Option<Proxy> + Send + Sync + 'static,
    ) -> Self {
        self.proxy = Choice::By(Arc::new(choose));
        self
    }

    /// Connects directly, whatever the environment says.
    #[must_use]
    pub fn without_proxy(mut self) -> Self {
        self.proxy = Choice::None;
        self
    }

    /// Connects and shakes hands.
    ///
    /// The URL is text or a [`Url`], which says what is understood.
    ///
    /// # Errors
    /// Any of [`Error`] but those of an open connection.
    pub fn connect<U: TryInto<Url>>(&self, url: U) -> Result<Client, Error>
    where
        UrlProblem: From<U::Error>,
    {
        self.check()?;
        self.connect_to(url.try_into().map_err(UrlProblem::from)?)
    }

    fn connect_to(&self, mut url: Url) -> Result<Client, Error> {
        // What has left the host once does not get its credentials back.
        let mut with_credentials = true;
        let mut redirect_count = 0;
        loop {
            let tls = self.tls_for(&url)?;
            let wire = self.dial(&url)?;
            let mut channel = self.channel(wire, &url, tls.as_ref())?;
            match upgrade(&self.handshake, &url, with_credentials, &mut channel)? {
                Outcome::Upgraded(upgraded) => return self.client(channel, *upgraded),
                Outcome::Redirect(_) if redirect_count == self.handshake.max_redirects => {
                    return Err(Error::Redirect(RedirectProblem::TooMany));
                }
                Outcome::Redirect(location) => {
                    let next = url.redirect(&location)?;
                    with_credentials &= url.is_same_host(&next);
                    url = next;
                }
            }
            redirect_count += 1;
        }
    }

    /// Shakes hands on a connected stream socket (TCP or Unix) that somebody else has made, for this URL; with `wss`,
    /// TLS comes first. Redirects are refusals.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn from_stream<U: TryInto<Url>>(
        &self,
        url: U,
        stream: impl Into<OwnedFd>,
    ) -> Result<Client, Error>
    where
        UrlProblem: From<U::Error>,
    {
        self.check()?;
        let url = url.try_into().map_err(UrlProblem::from)?;
        let direct = Handshake { max_redirects: 0, ..self.handshake.clone() };
        let tls = self.tls_for(&url)?;
        let wire = Wire::new(stream.into()).map_err(Error::Lost)?;
        let mut channel = self.channel(wire, &url, tls.as_ref())?;
        match upgrade(&direct, &url, true, &mut channel)? {
            Outcome::Upgraded(upgraded) => self.client(channel, *upgraded),
            Outcome::Redirect(_) => Err(Error::Redirect(RedirectProblem::TooMany)),
        }
    }

    /// A client on a stream socket whose handshake is done, with the bytes that came behind it. Messages are not
    /// compressed.
    ///
    /// # Errors
    /// The socket cannot be used.
    pub fn from_upgraded(
        &self,
        stream: impl Into<OwnedFd>,
        rest: Vec<u8>,
    ) -> Result<Client, Error> {
        self.check()?;
        let wire = Wire::new(stream.into()).map_err(Error::Lost)?;
        let upgraded = Upgraded { rest, ..Upgraded::default() };
        self.client(Channel::plain(wire, None), upgraded)
    }

    fn check(&self) -> Result<(), Error> {
        let wrong =
            |setting, problem: &str| Err(Error::Setting { setting, problem: problem.to_owned() });
        for (setting, time) in [
            ("connect_timeout", self.connect_timeout),
            ("handshake_timeout", self.handshake_timeout),
            ("write_timeout", self.write_timeout),
            ("ping_interval", self.ping_interval),
            ("peer_timeout", self.peer_timeout),
        ] {
            if time.is_some_and(|time| time.is_zero()) {
                return wrong(setting, "nothing takes no time; None switches it off");
            }
        }
        match (self.peer_timeout, self.ping_interval) {
            (Some(timeout), Some(interval)) if timeout <= interval => wrong(
                "peer_timeout",
                "it must be longer than ping_interval, or the peer has nothing to answer",
            ),
            _ => Ok(()),
        }
    }

    /// Connects a socket to the URL's host, through a proxy if there is one.
    fn dial(&self, url: &Url) -> Result<Wire, Error> {
        let deadline = after(self.connect_timeout);
        let (host, port) = match &url.place {
            Place::Socket(path) => {
                return Wire::new(dial::connect_unix(path, deadline)?).map_err(Error::Lost);
            }
            Place::Host(host, port) => (host, *port),
        };
        if let Some(scoped) = url.scoped_host() {
            // A link-local address means nothing to a proxy.
            let socket = dial::connect_host(&scoped, port, self.nodelay, deadline)?;
            return Wire::new(socket).map_err(Error::Lost);
        }
        let Some(proxy) = self.proxy.proxy_for(url, host, port)? else {
            let socket = dial::connect_host(host, port, self.nodelay, deadline)?;
            return Wire::new(socket).map_err(Error::Lost);
        };
        let socket = dial::connect_host(proxy.host(), proxy.port(), self.nodelay, deadline)?;
        let wire = Wire::new(socket).map_err(Error::Lost)?;
        proxy.tunnel(wire, host, port, deadline)
    }

    /// The settings of TLS, if the URL asks for it. What is wrong with them is said before anybody is connected to.
    fn tls_for(&self, url: &Url) -> Result<Option<ClientConfig>, Error> {
        Ok(match &self.tls {
            _ if !url.is_tls => None,
            Some(config) => Some(config.clone()),
            None => Some(ClientConfig::shared()?),
        })
    }

    fn channel(&self, wire: Wire, url: &Url, tls: Option<&ClientConfig>) -> Result<Channel, Error> {
        let deadline = after(self.handshake_timeout);
        match tls {
            Some(config) => Channel::tls(wire, config, url.name(), deadline),
            None => Ok(Channel::plain(wire, deadline)),
        }
    }

    fn client(&self, channel: Channel, upgraded: Upgraded) -> Result<Client, Error> {
        let settings = Settings {
            protocol: self.protocol,
            read_timeout: self.read_timeout,
            write_timeout: self.write_timeout,
            close_timeout: self.close_timeout,
            ping_interval: self.ping_interval,
            peer_timeout: self.peer_timeout,
            heartbeat_thread: self.heartbeat_thread,
        };
        let deflate = self
            .handshake
            .compression
            .zip(upgraded.deflate)
            .map(|(settings, agreement)| Deflate::new(settings, agreement));
        Client::new(channel, upgraded, deflate, settings)
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Headers may hold cookies and tokens: their names are enough for a log.
        f.debug_struct("Builder")
            .field(
                "headers",
                &self.handshake.headers.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            )
            .field("subprotocols", &self.handshake.subprotocols)
            .field("proxy", &self.proxy)
            .finish_non_exhaustive()
    }
}
