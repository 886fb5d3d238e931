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
    /// Host and port, as in the URL.
    pub(crate) authority: String,
    /// Path and query.
    pub(crate) path: String,
}

impl Target {
    /// Reads `ws://host:port/path` or `tcp://host:port`.
    ///
    /// # Errors
    /// When the URL is of another kind, or its host is unknown.
    pub(crate) fn from_url(url: &str) -> anyhow::Result<Self> {
        let Some((scheme, rest)) = url.split_once("://") else {
            bail!("{url:?} is no URL: use ws://HOST:PORT/PATH or tcp://HOST:PORT");
        };
        let (authority, path) = match rest.find(['/', '?']) {
            Some(end) => rest.split_at(end),
            None => (rest, ""),
        };
        match scheme {
            "ws" => {
                let slash = if path.starts_with('/') { "" } else { "/" };
                let resource =
                    Resource { authority: authority.to_owned(), path: format!("{slash}{path}") };
                Ok(Self::WebSocket(resolve(authority, Some(80))?, resource))
            }
            "tcp" => Ok(Self::Raw(resolve(authority, None)?)),
            _ => bail!("{scheme}:// is not supported: use ws:// or tcp://"),
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
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::WebSocket(_, resource) => {
                write!(f, "ws://{}{}", resource.authority, resource.path)
            }
            Self::Raw(address) => write!(f, "tcp://{address}"),
        }
    }
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
        for url in ["127.0.0.1:80", "wss://127.0.0.1", "tcp://127.0.0.1", "ws://127.0.0.1:x/"] {
            assert!(Target::from_url(url).is_err(), "{url}");
        }
    }
}
