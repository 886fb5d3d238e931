//! The message that a generator sends, and whether a message that comes is its reply.
//!
//! A message of the user's has places that are filled anew for each: `{number}`, `{connection}`, `{digits:8}`,
//! `{hex:8}`, `{uuid}`, `{timestamp}`. All of a place's values are equally long, and what is random is a function of
//! two numbers, those of the connection and the message: a check makes it again.
#![expect(clippy::disallowed_methods, reason = "a message may have the time in it")]

use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

use fastrand::Rng;
use memchr::memchr;
use ringwire::Message;

use crate::echo::Shape;

/// Bytes of a message that are its number, in hexadecimal digits, where it has one.
pub(crate) const NUMBER_LEN: usize = 8;
/// Digits of the milliseconds since 1970, until the year 2286.
const TIMESTAMP_LEN: usize = 13;
const UUID_LEN: usize = 36;
/// The longest place for random digits.
const MAX_RANDOM_LEN: usize = 1 << 20;

/// A message, which all connections send.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    text: bool,
    /// In their order.
    places: Vec<Place>,
}

/// A part of the message that is not always the same.
#[derive(Clone, Debug)]
struct Place {
    range: Range<usize>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Number,
    Connection,
    Digits,
    Hex,
    Uuid,
    Timestamp,
}

impl Template {
    /// Of so many bytes, random ones, or random small letters as text, with the number at the begin.
    pub(crate) fn noise(len: usize, text: bool) -> Self {
        let shape = Shape { text, ..Shape::of_noise(len) };
        let bytes = shape.payloads(1).pop().unwrap_or_default();
        let number = Place { range: 0..NUMBER_LEN, kind: Kind::Number };
        Self { places: (len >= NUMBER_LEN).then_some(number).into_iter().collect(), bytes, text }
    }

    /// The user's: text if it is UTF-8.
    pub(crate) fn of(text: &[u8]) -> Self {
        let (mut bytes, mut places) = (Vec::with_capacity(text.len()), Vec::new());
        let mut rest = text;
        while let Some(at) = memchr(b'{', rest) {
            let (before, from) = rest.split_at(at);
            bytes.extend_from_slice(before);
            let word = memchr(b'}', from).and_then(|end| Some((Kind::of(&from[1..end])?, end)));
            rest = match word {
                Some(((kind, len), end)) => {
                    places.push(Place { range: bytes.len()..bytes.len() + len, kind });
                    bytes.resize(bytes.len() + len, b'0');
                    &from[end + 1..]
                }
                None => {
                    bytes.push(b'{');
                    &from[1..]
                }
            };
        }
        bytes.extend_from_slice(rest);
        Self { text: std::str::from_utf8(&bytes).is_ok(), bytes, places }
    }

    /// Bytes of a message.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Writes the message of a connection with a number into `buffer`, in place of what was in it.
    pub(crate) fn write<'b>(
        &self,
        connection: u32,
        number: u32,
        buffer: &'b mut Vec<u8>,
    ) -> Message<'b> {
        buffer.clear();
        buffer.extend_from_slice(&self.bytes);
        for place in &self.places {
            let target = &mut buffer[place.range.clone()];
            target
                .iter_mut()
                .zip(place.value(connection, number))
                .for_each(|(to, byte)| *to = byte);
        }
        match std::str::from_utf8(buffer) {
            Ok(letters) if self.text => Message::Text(letters),
            _ => Message::Binary(buffer),
        }
    }

    /// The number of a connection's message of which `reply` is the echo; one without has the number that is expected.
    pub(crate) fn number(&self, connection: u32, reply: Message<'_>, expected: u32) -> Option<u32> {
        let bytes = reply.as_bytes();
        if reply.is_text() != self.text || bytes.len() != self.bytes.len() {
            return None;
        }
        let number = match self.places.iter().find(|place| place.kind == Kind::Number) {
            Some(place) => {
                let digits = std::str::from_utf8(&bytes[place.range.clone()]).ok()?;
                u32::from_str_radix(digits, 16).ok()?
            }
            None => expected,
        };
        let mut at = 0;
        for Place { range, kind } in &self.places {
            if self.bytes[at..range.start] != bytes[at..range.start] {
                return None;
            }
            let found = &bytes[range.clone()];
            let is_right = match kind {
                // When it was sent is not remembered.
                Kind::Timestamp => found.iter().all(u8::is_ascii_digit),
                _ => {
                    let place = Place { range: range.clone(), kind: *kind };
                    place.value(connection, number).zip(found).all(|(byte, found)| byte == *found)
                }
            };
            if !is_right {
                return None;
            }
            at = range.end;
        }
        (self.bytes[at..] == bytes[at..]).then_some(number)
    }
}

impl Kind {
    /// What stands between the braces, and how long its values are.
    fn of(word: &[u8]) -> Option<(Self, usize)> {
        let word = std::str::from_utf8(word).ok()?;
        if let Some((name, len)) = word.split_once(':') {
            let len = len.parse().ok().filter(|len| (1..=MAX_RANDOM_LEN).contains(len))?;
            return match name {
                "digits" => Some((Self::Digits, len)),
                "hex" => Some((Self::Hex, len)),
                _ => None,
            };
        }
        match word {
            "number" => Some((Self::Number, NUMBER_LEN)),
            "connection" => Some((Self::Connection, NUMBER_LEN)),
            "uuid" => Some((Self::Uuid, UUID_LEN)),
            "timestamp" => Some((Self::Timestamp, TIMESTAMP_LEN)),
            _ => None,
        }
    }
}

impl Place {
    /// What stands there in a message of a connection, byte by byte.
    fn value(&self, connection: u32, number: u32) -> impl Iterator<Item = u8> {
        let kind = self.kind;
        let fixed = match kind {
            Kind::Number => number.into(),
            Kind::Connection => connection.into(),
            Kind::Timestamp => now_millis(),
            _ => 0,
        };
        let seed = u64::from(connection) << 32 | u64::from(number);
        // Places of a message differ.
        let mut random = Rng::with_seed(seed ^ (self.range.start as u64) << 17);
        (0..self.range.len()).map(move |at| match kind {
            Kind::Number | Kind::Connection => hex(fixed >> (4 * (NUMBER_LEN - 1 - at))),
            Kind::Timestamp => {
                let power = 10_u64.pow(u32::try_from(TIMESTAMP_LEN - 1 - at).unwrap_or_default());
                digit(fixed / power)
            }
            Kind::Digits => digit(random.u64(..10)),
            Kind::Hex => hex(random.u64(..16)),
            // RFC 9562 §5.4: version 4, variant 0b10.
            Kind::Uuid => match at {
                8 | 13 | 18 | 23 => b'-',
                14 => b'4',
                19 => hex(8 | random.u64(..4)),
                _ => hex(random.u64(..16)),
            },
        })
    }
}

/// The last digit of a number in hexadecimal ones.
fn hex(number: u64) -> u8 {
    let [digit, ..] = (number & 15).to_le_bytes();
    if digit < 10 { b'0' + digit } else { b'a' - 10 + digit }
}

/// The last digit of a number in decimal ones.
fn digit(number: u64) -> u8 {
    let [digit, ..] = (number % 10).to_le_bytes();
    b'0' + digit
}

fn now_millis() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn as_message(bytes: &[u8], text: bool) -> Message<'_> {
        match std::str::from_utf8(bytes) {
            Ok(letters) if text => Message::Text(letters),
            _ => Message::Binary(bytes),
        }
    }

    #[test]
    fn numbers_come_back() {
        for text in [false, true] {
            let template = Template::noise(20, text);
            let mut buffer = Vec::new();
            for number in [0, 9, 10, 0xdead_beef, u32::MAX] {
                let message = template.write(0, number, &mut buffer);
                assert_eq!(message.is_text(), text);
                assert_eq!(template.number(0, message, 3), Some(number));
            }
            let mut bytes = buffer.clone();
            bytes[19] ^= 1;
            assert_eq!(template.number(0, as_message(&bytes, text), 0), None);
            assert_eq!(template.number(0, as_message(&buffer[..19], text), 0), None);
            assert_eq!(template.number(0, Message::Binary(&buffer), 0).is_none(), text);
        }
        let short = Template::noise(7, false);
        assert!(short.places.is_empty() && short.len() == 7);
    }

    #[test]
    fn messages_of_users_have_numbers_where_they_say() {
        let template = Template::of(br#"{"id":"{number}","n":1}"#);
        let mut buffer = Vec::new();
        let message = template.write(0, 0xab, &mut buffer);
        assert_eq!(message, Message::Text(r#"{"id":"000000ab","n":1}"#));
        assert_eq!(template.number(0, message, 0), Some(0xab));
        assert_eq!(template.number(0, Message::Text(r#"{"id":"000000ab","n":2}"#), 0), None);
        // Without a place there is an order at least.
        let plain = Template::of(b"hello");
        assert_eq!(plain.write(0, 7, &mut buffer), Message::Text("hello"));
        assert_eq!(plain.number(0, Message::Text("hello"), 4), Some(4));
        assert_eq!(plain.number(0, Message::Text("hullo"), 4), None);
        assert!(!Template::of(&[0xff, 0xfe]).write(0, 0, &mut buffer).is_text());
        for plain in
            ["{", "{}", "{number", "{digits}", "{digits:0}", "{digits:x}", "{hex:99999999}"]
        {
            assert_eq!(
                Template::of(plain.as_bytes()).write(0, 0, &mut buffer),
                Message::Text(plain)
            );
        }
    }

    #[test]
    fn places_are_filled_anew_for_each_message() {
        let text = "{{connection}}|{digits:20}|{hex:40}|{uuid}|{timestamp}|{number}|{hex:40}";
        let template = Template::of(text.as_bytes());
        let fill = |connection, number| {
            let mut buffer = Vec::new();
            let message = template.write(connection, number, &mut buffer);
            assert_eq!((message.is_text(), message.len()), (true, template.len()));
            assert_eq!(template.number(connection, message, 9), Some(number));
            assert_eq!(template.number(connection + 1, message, 9), None, "another connection's");
            String::from_utf8(buffer).unwrap()
        };
        let one = fill(0x1f, 3);
        let parts: Vec<&str> = one.split('|').collect();
        assert_eq!((parts[0], parts[5]), ("{0000001f}", "00000003"));
        assert!(parts[1].len() == 20 && parts[1].bytes().all(|byte| byte.is_ascii_digit()));
        assert!(parts[2].len() == 40 && parts[2].bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(parts[2], parts[6], "places of a message differ");
        let uuid: Vec<&str> = parts[3].split('-').collect();
        assert_eq!(uuid.iter().map(|part| part.len()).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        assert!(uuid[2].starts_with('4') && uuid[3].starts_with(['8', '9', 'a', 'b']), "{one}");
        let millis: u64 = parts[4].parse().unwrap();
        assert!(now_millis() - millis < 60_000, "{one}");
        for index in [1, 2, 3] {
            let all = (0..100).flat_map(|connection| (0..10).map(move |at| (connection, at)));
            let values: BTreeSet<String> = all
                .map(|(connection, at)| {
                    fill(connection, at).split('|').nth(index).unwrap().to_owned()
                })
                .collect();
            assert_eq!(values.len(), 1000, "{index}");
        }
        let digits = fill(1, 1);
        let seen: BTreeSet<u8> = (0..20)
            .flat_map(|number| fill(1, number)[11..31].bytes().collect::<Vec<_>>())
            .collect();
        assert_eq!(seen, (b'0'..=b'9').collect(), "{digits}");
    }

    #[test]
    fn every_byte_of_a_reply_is_compared() {
        let template = Template::of(b"a{digits:5}b{uuid}c{timestamp}d{connection}e");
        let mut buffer = Vec::new();
        template.write(7, 2, &mut buffer);
        assert_eq!(template.number(7, as_message(&buffer, true), 2), Some(2));
        let time = buffer.iter().rposition(|byte| *byte == b'c').unwrap() + 1;
        for at in 0..buffer.len() {
            let mut wrong = buffer.clone();
            // Another digit, or another letter.
            wrong[at] = if wrong[at] == b'1' { b'2' } else { b'1' };
            let found = template.number(7, as_message(&wrong, true), 2);
            let is_time = (time..time + TIMESTAMP_LEN).contains(&at);
            assert_eq!(found.is_some(), is_time, "{at}");
        }
    }
}
