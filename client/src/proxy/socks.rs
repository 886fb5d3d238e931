//! SOCKS5 (RFC 1928) with user and password (RFC 1929).

use std::net::IpAddr;
use std::time::Instant;

use super::{Failure, Proxy};
use crate::dial::resolve;
use crate::error::{ProxyProblem, SocksReply};
use crate::wire::Wire;

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const USER_AND_PASSWORD: u8 = 2;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

pub(super) fn tunnel(
    proxy: &Proxy,
    wire: Wire,
    host: &str,
    port: u16,
    resolves: bool,
    deadline: Option<Instant>,
) -> Result<Wire, Failure> {
    authenticate(proxy, &wire, deadline)?;
    let mut request = vec![VERSION, CONNECT, 0];
    push_address(&mut request, host, port, resolves, deadline)?;
    request.extend_from_slice(&port.to_be_bytes());
    wire.write_all(&request, deadline)?;

    let mut reply = [0; 4];
    wire.read_exact(&mut reply, deadline)?;
    let [version, result, _, kind] = reply;
    if version != VERSION {
        return Err(ProxyProblem::BadAnswer("not SOCKS version 5").into());
    }
    if result != 0 {
        return Err(ProxyProblem::Socks(SocksReply(result)).into());
    }
    // The address that the proxy connects from, which nobody needs, and its port.
    let len = match kind {
        IPV4 => 4,
        IPV6 => 16,
        NAME => {
            let mut len = [0];
            wire.read_exact(&mut len, deadline)?;
            usize::from(len[0])
        }
        _ => return Err(ProxyProblem::BadAnswer("unknown type of address").into()),
    };
    let mut address = [0; 255 + 2];
    wire.read_exact(address.split_at_mut(len + 2).0, deadline)?;
    Ok(wire)
}

fn authenticate(proxy: &Proxy, wire: &Wire, deadline: Option<Instant>) -> Result<(), Failure> {
    let greeting: &[u8] = match proxy.credentials {
        None => &[VERSION, 1, NO_AUTHENTICATION],
        Some(_) => &[VERSION, 2, NO_AUTHENTICATION, USER_AND_PASSWORD],
    };
    wire.write_all(greeting, deadline)?;
    let mut choice = [0; 2];
    wire.read_exact(&mut choice, deadline)?;
    match (choice, &proxy.credentials) {
        ([VERSION, NO_AUTHENTICATION], _) => Ok(()),
        ([VERSION, USER_AND_PASSWORD], Some((user, password))) => {
            let mut request = vec![1];
            push_short(&mut request, user)?;
            push_short(&mut request, password)?;
            wire.write_all(&request, deadline)?;
            let mut answer = [0; 2];
            wire.read_exact(&mut answer, deadline)?;
            if answer[1] == 0 { Ok(()) } else { Err(ProxyProblem::Credentials.into()) }
        }
        ([VERSION, _], _) => Err(ProxyProblem::NoMethod.into()),
        _ => Err(ProxyProblem::BadAnswer("not SOCKS version 5").into()),
    }
}

fn push_address(
    request: &mut Vec<u8>,
    host: &str,
    port: u16,
    resolves: bool,
    deadline: Option<Instant>,
) -> Result<(), Failure> {
    let address = match host.parse() {
        Ok(address) => Some(address),
        Err(_) if resolves => None,
        Err(_) => {
            let found = resolve(host, port, deadline).map_err(Failure::Other)?;
            found.first().map(|address| address.ip())
        }
    };
    match address {
        Some(IpAddr::V4(address)) => {
            request.push(IPV4);
            request.extend_from_slice(&address.octets());
        }
        Some(IpAddr::V6(address)) => {
            request.push(IPV6);
            request.extend_from_slice(&address.octets());
        }
        None => {
            request.push(NAME);
            push_short(request, host)?;
        }
    }
    Ok(())
}

/// A string behind one byte for its length.
fn push_short(request: &mut Vec<u8>, text: &str) -> Result<(), Failure> {
    let len = u8::try_from(text.len()).map_err(|_| ProxyProblem::Malformed)?;
    request.push(len);
    request.extend_from_slice(text.as_bytes());
    Ok(())
}
