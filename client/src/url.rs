//! Where a client connects to: URLs and redirects.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::error::{Error, RedirectProblem, UrlProblem};

/// The longest path of a Unix socket, in bytes (unix(7): 108 with the NUL).
const MAX_SOCKET_PATH_LEN: usize = 107;

/// What stands in a query as it is: the unreserved characters (RFC 3986 §2.3).
const ENCODED_IN_QUERY: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Where a client connects to: `ws://…` or `wss://…` (`http` and `https` mean the same), or
/// `ws+unix:/path/of/socket:/target`.
///
/// Whatever takes a URL takes text as well. A value of this type is for what a text would have to be glued together
/// for:
///
/// ```
/// use ringwire_client::Url;
///
/// let url: Url = "wss://example.org/chat?room=7".parse()?;
/// let url = url.with_query("token", "a&b=c/ü");
/// assert_eq!(url.target(), "/chat?room=7&token=a%26b%3Dc%2F%C3%BC");
/// assert_eq!(url.with_query("token", "new").target(), "/chat?room=7&token=new");
/// # Ok::<(), ringwire_client::UrlProblem>(())
/// ```
///
/// An IPv6 address may have a zone, `[fe80::1%25eth0]` or `[fe80::1%eth0]`, which stays on this machine (RFC 6874).
/// User and password become basic authentication (RFC 7617), unless there is an Authorization header.
///
/// It is displayed without user, password and query, which may be a token, so that it can be logged.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    pub(super) is_tls: bool,
    pub(super) place: Place,
    /// The zone of a link-local address: an interface of this machine, which is nobody else's business (RFC 6874 §4).
    zone: Option<String>,
    /// Path and query.
    pub(super) target: String,
    /// The userinfo as the value of an Authorization header (RFC 7617).
    pub(super) authorization: Option<HeaderValue>,
}

/// What a socket is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A name, or an address without brackets, and a port.
    Host(String, u16),
    /// A Unix socket.
    Socket(PathBuf),
}

impl Url {
    /// Whether it is `wss`, or another name of that.
    #[must_use]
    pub const fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// The host in lower case, an IPv6 address without brackets; `None` for a Unix socket.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        match &self.place {
            Place::Host(host, _) => Some(host),
            Place::Socket(_) => None,
        }
    }

    /// The port, be it the scheme's own; `None` for a Unix socket.
    #[must_use]
    pub const fn port(&self) -> Option<u16> {
        match &self.place {
            Place::Host(_, port) => Some(*port),
            Place::Socket(_) => None,
        }
    }

    /// Path and query as they stand in the request.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Sets a parameter of the query in place of all of this name. Name and value are percent-encoded.
    #[must_use]
    pub fn with_query(mut self, name: &str, value: &str) -> Self {
        self.set_query(name, value);
        self
    }

    /// Adds a parameter to the query beside others of this name. Name and value are percent-encoded.
    #[must_use]
    pub fn append_query(mut self, name: &str, value: &str) -> Self {
        self.add_query(name, value);
        self
    }

    pub(super) fn set_query(&mut self, name: &str, value: &str) {
        let is_other = |pair: &&str| {
            let own = pair.split('=').next().unwrap_or_default();
            !percent_decode_str(own).eq(name.bytes())
        };
        if let Some((path, query)) = self.target.split_once('?') {
            let others: Vec<_> = query.split('&').filter(is_other).collect();
            let mark = if others.is_empty() { "" } else { "?" };
            self.target = format!("{path}{mark}{}", others.join("&"));
        }
        self.add_query(name, value);
    }

    fn add_query(&mut self, name: &str, value: &str) {
        let mark = match self.target.split_once('?') {
            None => "?",
            Some((_, "")) => "",
            Some(_) => "&",
        };
        let encode = |text| utf8_percent_encode(text, ENCODED_IN_QUERY);
        self.target = format!("{}{mark}{}={}", self.target, encode(name), encode(value));
    }

    /// Parses `ws:`, `wss:`, `http:` and `https:` URLs, and `ws+unix:/path/of/socket:/target`.
    pub(super) fn parse(text: &str) -> Result<Self, UrlProblem> {
        if text.contains('#') {
            return Err(UrlProblem::Fragment);
        }
        let (scheme, rest) = text.split_once(':').ok_or(UrlProblem::Malformed)?;
        let (is_tls, is_socket) = match scheme.to_ascii_lowercase().as_str() {
            "ws" | "http" => (false, false),
            "wss" | "https" => (true, false),
            "ws+unix" => (false, true),
            "wss+unix" => (true, true),
            _ => return Err(UrlProblem::Scheme),
        };
        if is_socket {
            return Self::of_socket(is_tls, rest);
        }
        if let Some(wrong) = text.chars().find(|char| !may_stand_in_url(*char)) {
            return Err(UrlProblem::Character(wrong));
        }
        let (text, zone) = without_zone(text)?;
        // An empty path before a query is the root (RFC 6455 §3).
        let uri: Uri = text.parse().map_err(|_| UrlProblem::Malformed)?;
        let authority = uri.authority().ok_or(UrlProblem::NoHost)?;
        let host = authority.host();
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if bare.is_empty() {
            return Err(UrlProblem::NoHost);
        }
        let (userinfo, address) = match authority.as_str().rsplit_once('@') {
            Some((userinfo, address)) => (Some(userinfo), address),
            None => (None, authority.as_str()),
        };
        let port = match address.strip_prefix(host).and_then(|rest| rest.strip_prefix(':')) {
            None | Some("") => default_port(is_tls),
            Some(digits) => digits.parse().ok().filter(|port| *port > 0).ok_or(UrlProblem::Port)?,
        };
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        Ok(Self {
            is_tls,
            place: Place::Host(bare.to_ascii_lowercase(), port),
            zone,
            target,
            authorization: userinfo.map(basic_from_userinfo).transpose()?,
        })
    }

    fn of_socket(is_tls: bool, rest: &str) -> Result<Self, UrlProblem> {
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let (path, target) = rest.split_once(':').unwrap_or((rest, "/"));
        let path = percent_decode_str(path).decode_utf8().map_err(|_| UrlProblem::SocketPath)?;
        if path.is_empty() || path.len() > MAX_SOCKET_PATH_LEN || path.contains('\0') {
            return Err(UrlProblem::SocketPath);
        }
        let target = if target.is_empty() { "/" } else { target };
        Ok(Self {
            is_tls,
            place: Place::Socket(Path::new(&*path).to_owned()),
            zone: None,
            target: target.to_owned(),
            authorization: None,
        })
    }

    /// Host and port as they stand in a Host header: without the scheme's own port.
    pub(super) fn host_header(&self) -> String {
        match &self.place {
            Place::Host(host, port) if *port == default_port(self.is_tls) => bracketed(host),
            Place::Host(host, port) => host_and_port(host, *port),
            Place::Socket(_) => "localhost".to_owned(),
        }
    }

    /// The host with its zone, as the resolver reads it (getaddrinfo(3)), if it has one.
    pub(super) fn scoped_host(&self) -> Option<String> {
        match (&self.place, &self.zone) {
            (Place::Host(host, _), Some(zone)) => Some(format!("{host}%{zone}")),
            _ => None,
        }
    }

    /// The name that a certificate must cover.
    pub(super) fn name(&self) -> &str {
        match &self.place {
            Place::Host(host, _) => host,
            Place::Socket(_) => "localhost",
        }
    }

    /// Where a Location header leads to from here (RFC 9110 §10.2.2).
    ///
    /// Userinfo in it is dropped: which credentials are sent is not the server's choice. Those of `self` are kept
    /// only within the same host.
    pub(super) fn redirect(&self, location: &str) -> Result<Self, Error> {
        let bad = || Error::Redirect(RedirectProblem::Location);
        let location = location.split('#').next().unwrap_or_default();
        let mut next = if is_absolute(location) {
            Self::parse(location).map_err(|_| bad())?
        } else if location.starts_with("//") {
            let scheme = if self.is_tls { "wss:" } else { "ws:" };
            Self::parse(&format!("{scheme}{location}")).map_err(|_| bad())?
        } else {
            let mut next = self.clone();
            next.target = self.resolve(location).ok_or_else(bad)?;
            next
        };
        if self.is_tls && !next.is_tls {
            return Err(Error::Redirect(RedirectProblem::Downgrade));
        }
        match (&self.place, &next.place) {
            (Place::Host(..), Place::Socket(_)) => {
                return Err(Error::Redirect(RedirectProblem::EntersSocket));
            }
            (Place::Socket(_), _) if self.place != next.place => {
                return Err(Error::Redirect(RedirectProblem::LeavesSocket));
            }
            _ => {}
        }
        next.authorization =
            if self.is_same_host(&next) { self.authorization.clone() } else { None };
        Ok(next)
    }

    /// Whether credentials for `self` are fit for `other`: the same host and port, or the step from one scheme's own
    /// port to the other's.
    pub(super) fn is_same_host(&self, other: &Self) -> bool {
        match (&self.place, &other.place) {
            (Place::Host(host, port), Place::Host(other_host, other_port)) => {
                host == other_host
                    && self.zone == other.zone
                    && (port == other_port
                        || (*port == default_port(self.is_tls)
                            && *other_port == default_port(other.is_tls)))
            }
            (place, other) => place == other,
        }
    }

    /// A relative reference, by the rules of RFC 3986 §5.2 but without taking dots out: servers do that.
    fn resolve(&self, reference: &str) -> Option<String> {
        let path = self.target.split('?').next().unwrap_or_default();
        let target = match reference.chars().next()? {
            '/' => reference.to_owned(),
            '?' => format!("{path}{reference}"),
            _ => format!("{}/{reference}", path.rsplit_once('/').map_or("", |(folder, _)| folder)),
        };
        target.bytes().all(|byte| byte.is_ascii_graphic()).then_some(target)
    }
}

impl FromStr for Url {
    type Err = UrlProblem;

    fn from_str(text: &str) -> Result<Self, UrlProblem> {
        Self::parse(text)
    }
}

impl TryFrom<&str> for Url {
    type Error = UrlProblem;

    fn try_from(text: &str) -> Result<Self, UrlProblem> {
        Self::parse(text)
    }
}

impl TryFrom<&String> for Url {
    type Error = UrlProblem;

    fn try_from(text: &String) -> Result<Self, UrlProblem> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Url {
    type Error = UrlProblem;

    fn try_from(text: String) -> Result<Self, UrlProblem> {
        Self::parse(&text)
    }
}

impl From<&Self> for Url {
    fn from(url: &Self) -> Self {
        url.clone()
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "wss" } else { "ws" };
        let path = self.target.split('?').next().unwrap_or_default();
        match &self.place {
            Place::Host(..) => write!(f, "{scheme}://{}{path}", self.host_header()),
            Place::Socket(socket) => write!(f, "{scheme}+unix:{}:{path}", socket.display()),
        }
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Url({self})")
    }
}

/// Host and port as in an authority (RFC 3986 §3.2).
pub(super) fn host_and_port(host: &str, port: u16) -> String {
    format!("{}:{port}", bracketed(host))
}

/// The value of a basic Authorization header (RFC 7617 §2).
pub(super) fn basic(user: &str, password: &str) -> Option<HeaderValue> {
    let encoded = STANDARD.encode(format!("{user}:{password}"));
    let mut value = HeaderValue::try_from(format!("Basic {encoded}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// User and password of a URL, decoded.
pub(super) fn split_userinfo(userinfo: &str) -> Option<(String, String)> {
    let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    let decode = |part| percent_decode_str(part).decode_utf8().ok().map(String::from);
    Some((decode(user)?, decode(password)?))
}

fn basic_from_userinfo(userinfo: &str) -> Result<HeaderValue, UrlProblem> {
    split_userinfo(userinfo)
        .and_then(|(user, password)| basic(&user, &password))
        .ok_or(UrlProblem::Malformed)
}

const fn default_port(is_tls: bool) -> u16 {
    if is_tls { 443 } else { 80 }
}

fn bracketed(host: &str) -> String {
    if matches!(host.parse(), Ok(IpAddr::V6(_))) { format!("[{host}]") } else { host.to_owned() }
}

/// Whether RFC 3986 §2 has a place for it, or it is beyond ASCII, which is told apart later.
fn may_stand_in_url(char: char) -> bool {
    match char {
        '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}' => false,
        _ => char.is_ascii_graphic() || !char.is_ascii(),
    }
}

/// Takes the zone out of an IPv6 address, after `%25` (RFC 6874 §2) or, as people write it, after `%` alone (§3).
fn without_zone(text: &str) -> Result<(Cow<'_, str>, Option<String>), UrlProblem> {
    let (begin, end) = match text.split_once("://") {
        Some((scheme, rest)) => {
            let begin = scheme.len() + "://".len();
            (begin, begin + rest.find(['/', '?']).unwrap_or(rest.len()))
        }
        None => return Ok((Cow::Borrowed(text), None)),
    };
    let authority = &text[begin..end];
    let host = authority.rfind('@').map_or(0, |at| at + 1);
    let found = authority[host..].strip_prefix('[').and_then(|host| host.split_once(']'));
    let Some((address, zone)) = found.and_then(|(address, _)| address.split_once('%')) else {
        return Ok((Cow::Borrowed(text), None));
    };
    let encoded = zone.strip_prefix("25").filter(|zone| !zone.is_empty()).unwrap_or(zone);
    let decoded = percent_decode_str(encoded).decode_utf8().map_err(|_| UrlProblem::Malformed)?;
    let is_name = !decoded.is_empty() && decoded.chars().all(|char| char.is_ascii_graphic());
    if !is_name || decoded.contains(['%', '/']) {
        return Err(UrlProblem::Malformed);
    }
    let from = begin + host + 1 + address.len();
    let to = from + 1 + zone.len();
    Ok((Cow::Owned(format!("{}{}", &text[..from], &text[to..])), Some(decoded.into_owned())))
}

/// Whether it begins with a scheme (RFC 3986 §3.1).
fn is_absolute(reference: &str) -> bool {
    let is_scheme_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    reference.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(is_scheme_byte)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn urls() {
        for (text, tls, host, port, target, header) in [
            ("ws://example.org", false, "example.org", 80, "/", "example.org"),
            ("ws://Example.org:80/a?b=c", false, "example.org", 80, "/a?b=c", "example.org"),
            ("WSS://example.org?x", true, "example.org", 443, "/?x", "example.org"),
            ("wss://example.org:/", true, "example.org", 443, "/", "example.org"),
            ("https://a:8443/b", true, "a", 8443, "/b", "a:8443"),
            ("ws://[::1]:9001/x", false, "::1", 9001, "/x", "[::1]:9001"),
            ("wss://[2001:db8::1]/", true, "2001:db8::1", 443, "/", "[2001:db8::1]"),
            ("ws://127.0.0.1:443/", false, "127.0.0.1", 443, "/", "127.0.0.1:443"),
        ] {
            let url = url(text);
            assert_eq!(url.is_tls, tls, "{text}");
            assert_eq!(url.place, Place::Host(host.to_owned(), port), "{text}");
            assert_eq!((url.target.as_str(), url.host_header().as_str()), (target, header));
            assert_eq!(url.authorization, None);
        }
    }

    /// RFC 6874: a zone is `%25` and a name, or after `%` alone as people write it, and stays on this machine.
    #[test]
    fn zones_of_addresses_stay_here() {
        for text in ["ws://[fe80::1%25eth0]:9001/x?y", "ws://[FE80::1%eth0]:9001/x?y"] {
            let url = url(text);
            assert_eq!(url.place, Place::Host("fe80::1".to_owned(), 9001), "{text}");
            assert_eq!(url.scoped_host().as_deref(), Some("fe80::1%eth0"));
            assert_eq!((url.host_header().as_str(), url.name()), ("[fe80::1]:9001", "fe80::1"));
            assert_eq!(url.to_string(), "ws://[fe80::1]:9001/x");
            assert_eq!(url.target, "/x?y");
            assert!(!url.is_same_host(&Url::parse("ws://[fe80::1%25eth1]:9001/").unwrap()));
        }
        // An interface may have a number for its name, or begin with one.
        assert_eq!(url("wss://u:p@[fe80::1%2525]").scoped_host().as_deref(), Some("fe80::1%25"));
        assert_eq!(url("ws://[fe80::1%2]").scoped_host().as_deref(), Some("fe80::1%2"));
        assert_eq!(url("ws://[fe80::1%25a%2Db]").scoped_host().as_deref(), Some("fe80::1%a-b"));
        assert_eq!(url("ws://[fe80::1]/%25").scoped_host(), None);
        assert_eq!(url("ws://[fe80::1]/?u=ws://[fe80::1%25a]").scoped_host(), None);
    }

    #[test]
    fn urls_of_sockets() {
        let plain = url("ws+unix:/run/a.sock:/chat?x=1");
        assert_eq!(plain.place, Place::Socket("/run/a.sock".into()));
        assert_eq!((plain.target.as_str(), plain.name()), ("/chat?x=1", "localhost"));
        assert_eq!(url("ws+unix:///run/a%20b").place, Place::Socket("/run/a b".into()));
        assert_eq!(url("ws+unix:/run/a").target, "/");
        assert_eq!(Url::parse("ws+unix:"), Err(UrlProblem::SocketPath));
        assert_eq!(
            Url::parse(&format!("ws+unix:/{}", "a".repeat(200))),
            Err(UrlProblem::SocketPath)
        );
    }

    #[test]
    fn urls_that_cannot_be_used() {
        for (text, problem) in [
            ("example.org", UrlProblem::Malformed),
            ("ftp://example.org", UrlProblem::Scheme),
            ("ws://", UrlProblem::Malformed),
            ("ws:///x", UrlProblem::Malformed),
            ("ws://:80/", UrlProblem::NoHost),
            ("ws://a:0/", UrlProblem::Port),
            ("ws://a:65536/", UrlProblem::Port),
            ("ws://a/#b", UrlProblem::Fragment),
            ("ws://a b/", UrlProblem::Character(' ')),
            ("ws://a/b c", UrlProblem::Character(' ')),
            ("ws://a/{id}", UrlProblem::Character('{')),
            ("ws://a/?q=\u{7}", UrlProblem::Character('\u{7}')),
            ("ws://a/\n", UrlProblem::Character('\n')),
            ("ws://[fe80::1%]/", UrlProblem::Malformed),
            ("ws://[fe80::1%25a%2fb]/", UrlProblem::Malformed),
            ("ws://[fe80::1%25%ff]/", UrlProblem::Malformed),
            ("ws://b\u{fc}cher.example/", UrlProblem::Malformed),
        ] {
            assert_eq!(Url::parse(text), Err(problem), "{text}");
        }
    }

    #[test]
    fn parameters_of_the_query_are_set_and_added() {
        for (target, name, value, set, added) in [
            ("", "t", "v", "/?t=v", "/?t=v"),
            ("/a", "t", "", "/a?t=", "/a?t="),
            ("/a?", "t", "v", "/a?t=v", "/a?t=v"),
            ("/a?t=1", "t", "2", "/a?t=2", "/a?t=1&t=2"),
            ("/a?t&x=t&t=3", "t", "é&=", "/a?x=t&t=%C3%A9%26%3D", "/a?t&x=t&t=3&t=%C3%A9%26%3D"),
            ("/a?%74=1&T=2", "t", "~-._", "/a?T=2&t=~-._", "/a?%74=1&T=2&t=~-._"),
            (
                "/a?b=1",
                "a b",
                "+ /?#%",
                "/a?b=1&a%20b=%2B%20%2F%3F%23%25",
                "/a?b=1&a%20b=%2B%20%2F%3F%23%25",
            ),
        ] {
            for from in [format!("ws://a{target}"), format!("ws+unix:/s:{target}")] {
                assert_eq!(url(&from).with_query(name, value).target(), set, "{from}");
                assert_eq!(url(&from).append_query(name, value).target(), added, "{from}");
            }
        }
    }

    #[test]
    fn userinfo_is_basic_authorization_and_not_shown() {
        let url = url("ws://Aladdin:open%20sesame@a/?token=secret");
        let value = url.authorization.clone().unwrap();
        assert_eq!(value, "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(format!("{url} {url:?}"), "ws://a/ Url(ws://a/)");
    }

    #[test]
    fn redirects() {
        let from = url("ws://u:p@a:9000/x/y?z");
        for (location, to) in [
            ("/n", "ws://u:p@a:9000/n"),
            ("?n", "ws://u:p@a:9000/x/y?n"),
            ("n?m", "ws://u:p@a:9000/x/n?m"),
            ("//b/n", "ws://b/n"),
            ("http://a:9000/n#f", "ws://u:p@a:9000/n"),
            ("wss://a/n", "wss://a/n"),
            ("https://v:w@b/n", "wss://b/n"),
            ("a:b", ""),
            ("", ""),
            ("/a b", ""),
        ] {
            match from.redirect(location) {
                Ok(next) => assert_eq!(next, url(to), "{location}"),
                Err(error) => {
                    assert!(matches!(error, Error::Redirect(RedirectProblem::Location)));
                    assert_eq!(to, "", "{location}");
                }
            }
        }
        assert!(url("ws://u@a/").redirect("wss://a/").unwrap().authorization.is_some());
        let downgrade = url("wss://a/").redirect("ws://a/").unwrap_err();
        assert!(matches!(downgrade, Error::Redirect(RedirectProblem::Downgrade)));
        let leaves = url("ws+unix:/s:/").redirect("ws://a/").unwrap_err();
        assert!(matches!(leaves, Error::Redirect(RedirectProblem::LeavesSocket)));
        assert_eq!(url("ws+unix:/s:/").redirect("/b").unwrap().target, "/b");
        let enters = url("ws://a/").redirect("ws+unix:/run/docker.sock:/").unwrap_err();
        assert!(matches!(enters, Error::Redirect(RedirectProblem::EntersSocket)));
        let other = url("ws+unix:/s:/").redirect("ws+unix:/t:/").unwrap_err();
        assert!(matches!(other, Error::Redirect(RedirectProblem::LeavesSocket)));
    }
}
