//! Reading the head of an answer.

use http::StatusCode;
use ringwire_codec::handshake::client::Response;
use ringwire_codec::handshake::{HandshakeError, HeadLimits, HeadScanner};

use crate::channel::Channel;
use crate::error::Error;

/// The most interim answers (RFC 9110 §15.2) that are passed over.
const MAX_INTERIM_COUNT: usize = 8;

/// Reads until the head of the final answer is whole, past interim ones (RFC 9110 §15.2). Gives what was read, from
/// that head on, and its length.
pub(super) fn read_final_head(
    channel: &mut Channel,
    limits: &HeadLimits,
) -> Result<(Vec<u8>, usize), Error> {
    let mut bytes = Vec::new();
    let mut interim_count = 0;
    loop {
        let head_len = read_head(channel, &mut bytes, limits)?;
        let (head, rest) = bytes.split_at(head_len);
        let status = Response::parse(head, limits)?.status();
        if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok((bytes, head_len));
        }
        interim_count += 1;
        if interim_count > MAX_INTERIM_COUNT {
            return Err(HandshakeError::Refused(status).into());
        }
        bytes = rest.to_vec();
    }
}

/// Reads until a head is whole, and gives its length.
fn read_head(
    channel: &mut Channel,
    bytes: &mut Vec<u8>,
    limits: &HeadLimits,
) -> Result<usize, Error> {
    let mut scanner = HeadScanner::default();
    loop {
        if let Some(len) = scanner.scan(bytes, limits)? {
            return Ok(len);
        }
        if channel.read(bytes)? == 0 {
            let is_silent = bytes.is_empty();
            let error =
                if is_silent { HandshakeError::NoAnswer } else { HandshakeError::Incomplete };
            return Err(error.into());
        }
        // Who speaks something else may wait for an answer for ever.
        Response::check_start(bytes)?;
    }
}
