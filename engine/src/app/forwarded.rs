//! Who is behind a proxy, by the headers that it sets.

use std::net::IpAddr;

/// The address that the outermost of `hops` trusted proxies saw, by `X-Forwarded-For`.
pub(crate) fn x_forwarded_for<'a>(
    headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    hops: usize,
) -> Option<IpAddr> {
    let lists = values(headers, "x-forwarded-for");
    let nodes: Vec<_> = lists.flat_map(|list| list.split(',')).collect();
    let index = nodes.len().checked_sub(hops)?;
    node(nodes.get(index)?)
}

/// The same by `Forwarded` (RFC 7239).
pub(crate) fn forwarded<'a>(
    headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    hops: usize,
) -> Option<IpAddr> {
    let lists = values(headers, "forwarded");
    let elements: Vec<_> = lists.flat_map(|list| list.split(',')).collect();
    let index = elements.len().checked_sub(hops)?;
    let element = elements.get(index)?;
    let mut pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
    node(value)
}

/// The headers of a name. One that is no text counts, with nothing in it.
fn values<'a>(
    headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    name: &'static str,
) -> impl Iterator<Item = &'a str> {
    headers
        .filter(move |(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| std::str::from_utf8(value).unwrap_or_default())
}

/// An address, perhaps in quotes, perhaps with a port (RFC 7239 §6).
fn node(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"');
    let address = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None => match text.split_once(':') {
            Some((address, port)) if !port.contains(':') => address,
            _ => text,
        },
    };
    address.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes() {
        let good = Some(IpAddr::from([192, 0, 2, 7]));
        for text in ["192.0.2.7", " 192.0.2.7 ", "192.0.2.7:80", "\"192.0.2.7:80\""] {
            assert_eq!(node(text), good, "{text}");
        }
        for text in ["2001:db8::7", "[2001:db8::7]", "\"[2001:db8::7]:4711\""] {
            assert_eq!(node(text), "2001:db8::7".parse().ok(), "{text}");
        }
        for text in ["", "unknown", "_hidden", "[2001:db8::7", "a.example"] {
            assert_eq!(node(text), None, "{text}");
        }
    }
}
