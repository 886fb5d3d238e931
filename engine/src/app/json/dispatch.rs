//! Handlers of JSON messages by their `type`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::de::DeserializeOwned;
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

/// Reads a JSON object. `serde` alone would take an array of the members' values for a struct as well. `None`: it is
/// none, or lacks something.
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

/// The member `id` of a JSON object, as it is written there, also where the object is broken behind it: an error can
/// name what it is about.
///
/// ```
/// let id = ringwire::json::id_of(r#"{"id":7,"text":"cut o"#);
/// assert_eq!(id.map(|id| id.get()), Some("7"));
/// ```
#[must_use]
pub fn id_of(text: &str) -> Option<&RawValue> {
    struct Seek<'a, 'i>(&'i mut Option<&'a RawValue>);

    impl<'de> serde::de::Visitor<'de> for Seek<'de, '_> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
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
