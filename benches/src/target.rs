//! What the load is run against.

use std::net::{SocketAddr, ToSocketAddrs as _};

use anyhow::{Context as _, bail};

/// A server, reached over TCP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A WebSocket server.
    WebSocket(SocketAddr, Resource),
    /// A server that returns the bytes it gets.
    Raw(SocketAddr),
}

/// What the upgrade request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resource {
    /// Whether TLS is spoken.
    pub(crate) secure: bool,
    /// Host and port, as in the URL.
    pub(crate) authority: String,
    /// Path and query.
    pub(crate) path: String,
}

impl Target {
    /// Reads `ws://host:port/path`, `wss://host:port/path` or `tcp://host:port`.
    ///
    /// # Errors
    /// When the URL is of another kind, or its host is unknown.
    pub(crate) fn from_url(url: &str) -> anyhow::Result<Self> {
        let Some((scheme, rest)) = url.split_once("://") else {
            bail!("{url:?} is no URL: use ws:// or wss://HOST:PORT/PATH, or tcp://HOST:PORT");
        };
        let (authority, path) = match rest.find(['/', '?']) {
            Some(end) => rest.split_at(end),
            None => (rest, ""),
        };
        match scheme {
            "ws" | "wss" => {
                let secure = scheme == "wss";
                let slash = if path.starts_with('/') { "" } else { "/" };
                let path = format!("{slash}{path}");
                let resource = Resource { secure, authority: authority.to_owned(), path };
                let default_port = if secure { 443 } else { 80 };
                Ok(Self::WebSocket(resolve(authority, Some(default_port))?, resource))
            }
            "tcp" => Ok(Self::Raw(resolve(authority, None)?)),
            _ => bail!("{scheme}:// is not supported: use ws://, wss:// or tcp://"),
        }
    }

    /// Where to connect.
    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::WebSocket(address, _) | Self::Raw(address) => *address,
        }
    }

    /// What to upgrade to, for a WebSocket server.
    pub(crate) fn resource(&self) -> Option<&Resource> {
        match self {
            Self::WebSocket(_, resource) => Some(resource),
            Self::Raw(_) => None,
        }
    }

    /// The host of the URL, for a server that speaks TLS.
    pub(crate) fn tls_host(&self) -> Option<&str> {
        let resource = self.resource().filter(|resource| resource.secure)?;
        Some(host(&resource.authority))
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::WebSocket(_, resource) => {
                let scheme = if resource.secure { "wss" } else { "ws" };
                write!(f, "{scheme}://{}{}", resource.authority, resource.path)
            }
            Self::Raw(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// Without port, nor the brackets of IPv6.
fn host(authority: &str) -> &str {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => host,
        _ => authority,
    };
    host.trim_start_matches('[').trim_end_matches(']')
}

fn resolve(authority: &str, default_port: Option<u16>) -> anyhow::Result<SocketAddr> {
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    let with_port = match default_port {
        Some(port) if !has_port => format!("{authority}:{port}"),
        _ => authority.to_owned(),
    };
    let mut found =
        with_port.to_socket_addrs().with_context(|| format!("cannot resolve {with_port:?}"))?;
    found.next().with_context(|| format!("{with_port:?} has no address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let parsed = |url: &str| Target::from_url(url).unwrap();
        let target = parsed("ws://127.0.0.1:9001/chat?x=1");
        assert_eq!(target.address(), ([127, 0, 0, 1], 9001).into());
        let resource = target.resource().unwrap();
        assert_eq!(
            (resource.authority.as_str(), resource.path.as_str()),
            ("127.0.0.1:9001", "/chat?x=1")
        );
        assert_eq!(parsed("ws://127.0.0.1").address().port(), 80);
        assert_eq!(parsed("ws://127.0.0.1?a").resource().unwrap().path, "/?a");
        assert_eq!(parsed("ws://[::1]").address().to_string(), "[::1]:80");
        assert_eq!(parsed("tcp://127.0.0.1:7"), Target::Raw(([127, 0, 0, 1], 7).into()));
        for url in ["127.0.0.1:80", "https://127.0.0.1", "tcp://127.0.0.1", "ws://127.0.0.1:x/"] {
            assert!(Target::from_url(url).is_err(), "{url}");
        }
    }

    #[test]
    fn secure_urls_have_a_host_to_be_checked() {
        let secure = Target::from_url("wss://localhost:9443/chat").unwrap();
        assert_eq!(secure.tls_host(), Some("localhost"));
        assert_eq!(secure.to_string(), "wss://localhost:9443/chat");
        let address = Target::from_url("wss://[::1]").unwrap();
        assert_eq!((address.tls_host(), address.address().port()), (Some("::1"), 443));
        assert_eq!(Target::from_url("ws://localhost:9443").unwrap().tls_host(), None);
    }
}
