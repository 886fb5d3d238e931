//! Proxies: which one, and what is said to it.

mod environment;
mod http;
mod socks;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use crate::error::{Error, ProxyProblem, Waiting};
use crate::url::{Place, Url, host_and_port, split_userinfo};
use crate::wire::Wire;

/// A proxy: `http://[user:password@]host[:port]`, `socks5://…`, `socks5h://…`, or `socks://…`, which means `socks5h`.
///
/// The ports that are left out are 80 and 1080. With `http` the proxy is asked by CONNECT (RFC 9110 §9.3.6) and finds
/// the server's address itself; so it does with `socks5h` (RFC 1928), while with `socks5` this side finds it.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    kind: Kind,
    host: String,
    port: u16,
    credentials: Option<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Http,
    /// SOCKS5, and whether the proxy finds the address.
    Socks {
        resolves: bool,
    },
}

/// A function of the application's that chooses a proxy.
type Choose = Arc<dyn Fn(&Url) -> Option<Proxy> + Send + Sync>;

/// How a client finds its proxy.
#[derive(Clone)]
pub(super) enum Choice {
    Environment,
    None,
    One(Proxy),
    By(Choose),
}

impl Proxy {
    /// Sets user and password, which basic authentication (RFC 7617) or RFC 1929 carries to the proxy in the clear.
    #[must_use]
    pub fn with_credentials(mut self, user: &str, password: &str) -> Self {
        self.credentials = Some((user.to_owned(), password.to_owned()));
        self
    }

    #[cfg(feature = "config")]
    pub(super) const fn scheme(&self) -> &'static str {
        match self.kind {
            Kind::Http => "http",
            Kind::Socks { resolves: false } => "socks5",
            Kind::Socks { resolves: true } => "socks5h",
        }
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) const fn port(&self) -> u16 {
        self.port
    }

    /// Makes the connection to the proxy one to the host.
    pub(super) fn tunnel(
        &self,
        wire: Wire,
        host: &str,
        port: u16,
        deadline: Option<Instant>,
    ) -> Result<Wire, Error> {
        let result = match self.kind {
            Kind::Http => http::tunnel(self, wire, host, port, deadline),
            Kind::Socks { resolves } => socks::tunnel(self, wire, host, port, resolves, deadline),
        };
        result.map_err(|error| match error {
            Failure::Proxy(ProxyProblem::Io(error))
                if error.kind() == std::io::ErrorKind::TimedOut =>
            {
                Error::Timeout(Waiting::Proxy)
            }
            Failure::Proxy(problem) => Error::Proxy { proxy: self.to_string(), problem },
            Failure::Other(error) => error,
        })
    }
}

impl FromStr for Proxy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text).ok_or_else(|| Error::Proxy {
            // What is malformed may have a password anywhere.
            proxy: "settings".to_owned(),
            problem: ProxyProblem::Malformed,
        })
    }
}

fn parse(text: &str) -> Option<Proxy> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    let kind = match scheme.to_ascii_lowercase().as_str() {
        "http" => Kind::Http,
        "socks5" => Kind::Socks { resolves: false },
        // `socks` is what desktops write into `all_proxy`, and means no version.
        "socks5h" | "socks" => Kind::Socks { resolves: true },
        _ => return None,
    };
    let authority = rest.split(['/', '?', '#']).next()?;
    let (userinfo, address) = match authority.rsplit_once('@') {
        Some((userinfo, address)) => (Some(userinfo), address),
        None => (None, authority),
    };
    let has_port = match address.rsplit_once(':') {
        Some((_, port)) => !port.contains(']'),
        None => false,
    };
    let address = match kind {
        Kind::Socks { .. } if !has_port => format!("{address}:1080"),
        _ => address.to_owned(),
    };
    let Place::Host(host, port) = Url::parse(&format!("ws://{address}")).ok()?.place else {
        return None;
    };
    let credentials = match userinfo {
        Some(userinfo) => Some(split_userinfo(userinfo)?),
        None => None,
    };
    Some(Proxy { kind, host, port, credentials })
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&host_and_port(&self.host, self.port))
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({:?} {self})", self.kind)
    }
}

impl Choice {
    /// The proxy on the way to this host.
    pub(super) fn proxy_for(
        &self,
        url: &Url,
        host: &str,
        port: u16,
    ) -> Result<Option<Proxy>, Error> {
        match self {
            Self::None => Ok(None),
            Self::By(choose) => Ok(choose(url)),
            Self::One(proxy) => Ok(Some(proxy.clone())),
            Self::Environment => {
                environment::proxy_for(|name| std::env::var(name).ok(), url.is_tls, host, port)
            }
        }
    }
}

impl fmt::Debug for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => f.write_str("Environment"),
            Self::None => f.write_str("None"),
            Self::One(proxy) => proxy.fmt(f),
            Self::By(_) => f.write_str("By(…)"),
        }
    }
}

/// What goes wrong with a proxy, or on the way to asking it.
enum Failure {
    Proxy(ProxyProblem),
    Other(Error),
}

impl From<ProxyProblem> for Failure {
    fn from(problem: ProxyProblem) -> Self {
        Self::Proxy(problem)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Proxy(ProxyProblem::Io(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies() {
        for (text, kind, host, port, credentials) in [
            ("http://p", Kind::Http, "p", 80, None),
            ("p:3128", Kind::Http, "p", 3128, None),
            ("http://u%40x:p:q@p:1/", Kind::Http, "p", 1, Some(("u@x", "p:q"))),
            ("socks5://[::1]", Kind::Socks { resolves: false }, "::1", 1080, None),
            ("socks://p:9", Kind::Socks { resolves: true }, "p", 9, None),
            ("SOCKS5H://u@p:9", Kind::Socks { resolves: true }, "p", 9, Some(("u", ""))),
        ] {
            let proxy: Proxy = text.parse().unwrap();
            assert_eq!((proxy.kind, proxy.host(), proxy.port()), (kind, host, port), "{text}");
            let expected = credentials.map(|(user, password)| (user.into(), password.into()));
            assert_eq!(proxy.credentials, expected, "{text}");
            assert!(!format!("{proxy:?} {proxy}").contains('@'));
        }
        for text in ["", "https://p", "socks4://p", "http://", "http://p:0", "http://p:x"] {
            assert!(text.parse::<Proxy>().is_err(), "{text}");
        }
    }
}
