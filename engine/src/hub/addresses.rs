//! How many connections each remote address has, over all workers.

use std::net::{IpAddr, SocketAddr};

use crate::base::sharded::Sharded;

/// See the [module's documentation](self).
#[derive(Debug)]
pub(crate) struct Addresses {
    /// Connections that one address may have. `None`: any number, and nothing is counted.
    max: Option<u32>,
    counts: Sharded<Key, u32>,
}

/// An IPv4 address, or the /64 of an IPv6 address, which is what one subscriber has (RFC 6177 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    V4([u8; 4]),
    V6([u8; 8]),
}

impl Key {
    /// `None` for an address that is not known.
    fn of(peer: SocketAddr) -> Option<Self> {
        match peer.ip().to_canonical() {
            ip if ip.is_unspecified() => None,
            IpAddr::V4(ip) => Some(Self::V4(ip.octets())),
            IpAddr::V6(ip) => ip.octets().first_chunk().copied().map(Self::V6),
        }
    }
}

impl Addresses {
    pub(crate) fn new(max: Option<u32>) -> Self {
        Self { max, counts: Sharded::default() }
    }

    /// Counts a connection in, unless its address has as many as may be; whether it did.
    #[inline]
    pub(crate) fn admit(&self, peer: Option<SocketAddr>) -> bool {
        self.max.is_none_or(|max| self.count_in(peer, max))
    }

    /// Counts a connection in that is not refused.
    pub(crate) fn note(&self, peer: Option<SocketAddr>) {
        if self.max.is_some() {
            self.count_in(peer, u32::MAX);
        }
    }

    /// Counts a connection out that was counted in.
    #[inline]
    pub(crate) fn release(&self, peer: Option<SocketAddr>) {
        if self.max.is_some() {
            self.count_out(peer);
        }
    }

    fn count_in(&self, peer: Option<SocketAddr>, max: u32) -> bool {
        let Some(key) = peer.and_then(Key::of) else { return true };
        let mut shard = self.counts.lock(&key);
        let count = shard.entry(key).or_default();
        let admitted = *count < max;
        *count += u32::from(admitted);
        admitted
    }

    fn count_out(&self, peer: Option<SocketAddr>) {
        let Some(key) = peer.and_then(Key::of) else { return };
        let mut shard = self.counts.lock(&key);
        let Some(count) = shard.get_mut(&key) else { return };
        *count = count.saturating_sub(1);
        if *count == 0 {
            shard.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> Option<SocketAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn an_address_has_so_many_connections() {
        let addresses = Addresses::new(Some(2));
        assert!(addresses.admit(peer("192.0.2.1:1")) && addresses.admit(peer("192.0.2.1:2")));
        assert!(!addresses.admit(peer("192.0.2.1:3")));
        assert!(!addresses.admit(peer("[::ffff:192.0.2.1]:4")), "the same address");
        assert!(addresses.admit(peer("192.0.2.2:1")));
        addresses.release(peer("192.0.2.1:1"));
        assert!(addresses.admit(peer("192.0.2.1:3")));
        // One that can't be refused counts.
        addresses.note(peer("192.0.2.2:2"));
        addresses.note(peer("192.0.2.2:3"));
        addresses.release(peer("192.0.2.2:1"));
        assert!(!addresses.admit(peer("192.0.2.2:4")));
    }

    #[test]
    fn a_subscriber_with_ipv6_has_a_64() {
        let addresses = Addresses::new(Some(1));
        assert!(addresses.admit(peer("[2001:db8:0:1::1]:1")));
        assert!(!addresses.admit(peer("[2001:db8:0:1:ffff::2]:1")));
        assert!(addresses.admit(peer("[2001:db8:0:2::1]:1")));
    }

    #[test]
    fn nothing_stays_of_those_who_have_gone() {
        let addresses = Addresses::new(Some(1));
        for number in 0..1000_u16 {
            let [high, low] = number.to_be_bytes();
            let peer = Some(SocketAddr::from(([10, 0, high, low], 1)));
            assert!(addresses.admit(peer));
            addresses.release(peer);
        }
        assert!(addresses.counts.is_empty());
        assert!(Addresses::new(None).admit(None) && addresses.admit(None));
    }
}
