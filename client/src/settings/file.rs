//! Reading the table of a client out of a TOML file.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::{Entry, Place, SettingsError};

/// Takes the values of the table `client` out of `text`.
pub(super) fn read(path: &Path, text: &str) -> Result<Vec<Entry>, SettingsError> {
    let place = |at: usize| {
        let before = text.get(..at).unwrap_or(text);
        Place::File { path: path.to_owned(), line: before.matches('\n').count() + 1 }
    };
    let root = DeTable::parse(text).map_err(|error| SettingsError::Syntax {
        place: place(error.span().map_or(0, |span| span.start)),
        problem: error.message().to_owned(),
    })?;
    let Some(client) = root.get_ref().get("client") else { return Ok(Vec::new()) };
    let wrong = |at, name: &str, kind| SettingsError::Syntax {
        place: place(at),
        problem: format!("{name} can't be a {kind}"),
    };
    let DeValue::Table(table) = client.get_ref() else {
        return Err(wrong(client.span().start, "client", client.get_ref().type_str()));
    };
    let mut entries = Vec::new();
    for (key, value) in table {
        let name = format!("client.{}", key.get_ref());
        let at = key.span().start;
        let text =
            text_of(value.get_ref()).ok_or_else(|| wrong(at, &name, value.get_ref().type_str()))?;
        entries.push(Entry { name, text, place: place(at) });
    }
    Ok(entries)
}

/// A value as the environment would have it: lists with commas.
fn text_of(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().to_owned()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(value) => Some(value.to_string()),
        DeValue::Array(values) => {
            let texts = values.iter().map(|value| text_of(value.get_ref()));
            Some(texts.collect::<Option<Vec<_>>>()?.join(","))
        }
        DeValue::Integer(_) | DeValue::Datetime(_) | DeValue::Table(_) => None,
    }
}
