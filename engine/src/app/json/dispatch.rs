//! Handlers of JSON messages by their `type`.

use std::borrow::{Borrow, Cow};
use std::collections::HashMap;
use std::fmt;

use serde::de::{DeserializeOwned, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::app::ctx::Ctx;

/// What is done with the text of a message.
type Run<S, R> = Box<dyn Fn(&mut Ctx<'_, S>, &str) -> Result<R, serde_json::Error>>;

/// Handlers of JSON messages for connections with the state `S`, by the message's member `type`, for use in any
/// [`Handler`](crate::Handler).
///
/// ```
/// use ringwire::json::Dispatch;
/// use ringwire::{Answer, Ctx, Handler, Message, Request};
/// use serde::Deserialize;
///
/// #[derive(Deserialize)]
/// struct Add { a: i64, b: i64 }
///
/// struct Sums(Dispatch<()>);
///
/// impl Sums {
///     fn new() -> Self {
///         Self(Dispatch::new().on("add", |ctx, Add { a, b }| {
///             let _ = ctx.send(&format!(r#"{{"type":"sum","sum":{}}}"#, a + b));
///         }))
///     }
/// }
///
/// impl Handler for Sums {
///     type State = ();
///
///     fn on_request(&mut self, _: &Request<'_>) -> Answer<()> {
///         Answer::accept(())
///     }
///
///     fn on_message(&mut self, ctx: &mut Ctx<'_, ()>, message: Message<'_>) {
///         if let Err(error) = self.0.run(ctx, message.as_text().unwrap_or_default()) {
///             let _ = ctx.send(&format!(r#"{{"type":"error","error":"{error}"}}"#));
///         }
///     }
/// }
/// # Sums::new();
/// ```
pub struct Dispatch<S, R = ()>(HashMap<&'static str, Run<S, R>>);

/// Why no handler took a message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DispatchError {
    /// It is no JSON object with a text as its `type`.
    #[error("a message is a JSON object with a `type`")]
    NoType,
    /// No handler has this type.
    #[error("there is no message of this type")]
    Unknown,
    /// It is not what the handler of its type takes.
    #[error("the message lacks a member, or has one of a wrong type")]
    Malformed(#[source] serde_json::Error),
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
}

impl<S, R> Dispatch<S, R> {
    /// Without handlers.
    #[must_use]
    pub fn new() -> Self {
        Self(HashMap::new())
    }

    /// Has messages of a type handled so: `M` is what they have beside it. The last one that is given for a type
    /// counts.
    #[must_use]
    pub fn on<M: DeserializeOwned>(
        mut self,
        kind: &'static str,
        handler: impl Fn(&mut Ctx<'_, S>, M) -> R + 'static,
    ) -> Self {
        let run: Run<S, R> =
            Box::new(move |ctx, text| Ok(handler(ctx, serde_json::from_str(text)?)));
        self.0.insert(kind, run);
        self
    }

    /// Calls the handler of a message, and gives back what that does.
    ///
    /// # Errors
    /// No handler took it.
    pub fn run(&self, ctx: &mut Ctx<'_, S>, text: &str) -> Result<R, DispatchError> {
        let Head { kind } = object_of(text).ok_or(DispatchError::NoType)?;
        let run = self.0.get(&*kind).ok_or(DispatchError::Unknown)?;
        run(ctx, text).map_err(DispatchError::Malformed)
    }
}

impl<S, R> Default for Dispatch<S, R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S, R> fmt::Debug for Dispatch<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Dispatch").field(&self.0.keys()).finish()
    }
}

/// Reads a JSON object. `serde` alone would take an array of the members' values for a struct as well. `None`: it is none,
/// or lacks something.
///
/// ```
/// use ringwire::json::object_of;
///
/// #[derive(serde::Deserialize)]
/// struct Move { x: i32 }
///
/// assert_eq!(object_of(r#"{"x":1}"#).map(|Move { x }| x), Some(1));
/// assert!(object_of::<Move>("[1]").is_none());
/// ```
#[must_use]
pub fn object_of<'a, T: Deserialize<'a>>(text: &'a str) -> Option<T> {
    text.trim_start().starts_with('{').then(|| serde_json::from_str(text).ok()).flatten()
}

/// A value that goes on to others as it is written, where any parser takes it: with fewer than 128 arrays and objects in
/// each other, numbers that a double can be near to, and no half of a character (RFC 8259 §8.2, §9).
///
/// ```
/// use serde::Deserialize;
/// use serde_json::value::RawValue;
///
/// #[derive(Deserialize)]
/// struct Said {
///     #[serde(deserialize_with = "ringwire::json::plain")]
///     text: Box<RawValue>,
/// }
///
/// let said: Said = serde_json::from_str(r#"{"text": "hello"}"#).unwrap();
/// assert_eq!(said.text.get(), r#""hello""#);
/// assert!(serde_json::from_str::<Said>(r#"{"text": 1e999}"#).is_err());
/// ```
///
/// # Errors
///
/// For what is no JSON, and for what some parsers refuse.
pub fn plain<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Borrow<RawValue>,
{
    struct Plain;

    impl<'de> Deserialize<'de> for Plain {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            from.deserialize_any(Self)
        }
    }

    macro_rules! take {
        ($($visit:ident: $value:ty),+) => {
            $(fn $visit<E>(self, _: $value) -> Result<Self, E> { Ok(self) })+
        };
    }

    impl<'de> Visitor<'de> for Plain {
        type Value = Self;

        take!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("JSON")
        }

        fn visit_unit<E>(self) -> Result<Self, E> {
            Ok(self)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self, A::Error> {
            while seq.next_element::<Self>()?.is_some() {}
            Ok(self)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
            while map.next_entry::<Self, Self>()?.is_some() {}
            Ok(self)
        }
    }

    let value = T::deserialize(from)?;
    serde_json::from_str::<Plain>(value.borrow().get()).map_err(D::Error::custom)?;
    Ok(value)
}

/// The member `id` of a JSON object, as it is written there, also where the object is broken behind it: an error can name
/// what it is about.
///
/// ```
/// let id = ringwire::json::id_of(r#"{"id":7,"text":"cut o"#);
/// assert_eq!(id.map(|id| id.get()), Some("7"));
/// ```
#[must_use]
pub fn id_of(text: &str) -> Option<&RawValue> {
    struct Seek<'a, 'i>(&'i mut Option<&'a RawValue>);

    impl<'de> Visitor<'de> for Seek<'de, '_> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            while let Some(name) = map.next_key::<Cow<'_, str>>()? {
                match &*name {
                    "id" => *self.0 = Some(map.next_value()?),
                    _ => drop(map.next_value::<serde::de::IgnoredAny>()?),
                }
            }
            Ok(())
        }
    }

    let mut id = None;
    // What is broken has been found so by others.
    let _ = serde_json::Deserializer::from_str(text).deserialize_map(Seek(&mut id));
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_not_every_parser_takes_does_not_go_on() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        let digits = |count: usize| "9".repeat(count);
        for text in
            [r#"{"a":[null,true,-1,2.50,1e300,"\ud83d\ude00\u0000"]}"#, &nested(127), &digits(300)]
        {
            let mut from = serde_json::Deserializer::from_str(text);
            assert_eq!(plain::<_, &RawValue>(&mut from).map(RawValue::get).ok(), Some(text));
        }
        for text in [r#""\ud800""#, "1e999", &nested(128), &nested(100_000), &digits(400)] {
            let mut from = serde_json::Deserializer::from_str(text);
            assert!(plain::<_, Box<RawValue>>(&mut from).is_err(), "{:.20}", text);
        }
    }

    #[test]
    fn ids_of_what_is_whole_and_what_is_broken() {
        for (text, id) in [
            (r#"{"id":"a","x":[1,{"id":2}]}"#, Some(r#""a""#)),
            (r#"{"x":[1,{"id":2}], "id" : 7 }"#, Some("7")),
            (r#"{"id":"a","x":"#, Some(r#""a""#)),
            (r#"{"id":"a" "x"}"#, Some(r#""a""#)),
            (r#"{"i\u0064":{"y":[]},}"#, Some(r#"{"y":[]}"#)),
            (r#"{"x":,"id":"a"}"#, None),
            (r#"{"id":"a"#, None),
            (r#"["id"]"#, None),
            ("", None),
        ] {
            assert_eq!(id_of(text).map(RawValue::get), id, "{text}");
        }
    }
}
