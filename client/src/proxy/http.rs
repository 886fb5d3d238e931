//! HTTP CONNECT (RFC 9110 §9.3.6) with basic authentication (RFC 7617).

use std::time::Instant;

use ringwire_codec::handshake::client::Response;
use ringwire_codec::handshake::{HandshakeError, HeadLimits};

use super::{Failure, Proxy};
use crate::channel::Channel;
use crate::error::{Error, ProxyProblem};
use crate::head::read_final_head;
use crate::url::{basic, host_and_port};
use crate::wire::Wire;

pub(super) fn tunnel(
    proxy: &Proxy,
    wire: Wire,
    host: &str,
    port: u16,
    deadline: Option<Instant>,
) -> Result<Wire, Failure> {
    let authority = host_and_port(host, port);
    let mut request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n").into_bytes();
    if let Some((user, password)) = &proxy.credentials {
        let value = basic(user, password).ok_or(ProxyProblem::Malformed)?;
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(value.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    wire.write_all(&request, deadline)?;

    let limits = HeadLimits::default();
    let mut channel = Channel::plain(wire, deadline);
    let (bytes, head_len) = read_final_head(&mut channel, &limits).map_err(failure)?;
    let (head, rest) = bytes.split_at(head_len);
    let response = Response::parse(head, &limits).map_err(|error| failure(error.into()))?;
    match response.status() {
        status if !status.is_success() => Err(ProxyProblem::Refused(status).into()),
        // Neither side has said anything to the server yet, so nothing can come from it.
        _ if !rest.is_empty() => Err(ProxyProblem::BadAnswer("bytes behind the head").into()),
        _ => Ok(channel.into_parts().0),
    }
}

/// An error of the exchange, as one of the proxy.
fn failure(error: Error) -> Failure {
    match error {
        Error::Lost(error) => ProxyProblem::Io(error).into(),
        Error::Timeout(_) => ProxyProblem::Io(std::io::ErrorKind::TimedOut.into()).into(),
        Error::Handshake(HandshakeError::NoAnswer) => {
            ProxyProblem::BadAnswer("it closed the connection before it answered").into()
        }
        Error::Handshake(HandshakeError::NotHttp) => {
            ProxyProblem::BadAnswer("it does not speak HTTP").into()
        }
        _ => ProxyProblem::BadAnswer("no HTTP response").into(),
    }
}
