//! The request target (RFC 9112 §3.2).

use crate::head::{HandshakeError, is_host};

/// A request target, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target<'b> {
    /// What was sent.
    pub(super) whole: &'b str,
    /// The host of the absolute form, which then counts instead of the header (RFC 9112 §3.2.2).
    pub(super) authority: Option<&'b str>,
    pub(super) path: &'b str,
    pub(super) query: Option<&'b str>,
}

impl<'b> Target<'b> {
    /// Takes a request target apart: `/path?query`, `http://host/path?query`, and for the methods
    /// they are made for, `*` and `host:port`. Fragments do not travel in a request (RFC 6455 §3).
    pub(super) fn parse(whole: &'b str, method: &str) -> Result<Self, HandshakeError> {
        if whole.contains('#') {
            return Err(HandshakeError::Target);
        }
        if method == "CONNECT" {
            return Self::with(whole, Some(whole), "");
        }
        if whole == "*" && method == "OPTIONS" {
            return Self::with(whole, None, whole);
        }
        if whole.starts_with('/') {
            return Self::with(whole, None, whole);
        }
        let (scheme, rest) = whole.split_once("://").ok_or(HandshakeError::Target)?;
        if !["http", "https", "ws", "wss"].iter().any(|each| scheme.eq_ignore_ascii_case(each)) {
            return Err(HandshakeError::Target);
        }
        let authority_len = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path_and_query) =
            rest.split_at_checked(authority_len).ok_or(HandshakeError::Target)?;
        Self::with(whole, Some(authority), path_and_query)
    }

    fn with(
        whole: &'b str,
        authority: Option<&'b str>,
        path_and_query: &'b str,
    ) -> Result<Self, HandshakeError> {
        if authority.is_some_and(|host| host.is_empty() || !is_host(host.as_bytes())) {
            return Err(HandshakeError::Target);
        }
        let (path, query) = match path_and_query.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path_and_query, None),
        };
        // RFC 9110 §4.2.3: an empty path is "/".
        let path = if path.is_empty() { "/" } else { path };
        Ok(Self { whole, authority, path, query })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let parse = |whole, method| {
            Target::parse(whole, method).map(|target| (target.authority, target.path, target.query))
        };
        assert_eq!(parse("/", "GET"), Ok((None, "/", None)));
        assert_eq!(parse("/a/b?c=d?e", "GET"), Ok((None, "/a/b", Some("c=d?e"))));
        assert_eq!(parse("//a?", "GET"), Ok((None, "//a", Some(""))));
        assert_eq!(parse("http://h:80/a?b", "GET"), Ok((Some("h:80"), "/a", Some("b"))));
        assert_eq!(parse("WSS://h", "GET"), Ok((Some("h"), "/", None)));
        assert_eq!(parse("http://h?b", "GET"), Ok((Some("h"), "/", Some("b"))));
        assert_eq!(parse("*", "OPTIONS"), Ok((None, "*", None)));
        assert_eq!(parse("h:443", "CONNECT"), Ok((Some("h:443"), "/", None)));
        for whole in ["*", "a", "h:443", "ftp://h/", "http://", "http:///a", "http://u@h/", "/a#b"]
        {
            assert_eq!(parse(whole, "GET"), Err(HandshakeError::Target), "{whole}");
        }
    }
}
