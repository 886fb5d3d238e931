//! From whose pages scripts may connect (RFC 6455 §10.2).

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// Which pages' scripts may open a WebSocket, by the Origin header of the request. What may not gets 403 and the
/// application does not hear of it.
///
/// This protects the users of browsers, whose cookies go along whatever page connects; clients that are no browsers can
/// send any origin. The comparison is that of browsers (RFC 6454 §5): scheme, host and port, each as a whole.
/// An origin that is malformed, or `null` (a page from a file or a sandbox), is nobody's, and refused by
/// [`Same`](Self::Same) and, unless it names `null`, by [`List`](Self::List).
///
/// ```
/// use ringwire::{Config, admission::OriginPolicy};
///
/// let policy = OriginPolicy::list(["https://example.org", "https://*.example.org"])?;
/// let config = Config::default().with_origin_policy(policy);
/// # Ok::<(), ringwire::admission::OriginError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OriginPolicy {
    /// Whatever is sent; the application may look at [`Request::origin`](crate::Request::origin).
    #[default]
    Any,
    /// The pages that come from this server: the origin's host and port are those of the Host header. Over TLS the
    /// scheme must be `https`; without it `http` and `https` both are taken, since there may be a proxy in front that
    /// speaks TLS.
    Same,
    /// Those that one of the patterns takes in.
    List(Vec<OriginPattern>),
}

/// An origin, `https://example.org:8443`; all subdomains of a host, `https://*.example.org`; or `null`.
///
/// Scheme and host in any case, a port only where it is not the scheme's own. `*.` stands for one label or more, so the
/// host itself is not among its subdomains. Names with other than ASCII letters have to be written as browsers send
/// them, in punycode (`xn--`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OriginPattern(Pattern);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Pattern {
    Null,
    Exact(Origin),
    /// The host of it stands for its subdomains.
    Below(Origin),
}

/// Why a text is no pattern of origins.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no origin: it takes a scheme, `://`, a host in ASCII (or `*.` and one), and perhaps a port; no path"
)]
pub struct OriginError(String);

/// A tuple of scheme, host and port (RFC 6454 §4), in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Origin {
    scheme: String,
    host: String,
    port: Option<u16>,
}

impl OriginPolicy {
    /// Those that one of these patterns takes in.
    ///
    /// # Errors
    /// One of them is invalid.
    pub fn list<I>(patterns: I) -> Result<Self, OriginError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let patterns = patterns.into_iter().map(|pattern| pattern.as_ref().parse());
        Ok(Self::List(patterns.collect::<Result<_, _>>()?))
    }

    /// Whether a request with this Origin header, to this Host, may be let in.
    pub(crate) fn admits(&self, origin: &[u8], host: Option<&str>, is_secure: bool) -> bool {
        if *self == Self::Any {
            return true;
        }
        let Ok(origin) = str::from_utf8(origin) else { return false };
        let parsed = Origin::parse(origin);
        match self {
            Self::Any => true,
            Self::Same => parsed.is_some_and(|origin| origin.is_of(host, is_secure)),
            Self::List(patterns) => patterns.iter().any(|OriginPattern(pattern)| match pattern {
                Pattern::Null => origin == "null",
                Pattern::Exact(listed) => parsed.as_ref() == Some(listed),
                Pattern::Below(parent) => parsed.as_ref().is_some_and(|it| it.is_below(parent)),
            }),
        }
    }
}

impl FromStr for OriginPattern {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        if text == "null" {
            return Ok(Self(Pattern::Null));
        }
        let pattern = match text.split_once("://*.") {
            Some((scheme, rest)) => Origin::parse(&format!("{scheme}://{rest}"))
                // An address has no subdomains.
                .filter(|parent| parent.host.parse::<std::net::Ipv4Addr>().is_err())
                .filter(|parent| !parent.host.starts_with('['))
                .map(Pattern::Below),
            None => Origin::parse(text).map(Pattern::Exact),
        };
        pattern.map(Self).ok_or_else(|| OriginError(text.to_owned()))
    }
}

impl fmt::Display for OriginPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (wildcard, Origin { scheme, host, port }) = match &self.0 {
            Pattern::Null => return f.write_str("null"),
            Pattern::Exact(origin) => ("", origin),
            Pattern::Below(origin) => ("*.", origin),
        };
        write!(f, "{scheme}://{wildcard}{host}")?;
        match port {
            Some(port) if *port != default_port(scheme) => write!(f, ":{port}"),
            _ => Ok(()),
        }
    }
}

impl Origin {
    /// Reads an origin as browsers write it (RFC 6454 §6.2): nothing in front of the host, nothing behind the port.
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let letters = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        if !scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            || !scheme.bytes().all(letters)
        {
            return None;
        }
        let scheme = scheme.to_ascii_lowercase();
        let (host, port) = split_port(rest)?;
        let port = match port {
            Some(port) => port,
            None => default_port(&scheme),
        };
        Some(Self { host: normal_host(host)?, port: Some(port).filter(|port| *port > 0), scheme })
    }

    /// Whether it is the origin of pages that come from the host that the request is for.
    fn is_of(&self, host: Option<&str>, is_secure: bool) -> bool {
        let scheme_fits = self.scheme == "https" || self.scheme == "http" && !is_secure;
        let Some((host, port)) = host.and_then(split_port) else { return false };
        let port = port.unwrap_or_else(|| default_port(&self.scheme));
        scheme_fits && self.port == Some(port) && normal_host(host).as_ref() == Some(&self.host)
    }

    /// Whether its host is below that of `parent`, by whole labels.
    fn is_below(&self, parent: &Self) -> bool {
        let above = self.host.strip_suffix(parent.host.as_str());
        self.scheme == parent.scheme
            && self.port == parent.port
            && above.is_some_and(|labels| labels.len() > 1 && labels.ends_with('.'))
    }
}

/// A host, and the port behind it if there is one.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    let host_end = if text.starts_with('[') { text.find(']')? + 1 } else { 0 };
    let Some(colon) = text.get(host_end..)?.find(':').map(|index| index + host_end) else {
        return Some((text, None));
    };
    let (host, port) = (text.get(..colon)?, text.get(colon + 1..)?);
    if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((host, Some(port.parse().ok()?)))
}

/// A host in lower case, if it is one: labels with letters, digits, `-` and `_` between dots, or an address.
fn normal_host(host: &str) -> Option<String> {
    if let Some(address) = host.strip_prefix('[') {
        let address: Ipv6Addr = address.strip_suffix(']')?.parse().ok()?;
        return Some(format!("[{address}]"));
    }
    let in_label = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_label = |label: &str| !label.is_empty() && label.bytes().all(in_label);
    host.split('.').all(is_label).then(|| host.to_ascii_lowercase())
}

/// The port that is left out; 0 where a scheme has none.
fn default_port(scheme: &str) -> u16 {
    match scheme {
        "http" | "ws" => 80,
        "https" | "wss" => 443,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(policy: &OriginPolicy, origin: &str) -> bool {
        policy.admits(origin.as_bytes(), Some("example.org"), false)
    }

    #[test]
    fn a_suffix_counts_on_a_label_boundary_only() {
        let policy = OriginPolicy::list(["https://*.example.org"]).unwrap();
        for origin in
            ["https://a.example.org", "https://a.b.example.org", "https://a.example.org:443"]
        {
            assert!(takes(&policy, origin), "{origin}");
        }
        for origin in [
            "https://example.org",
            "https://evilexample.org",
            "https://.example.org",
            "https://a..example.org",
            "https://example.org.evil.net",
            "https://a.example.org.",
            "https://a.example.org.evil.net",
            "http://a.example.org",
            "https://a.example.org:8443",
            "https://a.example.org/",
            "https://evil.net/.example.org",
            "https://evil.net#.example.org",
            "https://evil.net?.example.org",
            "https://evil.net\\.example.org",
            "https://evil.net@a.example.org",
            "https://a.example.org@evil.net",
            "https://a.example.org https://evil.net",
            "https://*.example.org",
            "https://\u{430}.example.org",
            "a.example.org",
            "null",
            "",
        ] {
            assert!(!takes(&policy, origin), "{origin}");
        }
    }

    #[test]
    fn exact_origins_are_compared_as_a_whole() {
        let policy = OriginPolicy::list(["https://Example.org", "http://localhost:3000"]).unwrap();
        for origin in [
            "https://example.org",
            "HTTPS://EXAMPLE.ORG",
            "https://example.org:443",
            "http://localhost:3000",
        ] {
            assert!(takes(&policy, origin), "{origin}");
        }
        for origin in [
            "http://example.org",
            "https://example.org:80",
            "https://example.org:",
            "https://example.org:0443x",
            "https://example.org:+443",
            "https://example.org:65979",
            "https://user@example.org",
            "https://user:443@example.org",
            "https://xn--exmple-cua.org",
            "http://localhost",
            "null",
        ] {
            assert!(!takes(&policy, origin), "{origin}");
        }
        let null = OriginPolicy::list(["null"]).unwrap();
        assert!(takes(&null, "null") && !takes(&null, "NULL") && !takes(&null, "https://null"));
    }

    #[test]
    fn punycode_is_compared_as_it_is_sent() {
        let policy = OriginPolicy::list(["https://xn--bcher-kva.example"]).unwrap();
        assert!(takes(&policy, "https://xn--bcher-kva.example"));
        assert!(!takes(&policy, "https://b\u{fc}cher.example"));
        assert!(!takes(&policy, "https://bucher.example"));
    }

    #[test]
    fn the_same_origin_has_the_hosts_name_and_port() {
        let same = |origin: &str, host, is_secure| {
            OriginPolicy::Same.admits(origin.as_bytes(), Some(host), is_secure)
        };
        assert!(same("http://example.org", "example.org", false));
        assert!(same("https://example.org", "example.org", false), "a proxy may speak TLS");
        assert!(same("https://example.org", "example.org", true));
        assert!(same("https://Example.org:443", "example.ORG", true));
        assert!(same("http://[::1]:9001", "[0:0::1]:9001", false));
        assert!(!same("http://example.org", "example.org", true));
        assert!(!same("https://example.org", "example.org:8443", true));
        assert!(!same("https://example.org:8443", "example.org", true));
        assert!(!same("https://a.example.org", "example.org", true));
        assert!(!same("wss://example.org", "example.org", true));
        assert!(!same("https://example.org", "", true));
        assert!(!same("null", "null", false));
        assert!(!OriginPolicy::Same.admits(b"https://example.org", None, true));
        assert!(!OriginPolicy::Same.admits(b"https://\xFF", Some("\u{fffd}"), true));
    }

    #[test]
    fn patterns_are_checked_and_shown() {
        for text in ["https://example.org", "https://*.example.org:8443", "http://[::1]", "null"] {
            assert_eq!(text.parse::<OriginPattern>().map(|it| it.to_string()).as_deref(), Ok(text));
        }
        for text in [
            "example.org",
            "*",
            "https://*",
            "https://*.",
            "https://a.*.example.org",
            "https://*example.org",
            "https://*.*.example.org",
            "https://*.127.0.0.1",
            "https://*.[::1]",
            "https://example.org/",
            "https://user@example.org",
            "https://b\u{fc}cher.example",
            "https://example.org:*",
            "",
        ] {
            assert!(text.parse::<OriginPattern>().is_err(), "{text}");
        }
    }
}
