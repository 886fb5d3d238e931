//! Whom to believe about the addresses of others: proxies that speak the PROXY protocol, and the headers that they set.

use std::net::IpAddr;
use std::str::FromStr;

/// Whether connections begin with a header of the PROXY protocol (haproxy's proxy-protocol.txt, versions 1 and 2),
/// which says who is behind the proxy. Default: off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyProtocol {
    /// They don't; a header would be taken for a bad request.
    #[default]
    Off,
    /// They have to. Peers outside these networks, and those that begin with something else, are closed and counted
    /// ([`proxy_failures`](crate::stats::WorkerStats::proxy_failures)). On a Unix socket everybody is trusted who may
    /// connect.
    ///
    /// The header's address replaces [`Ctx::peer_addr`](crate::Ctx::peer_addr); where it has none (LOCAL, UNKNOWN,
    /// health checks) the socket's stays. TLS comes after it. The handshake timeout runs from accept.
    Required {
        /// The proxies.
        trusted: Vec<Network>,
    },
}

impl ProxyProtocol {
    /// Connections come through these proxies.
    pub fn required(trusted: impl IntoIterator<Item = Network>) -> Self {
        Self::Required { trusted: trusted.into_iter().collect() }
    }
}

/// Addresses with the same beginning, such as `10.0.0.0/8`, `fd00::/8` or `192.0.2.7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: u128,
    mask: u128,
}

/// Why a text is no [`Network`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an address, or an address and the bits of its network, such as 10.0.0.0/8")]
pub struct NetworkError;

impl Network {
    /// The addresses whose first `bits` bits are those of `address`. `None`: it has not so many.
    pub fn new(address: IpAddr, bits: u32) -> Option<Self> {
        let (max, offset) = if address.is_ipv4() { (32, 96) } else { (128, 0) };
        if bits > max {
            return None;
        }
        let mask = u128::MAX.checked_shl(128 - offset - bits).unwrap_or(0);
        Some(Self { address: number(address) & mask, mask })
    }

    /// Whether `address` is one of them. An IPv4-mapped IPv6 address (RFC 4291 §2.5.5.2) is the IPv4 address in it.
    pub fn contains(self, address: IpAddr) -> bool {
        number(address) & self.mask == self.address
    }
}

/// IPv4 as IPv4-mapped IPv6.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse().map_err(|_| NetworkError)?)),
            None => (text, None),
        };
        let address: IpAddr = address.trim().parse().map_err(|_| NetworkError)?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(all);
        Self::new(address, bits).ok_or(NetworkError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_in(network: &str, address: &str) -> bool {
        network.parse::<Network>().unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn networks() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("10.1.2.3/8", "10.0.0.1", "::10.0.0.1"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("192.0.2.0/31", "::ffff:192.0.2.1", "192.0.2.2"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("::1", "::1", "::2"),
        ] {
            assert!(is_in(network, inside), "{network} {inside}");
            assert!(!is_in(network, outside), "{network} {outside}");
        }
        assert!(is_in("0.0.0.0/0", "255.255.255.255") && !is_in("0.0.0.0/0", "2001:db8::1"));
        assert!(is_in("::/0", "2001:db8::1"));
        for wrong in ["", "10.0.0.0/33", "::/129", "10/8", "10.0.0.0/", "10.0.0.0/-1", "a.example"]
        {
            assert_eq!(wrong.parse::<Network>(), Err(NetworkError), "{wrong}");
        }
    }
}
