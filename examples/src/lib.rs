//! What the programs share: the handlers, flags and units.

mod broadcast;
mod echo;
pub mod units;

pub use broadcast::Broadcast;
pub use echo::Echo;

use std::str::FromStr;

use clap::ValueEnum;
use ringwire::{DriverKind, compression::CompressionMode, tuning::Pinning};

/// The value of `--driver`.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub enum DriverFlag {
    /// io_uring where this machine has it, else epoll.
    #[default]
    Auto,
    /// epoll(7).
    Epoll,
    /// io_uring(7).
    Uring,
}

impl From<DriverFlag> for DriverKind {
    fn from(flag: DriverFlag) -> Self {
        match flag {
            DriverFlag::Auto => Self::Auto,
            DriverFlag::Epoll => Self::Epoll,
            DriverFlag::Uring => Self::Uring,
        }
    }
}

/// The value of `--compression`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum CompressionFlag {
    /// Clients' offers are declined.
    #[default]
    Off,
    /// Each worker has a compressor and a decompressor, and each message stands for itself.
    Shared,
    /// Each connection has its own, and messages refer to those before them.
    Dedicated,
}

impl From<CompressionFlag> for CompressionMode {
    fn from(flag: CompressionFlag) -> Self {
        match flag {
            CompressionFlag::Off => Self::Off,
            CompressionFlag::Shared => Self::Shared,
            CompressionFlag::Dedicated => Self::Dedicated,
        }
    }
}

/// The value of `--pin`: `auto`, `none`, or core numbers between commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cores(Pinning);

impl FromStr for Cores {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pinning = match text {
            "auto" => Pinning::Auto,
            "none" => Pinning::Off,
            list => Pinning::Cores(
                list.split(',')
                    .map(|core| {
                        core.trim().parse().map_err(|_| format!("`{core}` is no core number"))
                    })
                    .collect::<Result<_, _>>()?,
            ),
        };
        Ok(Self(pinning))
    }
}

impl From<Cores> for Pinning {
    fn from(cores: Cores) -> Self {
        cores.0
    }
}

/// A line on standard error, among those of the log.
#[macro_export]
macro_rules! note {
    ($($argument:tt)*) => { ringwire::program::note(format_args!($($argument)*)) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_a_list_or_a_word() {
        assert_eq!("auto".parse(), Ok(Cores(Pinning::Auto)));
        assert_eq!("none".parse(), Ok(Cores(Pinning::Off)));
        assert_eq!("0,1".parse(), Ok(Cores(Pinning::Cores(vec![0, 1]))));
        assert!("0,x".parse::<Cores>().is_err());
    }
}
