//! What the load is run against.
#![expect(clippy::disallowed_types, reason = "all connections of a load share what they ask for")]

use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use http::Uri;
use http::uri::Authority;

use crate::ask::{Ask, AskArgs};

/// A server, reached over TCP.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// A WebSocket server.
    WebSocket(SocketAddr, Resource),
    /// A server that returns the bytes it gets.
    Raw(SocketAddr),
}

/// What the upgrade request asks for.
#[derive(Clone, Debug)]
pub(crate) struct Resource {
    /// Whether TLS is spoken.
    pub(crate) secure: bool,
    /// Host and port, as in the URL.
    pub(crate) authority: Authority,
    /// Path and query.
    pub(crate) path: String,
    /// Its socket, where it is no one of TCP.
    pub(crate) unix: Option<PathBuf>,
    /// Headers and more.
    pub(crate) ask: Arc<Ask>,
}

impl Target {
    /// Reads `ws://host:port/path`, `wss://host:port/path`, `ws+unix:/socket:/path` or `tcp://host:port`.
    ///
    /// # Errors
    /// When the URL is of another kind, or its host is unknown.
    pub(crate) fn from_url(url: &str) -> anyhow::Result<Self> {
        if let Some(rest) = url.strip_prefix("ws+unix:") {
            return Self::of_unix(rest);
        }
        let uri = url.parse::<Uri>().ok();
        let Some((uri, authority)) = uri.as_ref().and_then(|uri| Some((uri, uri.authority()?)))
        else {
            bail!("{url:?} is no URL: use ws:// or wss://HOST:PORT/PATH, or tcp://HOST:PORT");
        };
        let secure = match uri.scheme_str() {
            Some("ws") => false,
            Some("wss") => true,
            Some("tcp") => return Ok(Self::Raw(resolve(authority, None)?)),
            _ => bail!("{url}: use ws://, wss:// or tcp://"),
        };
        let address = resolve(authority, Some(if secure { 443 } else { 80 }))?;
        let path = uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
        let (authority, ask) = (authority.clone(), Arc::default());
        Ok(Self::WebSocket(address, Resource { secure, authority, path, unix: None, ask }))
    }

    /// Of a Unix socket, and after a colon the path and query.
    fn of_unix(rest: &str) -> anyhow::Result<Self> {
        let (socket, path) = rest.rsplit_once(':').unwrap_or((rest, "/"));
        // Some write it with an empty host.
        let socket = socket.strip_prefix("//").unwrap_or(socket);
        if !socket.starts_with('/') || !path.starts_with('/') {
            bail!("ws+unix:{rest}: write ws+unix:/SOCKET:/PATH");
        }
        let resource = Resource {
            secure: false,
            authority: Authority::from_static("localhost"),
            path: path.to_owned(),
            unix: Some(socket.into()),
            ask: Arc::default(),
        };
        Ok(Self::WebSocket((Ipv4Addr::UNSPECIFIED, 0).into(), resource))
    }

    /// The socket of a server that listens on no TCP port.
    pub(crate) fn unix(&self) -> Option<&Path> {
        self.resource()?.unix.as_deref()
    }

    /// The same for connections with these numbers, which ask for that.
    ///
    /// # Errors
    /// When it cannot be asked for, or not of a server of raw bytes.
    pub(crate) fn with_ask(mut self, ask: &AskArgs, numbers: Range<u32>) -> anyhow::Result<Self> {
        match &mut self {
            Self::WebSocket(_, resource) => resource.ask = ask.load(&resource.path, numbers)?,
            Self::Raw(_) if ask.is_empty() => {}
            Self::Raw(address) => {
                bail!("tcp://{address}: raw bytes have no handshake to ask anything in")
            }
        }
        Ok(self)
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
            Self::WebSocket(_, Resource { unix: Some(socket), path, .. }) => {
                write!(f, "ws+unix:{}:{path}", socket.display())
            }
            Self::WebSocket(_, resource) => {
                let scheme = if resource.secure { "wss" } else { "ws" };
                write!(f, "{scheme}://{}{}", resource.authority, resource.path)
            }
            Self::Raw(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// Without the brackets of IPv6.
fn host(authority: &Authority) -> &str {
    authority.host().trim_start_matches('[').trim_end_matches(']')
}

fn resolve(authority: &Authority, default_port: Option<u16>) -> anyhow::Result<SocketAddr> {
    let port = authority.port_u16().or(default_port);
    let port = port.with_context(|| format!("{authority} has no port"))?;
    let found = (host(authority), port).to_socket_addrs();
    let mut found = found.with_context(|| format!("cannot resolve {authority}"))?;
    found.next().with_context(|| format!("{authority} has no address"))
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
        let raw = parsed("tcp://127.0.0.1:7");
        assert!(raw.resource().is_none() && raw.address() == ([127, 0, 0, 1], 7).into());
        for url in ["127.0.0.1:80", "https://127.0.0.1", "tcp://127.0.0.1", "ws://127.0.0.1:x/"] {
            assert!(Target::from_url(url).is_err(), "{url}");
        }
    }

    #[test]
    fn unix_sockets_have_paths_of_both_kinds() {
        for url in ["ws+unix:/run/a.sock:/ws?x=1", "ws+unix:///run/a.sock:/ws?x=1"] {
            let target = Target::from_url(url).unwrap();
            assert_eq!(target.unix(), Some(Path::new("/run/a.sock")));
            assert_eq!(target.resource().unwrap().path, "/ws?x=1");
            assert_eq!(target.to_string(), "ws+unix:/run/a.sock:/ws?x=1");
        }
        let plain = Target::from_url("ws+unix:/run/a.sock").unwrap();
        assert_eq!(plain.resource().unwrap().path, "/");
        assert!(Target::from_url("ws+unix:a.sock:/").is_err());
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
