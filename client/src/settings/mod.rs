//! Settings of a client from a file and the environment.
//!
//! One [table](all) has the name of every setting, what it accepts, and how it is read and written. A TOML file, the
//! environment (`RINGWIRE_CLIENT_*`) and the list in docs/configuration.md go by it. The environment wins over the
//! file, and that over the defaults. What the rest of the file says is a server's, and ignored.
//!
//! ```
//! use ringwire_client::settings::Sources;
//!
//! let builder = Sources::default()
//!     .with_file_text("chat.toml", "[client]\nread_timeout = '30s'\nsubprotocols = ['chat']\n")?
//!     .with_variables([("RINGWIRE_CLIENT_PROXY".to_owned(), "none".to_owned())])
//!     .load()?;
//! # let _ = builder;
//! # Ok::<(), ringwire_client::settings::SettingsError>(())
//! ```

mod file;
mod table;
mod values;

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

pub use self::table::{Setting, all, find};
use crate::builder::Builder;

/// Where the settings of a client are looked for.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    base: Builder,
    entries: Vec<Entry>,
}

/// A value that somebody has set.
#[derive(Clone, Debug)]
struct Entry {
    name: String,
    text: String,
    place: Place,
}

/// Where a value stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Place {
    /// A file.
    File {
        /// Its path.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// An environment variable.
    Variable(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => f.write_str(name),
        }
    }
}

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
    #[error("{place}: {problem}")]
    Syntax {
        /// Where.
        place: Place,
        /// What is wrong there.
        problem: String,
    },
    /// There is no such setting.
    #[error("{place}: there is no setting {name} (docs/configuration.md lists them)")]
    Unknown {
        /// Where it stands.
        place: Place,
        /// What it is called there.
        name: String,
    },
    /// The setting cannot have this value.
    #[error("{place}: {name} can't be {value:?}: expected {accepts}")]
    Value {
        /// Where it stands.
        place: Place,
        /// The setting.
        name: &'static str,
        /// The value; of a proxy, which may have a password, nothing.
        value: String,
        /// What would be accepted.
        accepts: &'static str,
    },
}

impl Sources {
    /// Starts from these defaults instead of those of [`Builder`].
    #[must_use]
    pub const fn new(defaults: Builder) -> Self {
        Self { base: defaults, entries: Vec::new() }
    }

    /// Reads the table `client` of a TOML file.
    ///
    /// # Errors
    /// It can't be read, or is no TOML.
    pub fn with_file(self, path: impl AsRef<Path>) -> Result<Self, SettingsError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path)
            .map_err(|source| SettingsError::File { path: path.to_owned(), source })?;
        self.with_file_text(path, &text)
    }

    /// Takes the text of a TOML file that was read already; `path` is what errors call it.
    ///
    /// # Errors
    /// It is no TOML.
    pub fn with_file_text(
        mut self,
        path: impl AsRef<Path>,
        text: &str,
    ) -> Result<Self, SettingsError> {
        self.entries.extend(file::read(path.as_ref(), text)?);
        Ok(self)
    }

    /// Takes the variables of this process that begin with `RINGWIRE_CLIENT_`.
    #[must_use]
    pub fn with_environment(self) -> Self {
        let text = |text: OsString| text.to_string_lossy().into_owned();
        self.with_variables(std::env::vars_os().map(|(name, value)| (text(name), text(value))))
    }

    /// Takes those of these variables that begin with `RINGWIRE_CLIENT_`.
    #[must_use]
    pub fn with_variables(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        for (variable, text) in variables {
            if variable.starts_with(table::PREFIX) {
                let setting = all().iter().find(|setting| setting.variable() == variable);
                let name = setting.map_or_else(|| variable.clone(), |it| it.name().to_owned());
                self.entries.push(Entry { name, text, place: Place::Variable(variable) });
            }
        }
        self
    }

    /// Puts all together. Whether settings fit together is checked by [`Builder::connect`].
    ///
    /// # Errors
    /// An unknown name, or a value that a setting can't have.
    pub fn load(mut self) -> Result<Builder, SettingsError> {
        self.entries.sort_by_key(|entry| matches!(entry.place, Place::Variable(_)));
        let mut builder = self.base;
        for Entry { name, text, place } in self.entries {
            let Some(setting) = find(&name) else {
                return Err(SettingsError::Unknown { place, name });
            };
            if !setting.set(&mut builder, &text) {
                let value = if setting.name() == "client.proxy" { "…".to_owned() } else { text };
                let (name, accepts) = (setting.name(), setting.accepts());
                return Err(SettingsError::Value { place, name, value, accepts });
            }
        }
        Ok(builder)
    }
}
