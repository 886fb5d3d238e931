//! JSON that goes on to others as it came.

use std::borrow::Borrow;
use std::fmt;

use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Deserializes a value that goes on to others as it is written, if any parser takes it: with fewer than 128 arrays and
/// objects in each other, numbers that a double comes near to, and no half of a surrogate pair (RFC 8259 §8.2, §9). A
/// [`RawValue`] alone has no such limits, and what its sender nests deeper makes the parsers of others fail.
///
/// # Errors
/// It is no JSON, or not of that kind.
///
/// ```
/// use serde::Deserialize;
/// use serde_json::value::RawValue;
///
/// #[derive(Deserialize)]
/// struct Said<'a> {
///     #[serde(borrow, deserialize_with = "ringwire::json::plain")]
///     data: &'a RawValue,
/// }
///
/// let said: Said<'_> = serde_json::from_str(r#"{"data":{"n":2.50}}"#).unwrap();
/// assert_eq!(said.data.get(), r#"{"n":2.50}"#);
/// let deep = format!(r#"{{"data":{}{}}}"#, "[".repeat(1000), "]".repeat(1000));
/// assert!(serde_json::from_str::<Said<'_>>(&deep).is_err());
/// ```
pub fn plain<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Borrow<RawValue>,
{
    let value = T::deserialize(from)?;
    serde_json::from_str::<Plain>(value.borrow().get()).map_err(D::Error::custom)?;
    Ok(value)
}

/// The same, but `null` becomes an object without members, so that whoever reads a member of it finds none instead of
/// failing. With [`empty_object`] as the default, so does what is missing.
///
/// # Errors
/// As for [`plain`].
///
/// ```
/// use serde::Deserialize;
/// use serde_json::value::RawValue;
///
/// #[derive(Deserialize)]
/// struct Said<'a> {
///     #[serde(borrow, default = "ringwire::json::empty_object")]
///     #[serde(deserialize_with = "ringwire::json::plain_or_empty")]
///     data: &'a RawValue,
/// }
///
/// let data = |text| serde_json::from_str(text).map(|Said { data }| data.get()).ok();
/// assert_eq!(data(r#"{"data":{"n":2.50}}"#), Some(r#"{"n":2.50}"#));
/// assert_eq!(data(r#"{"data":[1]}"#), Some("[1]"));
/// assert_eq!(data(r#"{"data":null}"#), Some("{}"));
/// assert_eq!(data("{}"), Some("{}"));
/// ```
pub fn plain_or_empty<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Borrow<RawValue>,
{
    let value: T = plain(from)?;
    Ok(if value.borrow().get() == "null" { empty_object() } else { value })
}

/// `{}`
#[expect(clippy::missing_panics_doc, reason = "a `RawValue` takes all JSON")]
pub fn empty_object<'de, T: Deserialize<'de> + Borrow<RawValue>>() -> T {
    serde_json::from_str("{}").expect("it is JSON")
}

/// Deserializes a time as JSON Web Tokens have it, in seconds since 1970 (RFC 7519 §2, NumericDate): into a `u64`, or
/// an `Option<u64>` with `serde`'s `default`. A fraction is cut off.
///
/// # Errors
/// It is no number, is before 1970, or has a fraction or an exponent and is beyond the year 9999.
///
/// ```
/// #[derive(serde::Deserialize)]
/// struct Claims {
///     #[serde(deserialize_with = "ringwire::json::numeric_date")]
///     exp: u64,
///     #[serde(default, deserialize_with = "ringwire::json::numeric_date")]
///     nbf: Option<u64>,
/// }
///
/// let claims: Claims = serde_json::from_str(r#"{"exp":1767225600.5}"#).unwrap();
/// assert_eq!((claims.exp, claims.nbf), (1_767_225_600, None));
/// assert!(serde_json::from_str::<Claims>(r#"{"exp":"tomorrow"}"#).is_err());
/// ```
pub fn numeric_date<'de, D: Deserializer<'de>, T: From<u64>>(from: D) -> Result<T, D::Error> {
    let number = serde_json::Number::deserialize(from)?;
    let whole = number.as_u64().or_else(|| {
        let number = number.as_f64().filter(|number| (0.0..=LAST_SECOND).contains(number));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is in range"
        )]
        number.map(|number| number as u64)
    });
    whole.map(T::from).ok_or_else(|| D::Error::custom("expected seconds since 1970"))
}

/// Of the year 9999.
const LAST_SECOND: f64 = 253_402_300_799.0;

/// A value of which nothing is kept: the parser's own limits hold for it.
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
}
