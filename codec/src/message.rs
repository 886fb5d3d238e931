//! What is sent and what is received.

use std::borrow::Cow;
use std::ops::Deref;

use crate::CloseFrame;

/// A message of the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Message<'a> {
    /// Text, which is UTF-8 by its type.
    Text(&'a str),
    /// Bytes.
    Binary(&'a [u8]),
}

impl<'a> Message<'a> {
    /// The payload.
    #[inline]
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// The text, if this is text.
    #[inline]
    #[must_use]
    pub const fn as_text(self) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Binary(_) => None,
        }
    }

    /// The number of bytes of the payload.
    #[inline]
    #[must_use]
    pub const fn len(self) -> usize {
        self.as_bytes().len()
    }

    /// Whether the payload is empty.
    #[inline]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Whether this is text.
    #[inline]
    #[must_use]
    pub const fn is_text(self) -> bool {
        matches!(self, Self::Text(_))
    }
}

impl<'a> From<&'a str> for Message<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for Message<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a Cow<'_, str>> for Message<'a> {
    fn from(text: &'a Cow<'_, str>) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a [u8]> for Message<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Binary(bytes)
    }
}

impl<'a, const LEN: usize> From<&'a [u8; LEN]> for Message<'a> {
    fn from(bytes: &'a [u8; LEN]) -> Self {
        Self::Binary(bytes)
    }
}

impl<'a> From<&'a Vec<u8>> for Message<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Self::Binary(bytes)
    }
}

/// A message that owns its payload.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OwnedMessage {
    /// Text.
    Text(String),
    /// Bytes.
    Binary(Vec<u8>),
}

impl OwnedMessage {
    /// The message as a borrow, which is what is sent.
    #[must_use]
    pub fn as_message(&self) -> Message<'_> {
        match self {
            Self::Text(text) => Message::Text(text),
            Self::Binary(bytes) => Message::Binary(bytes),
        }
    }

    /// The payload.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.as_message().as_bytes()
    }

    /// The text, if it is text.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Binary(_) => None,
        }
    }
}

impl From<Message<'_>> for OwnedMessage {
    fn from(message: Message<'_>) -> Self {
        match message {
            Message::Text(text) => Self::Text(text.to_owned()),
            Message::Binary(bytes) => Self::Binary(bytes.to_owned()),
        }
    }
}

impl From<ReceivedMessage<'_>> for OwnedMessage {
    fn from(message: ReceivedMessage<'_>) -> Self {
        Self::from(message.as_message())
    }
}

impl From<String> for OwnedMessage {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for OwnedMessage {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<Vec<u8>> for OwnedMessage {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Binary(bytes)
    }
}

impl From<&[u8]> for OwnedMessage {
    fn from(bytes: &[u8]) -> Self {
        Self::Binary(bytes.to_owned())
    }
}

impl From<&String> for OwnedMessage {
    fn from(text: &String) -> Self {
        Self::Text(text.clone())
    }
}

/// What [`receive`](crate::Connection::receive) reports.
#[derive(Debug)]
pub enum Event<'b> {
    /// A whole message.
    Message(ReceivedMessage<'b>),
    /// A part of a message, because
    /// [`set_streaming`](crate::Connection::set_streaming) asked for parts.
    Part(MessagePart<'b>),
    /// The same of a message that was compressed.
    InflatedPart(InflatedPart),
    /// A ping. The pong is already owed, and there is nothing to do, unless
    /// [`answers_pings`](crate::Config::answers_pings) is off.
    Ping(ControlPayload<'b>),
    /// A pong.
    Pong(ControlPayload<'b>),
    /// The peer's close frame. The answer is already owed, if there is one to give.
    Close(CloseFrame<'b>),
}

/// A whole message: a borrow of the input if it arrived in one piece, a buffer if it did not.
#[derive(Debug)]
pub struct ReceivedMessage<'b>(Payload<'b>);

/// Text and bytes are variants, rather than bytes with a flag, so that text is UTF-8 by its type.
#[derive(Debug)]
enum Payload<'b> {
    Text(&'b str),
    Binary(&'b [u8]),
    AssembledText(String),
    AssembledBinary(Vec<u8>),
}

impl<'b> ReceivedMessage<'b> {
    #[inline]
    pub(crate) const fn borrowed(message: Message<'b>) -> Self {
        Self(match message {
            Message::Text(text) => Payload::Text(text),
            Message::Binary(bytes) => Payload::Binary(bytes),
        })
    }

    pub(crate) const fn assembled_text(text: String) -> Self {
        Self(Payload::AssembledText(text))
    }

    pub(crate) const fn assembled_binary(bytes: Vec<u8>) -> Self {
        Self(Payload::AssembledBinary(bytes))
    }

    /// The message.
    #[inline]
    #[must_use]
    pub fn as_message(&self) -> Message<'_> {
        match &self.0 {
            Payload::Text(text) => Message::Text(text),
            Payload::Binary(bytes) => Message::Binary(bytes),
            Payload::AssembledText(text) => Message::Text(text),
            Payload::AssembledBinary(bytes) => Message::Binary(bytes),
        }
    }

    /// The payload.
    #[inline]
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.as_message().as_bytes()
    }

    /// Whether this is text.
    #[inline]
    #[must_use]
    pub const fn is_text(&self) -> bool {
        matches!(self.0, Payload::Text(_) | Payload::AssembledText(_))
    }

    /// The text or else the bytes, as they lie in the input or in the buffer that the message was assembled in: for a
    /// caller that keeps messages, and takes that buffer rather than a copy.
    ///
    /// # Errors
    ///
    /// The bytes of a message that is binary.
    #[inline]
    pub fn into_text(self) -> Result<Cow<'b, str>, Cow<'b, [u8]>> {
        match self.0 {
            Payload::Text(text) => Ok(Cow::Borrowed(text)),
            Payload::AssembledText(text) => Ok(Cow::Owned(text)),
            Payload::Binary(bytes) => Err(Cow::Borrowed(bytes)),
            Payload::AssembledBinary(bytes) => Err(Cow::Owned(bytes)),
        }
    }

    /// The buffer the message was assembled in, to be given back to [`Buffers`](crate::Buffers).
    /// `None` if the message is a borrow of the input, or empty fragments that needed none.
    #[inline]
    #[must_use]
    pub fn into_buffer(self) -> Option<Vec<u8>> {
        let buffer = match self.0 {
            Payload::Text(_) | Payload::Binary(_) => return None,
            Payload::AssembledText(text) => text.into_bytes(),
            Payload::AssembledBinary(bytes) => bytes,
        };
        (buffer.capacity() > 0).then_some(buffer)
    }
}

/// A part of a message: what one read brought of one frame.
///
/// The parts of a text message are UTF-8 together. A part may end inside a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessagePart<'b> {
    /// The bytes. Empty only if the part is the last.
    pub bytes: &'b [u8],
    /// Whether the message is text.
    pub is_text: bool,
    /// Whether the message begins with this part.
    pub is_first: bool,
    /// Whether the message ends with this part.
    pub is_last: bool,
}

/// A part of a compressed message: what one read brought of one frame, inflated, or 16 KiB of it (a
/// few more at the end of a read).
#[derive(Debug)]
pub struct InflatedPart {
    pub(crate) buffer: Vec<u8>,
    pub(crate) is_text: bool,
    pub(crate) is_first: bool,
    pub(crate) is_last: bool,
}

impl InflatedPart {
    /// The part.
    #[must_use]
    pub fn as_part(&self) -> MessagePart<'_> {
        let Self { buffer, is_text, is_first, is_last } = self;
        MessagePart { bytes: buffer, is_text: *is_text, is_first: *is_first, is_last: *is_last }
    }

    /// The buffer of the part, to be given back to [`Buffers`](crate::Buffers).
    #[must_use]
    pub fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }
}

/// The payload of a ping or a pong, at most 125 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlPayload<'b>(Cow<'b, [u8]>);

impl<'b> ControlPayload<'b> {
    pub(crate) const fn new(bytes: Cow<'b, [u8]>) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Deref for ControlPayload<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
