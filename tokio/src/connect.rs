//! From a URL to a connection.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Response, Uri};
use ringwire_codec::handshake::HandshakeError;
use ringwire_codec::handshake::client::Request;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(feature = "tls")]
use tokio_rustls::{TlsConnector, client::TlsStream, rustls::pki_types::ServerName};

use crate::error::UrlProblem;
use crate::opening::in_time;
use crate::{Config, Error, WebSocketStream, client, request};

/// Connects to a `ws` URL, or with the feature `tls` to a `wss` URL.
///
/// ```no_run
/// # async fn example() -> Result<(), ringwire_tokio::Error> {
/// let mut socket = ringwire_tokio::connect("ws://localhost:9001/chat").await?;
/// socket.send("Hello").await?;
/// while let Some(message) = socket.receive().await? {
///     println!("{}", message.as_text().unwrap_or("(binary)"));
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As [`connect_with`].
pub async fn connect(url: &str) -> Result<WebSocketStream<ClientTransport>, Error> {
    Ok(connect_with(url, Config::shared(), Ok).await?.0)
}

/// Connects to a URL with a request that `prepare` has completed: with headers, an origin, subprotocols. Gives the
/// server's answer too.
///
/// The addresses of the host are tried one after the other, all within
/// [`handshake_timeout`](Config::handshake_timeout), and so is TLS; the handshake has as long again. Redirects are not
/// followed.
///
/// ```no_run
/// # use ringwire_tokio::{CompressionConfig, Config, Error, connect_with, http};
/// # async fn example(token: http::HeaderValue) -> Result<(), Error> {
/// let config = Config::default().with_compression(CompressionConfig::default());
/// let (socket, response) = connect_with("ws://localhost:9001/", config, |request| {
///     request.with_subprotocol("chat.v2")?.with_header(http::header::AUTHORIZATION, token)
/// })
/// .await?;
/// assert_eq!(socket.subprotocol(), Some("chat.v2"));
/// # drop(response);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Url`], [`Error::Io`] if no address could be connected to or TLS failed, `Error::Tls` if the default TLS
/// settings cannot be used, and as [`client`].
pub async fn connect_with(
    url: &str,
    config: impl Into<Arc<Config>>,
    prepare: impl FnOnce(Request) -> Result<Request, HandshakeError>,
) -> Result<(WebSocketStream<ClientTransport>, Response<()>), Error> {
    let config = config.into();
    let url = Url::parse(url).map_err(Error::Url)?;
    let request = prepare(request(&url.authority, &url.target)?)?;
    let stream = in_time(config.handshake_timeout, url.connect(&config)).await?;
    client(stream, request, config).await
}

struct Url {
    is_tls: bool,
    /// Without brackets.
    host: String,
    port: u16,
    /// As in a Host header.
    authority: String,
    target: String,
}

impl Url {
    fn parse(text: &str) -> Result<Self, UrlProblem> {
        // RFC 6455 §3: no fragment.
        if text.contains('#') {
            return Err(UrlProblem::Malformed);
        }
        let uri: Uri = text.parse().map_err(|_| UrlProblem::Malformed)?;
        let is_tls = match uri.scheme_str() {
            Some("ws") => false,
            Some("wss") if cfg!(feature = "tls") => true,
            Some("wss") => return Err(UrlProblem::NoTls),
            _ => return Err(UrlProblem::Scheme),
        };
        let authority = uri.authority().ok_or(UrlProblem::NoHost)?;
        if authority.as_str().contains('@') {
            return Err(UrlProblem::Credentials);
        }
        let host = authority.host();
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if bare.is_empty() {
            return Err(UrlProblem::NoHost);
        }
        let default_port = if is_tls { 443 } else { 80 };
        let port = match authority.as_str().strip_prefix(host) {
            Some("" | ":") => default_port,
            _ => authority.port_u16().filter(|port| *port > 0).ok_or(UrlProblem::Malformed)?,
        };
        let authority =
            if port == default_port { host.to_owned() } else { format!("{host}:{port}") };
        // RFC 6455 §3: an empty path is the root.
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let slash = if target.starts_with('/') { "" } else { "/" };
        let target = format!("{slash}{target}");
        Ok(Self { is_tls, host: bare.to_owned(), port, authority, target })
    }

    async fn connect(&self, config: &Config) -> Result<ClientTransport, Error> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        if !self.is_tls {
            return Ok(ClientTransport::Tcp(stream));
        }
        #[cfg(feature = "tls")]
        {
            let settings = match &config.tls {
                Some(settings) => settings.clone(),
                None => ringwire_tls::ClientConfig::shared()
                    .map_err(|error| Error::Tls(Box::new(error)))?,
            };
            let name = ServerName::try_from(self.host.clone())
                .map_err(|_| Error::Url(UrlProblem::NoHost))?;
            let stream = TlsConnector::from(settings.rustls()).connect(name, stream).await?;
            Ok(ClientTransport::Tls(Box::new(stream)))
        }
        #[cfg(not(feature = "tls"))]
        {
            let _ = config;
            Err(Error::Url(UrlProblem::NoTls))
        }
    }
}

/// What [`connect`] connects: TCP, or TLS on it.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientTransport {
    /// For `ws`.
    Tcp(TcpStream),
    /// For `wss`.
    #[cfg(feature = "tls")]
    Tls(Box<TlsStream<TcpStream>>),
}

/// Calls the method of the same name.
macro_rules! either {
    ($self:expr, $stream:ident => $call:expr) => {
        match $self {
            Self::Tcp($stream) => $call,
            #[cfg(feature = "tls")]
            Self::Tls($stream) => $call,
        }
    };
}

impl AsyncRead for ClientTransport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, buffer))
    }
}

impl AsyncWrite for ClientTransport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(cx, pieces))
    }

    fn is_write_vectored(&self) -> bool {
        either!(self, stream => stream.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(url: &str) -> Result<(String, u16, String, String), UrlProblem> {
        Url::parse(url).map(|url| (url.host, url.port, url.authority, url.target))
    }

    #[test]
    fn urls() {
        let parsed = |host: &str, port, authority: &str, target: &str| {
            Ok((host.to_owned(), port, authority.to_owned(), target.to_owned()))
        };
        assert_eq!(parts("ws://a.example"), parsed("a.example", 80, "a.example", "/"));
        assert_eq!(parts("ws://a:80/b?c=d"), parsed("a", 80, "a", "/b?c=d"));
        assert_eq!(parts("ws://[::1]:9/x"), parsed("::1", 9, "[::1]:9", "/x"));
        assert_eq!(parts("ws://a?b"), parsed("a", 80, "a", "/?b"));
        #[cfg(feature = "tls")]
        assert_eq!(parts("wss://a"), parsed("a", 443, "a", "/"));
        #[cfg(not(feature = "tls"))]
        assert_eq!(parts("wss://a"), Err(UrlProblem::NoTls));
        for (url, problem) in [
            ("http://a", UrlProblem::Scheme),
            ("a", UrlProblem::Scheme),
            ("ws://u:p@a", UrlProblem::Credentials),
            ("ws://a/#b", UrlProblem::Malformed),
            ("ws://a:99999", UrlProblem::Malformed),
            ("ws://a b", UrlProblem::Malformed),
            ("ws:///x", UrlProblem::Malformed),
        ] {
            assert_eq!(parts(url), Err(problem), "{url}");
        }
    }
}
