//! Ids in members of JSON objects.

use std::collections::BTreeMap;

use ringwire_codec::Message;
use serde_json::value::{RawValue, to_raw_value};

use crate::message::OwnedMessage;
use crate::request::{MessageIds, Sorted};

/// Ids in members of JSON objects: a message that is to be acknowledged has `"id"`, what acknowledges it has `"ack"`
/// with the same value. Both names can be others.
///
/// ```text
///  client  {"id": 7, "do": "subscribe"}        server  {"id": "a1", "news": …}
///  server  {"ack": 7, "ok": true}              client  {"ack": "a1"}
/// ```
///
/// A request is a text message with a JSON object, whose id is replaced if it has one. All else of it stays as it is
/// written, but for the order of its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonIds {
    id: String,
    ack: String,
}

impl Default for JsonIds {
    fn default() -> Self {
        Self::new("id", "ack")
    }
}

impl JsonIds {
    /// The names of the members for the id of a message and for the id that it answers.
    #[must_use]
    pub fn new(id: &str, ack: &str) -> Self {
        Self { id: id.to_owned(), ack: ack.to_owned() }
    }
}

/// An object whose values are as they were written: a number may be more than any type here holds.
type Object = BTreeMap<String, Box<RawValue>>;

impl MessageIds for JsonIds {
    type Id = u64;

    fn tag(&self, message: Message<'_>, number: u64) -> Option<(OwnedMessage, u64)> {
        let Message::Text(text) = message else { return None };
        let mut object: Object = serde_json::from_str(text).ok()?;
        object.insert(self.id.clone(), to_raw_value(&number).ok()?);
        Some((OwnedMessage::Text(serde_json::to_string(&object).ok()?), number))
    }

    fn sort(&self, message: &OwnedMessage) -> Sorted<u64> {
        let object: Option<Object> =
            message.as_text().and_then(|text| serde_json::from_str(text).ok());
        let Some(mut object) = object else { return Sorted::Push { acknowledgement: None } };
        let ack = object.get(&self.ack).and_then(|id| serde_json::from_str(id.get()).ok());
        if let Some(id) = ack {
            return Sorted::Response(id);
        }
        let acknowledgement = object.remove(&self.id).and_then(|id| {
            let object = Object::from([(self.ack.clone(), id)]);
            serde_json::to_string(&object).ok().map(OwnedMessage::Text)
        });
        Sorted::Push { acknowledgement }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_in_members() {
        let ids = JsonIds::default();
        let tagged = ids.tag(Message::Text(r#"{"do":"x","id":"old"}"#), 7).unwrap();
        assert_eq!(tagged, (r#"{"do":"x","id":7}"#.into(), 7));
        assert_eq!(ids.tag(Message::Text("[1]"), 7), None);
        assert_eq!(ids.tag(Message::Text("{"), 7), None);
        assert_eq!(ids.tag(Message::Binary(b"{}"), 7), None);

        let sort = |text: &str| ids.sort(&text.into());
        assert_eq!(sort(r#"{"ack":7,"id":1}"#), Sorted::Response(7));
        let push = |acknowledgement: Option<&str>| Sorted::Push {
            acknowledgement: acknowledgement.map(OwnedMessage::from),
        };
        assert_eq!(sort(r#"{"id":"a\"1","x":{}}"#), push(Some(r#"{"ack":"a\"1"}"#)));
        // Numbers that no float has.
        assert_eq!(
            ids.tag(Message::Text(r#"{"n":12345678901234567890123,"a":[1.10,1e400]}"#), 7),
            Some((r#"{"a":[1.10,1e400],"id":7,"n":12345678901234567890123}"#.into(), 7))
        );
        assert_eq!(
            sort(r#"{"id":18446744073709551616}"#),
            push(Some(r#"{"ack":18446744073709551616}"#))
        );
        assert_eq!(sort(r#"{"ack":18446744073709551616}"#), push(None));
        assert_eq!(sort(r#"{"ack":7.0}"#), push(None));
        assert_eq!(sort(r#"{"ack":"7"}"#), push(None));
        assert_eq!(sort(r#"{"ack": 7 }"#), Sorted::Response(7));
        assert_eq!(sort(r#"{"x":1}"#), push(None));
        assert_eq!(sort(r#"{"ack":-1}"#), push(None));
        assert_eq!(sort("no JSON"), push(None));
        assert_eq!(ids.sort(&OwnedMessage::Binary(b"{\"id\":1}".to_vec())), push(None));
        assert_eq!(JsonIds::new("n", "of").sort(&r#"{"of":3}"#.into()), Sorted::Response(3));
    }
}
