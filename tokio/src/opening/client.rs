//! The client's side (RFC 6455 §4.1).

use std::sync::Arc;

use http::{Response, StatusCode};
use ringwire_codec::Role;
use ringwire_codec::handshake::HandshakeError;
use ringwire_codec::handshake::client::{Request, Response as Head};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use super::{in_time, read_head};
use crate::buffers::random;
use crate::stream::Handshake;
use crate::{Config, Error, WebSocketStream};

/// A request for the resource `target` of `host` (with its port, unless that is the scheme's own), with a fresh nonce.
///
/// # Errors
/// [`Error::Handshake`] if either is malformed.
pub fn request(host: &str, target: &str) -> Result<Request, Error> {
    Ok(Request::new(host, target, random())?)
}

/// Makes the handshake on a stream that is connected already: a Unix socket, one behind a proxy, one with a TLS of the
/// program's own. Gives the server's answer too.
///
/// Compression is offered as [`Config::compression`] has it.
///
/// ```
/// # use ringwire_tokio::{Config, Error, accept, client, request};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Error> {
/// let (near, far) = tokio::io::duplex(1 << 10);
/// let server = async {
///     let mut socket = accept(far).await?;
///     while let Some(message) = socket.receive().await? {
///         socket.send(message).await?;
///     }
///     Ok::<(), Error>(())
/// };
/// let client = async {
///     let request = request("localhost", "/")?;
///     let (mut socket, response) = client(near, request, Config::default()).await?;
///     assert_eq!(response.status(), 101);
///     socket.send("Hello").await?;
///     assert_eq!(socket.receive().await?.as_ref().and_then(|it| it.as_text()), Some("Hello"));
///     socket.close(ringwire_tokio::CloseCode::NORMAL, "").await
/// };
/// tokio::try_join!(server, client)?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Refused`] if the server's answer is not 101, [`Error::Handshake`] if it is wrong, [`Error::Timeout`],
/// [`Error::Io`].
pub async fn client<S>(
    stream: S,
    request: Request,
    config: impl Into<Arc<Config>>,
) -> Result<(WebSocketStream<S>, Response<()>), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = config.into();
    in_time(config.handshake_timeout, shake_hands(stream, request, &config)).await
}

async fn shake_hands<S>(
    mut stream: S,
    request: Request,
    config: &Arc<Config>,
) -> Result<(WebSocketStream<S>, Response<()>), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = match config.compression {
        Some(settings) => request.with_deflate(settings.offer()),
        None => request,
    };
    let mut bytes = Vec::new();
    request.encode(&mut bytes);
    stream.write_all(&bytes).await?;
    stream.flush().await?;
    bytes.clear();
    loop {
        let head_len =
            read_head(&mut stream, &mut bytes, &config.head_limits, Head::check_start).await;
        let head_len = match head_len {
            Err(Error::Handshake(HandshakeError::Incomplete)) if bytes.is_empty() => {
                return Err(HandshakeError::NoAnswer.into());
            }
            head_len => head_len?,
        };
        let head = Head::parse(bytes.get(..head_len).unwrap_or_default(), &config.head_limits)?;
        // RFC 9110 §15.2: a client takes any number of 1xx before the answer.
        let status = head.status();
        if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
            bytes.drain(..head_len);
            continue;
        }
        let response = head.to_http();
        let agreed = match head.check_upgrade(&request) {
            Err(HandshakeError::Refused(_)) => return Err(Error::Refused(Box::new(response))),
            agreed => agreed?,
        };
        let (agreement, subprotocol) = (agreed.deflate, agreed.subprotocol.map(Box::from));
        let rest = bytes.split_off(head_len);
        let handshake = Handshake { agreement, subprotocol, rest };
        let socket = WebSocketStream::new(stream, Role::Client, Arc::clone(config), handshake);
        return Ok((socket, response));
    }
}
