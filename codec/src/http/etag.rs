//! Entity tags, by which a client asks whether what it has is still the same (RFC 9110 §8.8.3).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use sha1::{Digest as _, Sha1};

/// Digits of a SHA-1 in Base64.
const DIGEST_LEN: usize = 28;

/// A strong entity tag: equal for the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntityTag([u8; DIGEST_LEN + 2]);

impl EntityTag {
    /// The tag of this content, from its SHA-1.
    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        let mut tag = [b'"'; DIGEST_LEN + 2];
        if let Some(digits) = tag.get_mut(1..=DIGEST_LEN) {
            let written = STANDARD.encode_slice(Sha1::digest(content), digits);
            debug_assert_eq!(written, Ok(DIGEST_LEN), "20 bytes are 28 digits");
        }
        Self(tag)
    }

    /// The tag with its quotes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether an If-None-Match with this value holds the tag, or is `*`: then the answer is 304. Compares weakly, as
    /// RFC 9110 §13.1.2 asks for. What follows a malformed element does not count.
    #[must_use]
    pub fn is_in(&self, if_none_match: &[u8]) -> bool {
        let mut rest = if_none_match;
        loop {
            match rest {
                [b' ' | b'\t' | b',', behind @ ..] => rest = behind,
                [b'*', ..] => return true,
                [b'W', b'/', b'"', ..] => rest = rest.get(2..).unwrap_or_default(),
                [b'"', opaque @ ..] => {
                    let Some(len) = memchr::memchr(b'"', opaque) else { return false };
                    if rest.get(..len + 2) == Some(self.as_bytes()) {
                        return true;
                    }
                    rest = opaque.get(len + 1..).unwrap_or_default();
                }
                _ => return false,
            }
        }
    }
}

impl From<EntityTag> for HeaderValue {
    fn from(tag: EntityTag) -> Self {
        Self::from_bytes(tag.as_bytes()).expect("quotes and Base64 may stand in a header")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_follow_the_content() {
        let tag = EntityTag::of(b"abc");
        // RFC 3174 §7.3: a9993e36 4706816a ba3e2571 7850c26c 9cd0d89d
        assert_eq!(tag.as_bytes(), b"\"qZk+NkcGgWq6PiVxeFDCbJzQ2J0=\"");
        assert_eq!(tag, EntityTag::of(b"abc"));
        assert_ne!(tag, EntityTag::of(b"abd"));
        assert_eq!(HeaderValue::from(tag).as_bytes(), tag.as_bytes());
    }

    #[test]
    fn if_none_match() {
        let tag = EntityTag::of(b"abc");
        let own = str::from_utf8(tag.as_bytes()).unwrap();
        for holds in [
            own.to_owned(),
            format!("W/{own}"),
            format!("\"x\", {own}"),
            format!("\"a,b\",W/\"\" ,\t{own},\"y\""),
            "*".to_owned(),
        ] {
            assert!(tag.is_in(holds.as_bytes()), "{holds}");
        }
        for fails in [
            "",
            "\"x\"",
            "qZk+NkcGgWq6PiVxeFDCbJzQ2J0=",
            "\"qZk+NkcGgWq6PiVxeFDCbJzQ2J0=",
            "w/\"qZk+NkcGgWq6PiVxeFDCbJzQ2J0=\"",
            "x, \"qZk+NkcGgWq6PiVxeFDCbJzQ2J0=\"",
        ] {
            assert!(!tag.is_in(fails.as_bytes()), "{fails}");
        }
    }
}
