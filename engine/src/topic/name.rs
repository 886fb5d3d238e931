//! What topics are called, and patterns of them.
//!
//! A topic is a list of tokens with dots between them, such as `trades.eu.EURUSD`. In a subscription `*` stands for
//! any one token, and `>` at the end for one or more, as in NATS (docs.nats.io, Subject-Based Messaging).

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
    /// Something is published to a pattern.
    #[error("`*` and `>` are for subscriptions: what is published goes to one topic")]
    Wildcard,
    /// `*` or `>` is not a token by itself, or `>` is not the last one.
    #[error("`*` has to be a whole token, and `>` the last one")]
    MisplacedWildcard,
    /// The connection has as many subscriptions as may be
    /// ([`max_subscriptions`](crate::topics::TopicConfig::max_subscriptions)).
    #[error("the connection has as many subscriptions as may be")]
    TooMany,
    /// The connection is closing.
    #[error("the connection is closing")]
    Closing,
}

/// Checks a topic that is published to.
///
/// # Errors
/// It is invalid.
pub(crate) fn check_topic(topic: &str) -> Result<(), TopicError> {
    check(topic)?;
    if topic.contains(['*', '>']) { Err(TopicError::Wildcard) } else { Ok(()) }
}

/// Checks a topic or pattern that is subscribed to; whether it has a wildcard.
///
/// # Errors
/// It is invalid.
pub(crate) fn check_pattern(pattern: &str) -> Result<bool, TopicError> {
    check(pattern)?;
    if !pattern.contains(['*', '>']) {
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
