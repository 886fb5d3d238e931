//! The PROXY protocol, versions 1 and 2: what a proxy says about the connection that it forwards, before the first byte
//! of it (haproxy's proxy-protocol.txt, 2020/03/05).
//!
//! Whoever may send it may claim any address, so it is for trusted peers only.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest header of version 1 with its CRLF (§2.1).
pub const MAX_V1_LEN: usize = 107;
/// The longest header of version 2 that is taken, in bytes: addresses, and room for what else proxies say (§2.2). The
/// format would allow 65551.
pub const MAX_V2_LEN: usize = 4096;

/// What version 2 begins with (§2.2).
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const V2_PREFIX_LEN: usize = 16;

/// A whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its length: what follows is the connection's.
    pub len: usize,
    /// Who has connected to the proxy. `None`: it speaks for itself (LOCAL), or about a connection without an IP
    /// address (UNKNOWN, a Unix socket), and the address of the connection itself stands.
    pub source: Option<SocketAddr>,
}

/// Why bytes are no header of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeaderError {
    /// They begin like neither version.
    Signature,
    /// A header that is longer than this side takes.
    TooLong,
    /// Something in it is wrong.
    Malformed,
}

impl std::fmt::Display for HeaderError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Signature => "no header of the PROXY protocol",
            Self::TooLong => "a PROXY header that is too long",
            Self::Malformed => "a malformed PROXY header",
        })
    }
}

impl std::error::Error for HeaderError {}

/// Looks for a header at the beginning of the bytes that have come so far. `None`: it is not whole yet.
///
/// ```
/// use ringwire_codec::proxy_protocol;
///
/// let bytes = b"PROXY TCP4 192.0.2.7 192.0.2.1 5000 443\r\nGET / HTTP/1.1\r\n";
/// let header = proxy_protocol::parse(bytes)?.expect("it is whole");
/// assert_eq!(header.source, Some(([192, 0, 2, 7], 5000).into()));
/// assert!(bytes[header.len..].starts_with(b"GET"));
/// # Ok::<(), proxy_protocol::HeaderError>(())
/// ```
///
/// # Errors
/// They are none, however they go on.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, HeaderError> {
    if begins_like(bytes, SIGNATURE) {
        return parse_v2(bytes);
    }
    if begins_like(bytes, b"PROXY ") {
        return parse_v1(bytes);
    }
    Err(HeaderError::Signature)
}

/// Whether `bytes` begin with `start`, as far as they go.
fn begins_like(bytes: &[u8], start: &[u8]) -> bool {
    bytes.iter().zip(start).all(|(byte, expected)| byte == expected)
}

fn parse_v1(bytes: &[u8]) -> Result<Option<Header>, HeaderError> {
    let Some(end) = bytes.iter().take(MAX_V1_LEN).position(|byte| *byte == b'\n') else {
        return if bytes.len() >= MAX_V1_LEN { Err(HeaderError::TooLong) } else { Ok(None) };
    };
    let line = bytes.get(..end).and_then(|line| line.strip_suffix(b"\r"));
    let line = line.and_then(|line| std::str::from_utf8(line).ok());
    let source = line.and_then(v1_source).ok_or(HeaderError::Malformed)?;
    Ok(Some(Header { len: end + 1, source }))
}

/// The inner `None`: nobody with an address.
fn v1_source(line: &str) -> Option<Option<SocketAddr>> {
    let mut words = line.split(' ');
    if words.next() != Some("PROXY") {
        return None;
    }
    let is_v4 = match words.next()? {
        "TCP4" => true,
        "TCP6" => false,
        // Whatever follows is to be ignored.
        "UNKNOWN" => return Some(None),
        _ => return None,
    };
    let mut address = || {
        let address: IpAddr = words.next()?.parse().ok()?;
        (address.is_ipv4() == is_v4).then_some(address)
    };
    let (source, _destination) = (address()?, address()?);
    let (source_port, _destination_port) = (port(words.next()?)?, port(words.next()?)?);
    words.next().is_none().then_some(Some(SocketAddr::new(source, source_port)))
}

/// A decimal number without sign or leading zeros.
fn port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let is_shortest = text == "0" || !text.starts_with('0');
    if is_plain && is_shortest { text.parse().ok() } else { None }
}

fn parse_v2(bytes: &[u8]) -> Result<Option<Header>, HeaderError> {
    // Each byte is judged as soon as it is there.
    let command = bytes.get(12).copied();
    if command.is_some_and(|command| !matches!(command, 0x20 | 0x21)) {
        return Err(HeaderError::Malformed);
    }
    let family = bytes.get(13).copied();
    // AF_UNSPEC, AF_INET, AF_INET6, AF_UNIX, each with UNSPEC, STREAM or DGRAM.
    if family.is_some_and(|family| family >> 4 > 3 || family & 0xf > 2) {
        return Err(HeaderError::Malformed);
    }
    let (Some(command), Some(family), Some(len)) = (command, family, array(bytes, 14)) else {
        return Ok(None);
    };
    let len = V2_PREFIX_LEN + usize::from(u16::from_be_bytes(len));
    if len > MAX_V2_LEN {
        return Err(HeaderError::TooLong);
    }
    let Some(block) = bytes.get(V2_PREFIX_LEN..len) else { return Ok(None) };
    if command == 0x20 {
        return Ok(Some(Header { len, source: None }));
    }
    let source = match family {
        0x11 => array::<4>(block, 0)
            .zip(array(block, 8))
            .filter(|_| block.len() >= 12)
            .map(|(ip, port)| (Ipv4Addr::from(ip).into(), port))
            .ok_or(HeaderError::Malformed)?,
        0x21 => array::<16>(block, 0)
            .zip(array(block, 32))
            .filter(|_| block.len() >= 36)
            .map(|(ip, port)| (Ipv6Addr::from(ip).into(), port))
            .ok_or(HeaderError::Malformed)?,
        // What is no stream over IP has no address that would mean something here.
        _ => return Ok(Some(Header { len, source: None })),
    };
    let (ip, port): (IpAddr, [u8; 2]) = source;
    Ok(Some(Header { len, source: Some(SocketAddr::new(ip, u16::from_be_bytes(port))) }))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let mut header = SIGNATURE.to_vec();
        header.extend([command, family]);
        header.extend(u16::try_from(block.len()).unwrap().to_be_bytes());
        header.extend(block);
        header
    }

    /// Good headers and whom they name.
    fn good() -> Vec<(Vec<u8>, Option<SocketAddr>)> {
        let v4 = [192, 0, 2, 7, 192, 0, 2, 1, 0x13, 0x88, 1, 0xbb];
        let mut v6 = [0; 36];
        v6[15] = 1;
        v6[32..34].copy_from_slice(&[0x13, 0x88]);
        let mut with_tlv = v4.to_vec();
        with_tlv.extend([4, 0, 3, 0, 0, 0]);
        let somebody = Some(([192, 0, 2, 7], 5000).into());
        let loopback = Some((Ipv6Addr::LOCALHOST, 5000).into());
        vec![
            (b"PROXY TCP4 192.0.2.7 192.0.2.1 5000 443\r\n".to_vec(), somebody),
            (b"PROXY TCP6 ::1 2001:db8::1 5000 443\r\n".to_vec(), loopback),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff:f...f whatever it is 65535\r\n".to_vec(), None),
            (v2(0x21, 0x11, &v4), somebody),
            (v2(0x21, 0x11, &with_tlv), somebody),
            (v2(0x21, 0x21, &v6), loopback),
            (v2(0x20, 0x00, &[]), None),
            (v2(0x20, 0x11, &v4), None),
            (v2(0x21, 0x00, &[]), None),
            (v2(0x21, 0x31, &[0; 216]), None),
            (v2(0x21, 0x12, &v4), None),
        ]
    }

    #[test]
    fn good_headers_however_they_are_cut() {
        for (header, source) in good() {
            let mut bytes = header.clone();
            bytes.extend(b"GET / HTTP/1.1\r\n");
            let expected = Some(Header { len: header.len(), source });
            assert_eq!(parse(&bytes), Ok(expected), "{}", header.escape_ascii());
            assert_eq!(parse(&header), Ok(expected), "nothing follows");
            for cut in 0..header.len() {
                assert_eq!(parse(&header[..cut]), Ok(None), "{cut}: {}", header.escape_ascii());
            }
        }
    }

    #[test]
    fn bad_headers() {
        for line in [
            "PROXY\r\n",
            "PROXY \r\n",
            "PROXY TCP4\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 5000 443\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 5000\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 5000 443 \r\n",
            "PROXY TCP4  192.0.2.7 192.0.2.1 5000 443\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 65536 443\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 -1 443\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 +1 443\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 05000 443\r\n",
            "PROXY TCP4 192.0.2.007 192.0.2.1 5000 443\r\n",
            "PROXY TCP4 ::1 ::1 5000 443\r\n",
            "PROXY TCP6 192.0.2.7 192.0.2.1 5000 443\r\n",
            "PROXY UDP4 192.0.2.7 192.0.2.1 5000 443\r\n",
            "PROXY tcp4 192.0.2.7 192.0.2.1 5000 443\r\n",
            "PROXY TCP4 192.0.2.7 192.0.2.1 5000 \u{663}\r\n",
        ] {
            assert!(parse(line.as_bytes()).is_err(), "{line:?}");
        }
        for start in
            ["GET / HTTP/1.1\r\n", "proxy ", "\r\n\r\n\r", "PROXYTCP4", "\x16\x03\x01", "\0"]
        {
            assert_eq!(parse(start.as_bytes()), Err(HeaderError::Signature), "{start:?}");
        }
        for (command, family, block) in [
            (0x11, 0x11, &[0; 12][..]),
            (0x22, 0x11, &[0; 12]),
            (0x21, 0x41, &[0; 12]),
            (0x21, 0x13, &[0; 12]),
            (0x21, 0x11, &[0; 11]),
            (0x21, 0x21, &[0; 35]),
            (0x21, 0x11, &[]),
        ] {
            let header = v2(command, family, block);
            assert_eq!(parse(&header), Err(HeaderError::Malformed), "{command:x} {family:x}");
        }
    }

    #[test]
    fn length_limits() {
        let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_V1_LEN - 16));
        assert_eq!(parse(longest.as_bytes()).unwrap().unwrap().len, MAX_V1_LEN);
        let longer = longest.replace("\r\n", "x\r\n");
        assert_eq!(parse(longer.as_bytes()), Err(HeaderError::TooLong));
        assert_eq!(parse(&longer.as_bytes()[..MAX_V1_LEN]), Err(HeaderError::TooLong));
        let longest = v2(0x21, 0x11, &[0; MAX_V2_LEN - V2_PREFIX_LEN]);
        assert_eq!(parse(&longest).unwrap().unwrap().len, MAX_V2_LEN);
        let longer = v2(0x21, 0x11, &[0; MAX_V2_LEN - V2_PREFIX_LEN + 1]);
        assert_eq!(parse(&longer[..V2_PREFIX_LEN]), Err(HeaderError::TooLong), "at its length");
    }

    proptest! {
        /// What is known of a beginning stands, however it goes on; a header is never longer than what came.
        #[test]
        fn a_verdict_stands(
            which in 0..12_usize,
            at in 0..60_usize,
            with in any::<u8>(),
            tail in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let (mut bytes, _) = good().swap_remove(which);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = with;
            }
            bytes.extend(tail);
            let mut verdict = Ok(None);
            for len in 0..=bytes.len() {
                let next = parse(&bytes[..len]);
                if verdict == Ok(None) {
                    verdict = next;
                } else {
                    prop_assert_eq!(next, verdict);
                }
                if let Ok(Some(header)) = next {
                    prop_assert!(header.len <= len);
                }
            }
        }
    }
}
