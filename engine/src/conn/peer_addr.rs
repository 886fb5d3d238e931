//! Where a connection comes from, in little room.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// A socket address in 18 bytes: IPv4 as IPv4-mapped IPv6 (RFC 4291 §2.5.5.2), without scope and flow.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PeerAddr {
    ip: [u8; 16],
    port: [u8; 2],
}

impl From<SocketAddr> for PeerAddr {
    fn from(address: SocketAddr) -> Self {
        let ip = match address.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        Self { ip: ip.octets(), port: address.port().to_be_bytes() }
    }
}

impl From<PeerAddr> for SocketAddr {
    fn from(peer: PeerAddr) -> Self {
        let ip = Ipv6Addr::from(peer.ip);
        let ip = ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4);
        Self::new(ip, u16::from_be_bytes(peer.port))
    }
}
