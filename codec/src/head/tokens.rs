//! Tokens, hosts, and lists of tokens and of extensions in header values (RFC 9110 §5.6, RFC 6455
//! §9.1).
//!
//! Each parser is a cursor that only moves forward, so its cost is linear in the value's length
//! whatever stands there.

use super::HandshakeError;
use super::headers::trim;

/// The most parameters one extension may have; the known extensions have at most four.
const MAX_PARAM_COUNT: usize = 16;

/// Whether a comma-separated list has this element, in whatever case.
pub(crate) fn lists(value: &[u8], element: &str) -> bool {
    value
        .split(|&byte| byte == b',')
        .any(|each| trim(each).eq_ignore_ascii_case(element.as_bytes()))
}

/// The string, if it is a token (RFC 9110 §5.6.2).
pub(crate) fn token(bytes: &[u8]) -> Option<&str> {
    if bytes.is_empty() || !bytes.iter().all(|&byte| is_token_byte(byte)) {
        return None;
    }
    str::from_utf8(bytes).ok()
}

/// Whether this may stand in a token (RFC 9110 §5.6.2).
pub(crate) fn is_token_byte(byte: u8) -> bool {
    matches!(byte,
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*'
        | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}

/// Whether this could be a host with or without a port (RFC 3986 §3.2.2, §3.2.3); empty is.
///
/// Of a name it looks at the characters alone, to keep out userinfo, paths, lists and whitespace, on which
/// intermediaries disagree. Names are judged by who compares them with a name.
pub(crate) fn is_host(value: &[u8]) -> bool {
    let host_len = match value {
        [b'[', ..] => match memchr::memchr(b']', value) {
            Some(end) => end + 1,
            None => return false,
        },
        _ => memchr::memchr(b':', value).unwrap_or(value.len()),
    };
    let (host, port) = value.split_at_checked(host_len).unwrap_or((value, &[]));
    let is_host = match host {
        [b'[', address @ .., b']'] => !address.is_empty() && address.iter().all(is_in_brackets),
        name => name.iter().all(is_in_name),
    };
    is_host && (port.is_empty() || port.strip_prefix(b":").is_some_and(is_port))
}

/// An IPv6 address, perhaps with a zone (RFC 6874 §2), or what may come after IPv6 (IPvFuture).
fn is_in_brackets(byte: &u8) -> bool {
    is_in_name(byte) || *byte == b':'
}

fn is_in_name(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'%')
        || matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';' | b'=')
}

/// A port may be left out behind its colon (RFC 3986 §3.2.3); a number that no port has is none.
fn is_port(digits: &[u8]) -> bool {
    let number = digits.iter().try_fold(0_u16, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u16::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    });
    number.is_some()
}

/// The elements of a comma-separated list of tokens; empty elements are passed over, as RFC 9110
/// §5.6.1.2 asks for, and an element that is no token is given as `None`.
#[derive(Debug, Clone)]
pub struct Tokens<'b> {
    rest: Option<&'b [u8]>,
}

impl<'b> Tokens<'b> {
    pub(crate) fn of(value: &'b [u8]) -> Self {
        Self { rest: Some(value) }
    }
}

impl<'b> Iterator for Tokens<'b> {
    type Item = Option<&'b str>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let list = self.rest?;
            let (element, rest) = match memchr::memchr(b',', list) {
                Some(comma) => (list.get(..comma)?, list.get(comma + 1..)),
                None => (list, None),
            };
            self.rest = rest;
            let element = trim(element);
            if !element.is_empty() {
                return Some(token(element));
            }
        }
    }
}

/// The extensions that a value of Sec-WebSocket-Extensions lists, in order (RFC 6455 §9.1).
///
/// Empty elements are passed over. An extension that repeats a parameter is left out, since it has to
/// be declined in any case (RFC 7692 §7.1). The first malformed extension ends the list with
/// [`InvalidExtensions`](HandshakeError::InvalidExtensions); so does one with more than 16 parameters,
/// an unterminated quote, and a backslash between quotes, which no token needs.
#[derive(Debug, Clone)]
pub struct Extensions<'b> {
    cursor: Cursor<'b>,
    /// What repeats a parameter is an error.
    strict: bool,
}

impl<'b> Extensions<'b> {
    /// Reads the value of one header.
    #[must_use]
    pub fn of(value: &'b [u8]) -> Self {
        Self { cursor: Cursor { rest: value }, strict: false }
    }

    /// As [`of`](Self::of), but an extension that repeats a parameter is malformed: in an answer,
    /// there is nothing to decline.
    pub(crate) fn strict(value: &'b [u8]) -> Self {
        Self { cursor: Cursor { rest: value }, strict: true }
    }
}

impl<'b> Iterator for Extensions<'b> {
    type Item = Result<Extension<'b>, HandshakeError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            while self.cursor.take(b',') {}
            if self.cursor.rest.is_empty() {
                return None;
            }
            match self.cursor.extension() {
                Some((extension, false)) => return Some(Ok(extension)),
                Some((_, true)) if !self.strict => {}
                Some(_) | None => {
                    self.cursor.rest = &[];
                    return Some(Err(HandshakeError::InvalidExtensions));
                }
            }
        }
    }
}

/// One extension with its parameters (RFC 6455 §9.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extension<'b> {
    name: &'b str,
    /// What follows the name. Invariant: well-formed parameters up to the extension's end.
    params: &'b [u8],
}

impl<'b> Extension<'b> {
    /// The extension's name, in the case it was sent in.
    #[must_use]
    pub fn name(&self) -> &'b str {
        self.name
    }

    /// Whether that is its name, in whatever case.
    #[must_use]
    pub fn is_named(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// The parameters, in order, each with its value if it has one.
    #[must_use]
    pub fn params(&self) -> Params<'b> {
        Params { cursor: Cursor { rest: self.params } }
    }
}

/// The parameters of an [`Extension`].
#[derive(Debug, Clone)]
pub struct Params<'b> {
    cursor: Cursor<'b>,
}

impl<'b> Iterator for Params<'b> {
    type Item = (&'b str, Option<&'b str>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.cursor.take(b';') { self.cursor.param() } else { None }
    }
}

/// What is left of a value.
#[derive(Debug, Clone)]
struct Cursor<'b> {
    rest: &'b [u8],
}

impl<'b> Cursor<'b> {
    /// Takes this byte and the whitespace around it, if it is next.
    fn take(&mut self, byte: u8) -> bool {
        self.skip_whitespace();
        match self.rest.strip_prefix(&[byte]) {
            Some(rest) => {
                self.rest = rest;
                self.skip_whitespace();
                true
            }
            None => false,
        }
    }

    fn skip_whitespace(&mut self) {
        while let [b' ' | b'\t', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    fn token(&mut self) -> Option<&'b str> {
        let end = self.rest.iter().position(|&byte| !is_token_byte(byte));
        let (bytes, rest) = self.rest.split_at_checked(end.unwrap_or(self.rest.len()))?;
        self.rest = rest;
        token(bytes)
    }

    /// A name, and a value that is a token or a quoted token.
    fn param(&mut self) -> Option<(&'b str, Option<&'b str>)> {
        let name = self.token()?;
        if !self.take(b'=') {
            return Some((name, None));
        }
        let quoted = self.rest.strip_prefix(b"\"");
        self.rest = quoted.unwrap_or(self.rest);
        let value = self.token()?;
        if quoted.is_some() {
            self.rest = self.rest.strip_prefix(b"\"")?;
        }
        Some((name, Some(value)))
    }

    /// An extension up to the comma or the end, and whether it repeats a parameter.
    fn extension(&mut self) -> Option<(Extension<'b>, bool)> {
        let name = self.token()?;
        self.skip_whitespace();
        let begin = self.rest;
        let mut names = [""; MAX_PARAM_COUNT];
        let mut free = names.iter_mut();
        while self.take(b';') {
            *free.next()? = self.param()?.0;
        }
        self.skip_whitespace();
        if !matches!(self.rest, [] | [b',', ..]) {
            return None;
        }
        let params = begin.get(..begin.len() - self.rest.len())?;
        let count = MAX_PARAM_COUNT - free.len();
        let repeats = (1..count).any(|i| {
            let (before, from) = names.split_at(i);
            from.first()
                .is_some_and(|name| before.iter().any(|each| each.eq_ignore_ascii_case(name)))
        });
        Some((Extension { name, params }, repeats))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Parsed<'a> = Vec<(&'a str, Vec<(&'a str, Option<&'a str>)>)>;

    fn parse(value: &str) -> Result<Parsed<'_>, HandshakeError> {
        Extensions::of(value.as_bytes())
            .map(|each| each.map(|each| (each.name(), each.params().collect())))
            .collect()
    }

    #[test]
    fn lists_of_tokens() {
        let list = |value: &'static str| Tokens::of(value.as_bytes()).collect::<Vec<_>>();
        assert_eq!(list("chat, super.chat\t,v1"), [Some("chat"), Some("super.chat"), Some("v1")]);
        assert_eq!(list(" , ,a,, b ,"), [Some("a"), Some("b")]);
        assert_eq!(list("a b, c, \"d\""), [None, Some("c"), None]);
        assert_eq!(list(""), []);
        assert!(lists(b"keep-alive, Upgrade", "upgrade"));
        assert!(!lists(b"upgraded, up grade", "upgrade"));
    }

    #[test]
    fn extensions_and_parameters() {
        assert_eq!(parse(""), Ok(vec![]));
        assert_eq!(parse(" , ,\t"), Ok(vec![]));
        assert_eq!(parse("foo"), Ok(vec![("foo", vec![])]));
        // RFC 6455 §9.1
        assert_eq!(
            parse("deflate-stream, mux; max-channels=4; flow-control, x"),
            Ok(vec![
                ("deflate-stream", vec![]),
                ("mux", vec![("max-channels", Some("4")), ("flow-control", None)]),
                ("x", vec![]),
            ])
        );
        assert_eq!(
            parse("a ;\tb = \"10\" ;c,"),
            Ok(vec![("a", vec![("b", Some("10")), ("c", None)])])
        );
    }

    #[test]
    fn malformed_extensions() {
        for value in [
            ";",
            "a;",
            "a;;b",
            "a b",
            "a;b=",
            "a;b=\"",
            "a;b=\"1",
            "a;b=\"\"",
            "a;b=\"1 \"",
            "a;b=\"1\"2",
            "a;b=\"\\1\"",
            "a=b",
            "a;=b",
            "\"a\"",
            "a;b c",
            "a/b",
            "\u{e9}",
        ] {
            assert_eq!(parse(value), Err(HandshakeError::InvalidExtensions), "{value}");
        }
        let mut list = Extensions::of(b"good, b;, c");
        assert!(list.next().is_some_and(|each| each.is_ok()));
        assert_eq!(list.next(), Some(Err(HandshakeError::InvalidExtensions)));
        assert_eq!(list.next(), None);
    }

    #[test]
    fn repeated_parameters_leave_an_extension_out() {
        assert_eq!(parse("a;x;y;X=1, b;x"), Ok(vec![("b", vec![("x", None)])]));
        assert_eq!(parse("a;x;x"), Ok(vec![]));
    }

    #[test]
    fn parameters_are_bounded() {
        let params: String = (0..MAX_PARAM_COUNT).map(|i| format!("; p{i}")).collect();
        let fits = format!("a{params}");
        assert_eq!(parse(&fits).map(|list| list[0].1.len()), Ok(MAX_PARAM_COUNT));
        assert_eq!(parse(&format!("{fits};more")), Err(HandshakeError::InvalidExtensions));
    }
}
