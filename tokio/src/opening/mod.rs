//! The opening handshake (RFC 6455 §4) on a transport.

pub(crate) mod client;
pub(crate) mod server;

use std::time::Duration;

use ringwire_codec::handshake::{HandshakeError, HeadLimits, HeadScanner};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout;

use crate::Error;
use crate::error::Timeout;

/// What a head gets room for at first, and then each time, in bytes.
const HEAD_STEP: usize = 2 << 10;

/// Reads until `bytes` begins with a whole head; gives its length.
///
/// # Errors
/// What `check` and the scanner find, [`HandshakeError::Incomplete`] at the end of the stream.
async fn read_head<S: AsyncRead + Unpin>(
    stream: &mut S,
    bytes: &mut Vec<u8>,
    limits: &HeadLimits,
    check: impl Fn(&[u8]) -> Result<(), HandshakeError>,
) -> Result<usize, Error> {
    let mut scanner = HeadScanner::default();
    loop {
        check(bytes)?;
        if let Some(len) = scanner.scan(bytes, limits)? {
            return Ok(len);
        }
        if bytes.len() == bytes.capacity() {
            bytes.reserve(HEAD_STEP);
        }
        if stream.read_buf(bytes).await? == 0 {
            return Err(HandshakeError::Incomplete.into());
        }
    }
}

/// What a future gives within the time of a handshake.
pub(crate) async fn in_time<R>(
    limit: Duration,
    work: impl Future<Output = Result<R, Error>>,
) -> Result<R, Error> {
    timeout(limit, work).await.unwrap_or(Err(Error::Timeout(Timeout::Handshake)))
}
