//! Topics as subjects of NATS, and back.
//!
//! Both are tokens with dots between them, with the same wildcards (docs.nats.io, Subject-Based Messaging). A topic has
//! any UTF-8 but white space and control characters; a subject should have printable ASCII. So all else, and `%`,
//! becomes `%` and two hexadecimal digits for each byte (RFC 3986 §2.1).

use std::fmt::Write as _;

/// The subjects of a cluster: all that begin with its prefix.
#[derive(Clone, Debug)]
pub(crate) struct Subjects {
    /// With the dot behind it.
    prefix: String,
}

impl Subjects {
    /// `None`: the prefix is no subject, or has a wildcard in it.
    pub(crate) fn new(prefix: &str) -> Option<Self> {
        let is_token = |token: &str| {
            !token.is_empty()
                && token.bytes().all(|byte| is_plain(byte) && byte != b'*' && byte != b'>')
        };
        prefix.split('.').all(is_token).then(|| Self { prefix: format!("{prefix}.") })
    }

    /// Those under which histories are stored.
    pub(crate) fn of_history(&self) -> Self {
        let prefix = self.prefix.strip_suffix('.').unwrap_or(&self.prefix);
        Self { prefix: format!("{prefix}_history.") }
    }

    /// A name for all of them, as streams have it: without dots.
    pub(crate) fn name(&self) -> String {
        let prefix = self.prefix.strip_suffix('.').unwrap_or(&self.prefix);
        // A stream's name has none of these either.
        prefix.replace(['.', '/', '\\'], "_")
    }

    /// The subject of a topic or pattern.
    pub(crate) fn subject(&self, topic: &str) -> String {
        let mut subject = String::with_capacity(self.prefix.len() + topic.len());
        subject.push_str(&self.prefix);
        for byte in topic.bytes() {
            if is_plain(byte) {
                subject.push(char::from(byte));
            } else {
                // A string takes everything.
                let _ = write!(subject, "%{byte:02X}");
            }
        }
        subject
    }

    /// The topic of a subject. `None`: it is none of this cluster.
    pub(crate) fn topic(&self, subject: &str) -> Option<String> {
        let mut rest = subject.strip_prefix(&self.prefix)?;
        let mut topic = Vec::with_capacity(rest.len());
        while let Some((plain, escaped)) = rest.split_once('%') {
            topic.extend_from_slice(plain.as_bytes());
            let (digits, behind) = escaped.split_at_checked(2)?;
            topic.push(u8::from_str_radix(digits, 16).ok()?);
            rest = behind;
        }
        topic.extend_from_slice(rest.as_bytes());
        String::from_utf8(topic).ok()
    }
}

/// Stands for itself.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'%'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ringwire::topics::{Subscription, topic_token};

    use super::*;

    fn subjects() -> Subjects {
        Subjects::new("ringwire").unwrap()
    }

    proptest! {
        #[test]
        fn every_topic_has_a_subject_of_its_own(
            text in ".{0,30}",
            topic in "[a-zé%$]{1,3}(\\.[a-zé%$]{1,3}){0,3}",
        ) {
            for topic in [topic, format!("room.{}", topic_token(&text))] {
                let subject = subjects().subject(&topic);
                prop_assert!(subject.bytes().all(|byte| byte.is_ascii_graphic()));
                prop_assert_eq!(subject.split('.').count(), topic.split('.').count() + 1);
                prop_assert_eq!(subjects().topic(&subject), Some(topic));
            }
        }

        /// What a pattern takes in as topics it takes in as subjects, with the same meaning of wildcards.
        #[test]
        fn a_pattern_is_one_of_subjects(
            pattern in "(é|b|\\*)(\\.(é|b|\\*)){0,2}(\\.>)?",
            topic in "(é|b)(\\.(é|b)){0,3}",
        ) {
            let (subject, of_pattern) = (subjects().subject(&topic), subjects().subject(&pattern));
            let expected = Subscription::Pattern(&pattern).includes(&topic);
            prop_assert_eq!(Subscription::Pattern(&of_pattern).includes(&subject), expected);
        }
    }

    #[test]
    fn what_is_escaped() {
        let subjects = Subjects::new("chat.eu").unwrap();
        for (topic, subject) in [
            ("room.7", "chat.eu.room.7"),
            ("room.*", "chat.eu.room.*"),
            (">", "chat.eu.>"),
            ("$SYS.x", "chat.eu.$SYS.x"),
            ("café", "chat.eu.caf%C3%A9"),
            ("user.a%2Eb", "chat.eu.user.a%252Eb"),
        ] {
            assert_eq!(subjects.subject(topic), subject);
            assert_eq!(subjects.topic(subject).as_deref(), Some(topic));
        }
        for subject in ["chat.us.room", "chat.eu", "chat.eu.%", "chat.eu.%C3", "chat.eu.%zz"] {
            assert_eq!(subjects.topic(subject), None, "{subject}");
        }
        for prefix in ["", "a..b", "a.", ".a", "a b", "a.*", "é", "100%", "a.>"] {
            assert!(Subjects::new(prefix).is_none(), "{prefix}");
        }
    }
}
