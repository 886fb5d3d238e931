//! What can be wrong with a configuration.

use std::io;
use std::path::PathBuf;

use super::Origin;

/// Why settings could not be loaded. One error is one mistake: the first.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The file could not be read.
    #[error("cannot read {}: {source}", .path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file is no TOML.
    #[error("{origin}: {problem}")]
    Syntax {
        /// Where.
        origin: Origin,
        /// What is wrong there.
        problem: String,
    },
    /// There is no such setting.
    #[error("{origin}: there is no setting {name}{}", suggestion(.nearest.as_deref()))]
    Unknown {
        /// Where it stands.
        origin: Origin,
        /// What it is called there.
        name: String,
        /// What was meant, perhaps.
        nearest: Option<String>,
    },
    /// The setting cannot have this value.
    #[error("{origin}: {name} can't be {value:?}: expected {accepts}")]
    Value {
        /// Where it stands.
        origin: Origin,
        /// The setting.
        name: String,
        /// The value.
        value: String,
        /// What would be accepted.
        accepts: &'static str,
    },
    /// Something of the application's own cannot have this value.
    #[error("{origin}: {name} can't be {value:?}: {problem}")]
    Own {
        /// Where it stands.
        origin: Origin,
        /// What it is called.
        name: String,
        /// The value.
        value: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Something that the application can't do without was not set.
    #[error("{name} is missing: set {variable}, or {name} in a file")]
    Missing {
        /// What it is called.
        name: String,
        /// Its environment variable.
        variable: String,
    },
    /// The settings don't go together, or one is out of its range.
    #[error("{origin}: {source}")]
    Check {
        /// Where the setting that is named comes from.
        origin: Origin,
        /// What is wrong with it.
        source: crate::Error,
    },
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |nearest| format!(" (did you mean {nearest}?)"))
}

/// What of `known` was meant by `name`, perhaps: a whole name or its last part, with few letters wrong.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let (_, found) = known
        .filter_map(|candidate| {
            // A name in the wrong table is off by less than one with wrong letters.
            let whole = 2 * distance(name, candidate);
            let part = 2 * distance(&last(name), &last(candidate)) + 1;
            let off = whole.min(part);
            let most = 2 * (name.chars().count() / 3).max(2);
            (off <= most).then_some((off, candidate))
        })
        .min_by_key(|(off, _)| *off)?;
    Some(found)
}

/// How many letters have to be put in, left out or replaced (Levenshtein's distance).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (index, letter) in a.chars().enumerate() {
        let mut diagonal = index;
        let mut left = index + 1;
        for (other, above) in b.iter().zip(row.iter_mut().skip(1)) {
            let best = (diagonal + usize::from(letter != *other)).min(left + 1).min(*above + 1);
            diagonal = std::mem::replace(above, best);
            left = best;
        }
        if let Some(first) = row.first_mut() {
            *first = index + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expected) in
            [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("ab", "ba", 2)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn what_was_meant() {
        let known = ["max_connections", "compression.mode", "idle_timeout", "driver"];
        let meant = |name| nearest(name, known.into_iter());
        assert_eq!(meant("max_conections"), Some("max_connections"));
        assert_eq!(meant("mode"), Some("compression.mode"));
        assert_eq!(meant("idle_timeuot"), Some("idle_timeout"));
        assert_eq!(meant("colour"), None);
    }
}
