//! Ids in members of JSON objects.

use ringwire_codec::Message;
use serde_json::{Map, Value};

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
/// A request is a text message with a JSON object, whose id is replaced if it has one.
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

impl MessageIds for JsonIds {
    type Id = u64;

    fn tag(&self, message: Message<'_>, number: u64) -> Option<(OwnedMessage, u64)> {
        let Message::Text(text) = message else { return None };
        let mut object: Map<String, Value> = serde_json::from_str(text).ok()?;
        object.insert(self.id.clone(), Value::from(number));
        Some((OwnedMessage::Text(Value::Object(object).to_string()), number))
    }

    fn sort(&self, message: &OwnedMessage) -> Sorted<u64> {
        let object: Option<Map<String, Value>> =
            message.as_text().and_then(|text| serde_json::from_str(text).ok());
        let Some(mut object) = object else { return Sorted::Push { acknowledgement: None } };
        if let Some(id) = object.get(&self.ack).and_then(Value::as_u64) {
            return Sorted::Response(id);
        }
        let acknowledgement = object.remove(&self.id).map(|id| {
            let object = Map::from_iter([(self.ack.clone(), id)]);
            OwnedMessage::Text(Value::Object(object).to_string())
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
        assert_eq!(sort(r#"{"x":1}"#), push(None));
        assert_eq!(sort(r#"{"ack":-1}"#), push(None));
        assert_eq!(sort("no JSON"), push(None));
        assert_eq!(ids.sort(&OwnedMessage::Binary(b"{\"id\":1}".to_vec())), push(None));
        assert_eq!(JsonIds::new("n", "of").sort(&r#"{"of":3}"#.into()), Sorted::Response(3));
    }
}
