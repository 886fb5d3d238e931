//! Reading a TOML file into names and texts.

use std::borrow::Cow;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Entry, Origin, SettingsError, table};

/// Takes all values out of `text`, tables in tables with dots between their names.
pub(super) fn read(path: &Path, text: &str) -> Result<Vec<Entry>, SettingsError> {
    let reader = Reader { path, text };
    let root = DeTable::parse(text).map_err(|error| SettingsError::Syntax {
        origin: reader.origin(error.span().map_or(0, |span| span.start)),
        problem: error.message().to_owned(),
    })?;
    let mut entries = Vec::new();
    reader.read_table("", root.get_ref(), &mut entries)?;
    Ok(entries)
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Reader<'_> {
    fn origin(&self, at: usize) -> Origin {
        let before = self.text.get(..at).unwrap_or(self.text);
        Origin::File { path: self.path.to_owned(), line: before.matches('\n').count() + 1 }
    }

    fn read_table(
        &self,
        prefix: &str,
        table: &DeTable<'_>,
        entries: &mut Vec<Entry>,
    ) -> Result<(), SettingsError> {
        for (key, value) in table {
            let dot = if prefix.is_empty() { "" } else { "." };
            let name = format!("{prefix}{dot}{}", key.get_ref());
            let origin = self.origin(key.span().start);
            match value.get_ref() {
                DeValue::Table(inner) if table::find(&name).is_none() => {
                    self.read_table(&name, inner, entries)?;
                }
                value => {
                    let text = text_of(value).ok_or_else(|| SettingsError::Syntax {
                        origin: origin.clone(),
                        problem: format!("{name} can't be a {}", value.type_str()),
                    })?;
                    entries.push(Entry { name, text, origin });
                }
            }
        }
        Ok(())
    }
}

/// A value as the environment would have it: lists with commas, the keys and values of a table as `key=value`.
fn text_of(value: &DeValue<'_>) -> Option<String> {
    let parts = match value {
        DeValue::String(text) => return Some(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => {
            return Some(number.as_str().to_owned());
        }
        DeValue::Float(number) => return Some(number.as_str().to_owned()),
        DeValue::Boolean(value) => return Some(value.to_string()),
        DeValue::Array(values) => {
            values.iter().map(|value| text_of(value.get_ref())).collect::<Option<Vec<_>>>()?
        }
        DeValue::Table(table) => {
            let mut pairs: Vec<(&Spanned<Cow<'_, str>>, _)> = table.iter().collect();
            // The order of the file, which is one of precedence.
            pairs.sort_by_key(|(key, _)| key.span().start);
            let pair = |(key, value): (&Spanned<Cow<'_, str>>, &Spanned<DeValue<'_>>)| {
                Some(format!("{}={}", key.get_ref(), text_of(value.get_ref())?))
            };
            pairs.into_iter().map(pair).collect::<Option<Vec<_>>>()?
        }
        DeValue::Integer(_) | DeValue::Datetime(_) => return None,
    };
    Some(parts.join(","))
}
