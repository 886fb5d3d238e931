//! Header lines: read again where they lie, and written.

use http::{HeaderName, header};

/// The headers of a head, in order, each as a name and a value without the whitespace around it.
///
/// Borrows the head and keeps no table of it: a lookup walks the lines, of which there are few. Values
/// are bytes, since HTTP allows more than ASCII there.
#[derive(Debug, Clone)]
pub struct Headers<'b> {
    /// Lines that are still to come. Invariant: they are part of a head that httparse took for valid
    /// and that has no line ending but CRLF.
    lines: &'b [u8],
}

impl<'b> Headers<'b> {
    /// The headers behind the first line of a valid `head`.
    pub(crate) fn of(head: &'b [u8]) -> Self {
        let mut headers = Self { lines: without_empty_lines(head) };
        headers.next_line();
        headers
    }

    /// The value of the first header of that name, in whatever case.
    pub(crate) fn first(self, name: &str) -> Option<&'b [u8]> {
        self.all(name).next()
    }

    /// The values of all headers of that name, in whatever case.
    pub(crate) fn all(self, name: &str) -> impl Iterator<Item = &'b [u8]> {
        self.filter(move |(each, _)| each.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Takes a line; `None` at the blank one and after it.
    fn next_line(&mut self) -> Option<&'b [u8]> {
        let lines = std::mem::take(&mut self.lines);
        let (line, rest) = lines.split_at_checked(memchr::memchr(b'\n', lines)?)?;
        let line = line.strip_suffix(b"\r").filter(|line| !line.is_empty())?;
        self.lines = rest.get(1..)?;
        Some(line)
    }
}

impl<'b> Iterator for Headers<'b> {
    type Item = (&'b str, &'b [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let line = self.next_line()?;
        let colon = memchr::memchr(b':', line)?;
        let name = str::from_utf8(line.get(..colon)?).ok()?;
        Some((name, trim(line.get(colon + 1..)?)))
    }
}

/// Without the empty lines before the first one (RFC 9112 §2.2).
pub(crate) fn without_empty_lines(mut head: &[u8]) -> &[u8] {
    while let Some(rest) = head.strip_prefix(b"\r\n") {
        head = rest;
    }
    head
}

/// Without the optional whitespace around it (RFC 9110 §5.6.3).
pub(crate) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Appends a header line; neither part may have a line ending in it.
pub(crate) fn push_header(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Whether the handshake writes this header itself, or it would announce a body.
pub(crate) fn is_reserved(name: &HeaderName) -> bool {
    [header::UPGRADE, header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING]
        .contains(name)
        || name.as_str().starts_with("sec-websocket-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_head() {
        let head =
            b"GET / HTTP/1.1\r\nHost: a:80\r\nEmpty:\r\nTabs: \t x y\t \r\nhost:b\r\n\r\nX: y\r\n";
        let all: Vec<_> = Headers::of(head).collect();
        let expected: [(&str, &[u8]); 4] =
            [("Host", b"a:80"), ("Empty", b""), ("Tabs", b"x y"), ("host", b"b")];
        assert_eq!(all, expected);
        assert_eq!(Headers::of(head).first("HOST"), Some(&b"a:80"[..]));
        assert_eq!(Headers::of(head).all("Host").count(), 2);
        assert_eq!(Headers::of(head).first("X"), None);
        let late = [b"\r\n\r\n", &head[..]].concat();
        assert_eq!(Headers::of(&late).collect::<Vec<_>>(), expected);
        let mut used_up = Headers::of(head);
        used_up.by_ref().for_each(drop);
        assert_eq!(used_up.next(), None);
    }
}
