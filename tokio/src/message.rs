//! Messages that own their payload.

#![expect(unsafe_code, reason = "text that was checked once is not checked at each look")]

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::str::Utf8Error;

use bytes::Bytes;
use ringwire_codec as codec;

/// A message. Its payload is shared: a clone costs no copy.
///
/// ```
/// use ringwire_tokio::Message;
///
/// let message = Message::from("Hello");
/// assert_eq!(message.as_text(), Some("Hello"));
/// assert_eq!(Message::from(vec![1, 2, 3]).as_bytes(), [1, 2, 3]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// Text, which is UTF-8 by its type.
    Text(Text),
    /// Bytes.
    Binary(Bytes),
}

impl Message {
    /// The payload.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// The text, if this is text.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Binary(_) => None,
        }
    }

    /// Whether this is text.
    #[must_use]
    pub const fn is_text(&self) -> bool {
        matches!(self, Self::Text(_))
    }

    /// The number of bytes of the payload.
    #[must_use]
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Whether the payload is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The payload, without a copy.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        match self {
            Self::Text(text) => text.into(),
            Self::Binary(bytes) => bytes,
        }
    }

    pub(crate) fn as_codec(&self) -> codec::Message<'_> {
        match self {
            Self::Text(text) => codec::Message::Text(text),
            Self::Binary(bytes) => codec::Message::Binary(bytes),
        }
    }
}

impl Message {
    /// Takes the buffer of a message that was assembled, and copies one that lies in the input.
    pub(crate) fn from_received(payload: Result<Cow<'_, str>, Cow<'_, [u8]>>) -> Self {
        match payload {
            Ok(Cow::Borrowed(text)) => Self::from(text),
            Ok(Cow::Owned(text)) => Self::Text(Text(fitted(text.into_bytes()))),
            Err(Cow::Borrowed(bytes)) => Self::Binary(Bytes::copy_from_slice(bytes)),
            Err(Cow::Owned(bytes)) => Self::Binary(fitted(bytes)),
        }
    }
}

/// What grew by doubling, or was inflated, may be half empty.
fn fitted(mut bytes: Vec<u8>) -> Bytes {
    if bytes.capacity() - bytes.len() > bytes.len() / 4 {
        bytes.shrink_to_fit();
    }
    bytes.into()
}

impl From<Text> for Message {
    fn from(text: Text) -> Self {
        Self::Text(text)
    }
}

impl From<String> for Message {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<&str> for Message {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<&String> for Message {
    fn from(text: &String) -> Self {
        Self::Text(text.as_str().into())
    }
}

impl From<Bytes> for Message {
    fn from(bytes: Bytes) -> Self {
        Self::Binary(bytes)
    }
}

impl From<Vec<u8>> for Message {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Binary(bytes.into())
    }
}

impl From<&[u8]> for Message {
    fn from(bytes: &[u8]) -> Self {
        Self::Binary(Bytes::copy_from_slice(bytes))
    }
}

impl<const LEN: usize> From<&[u8; LEN]> for Message {
    fn from(bytes: &[u8; LEN]) -> Self {
        Self::Binary(Bytes::copy_from_slice(bytes))
    }
}

/// UTF-8 in a shared buffer: a clone costs no copy. It derefs to `str`.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Text(
    /// Invariant: UTF-8. `Bytes` never changes what it holds.
    Bytes,
);

impl Text {
    /// Text of the program itself.
    #[must_use]
    pub const fn from_static(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // SAFETY: each constructor was given a `str` or has checked the bytes, and nothing changes them.
        unsafe { str::from_utf8_unchecked(&self.0) }
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        self
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), f)
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text.into_bytes().into())
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<Text> for Bytes {
    fn from(text: Text) -> Self {
        text.0
    }
}

impl TryFrom<Bytes> for Text {
    type Error = Utf8Error;

    fn try_from(bytes: Bytes) -> Result<Self, Utf8Error> {
        str::from_utf8(&bytes)?;
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_utf_8() {
        assert!(Text::try_from(Bytes::from_static(b"\xff")).is_err());
        let text = Text::try_from(Bytes::from_static("é".as_bytes())).unwrap();
        assert_eq!(text, "é");
        assert_eq!(Bytes::from(text), "é".as_bytes());
    }

    #[test]
    fn a_buffer_that_is_mostly_empty_is_not_kept() {
        let mut bytes = Vec::with_capacity(1 << 20);
        bytes.extend_from_slice(b"short");
        assert_eq!(fitted(bytes).try_into_mut().map(|bytes| bytes.capacity()), Ok(5));
    }
}
