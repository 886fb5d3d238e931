//! What topics are called, and patterns of them.
//!
//! A topic is a list of tokens with dots between them, such as `trades.eu.EURUSD`. In a subscription `*` stands for
//! any one token, and `>` at the end for one or more, as in NATS (docs.nats.io, Subject-Based Messaging).

use std::borrow::Cow;
use std::fmt::{self, Write as _};

/// The longest topic or pattern, in bytes.
pub(crate) const MAX_TOPIC_LEN: usize = 255;

/// What is wrong with a topic, or with a subscription to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// It is empty, or two dots follow each other, or it begins or ends with one.
    #[error("a topic has an empty token")]
    EmptyToken,
    /// It is longer than 255 bytes.
    #[error("a topic is longer than {MAX_TOPIC_LEN} bytes")]
    TooLong,
    /// It has white space or a control character in it.
    #[error("a topic has white space or a control character in it")]
    Character,
    /// It has a wildcard in it, which only patterns may have: those of
    /// [`subscribe_pattern`](crate::Ctx::subscribe_pattern).
    #[error("a topic has `*` or `>` in it, which are for the patterns of `subscribe_pattern` only")]
    Wildcard,
    /// `*` or `>` is not a token by itself, or `>` is not the last one.
    #[error("`*` has to be a whole token, and `>` the last one")]
    MisplacedWildcard,
    /// The connection has as many subscriptions as may be
    /// ([`max_subscriptions`](crate::topics::TopicConfig::max_subscriptions)).
    #[error("the connection has too many subscriptions (setting: topics.max_subscriptions)")]
    TooMany,
    /// The connection is closing.
    #[error("the connection is closing")]
    Closing,
    /// Nothing is kept of this topic ([`histories`](crate::topics::TopicConfig::histories)), so that there is no
    /// position to come back to.
    #[error("the topic has no history to recover from: add one with TopicConfig::with_history")]
    NoHistory,
    /// The connection has left the topic before what it missed had come.
    #[error("the subscription ended before the missed messages arrived")]
    Left,
}

/// What a connection is subscribed to.
///
/// ```
/// use ringwire::{Ctx, topics::Subscription};
/// fn hears(ctx: &Ctx<'_, ()>, topic: &str) -> bool {
///     ctx.subscriptions().any(|subscription| subscription.includes(topic))
/// }
/// assert!(Subscription::Pattern("room.*").includes("room.7"));
/// assert!(!Subscription::Topic("room.7").includes("room.8"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Subscription<'a> {
    /// One topic.
    Topic(&'a str),
    /// All topics that a pattern takes in.
    Pattern(&'a str),
}

impl<'a> Subscription<'a> {
    /// The subscription with this text, which is a valid one.
    pub(crate) fn of(text: &'a str) -> Self {
        if has_wildcard(text) { Self::Pattern(text) } else { Self::Topic(text) }
    }

    /// The topic or pattern, as it was subscribed to.
    pub const fn as_str(self) -> &'a str {
        match self {
            Self::Topic(text) | Self::Pattern(text) => text,
        }
    }

    /// Whether what is published to `topic` comes by it.
    pub fn includes(self, topic: &str) -> bool {
        match self {
            Self::Topic(own) => own == topic,
            Self::Pattern(pattern) => matches(pattern, topic),
        }
    }
}

/// The topic or pattern.
impl fmt::Display for Subscription<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Any text as one token of a topic, for what a peer or a user has written.
///
/// Dots, wildcards, white space, control characters and `%` become `%` and two hexadecimal digits for each byte
/// (RFC 3986 §2.1), and the empty text becomes `%`. Different texts give different tokens; a percent-decoder gives the
/// text back. A token is up to three times as long as its text, and a topic has at most 255 bytes: past that
/// [`TopicError::TooLong`](crate::topics::TopicError::TooLong) follows, so limit what you take.
///
/// Without it, `7.staff` for the name of a room is a topic below room 7.
///
/// ```
/// use ringwire::topics::topic_token;
/// assert_eq!(format!("room.{}", topic_token("7")), "room.7");
/// assert_eq!(format!("room.{}", topic_token("7.staff")), "room.7%2Estaff");
/// assert_eq!(topic_token(">"), "%3E");
/// ```
pub fn topic_token(text: &str) -> Cow<'_, str> {
    let is_special =
        |c: char| matches!(c, '.' | '*' | '>' | '%') || c.is_whitespace() || c.is_control();
    if text.is_empty() {
        return Cow::Borrowed("%");
    }
    if !text.contains(is_special) {
        return Cow::Borrowed(text);
    }
    let mut token = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_special(c) {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                // A string takes everything.
                let _ = write!(token, "%{byte:02X}");
            }
        } else {
            token.push(c);
        }
    }
    Cow::Owned(token)
}

/// Checks a topic that is published to, or subscribed to by itself.
///
/// # Errors
/// It is invalid.
pub(crate) fn check_topic(topic: &str) -> Result<(), TopicError> {
    check(topic)?;
    if has_wildcard(topic) { Err(TopicError::Wildcard) } else { Ok(()) }
}

/// Checks a pattern, which may be a topic; whether it has a wildcard.
///
/// # Errors
/// It is invalid.
pub(crate) fn check_pattern(pattern: &str) -> Result<bool, TopicError> {
    check(pattern)?;
    if !has_wildcard(pattern) {
        return Ok(false);
    }
    let mut tokens = pattern.split('.').peekable();
    while let Some(token) = tokens.next() {
        let in_place = match token {
            "*" => true,
            ">" => tokens.peek().is_none(),
            token => !token.contains(['*', '>']),
        };
        if !in_place {
            return Err(TopicError::MisplacedWildcard);
        }
    }
    Ok(true)
}

/// Whether a pattern takes a topic in. The naive way, for few patterns.
pub(crate) fn matches(pattern: &str, topic: &str) -> bool {
    let (mut wanted, mut tokens) = (pattern.split('.'), topic.split('.'));
    loop {
        match (wanted.next(), tokens.next()) {
            (Some(">"), Some(_)) => return true,
            (Some(wanted), Some(token)) if wanted == "*" || wanted == token => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

/// Whether a valid topic or pattern is a pattern.
pub(crate) fn has_wildcard(text: &str) -> bool {
    text.contains(['*', '>'])
}

fn check(text: &str) -> Result<(), TopicError> {
    if text.len() > MAX_TOPIC_LEN {
        return Err(TopicError::TooLong);
    }
    if text.split('.').any(str::is_empty) {
        return Err(TopicError::EmptyToken);
    }
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(TopicError::Character);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn topics() {
        let long = "x".repeat(MAX_TOPIC_LEN);
        for good in ["a", "a.b", "trades.eu.EURUSD", "größe.café", "-._", &long] {
            assert_eq!(check_topic(good), Ok(()), "{good}");
            assert_eq!(check_pattern(good), Ok(false), "{good}");
        }
        for empty in ["", ".", "a.", ".a", "a..b"] {
            assert_eq!(check_topic(empty), Err(TopicError::EmptyToken), "{empty}");
            assert_eq!(check_pattern(empty), Err(TopicError::EmptyToken), "{empty}");
        }
        for odd in ["a b", "a\n", "\0", "a.\u{a0}"] {
            assert_eq!(check_topic(odd), Err(TopicError::Character), "{odd:?}");
        }
        assert_eq!(check_topic(&format!("{long}x")), Err(TopicError::TooLong));
        assert_eq!(check_topic("a.*"), Err(TopicError::Wildcard));
        assert_eq!(check_topic(">"), Err(TopicError::Wildcard));
    }

    proptest! {
        #[test]
        fn any_text_is_a_token_of_its_own(text in ".{0,60}", other in "[.*>% a\u{a0}\0]{0,3}") {
            for text in [&text, &other] {
                let token = topic_token(text);
                prop_assert_eq!(check_topic(&format!("room.{token}")), Ok(()));
                prop_assert_eq!(token.split('.').count(), 1);
                prop_assert_eq!(&decoded(&token), text);
            }
        }
    }

    fn decoded(token: &str) -> String {
        let mut bytes = Vec::new();
        let mut rest = token.strip_suffix("%").filter(|rest| rest.is_empty()).unwrap_or(token);
        while let Some((plain, coded)) = rest.split_once('%') {
            bytes.extend(plain.bytes());
            bytes.push(u8::from_str_radix(&coded[..2], 16).unwrap());
            rest = &coded[2..];
        }
        bytes.extend(rest.bytes());
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn patterns() {
        for good in ["*", ">", "a.*.c", "a.>", "*.*", "*.>"] {
            assert_eq!(check_pattern(good), Ok(true), "{good}");
        }
        for bad in [">.a", "a.>.b", "a*", "*b", "a.b>", "**", ">>"] {
            assert_eq!(check_pattern(bad), Err(TopicError::MisplacedWildcard), "{bad}");
        }
    }

    #[test]
    fn what_patterns_take_in() {
        for (pattern, topic) in
            [("a.*.c", "a.b.c"), ("a.>", "a.b"), ("a.>", "a.b.c.d"), (">", "a"), ("*", "a")]
        {
            assert!(matches(pattern, topic), "{pattern} {topic}");
        }
        for (pattern, topic) in [
            ("a.*.c", "a.c"),
            ("a.>", "a"),
            ("*", "a.b"),
            ("a.*", "a.b.c"),
            ("a", "A"),
            ("a.b", "a"),
        ] {
            assert!(!matches(pattern, topic), "{pattern} {topic}");
        }
    }
}
