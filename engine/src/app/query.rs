//! Parameters of a query: application/x-www-form-urlencoded, as the URL standard parses it
//! (<https://url.spec.whatwg.org>).

use std::borrow::Cow;

/// The names and values of a query, decoded.
pub(crate) fn parse(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name, true), decode(value, true))
    })
}

/// Text without percent-encoding (RFC 3986 §2.1), and with spaces for `+` in a form. A `%` that begins no two digits
/// stands for itself.
pub(crate) fn decode(text: &str, is_form: bool) -> Cow<'_, str> {
    if !text.bytes().any(|byte| byte == b'%' || (is_form && byte == b'+')) {
        return Cow::Borrowed(text);
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.as_bytes();
    while let Some((&byte, rest)) = bytes.split_first() {
        let escaped = (byte == b'%').then(|| escaped(rest)).flatten();
        bytes = if escaped.is_some() { &rest[2..] } else { rest };
        let plain = if is_form && byte == b'+' { b' ' } else { byte };
        decoded.push(escaped.unwrap_or(plain));
    }
    Cow::Owned(
        String::from_utf8(decoded)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
    )
}

/// The byte that two hexadecimal digits stand for.
fn escaped(digits: &[u8]) -> Option<u8> {
    let digit = |index: usize| char::from(*digits.get(index)?).to_digit(16);
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(query: &str) -> Vec<(String, String)> {
        parse(query).map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
    }

    /// Cases of the URL standard's tests (web-platform-tests, url/urlencoded-parser.any.js).
    #[test]
    fn parameters() {
        let owned = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        for (query, expected) in [
            ("", &[][..]),
            ("foo=bar", &[("foo", "bar")]),
            ("foo=bar&foo=baz", &[("foo", "bar"), ("foo", "baz")]),
            ("a=b=c&d", &[("a", "b=c"), ("d", "")]),
            ("&a&&=b&", &[("a", ""), ("", "b")]),
            ("a+b=c+d%2Be", &[("a b", "c d+e")]),
            ("%61=%c3%A4%F0%9F%92%A9", &[("a", "ä💩")]),
            ("a=%&b=%2&c=%2x&d=%%61", &[("a", "%"), ("b", "%2"), ("c", "%2x"), ("d", "%a")]),
            ("id=0&value=%", &[("id", "0"), ("value", "%")]),
            ("a=%ff%fea", &[("a", "\u{fffd}\u{fffd}a")]),
            ("a=b%26c%3Dd", &[("a", "b&c=d")]),
        ] {
            assert_eq!(pairs(query), owned(expected), "{query}");
        }
    }

    #[test]
    fn a_path_keeps_its_plus() {
        assert_eq!(decode("/a+b%20c", false), "/a+b c");
        assert!(matches!(decode("/a+b", false), Cow::Borrowed("/a+b")));
    }
}
