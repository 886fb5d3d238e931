//! Numbers that may be left to the engine, and bounds that may be absent.

/// A number that the engine chooses unless it is given.
///
/// Settings files, the environment and flags say `"auto"` for the first.
///
/// ```
/// use ringwire::{Config, Sizing};
///
/// let config = Config::default().with_io_workers(2);
/// assert_eq!(config.io_workers, Sizing::Fixed(2));
/// assert_eq!(config.with_io_workers(Sizing::Auto).io_workers, Sizing::Auto);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Sizing<T = usize> {
    /// The engine, or the kernel, chooses; the documentation of the setting says how.
    #[default]
    Auto,
    /// This many. Not 0.
    Fixed(T),
}

impl<T> Sizing<T> {
    /// The number, if it was given.
    pub fn fixed(self) -> Option<T> {
        match self {
            Self::Auto => None,
            Self::Fixed(value) => Some(value),
        }
    }
}

impl<T> From<T> for Sizing<T> {
    fn from(value: T) -> Self {
        Self::Fixed(value)
    }
}

/// A bound that may be absent.
///
/// Settings files, the environment and flags say `"unlimited"` for the first.
///
/// ```
/// use ringwire::{Limit, admission::RateLimit};
///
/// let limit = RateLimit::default().with_messages_per_second(100);
/// assert_eq!(limit.messages_per_second, Limit::At(100));
/// assert_eq!(limit.bytes_per_second, Limit::Unlimited);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Limit<T = usize> {
    /// Any number.
    #[default]
    Unlimited,
    /// This many at most. Not 0.
    At(T),
}

impl<T> Limit<T> {
    /// The bound, if there is one.
    pub fn at(self) -> Option<T> {
        match self {
            Self::Unlimited => None,
            Self::At(value) => Some(value),
        }
    }
}

impl<T> From<T> for Limit<T> {
    fn from(value: T) -> Self {
        Self::At(value)
    }
}
