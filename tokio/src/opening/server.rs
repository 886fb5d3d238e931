//! The server's side (RFC 6455 §4.2).

use std::io;
use std::sync::Arc;

use ringwire_codec::Role;
use ringwire_codec::handshake::HandshakeError;
use ringwire_codec::handshake::server::{Accept, Request, Response};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use super::{in_time, read_head};
use crate::stream::Handshake;
use crate::{Config, Error, WebSocketStream};

/// Reads a client's request and accepts it, whatever its path, origin and subprotocols: see [`accept_with`].
///
/// ```
/// use ringwire_tokio::{Error, accept};
/// use tokio::net::TcpListener;
///
/// async fn serve(listener: TcpListener) -> std::io::Result<()> {
///     loop {
///         let (stream, _) = listener.accept().await?;
///         tokio::spawn(async move {
///             let mut socket = accept(stream).await?;
///             while let Some(message) = socket.receive().await? {
///                 socket.send(message).await?;
///             }
///             Ok::<(), Error>(())
///         });
///     }
/// }
/// ```
///
/// # Errors
/// As [`Incoming::read`] and [`Incoming::accept`].
pub async fn accept<S>(stream: S) -> Result<WebSocketStream<S>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    accept_with(stream, Config::shared(), |_| Ok(Accept::new())).await
}

/// Reads a client's request, and has `answer` decide on it. Where deciding takes time, use [`Incoming`].
///
/// Requests that are no proper upgrade are refused with the right status before `answer` is asked. What is not checked
/// is who may connect: browsers send cookies along from any page, so that a server which trusts them looks at
/// [`Request::origin`] (RFC 6455 §10.2).
///
/// ```
/// # use ringwire_tokio::{Config, Error, WebSocketStream, accept_with};
/// use ringwire_tokio::handshake::server::{Accept, Response};
/// use ringwire_tokio::http::StatusCode;
///
/// # async fn one(stream: tokio::net::TcpStream) -> Result<(), Error> {
/// let socket = accept_with(stream, Config::default(), |request| match request.path() {
///     "/chat" => Ok(Accept::new().with_subprotocol("chat.v2")),
///     _ => Err(Response::new(StatusCode::NOT_FOUND)),
/// })
/// .await?;
/// # drop(socket);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As [`Incoming::read`], [`Incoming::accept`] and [`Incoming::refuse`].
pub async fn accept_with<S, F>(
    stream: S,
    config: impl Into<Arc<Config>>,
    answer: F,
) -> Result<WebSocketStream<S>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: FnOnce(&Request<'_>) -> Result<Accept, Response>,
{
    let incoming = Incoming::read(stream, config).await?;
    let answer = answer(&incoming.request()?);
    match answer {
        Ok(accept) => incoming.accept(accept).await,
        Err(response) => Err(incoming.refuse(response).await),
    }
}

/// A proper request for an upgrade, which waits for its answer.
///
/// ```
/// # use ringwire_tokio::{Config, Error, Incoming, WebSocketStream};
/// # use ringwire_tokio::{handshake::server::{Accept, Response}, http::StatusCode};
/// # use tokio::net::TcpStream;
/// # async fn user_of(_token: String) -> Option<u64> { None }
/// async fn log_in(stream: TcpStream) -> Result<WebSocketStream<TcpStream>, Error> {
///     let incoming = Incoming::read(stream, Config::default()).await?;
///     let token = incoming.request()?.query().unwrap_or_default().to_owned();
///     match user_of(token).await {
///         Some(_) => incoming.accept(Accept::new()).await,
///         None => Err(incoming.refuse(Response::new(StatusCode::UNAUTHORIZED)).await),
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Incoming<S> {
    stream: S,
    config: Arc<Config>,
    /// A whole head, and what came behind it.
    bytes: Vec<u8>,
    head_len: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Incoming<S> {
    /// Reads a client's request. One that is no proper upgrade is refused, with the status that says why.
    ///
    /// # Errors
    /// [`Error::Handshake`] for such a request, [`Error::Timeout`] if none came in time, [`Error::Io`].
    pub async fn read(stream: S, config: impl Into<Arc<Config>>) -> Result<Self, Error> {
        let mut incoming = Self { stream, config: config.into(), bytes: Vec::new(), head_len: 0 };
        let limit = incoming.config.handshake_timeout;
        match in_time(limit, incoming.read_request()).await {
            Ok(()) => Ok(incoming),
            // The client has gone: there is nobody to answer.
            Err(Error::Handshake(HandshakeError::Incomplete)) => {
                Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
            }
            Err(Error::Handshake(error)) => {
                incoming.end(&Response::from(error)).await;
                Err(error.into())
            }
            Err(error) => Err(error),
        }
    }

    async fn read_request(&mut self) -> Result<(), Error> {
        let limits = &self.config.head_limits;
        self.head_len = read_head(&mut self.stream, &mut self.bytes, limits, |_| Ok(())).await?;
        self.request()?.check_upgrade()?;
        Ok(())
    }

    /// The request.
    ///
    /// # Errors
    /// None: it was parsed before.
    pub fn request(&self) -> Result<Request<'_>, HandshakeError> {
        let head = self.bytes.get(..self.head_len).unwrap_or_default();
        Request::parse(head, &self.config.head_limits)
    }

    /// Accepts it. Compression is agreed on as [`Config::compression`] has it.
    ///
    /// # Errors
    /// [`Error::Handshake`] for an answer that the request does not allow, such as a subprotocol that was not offered;
    /// the client gets 500 then. [`Error::Io`], [`Error::Timeout`].
    pub async fn accept(mut self, accept: Accept) -> Result<WebSocketStream<S>, Error> {
        let (out, handshake) = match self.answer(accept) {
            Ok(answer) => answer,
            Err(error) => {
                self.end(&Response::from(error)).await;
                return Err(error.into());
            }
        };
        in_time(self.config.handshake_timeout, async {
            self.stream.write_all(&out).await?;
            Ok(self.stream.flush().await?)
        })
        .await?;
        Ok(WebSocketStream::new(self.stream, Role::Server, self.config, handshake))
    }

    fn answer(&self, accept: Accept) -> Result<(Vec<u8>, Handshake), HandshakeError> {
        let request = self.request()?;
        let upgrade = request.check_upgrade()?;
        let policy = self.config.compression.map(|settings| settings.policy());
        let agreement = policy.and_then(|policy| upgrade.deflate(&policy));
        let subprotocol = accept.subprotocol().map(Box::from);
        let mut out = Vec::new();
        accept.with_deflate(agreement).encode(&upgrade, &mut out)?;
        let rest = self.bytes.get(self.head_len..).unwrap_or_default().to_vec();
        Ok((out, Handshake { agreement, subprotocol, rest }))
    }

    /// Refuses it, and gives [`Error::Rejected`].
    pub async fn refuse(mut self, response: Response) -> Error {
        self.end(&response).await;
        Error::Rejected(response.status())
    }

    /// Sends the last answer, and waits for the client to close: otherwise what it still sends would make a reset of
    /// the end, and the answer would be lost.
    async fn end(&mut self, response: &Response) {
        let mut out = Vec::new();
        response.encode(&mut out);
        let say_it = async {
            self.stream.write_all(&out).await?;
            self.stream.shutdown().await?;
            let mut dropped = [0; 1 << 10];
            while self.stream.read(&mut dropped).await? > 0 {}
            io::Result::Ok(())
        };
        // The request has failed whether the client hears of it or not.
        let _ = timeout(self.config.close_timeout, say_it).await;
    }
}
