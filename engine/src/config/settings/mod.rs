//! Settings from a file, the environment and flags.
//!
//! One [table](all) has the name of every setting, what it accepts, and how it is read and written. A TOML file, the
//! environment (`RINGWIRE_*`) and flags go by it, and so does the list in docs/configuration.md. Flags win over the
//! environment, that over the file, and that over the defaults.
//!
//! ```
//! use ringwire::settings::Sources;
//!
//! let loaded = Sources::default()
//!     .with_file_text("server.toml", "idle_timeout = '90s'\n[compression]\nmode = 'shared'\n")?
//!     .with_variables([("RINGWIRE_MAX_CONNECTIONS".to_owned(), "10000".to_owned())])
//!     .with_flag("--io-workers", "io_workers", "2")
//!     .load()?;
//! assert_eq!(loaded.config().max_connections, ringwire::Sizing::Fixed(10_000));
//! assert!(loaded.report().to_string().contains("idle_timeout = \"90s\" # server.toml:1"));
//! # Ok::<(), ringwire::settings::SettingsError>(())
//! ```

mod error;
mod file;
mod own;
mod table;
mod values;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

pub use self::error::SettingsError;
pub use self::own::{OwnSetting, OwnSettings, OwnValue, Secret};
pub(crate) use self::table::variable_of;
pub use self::table::{Setting, all, find};
use crate::config::Config;

/// Where settings are looked for.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    base: Config,
    own: Vec<OwnSetting>,
    entries: Vec<Entry>,
}

/// Where a value comes from. Later ones win.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Origin {
    /// Nobody has set it.
    Default,
    /// A file.
    File {
        /// Its path.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// An environment variable.
    Variable(String),
    /// A flag of the command line.
    Flag(String),
}

impl Origin {
    fn rank(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::File { .. } => 1,
            Self::Variable(_) => 2,
            Self::Flag(_) => 3,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

/// A value that somebody has set.
#[derive(Clone, Debug)]
struct Entry {
    name: String,
    text: String,
    origin: Origin,
}

impl Sources {
    /// Starts from these defaults instead of [`Config::default`].
    pub fn new(defaults: Config) -> Self {
        Self { base: defaults, ..Self::default() }
    }

    /// Names something that the application configures itself, from the same sources; its text is in [`Settings::own`].
    /// Other names that are unknown are errors.
    #[must_use]
    pub fn with_own(mut self, setting: impl Into<OwnSetting>) -> Self {
        self.own.push(setting.into());
        self
    }

    /// Reads a TOML file.
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

    /// Takes the variables of this process that begin with `RINGWIRE_`, and those of [own settings](OwnSetting).
    #[must_use]
    pub fn with_environment(self) -> Self {
        let text = |text: OsString| text.to_string_lossy().into_owned();
        self.with_variables(std::env::vars_os().map(|(name, value)| (text(name), text(value))))
    }

    /// Takes those of these variables that begin with `RINGWIRE_`, and those of [own settings](OwnSetting).
    #[must_use]
    pub fn with_variables(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        for (variable, text) in variables {
            let name = self.name_of_variable(&variable);
            if variable.starts_with(table::PREFIX) || name != variable {
                self.entries.push(Entry { name, text, origin: Origin::Variable(variable) });
            }
        }
        self
    }

    /// Takes a value from a flag of the command line. `flag` is what errors and the report call it.
    #[must_use]
    pub fn with_flag(
        self,
        flag: impl Into<String>,
        name: impl Into<String>,
        text: impl Into<String>,
    ) -> Self {
        self.with_value(Origin::Flag(flag.into()), name, text)
    }

    /// Takes a value from elsewhere.
    #[must_use]
    pub fn with_value(
        mut self,
        origin: Origin,
        name: impl Into<String>,
        text: impl Into<String>,
    ) -> Self {
        self.entries.push(Entry { name: name.into(), text: text.into(), origin });
        self
    }

    /// Puts everything together and checks it.
    ///
    /// # Errors
    /// A name is unknown, a value is invalid, or the settings don't go together. Values that others
    /// win over are checked as well.
    pub fn load(mut self) -> Result<Settings, SettingsError> {
        self.entries.sort_by_key(|entry| entry.origin.rank());
        let mut loaded = Settings {
            config: self.base.clone(),
            origins: vec![Origin::Default; all().len()],
            own: Vec::new(),
            declared: self.own.clone(),
        };
        for entry in &self.entries {
            let index = all().iter().position(|setting| setting.name() == entry.name);
            match index {
                Some(index) => loaded.set(index, entry)?,
                None => match self.own.iter().find(|own| own.name == entry.name) {
                    Some(own) => loaded.set_own(entry, own.is_secret),
                    // The clients of the same program have settings of their own, and a loader for them.
                    None if table::is_of_client(&entry.name) => {}
                    None => return Err(self.unknown(entry)),
                },
            }
        }
        loaded.check()
    }

    /// The name that a variable stands for; one that is unknown keeps its own.
    fn name_of_variable(&self, variable: &str) -> String {
        let mut engine = all().iter().map(Setting::name);
        let own = || self.own.iter().find(|own| own.has_variable(variable)).map(|own| &*own.name);
        let found = engine.find(|name| variable_of(name) == variable).or_else(own);
        found.unwrap_or(variable).to_owned()
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        all()
            .iter()
            .map(|setting| setting.name())
            .chain(self.own.iter().map(|own| own.name.as_str()))
    }

    fn unknown(&self, entry: &Entry) -> SettingsError {
        let nearest = match entry.name.strip_prefix(table::PREFIX) {
            Some(name) => {
                let known: Vec<_> = self.names().map(variable_of).collect();
                let known = known.iter().filter_map(|name| name.strip_prefix(table::PREFIX));
                error::nearest(name, known).map(|name| format!("{}{name}", table::PREFIX))
            }
            None => error::nearest(&entry.name, self.names()).map(str::to_owned),
        };
        SettingsError::Unknown { origin: entry.origin.clone(), name: entry.name.clone(), nearest }
    }
}

/// Settings, and where each comes from.
#[derive(Clone, Debug)]
pub struct Settings {
    config: Config,
    /// In the order of the table.
    origins: Vec<Origin>,
    /// Each with whether it is secret.
    own: Vec<(Entry, bool)>,
    /// What there may be.
    declared: Vec<OwnSetting>,
}

impl Settings {
    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The settings, to start a server with.
    pub fn into_config(self) -> Config {
        self.config
    }

    /// Where a setting, or something of the application's own, comes from.
    pub fn origin(&self, name: &str) -> Origin {
        let setting = all().iter().zip(&self.origins);
        let setting = setting.filter(|(setting, _)| setting.name() == name).map(|(_, from)| from);
        let own = self.own_entry(name).map(|entry| &entry.origin);
        setting.chain(own).next().cloned().unwrap_or(Origin::Default)
    }

    /// The text of something of the application's [own](Sources::with_own), if it was set. A list has commas.
    pub fn own(&self, name: &str) -> Option<&str> {
        self.own_entry(name).map(|entry| entry.text.as_str())
    }

    /// The same for what the application can't do without.
    ///
    /// # Errors
    /// It was not set.
    pub fn own_required(&self, name: &str) -> Result<&str, SettingsError> {
        self.own(name).ok_or_else(|| {
            let declared = self.declared.iter().find(|own| own.name == name);
            let variable = declared.map_or_else(|| variable_of(name), OwnSetting::variable);
            SettingsError::Missing { name: name.to_owned(), variable }
        })
    }

    /// The same as a number, an address, or whatever else a text can be.
    ///
    /// # Errors
    /// It is none. The error names where it was set.
    pub fn own_as<T: FromStr<Err: fmt::Display>>(
        &self,
        name: &str,
    ) -> Result<Option<T>, SettingsError> {
        self.own_by(name, |text| text.trim().parse().map_err(|error: T::Err| error.to_string()))
    }

    /// The same as a duration, such as `250ms`, `30s`, `5m` or `1h`; a bare number is seconds.
    ///
    /// # Errors
    /// It is none. The error names where it was set.
    pub fn own_duration(&self, name: &str) -> Result<Option<Duration>, SettingsError> {
        self.own_value(name)
    }

    /// The same as whatever else an [own setting](OwnSetting) can be.
    ///
    /// # Errors
    /// It is none. The error names where it was set.
    pub fn own_value<T: OwnValue>(&self, name: &str) -> Result<Option<T>, SettingsError> {
        self.own_by(name, T::read)
    }

    fn own_by<T>(
        &self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, SettingsError> {
        let read = self.own(name).map(read).transpose();
        read.map_err(|problem| self.wrong(name, problem))
    }

    /// Why something of the application's own can't be as it was set: an error that names where that was, for what the
    /// application checks itself. Of secrets it has not the text.
    pub fn wrong(&self, name: &str, problem: impl Into<String>) -> SettingsError {
        let set = self.own.iter().find(|(entry, _)| entry.name == name);
        let value = match set {
            Some((_, true)) => "…",
            Some((entry, false)) => &entry.text,
            None => "",
        };
        SettingsError::Own {
            origin: self.origin(name),
            name: name.to_owned(),
            value: value.to_owned(),
            problem: problem.into(),
        }
    }

    fn own_entry(&self, name: &str) -> Option<&Entry> {
        self.own.iter().map(|(entry, _)| entry).find(|entry| entry.name == name)
    }

    /// All settings with their values and where each comes from: a TOML file that has the same effect.
    pub fn report(&self) -> Report<'_> {
        Report(self)
    }

    fn set(&mut self, index: usize, entry: &Entry) -> Result<(), SettingsError> {
        let (Some(setting), Some(origin)) = (all().get(index), self.origins.get_mut(index)) else {
            return Ok(());
        };
        if !setting.set(&mut self.config, &entry.text) {
            return Err(SettingsError::Value {
                origin: entry.origin.clone(),
                name: entry.name.clone(),
                value: entry.text.clone(),
                accepts: setting.accepts(),
            });
        }
        origin.clone_from(&entry.origin);
        Ok(())
    }

    fn set_own(&mut self, entry: &Entry, is_secret: bool) {
        self.own.retain(|(other, _)| other.name != entry.name);
        self.own.push((entry.clone(), is_secret));
    }

    fn check(self) -> Result<Self, SettingsError> {
        let Err(source) = self.config.check() else { return Ok(self) };
        let named = match &source {
            crate::Error::Setting { setting, .. } => setting.split(' ').next().unwrap_or_default(),
            _ => "",
        };
        Err(SettingsError::Check { origin: self.origin(named), source })
    }
}

/// See [`Settings::report`].
#[derive(Clone, Copy, Debug)]
pub struct Report<'a>(&'a Settings);

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (entry, is_secret) in &self.0.own {
            if *is_secret {
                writeln!(f, "# {} is set # {}", entry.name, entry.origin)?;
            } else {
                write_line(f, &entry.name, &without_credentials(&entry.text), &entry.origin)?;
            }
        }
        for (setting, origin) in all().iter().zip(&self.0.origins) {
            write_line(f, setting.name(), &setting.value(&self.0.config), origin)?;
        }
        Ok(())
    }
}

/// URLs without names and passwords (RFC 3986 §3.2.1), which are nobody's business in a report.
fn without_credentials(text: &str) -> String {
    let ends = |c: char| matches!(c, '/' | '?' | '#' | ',') || c.is_whitespace();
    let mut parts = text.split("://");
    let mut shown = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (authority, rest) = part.split_at(part.find(ends).unwrap_or(part.len()));
        let bare = authority.rsplit_once('@').map(|(_, bare)| format!("…@{bare}"));
        shown += &format!("://{}{rest}", bare.as_deref().unwrap_or(authority));
    }
    shown
}

fn write_line(f: &mut fmt::Formatter<'_>, name: &str, text: &str, origin: &Origin) -> fmt::Result {
    let is_plain = text == "true"
        || text == "false"
        || text == "0"
        || (!text.starts_with('0')
            && !text.is_empty()
            && text.len() < 19
            && text.bytes().all(|byte| byte.is_ascii_digit()));
    if is_plain {
        return writeln!(f, "{name} = {text} # {origin}");
    }
    write!(f, "{name} = \"")?;
    for letter in text.chars() {
        match letter {
            '"' | '\\' => write!(f, "\\{letter}")?,
            control if control.is_control() => write!(f, "\\u{:04X}", u32::from(control))?,
            other => write!(f, "{other}")?,
        }
    }
    writeln!(f, "\" # {origin}")
}
