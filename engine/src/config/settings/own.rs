//! Settings of the application's own: how they are declared, read and kept from the curious.

use std::fmt::{self, Display};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use subtle::ConstantTimeEq as _;

use super::values::{Kind, Switch, Time};
use super::{Settings, SettingsError, variable_of};

/// A setting of the application's own. See `Program::with_own_setting`, [`Sources::with_own`](super::Sources::with_own)
/// and, for many of them with their types, [`own_settings!`](crate::own_settings).
///
/// ```
/// use ringwire::settings::{OwnSetting, Sources};
///
/// let secret = OwnSetting::new("api_key").with_variable("API_KEY").secret();
/// let set = Sources::default()
///     .with_own(secret)
///     .with_variables([("API_KEY".to_owned(), "sesame".to_owned())])
///     .load()?;
/// assert_eq!(set.own("api_key"), Some("sesame"));
/// assert!(set.report().to_string().starts_with("# api_key is set # API_KEY\n"));
/// # Ok::<(), ringwire::settings::SettingsError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnSetting {
    pub(crate) name: String,
    pub(crate) about: String,
    /// Beside `RINGWIRE_…`.
    variable: Option<String>,
    pub(crate) is_secret: bool,
    pub(crate) is_switch: bool,
}

impl OwnSetting {
    /// `jwt_secret` is `--jwt-secret`, `RINGWIRE_JWT_SECRET`, and `jwt_secret` in a file. A dot stands for a TOML
    /// table. The name has to be one that neither the engine nor the program has.
    pub fn new(name: impl Into<String>) -> Self {
        let (about, variable) = (String::new(), None);
        Self { name: name.into(), about, variable, is_secret: false, is_switch: false }
    }

    /// What it is for, for `--help`.
    #[must_use]
    pub fn with_about(mut self, text: impl Into<String>) -> Self {
        self.about = text.into();
        self
    }

    /// A variable that is it as well, beside that of its name: one that everybody knows, such as `DATABASE_URL`.
    #[must_use]
    pub fn with_variable(mut self, variable: impl Into<String>) -> Self {
        self.variable = Some(variable.into());
        self
    }

    /// It has no flag, since other users of the machine can read the flags of a process, and `--check` says that it is
    /// set, not to what.
    #[must_use]
    pub fn secret(mut self) -> Self {
        self.is_secret = true;
        self
    }

    /// Its flag needs no value: alone it is `true`.
    #[must_use]
    pub fn switch(mut self) -> Self {
        self.is_switch = true;
        self
    }

    /// The variable that people set it by.
    pub(super) fn variable(&self) -> String {
        self.variable.clone().unwrap_or_else(|| variable_of(&self.name))
    }

    pub(super) fn has_variable(&self, variable: &str) -> bool {
        self.variable.as_deref() == Some(variable) || variable_of(&self.name) == variable
    }
}

impl From<&str> for OwnSetting {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

/// What a setting of the application's own can be: a switch, a number, a text, a duration, a path, a [`Secret`];
/// several with commas between them (`Vec`), or nothing, which is an empty text (`Option`).
///
/// An application's own types are values as well where it says how they are read:
///
/// ```
/// use ringwire::settings::{OwnValue, Sources};
///
/// enum Mode { Fast, Safe }
///
/// impl OwnValue for Mode {
///     fn read(text: &str) -> Result<Self, String> {
///         match text {
///             "fast" => Ok(Self::Fast),
///             "safe" => Ok(Self::Safe),
///             _ => Err("expected fast or safe".to_owned()),
///         }
///     }
/// }
///
/// let set = Sources::default().with_own("mode").with_flag("--mode", "mode", "fats").load()?;
/// let error = set.own_value::<Mode>("mode").map(drop).unwrap_err();
/// assert_eq!(error.to_string(), "--mode: mode can't be \"fats\": expected fast or safe");
/// # Ok::<(), ringwire::settings::SettingsError>(())
/// ```
pub trait OwnValue: Sized {
    /// Whether nobody is to read it: it has no flag then, and is in no report.
    const IS_SECRET: bool = false;

    /// Reads it.
    ///
    /// # Errors
    /// It is something else: what was expected.
    fn read(text: &str) -> Result<Self, String>;
}

/// Defines values that are read as elsewhere.
macro_rules! values {
    ($($kind:ident: $type:ty),+; [$($parsed:ty),+]) => {
        $(impl OwnValue for $type {
            fn read(text: &str) -> Result<Self, String> {
                let expected = || format!("expected {}", <$kind as Kind<Self>>::ACCEPTS);
                $kind::read(text).ok_or_else(expected)
            }
        })+
        $(impl OwnValue for $parsed {
            fn read(text: &str) -> Result<Self, String> {
                parse(text)
            }
        })+
    };
}

values! {
    Switch: bool, Time: Duration;
    [u16, u32, u64, usize, i64, f64, String, PathBuf, IpAddr, SocketAddr]
}

impl<T: FromStr<Err: Display>> OwnValue for Vec<T> {
    fn read(text: &str) -> Result<Self, String> {
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(parse).collect()
    }
}

impl<T: OwnValue> OwnValue for Option<T> {
    const IS_SECRET: bool = T::IS_SECRET;

    fn read(text: &str) -> Result<Self, String> {
        if text.is_empty() { Ok(None) } else { T::read(text).map(Some) }
    }
}

fn parse<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.trim().parse().map_err(|error: T::Err| error.to_string())
}

/// A text that nobody is to read: a password, a key, an address with a password in it.
///
/// ```
/// use ringwire::settings::Secret;
///
/// let key = Secret::new("sesame");
/// assert!(key.is("sesame") && !key.is("sesam"));
/// assert_eq!(format!("{key:?}"), "Secret");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for whoever has to show it to somebody else.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether the text is the same. How long that takes says nothing of where they differ.
    #[must_use]
    pub fn is(&self, text: &str) -> bool {
        self.0.as_bytes().ct_eq(text.as_bytes()).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl OwnValue for Secret {
    const IS_SECRET: bool = true;

    fn read(text: &str) -> Result<Self, String> {
        Ok(Self::new(text))
    }
}

/// A struct whose fields are settings of the application's own. [`own_settings!`](crate::own_settings) makes one.
pub trait OwnSettings: Sized {
    /// What its fields are called, and what they are for.
    fn all() -> Vec<OwnSetting>;

    /// What was set, with the defaults for the rest.
    ///
    /// # Errors
    /// A value makes no sense. The error names where it was set.
    fn read(set: &Settings) -> Result<Self, SettingsError>;
}

/// Declares settings of the application's own: structs with a default, and [`OwnSettings`] for each.
///
/// A field is a name in a file, a flag and a variable, as [`OwnSetting::new`](crate::settings::OwnSetting::new) says;
/// its documentation is the flag's help, and it is read as [`OwnValue`](crate::settings::OwnValue) says. Behind the
/// default may stand `at least`, the least number that makes sense, and `variable`, a variable that is it as well. What
/// the names in a file begin with follows `in`; a dot in it stands for a TOML table. `..` adds another struct.
///
/// ```
/// use std::time::Duration;
/// use ringwire::settings::{OwnSettings as _, Secret, Sources};
///
/// ringwire::own_settings! {
///     /// What the service may be told.
///     #[derive(Clone, Debug)]
///     pub struct Service in "" {
///         /// What administrators have to send
///         api_key: Option<Secret> = None, variable "API_KEY";
///         /// How long a first message may take [default: 10s]
///         login_timeout: Duration = Duration::from_secs(10);
///         ..rooms: Rooms;
///     }
///
///     /// What rooms may be.
///     #[derive(Clone, Debug)]
///     pub struct Rooms in "rooms." {
///         /// The most members of a room [default: 100]
///         max_members: usize = 100, at least 1;
///     }
/// }
///
/// let sources = Service::all().into_iter().fold(Sources::default(), Sources::with_own);
/// let sources = sources.with_file_text("service.toml", "[rooms]\nmax_members = 7")?;
/// let service = Service::read(&sources.load()?)?;
/// assert_eq!((service.rooms.max_members, service.login_timeout.as_secs()), (7, 10));
/// # Ok::<(), ringwire::settings::SettingsError>(())
/// ```
///
/// `Program::with_own_settings` adds them to a program.
#[macro_export]
macro_rules! own_settings {
    ($(
        $(#[$attribute:meta])*
        $vis:vis struct $type:ident in $prefix:literal {
            $(
                #[doc = $about:literal]
                $name:ident: $kind:ty = $default:expr
                $(, at least $least:literal)? $(, variable $variable:literal)?;
            )*
            $(.. $inner:ident: $of:ty;)*
        }
    )+) => {$(
        $(#[$attribute])*
        $vis struct $type {
            $(#[doc = $about] pub $name: $kind,)*
            $(#[doc = concat!("See [`", stringify!($of), "`].")] pub $inner: $of,)*
        }

        impl Default for $type {
            fn default() -> Self {
                Self { $($name: $default,)* $($inner: Default::default(),)* }
            }
        }

        impl $crate::settings::OwnSettings for $type {
            fn all() -> Vec<$crate::settings::OwnSetting> {
                let own: Vec<$crate::settings::OwnSetting> = vec![$({
                    let own = $crate::settings::OwnSetting::new(concat!($prefix, stringify!($name)));
                    let own = own.with_about($about.trim());
                    $(let own = own.with_variable($variable);)?
                    match <$kind as $crate::settings::OwnValue>::IS_SECRET {
                        true => own.secret(),
                        false => own,
                    }
                },)*];
                let inner: Vec<Vec<$crate::settings::OwnSetting>> =
                    vec![$(<$of as $crate::settings::OwnSettings>::all(),)*];
                own.into_iter().chain(inner.into_iter().flatten()).collect()
            }

            fn read(
                set: &$crate::settings::Settings,
            ) -> Result<Self, $crate::settings::SettingsError> {
                let mut found = Self::default();
                $(found.$inner = <$of as $crate::settings::OwnSettings>::read(set)?;)*
                $(if let Some(value) = set.own_value(concat!($prefix, stringify!($name)))? {
                    found.$name = value;
                    $(if found.$name < $least {
                        let problem = concat!("expected ", $least, " or more");
                        return Err(set.wrong(concat!($prefix, stringify!($name)), problem));
                    })?
                })*
                Ok(found)
            }
        }
    )+};
}

#[cfg(test)]
mod tests {
    use super::super::Sources;
    use super::*;

    own_settings! {
        /// Of the tests.
        #[derive(Debug)]
        struct Outer in "" {
            /// How many
            count: u32 = 3, at least 2;
            /// A secret
            key: Option<Secret> = None, variable "KEY";
            /// Several
            names: Vec<String> = Vec::new();
            ..inner: Inner;
        }

        /// Of the tests.
        #[derive(Debug)]
        struct Inner in "in_" {
            /// Whether
            flag: bool = true;
            /// Where
            path: Option<PathBuf> = Some("/".into());
        }
    }

    fn sources() -> Sources {
        Outer::all().into_iter().fold(Sources::default(), Sources::with_own)
    }

    fn refusal(name: &str, text: &str) -> String {
        let set = sources().with_flag("--x", name, text).load().unwrap();
        Outer::read(&set).unwrap_err().to_string()
    }

    #[test]
    fn a_table_has_names_defaults_and_types() {
        let all = Outer::all();
        let names: Vec<_> = all.iter().map(|own| (own.name.as_str(), own.is_secret)).collect();
        let expected = ["count", "key", "names", "in_flag", "in_path"];
        assert_eq!(names, expected.map(|name| (name, name == "key")));
        assert_eq!(all[0].about, "How many");
        let found = Outer::read(&sources().load().unwrap()).unwrap();
        assert_eq!((found.count, found.key, found.inner.flag), (3, None, true));
        let text = "count = 2\nnames = ['a', 'b']\nin_flag = 'off'\nin_path = ''";
        let set = sources().with_file_text("x", text).unwrap();
        let set = set.with_variables([("KEY".to_owned(), "k".to_owned())]).load().unwrap();
        let found = Outer::read(&set).unwrap();
        assert_eq!((found.count, found.names.join("+")), (2, "a+b".to_owned()));
        assert_eq!((found.inner.flag, found.inner.path), (false, None));
        assert!(found.key.unwrap().is("k"));
    }

    #[test]
    fn what_makes_no_sense_names_where_it_was_set() {
        assert_eq!(refusal("count", "1"), "--x: count can't be \"1\": expected 2 or more");
        assert!(refusal("count", "many").starts_with("--x: count can't be \"many\": "));
        let flag = refusal("in_flag", "perhaps");
        assert!(flag.starts_with("--x: in_flag can't be \"perhaps\": expected true or false"));
    }

    #[test]
    fn errors_keep_secrets() {
        let secret = Secret::new("another one");
        assert!(secret.is("another one"));
        for other in ["", "another", "another one ", "another onf"] {
            assert!(!secret.is(other), "{other}");
        }
        let empty = [("KEY".to_owned(), String::new())];
        let set = sources().with_variables(empty).load().unwrap();
        assert_eq!(Outer::read(&set).unwrap().key, None, "nothing is no secret");
        let set = sources().with_flag("--set", "key", "sesame").load().unwrap();
        let error = set.wrong("key", "it is short").to_string();
        assert_eq!(error, "--set: key can't be \"…\": it is short");
        assert!(set.report().to_string().starts_with("# key is set # --set\n"));
        for (text, shown) in [
            ("nats://ann:sesame@a:1,nats://b:2", "nats://…@a:1,nats://b:2"),
            ("nats://a:1, tls://sesame@b/?x=y@z", "nats://a:1, tls://…@b/?x=y@z"),
            ("nats://ann:se@same@a", "nats://…@a"),
            ("ann@a, b://", "ann@a, b://"),
        ] {
            let set = sources().with_flag("--set", "names", text).load().unwrap();
            let report = set.report().to_string();
            assert!(report.starts_with(&format!("names = \"{shown}\" # --set\n")), "{report}");
        }
    }

    #[test]
    fn what_is_missing_names_its_variable() {
        let error = sources().load().unwrap().own_required("key").unwrap_err().to_string();
        assert_eq!(error, "key is missing: set KEY, or key in a file");
    }
}
