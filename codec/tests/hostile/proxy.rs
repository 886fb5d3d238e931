//! The header of a proxy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ringwire_codec::proxy_protocol::{Header, HeaderError, MAX_V1_LEN, MAX_V2_LEN, parse};

/// What is known of a beginning stands however it goes on, a plain reader of whole headers agrees, and the same source written
/// anew is read again.
pub(crate) fn proxy(bytes: &[u8]) {
    let last = parse(bytes);
    let mut verdict = Ok(None);
    // Every beginning of the fields, and the end of what follows them.
    for len in (0..=bytes.len()).filter(|len| *len <= 256 || len + 2 >= bytes.len()) {
        let next = parse(&bytes[..len]);
        match verdict {
            Ok(None) => verdict = next,
            known => assert_eq!(next, known, "at {len}"),
        }
        if let Ok(Some(header)) = next {
            assert!(header.len <= len);
        }
    }
    assert_eq!(verdict, last);
    match last {
        Ok(Some(header)) => {
            assert_eq!(naive(&bytes[..header.len]), Some(header));
            assert!(header.len == 16 || parse(&bytes[..header.len - 1]) == Ok(None));
            written_anew(header.source);
        }
        Ok(None) => assert!(bytes.len() < MAX_V2_LEN, "more does not help"),
        Err(HeaderError::TooLong) => assert!(bytes.len() >= 16),
        Err(_) => assert_eq!(naive(bytes), None),
    }
}

/// All of the bytes, read as one header (proxy-protocol.txt §2.1, §2.2).
fn naive(bytes: &[u8]) -> Option<Header> {
    let source = match bytes.strip_prefix(b"\r\n\r\n\0\r\nQUIT\n") {
        Some([command @ (0x20 | 0x21), family, high, low, block @ ..]) => {
            let fits = usize::from(*high) << 8 | usize::from(*low) == block.len();
            let is_known = family & 0xf0 <= 0x30 && family & 0x0f <= 2;
            if !fits || !is_known || bytes.len() > MAX_V2_LEN {
                return None;
            }
            match (command, family, block) {
                (0x21, 0x11, [a, b, c, d, _, _, _, _, high, low, _, _, ..]) => {
                    Some((Ipv4Addr::new(*a, *b, *c, *d).into(), [*high, *low]))
                }
                (0x21, 0x21, [ip @ .., _, _]) if ip.len() >= 34 => {
                    let ip: [u8; 16] = block[..16].try_into().ok()?;
                    Some((Ipv6Addr::from(ip).into(), [block[32], block[33]]))
                }
                (0x21, 0x11 | 0x21, _) => return None,
                _ => None,
            }
            .map(|(ip, port): (IpAddr, _)| SocketAddr::new(ip, u16::from_be_bytes(port)))
        }
        Some(_) => return None,
        None => naive_line(bytes)?,
    };
    Some(Header { len: bytes.len(), source })
}

fn naive_line(bytes: &[u8]) -> Option<Option<SocketAddr>> {
    let line = str::from_utf8(bytes).ok()?.strip_suffix("\r\n")?;
    if line.contains('\n') || bytes.len() > MAX_V1_LEN {
        return None;
    }
    let words: Vec<_> = line.split(' ').collect();
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| port.to_string() == text);
    match words[..] {
        ["PROXY", "UNKNOWN", ..] => Some(None),
        ["PROXY", "TCP4", from, to, from_port, to_port] => {
            let (from, _): (Ipv4Addr, Ipv4Addr) = (from.parse().ok()?, to.parse().ok()?);
            let (from_port, _) = (port(from_port)?, port(to_port)?);
            Some(Some(SocketAddr::new(from.into(), from_port)))
        }
        ["PROXY", "TCP6", from, to, from_port, to_port] => {
            let (from, _): (Ipv6Addr, Ipv6Addr) = (from.parse().ok()?, to.parse().ok()?);
            let (from_port, _) = (port(from_port)?, port(to_port)?);
            Some(Some(SocketAddr::new(from.into(), from_port)))
        }
        _ => None,
    }
}

/// In either version.
fn written_anew(source: Option<SocketAddr>) {
    let (line, family, block) = match source {
        None => ("PROXY UNKNOWN\r\n".to_owned(), 0, Vec::new()),
        Some(from) => {
            let (ip, port) = (from.ip(), from.port());
            let (name, family, octets) = match ip {
                IpAddr::V4(ip) => ("TCP4", 0x11, ip.octets().to_vec()),
                IpAddr::V6(ip) => ("TCP6", 0x21, ip.octets().to_vec()),
            };
            let mut block = [&octets[..], &octets].concat();
            block.extend(port.to_be_bytes());
            block.extend([1, 0xbb]);
            (format!("PROXY {name} {ip} {ip} {port} 443\r\n"), family, block)
        }
    };
    let mut binary = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
    binary.push(family);
    binary.extend(u16::try_from(block.len()).expect("36 at most").to_be_bytes());
    binary.extend(block);
    for header in [line.as_bytes(), &binary] {
        let followed = [header, b"GET / HTTP/1.1\r\n"].concat();
        assert_eq!(parse(&followed), Ok(Some(Header { len: header.len(), source })));
    }
}
