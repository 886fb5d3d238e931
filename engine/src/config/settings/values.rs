//! How values are read and written as text.

use std::fmt::Write as _;
use std::time::Duration;

use ringwire_codec::CloseCode;
use ringwire_codec::deflate::{Level, WindowBits};

use crate::base::amount::{Limit, Sizing};
use crate::config::check::is_token;
use crate::config::origin::OriginPolicy;
use crate::config::{Assignment, DriverKind, Pinning};
use crate::conn::options::Backpressure;
use crate::layers::compression::CompressionMode;
use crate::limits::Excess;

/// A way to write values of type `T`. What `write` gives, `read` takes.
pub(super) trait Kind<T> {
    /// What is accepted, in words that follow "expected".
    const ACCEPTS: &'static str;

    fn read(text: &str) -> Option<T>;
    fn write(value: &T) -> String;
}

/// Whole numbers.
pub(super) struct Count;
/// Numbers of bytes.
pub(super) struct Len;
/// Durations.
pub(super) struct Time;
/// Yes or no.
pub(super) struct Switch;
/// Words, levels and lists; the type says which.
pub(super) struct Word;

/// Defines how whole numbers are read and written, of each type.
macro_rules! counts {
    ($($type:ty, $accepts:literal;)+) => {
        $(impl Kind<$type> for Count {
            const ACCEPTS: &'static str = $accepts;

            fn read(text: &str) -> Option<$type> {
                read_number(text)?.try_into().ok()
            }

            fn write(value: &$type) -> String {
                value.to_string()
            }
        })+
    };
}

counts! {
    usize, "a whole number";
    u32, "a whole number up to 4294967295";
    u16, "a whole number up to 65535";
}

/// Defines how numbers of bytes are read and written, of each type.
macro_rules! lens {
    ($($type:ty),+) => {
        $(impl Kind<$type> for Len {
            const ACCEPTS: &'static str = "bytes, such as 512, 64KiB, 1MiB or 2GiB";

            fn read(text: &str) -> Option<$type> {
                read_len(text)?.try_into().ok()
            }

            fn write(value: &$type) -> String {
                write_len(u64::try_from(*value).unwrap_or(u64::MAX))
            }
        })+
    };
}

lens! { usize, u64, u32 }

/// Defines how a value that may be absent is read and written: by a word, or as the value alone. A 0 is neither, since
/// it would be taken for what the word says.
macro_rules! or_word {
    ($($kind:ident, $type:ty = $inner:ty, $some:path, $none:path, $word:literal, $accepts:literal;)+) => {
        $(impl Kind<$type> for $kind {
            const ACCEPTS: &'static str = concat!($word, ", or ", $accepts);

            fn read(text: &str) -> Option<$type> {
                if word(text) == $word {
                    return Some($none);
                }
                let value: $inner = Self::read(text)?;
                (value != <$inner>::default()).then_some($some(value))
            }

            fn write(value: &$type) -> String {
                match value {
                    $none => $word.into(),
                    $some(value) => Self::write(value),
                }
            }
        })+
    };
}

or_word! {
    Count, Sizing<usize> = usize, Sizing::Fixed, Sizing::Auto, "auto", "a whole number from 1";
    Count, Sizing<u32> = u32, Sizing::Fixed, Sizing::Auto, "auto", "a whole number from 1 to 4294967295";
    Count, Limit<u32> = u32, Limit::At, Limit::Unlimited, "unlimited", "a whole number from 1 to 4294967295";
    Len, Sizing<usize> = usize, Sizing::Fixed, Sizing::Auto, "auto", "bytes, such as 512, 64KiB, 1MiB or 2GiB";
    Len, Sizing<u32> = u32, Sizing::Fixed, Sizing::Auto, "auto", "bytes, such as 512, 64KiB, 1MiB or 2GiB";
    Len, Option<usize> = usize, Some, None, "off", "bytes, such as 512, 64KiB, 1MiB or 2GiB";
    Time, Option<Duration> = Duration, Some, None, "off", "a duration, such as 250ms, 30s, 5m or 1h (a bare number: seconds)";
}

fn read_len(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text);
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return None,
    };
    read_number(number)?.checked_mul(factor)
}

fn write_len(len: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units.iter().find(|(shift, _)| len != 0 && len.is_multiple_of(1 << shift));
    unit.map_or_else(|| len.to_string(), |(shift, unit)| format!("{}{unit}", len >> shift))
}

impl Kind<Duration> for Time {
    const ACCEPTS: &'static str =
        "a duration, such as 250ms, 30s, 5m or 1h (a bare number: seconds)";

    fn read(text: &str) -> Option<Duration> {
        let (number, unit) = split_unit(text);
        let whole = read_number(number);
        let seconds =
            |factor: f64| Duration::try_from_secs_f64(number.parse::<f64>().ok()? * factor).ok();
        let duration = match (unit, whole) {
            ("ns", Some(count)) => Duration::from_nanos(count),
            ("us", Some(count)) => Duration::from_micros(count),
            ("ms", Some(count)) => Duration::from_millis(count),
            ("" | "s", Some(count)) => Duration::from_secs(count),
            ("ms", None) => seconds(0.001)?,
            ("" | "s", None) => seconds(1.0)?,
            ("m", _) => seconds(60.0)?,
            ("h", _) => seconds(3600.0)?,
            _ => return None,
        };
        // Longer than that is "for ever", which is "off", or a slip.
        const MAX: Duration = Duration::from_secs(u32::MAX as u64);
        (duration <= MAX).then_some(duration)
    }

    fn write(value: &Duration) -> String {
        let (nanos, seconds) = (value.subsec_nanos(), value.as_secs());
        match () {
            () if value.is_zero() => "0".into(),
            () if !nanos.is_multiple_of(1000) => format!("{}ns", value.as_nanos()),
            () if !nanos.is_multiple_of(1_000_000) => format!("{}us", value.as_micros()),
            () if nanos != 0 => format!("{}ms", value.as_millis()),
            () if seconds.is_multiple_of(3600) => format!("{}h", seconds / 3600),
            () if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
            () => format!("{seconds}s"),
        }
    }
}

impl Kind<bool> for Switch {
    const ACCEPTS: &'static str = "true or false (on or off, yes or no)";

    fn read(text: &str) -> Option<bool> {
        match text.trim().to_ascii_lowercase().as_str() {
            "true" | "on" | "yes" => Some(true),
            "false" | "off" | "no" => Some(false),
            _ => None,
        }
    }

    fn write(value: &bool) -> String {
        value.to_string()
    }
}

/// Defines the words of an enum; the first that fits is what is written.
macro_rules! words {
    ($type:ident, $accepts:literal, $($word:literal => $variant:ident,)+) => {
        impl Kind<$type> for Word {
            const ACCEPTS: &'static str = $accepts;

            fn read(text: &str) -> Option<$type> {
                match word(text).as_str() {
                    $($word => Some($type::$variant),)+
                    _ => None,
                }
            }

            fn write(value: &$type) -> String {
                let words = [$(($word, $type::$variant)),+];
                let found = words.iter().find(|(_, variant)| variant == value);
                found.map_or_else(String::new, |(word, _)| (*word).to_owned())
            }
        }
    };
}

words! { DriverKind, "auto, epoll or uring",
    "auto" => Auto, "epoll" => Epoll, "uring" => Uring, "io-uring" => Uring,
}
words! { Assignment, "reuseport, least-loaded or cpu",
    "reuseport" => ReusePort, "least-loaded" => LeastLoaded, "cpu" => Cpu,
}
words! { CompressionMode, "off, shared or dedicated",
    "off" => Off, "shared" => Shared, "dedicated" => Dedicated,
}

impl Kind<OriginPolicy> for Word {
    const ACCEPTS: &'static str =
        "any, same, or origins such as https://example.org, https://*.example.org";

    fn read(text: &str) -> Option<OriginPolicy> {
        Some(match word(text).as_str() {
            "any" => OriginPolicy::Any,
            "same" => OriginPolicy::Same,
            _ => OriginPolicy::List(
                text.split(',').map(|origin| origin.trim().parse().ok()).collect::<Option<_>>()?,
            ),
        })
    }

    fn write(value: &OriginPolicy) -> String {
        match value {
            OriginPolicy::Any => "any".into(),
            OriginPolicy::Same => "same".into(),
            OriginPolicy::List(patterns) => {
                patterns.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
            }
        }
    }
}

impl Kind<Pinning> for Word {
    const ACCEPTS: &'static str = "auto, off, or core numbers such as 0,1";

    fn read(text: &str) -> Option<Pinning> {
        Some(match word(text).as_str() {
            "auto" => Pinning::Auto,
            "off" | "none" => Pinning::Off,
            list => Pinning::Cores(
                list.split(',').map(|core| core.trim().parse().ok()).collect::<Option<_>>()?,
            ),
        })
    }

    fn write(value: &Pinning) -> String {
        match value {
            Pinning::Auto => "auto".into(),
            Pinning::Off => "off".into(),
            Pinning::Cores(cores) => join(cores.iter().map(usize::to_string)),
        }
    }
}

impl Kind<Excess> for Word {
    const ACCEPTS: &'static str = "pause, close or close:CODE";

    fn read(text: &str) -> Option<Excess> {
        Some(match word(text).as_str() {
            "pause" => Excess::Pause,
            "close" => Excess::Close(CloseCode::POLICY_VIOLATION),
            other => Excess::Close(close_code(other)?),
        })
    }

    fn write(value: &Excess) -> String {
        match value {
            Excess::Pause => "pause".into(),
            Excess::Close(code) => format!("close:{}", code.get()),
        }
    }
}

/// The code of `close:CODE`.
fn close_code(word: &str) -> Option<CloseCode> {
    word.strip_prefix("close:")?.trim().parse().ok().map(CloseCode::new)
}

impl Kind<Backpressure> for Word {
    const ACCEPTS: &'static str = "close, close:CODE, drop-newest or drop-oldest";

    fn read(text: &str) -> Option<Backpressure> {
        Some(match word(text).as_str() {
            "close" => Backpressure::Close(CloseCode::TRY_AGAIN_LATER),
            "drop-newest" => Backpressure::DropNewest,
            "drop-oldest" => Backpressure::DropOldest,
            other => Backpressure::Close(close_code(other)?),
        })
    }

    fn write(value: &Backpressure) -> String {
        match value {
            Backpressure::Close(code) => format!("close:{}", code.get()),
            Backpressure::DropNewest => "drop-newest".into(),
            Backpressure::DropOldest => "drop-oldest".into(),
        }
    }
}

impl Kind<Vec<(String, Backpressure)>> for Word {
    const ACCEPTS: &'static str =
        "PATTERN=POLICY,…, each policy one of close, close:CODE, drop-newest and drop-oldest";

    fn read(text: &str) -> Option<Vec<(String, Backpressure)>> {
        if text.trim().is_empty() {
            return Some(Vec::new());
        }
        text.split(',')
            .map(|policy| {
                let (pattern, policy) = policy.rsplit_once('=')?;
                Some((pattern.trim().to_owned(), Self::read(policy)?))
            })
            .collect()
    }

    fn write(value: &Vec<(String, Backpressure)>) -> String {
        join(value.iter().map(|(pattern, policy)| format!("{pattern}={}", Self::write(policy))))
    }
}

impl Kind<Vec<String>> for Word {
    const ACCEPTS: &'static str = "names such as chat.v2,chat.v1, the preferred one first";

    fn read(text: &str) -> Option<Vec<String>> {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        names.map(|name| is_token(name).then(|| name.to_owned())).collect()
    }

    fn write(value: &Vec<String>) -> String {
        value.join(",")
    }
}

impl Kind<Level> for Word {
    const ACCEPTS: &'static str = "a level from 1 to 9";

    fn read(text: &str) -> Option<Level> {
        Level::new(read_number(text)?.try_into().ok()?)
    }

    fn write(value: &Level) -> String {
        value.get().to_string()
    }
}

impl Kind<WindowBits> for Word {
    const ACCEPTS: &'static str = "bits, from 9 to 15";

    fn read(text: &str) -> Option<WindowBits> {
        WindowBits::new(read_number(text)?.try_into().ok()?)
    }

    fn write(value: &WindowBits) -> String {
        value.get().to_string()
    }
}

impl Kind<Sizing<WindowBits>> for Word {
    const ACCEPTS: &'static str = "auto, or bits, from 9 to 15";

    fn read(text: &str) -> Option<Sizing<WindowBits>> {
        if word(text) == "auto" { Some(Sizing::Auto) } else { Self::read(text).map(Sizing::Fixed) }
    }

    fn write(value: &Sizing<WindowBits>) -> String {
        value.fixed().map_or_else(|| "auto".to_owned(), |bits| Self::write(&bits))
    }
}

/// A number without sign; an underscore may stand between digits, as in TOML.
fn read_number(text: &str) -> Option<u64> {
    let text = text.trim();
    if !text.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    text.replace('_', "").parse().ok()
}

fn word(text: &str) -> String {
    text.trim().to_ascii_lowercase().replace('_', "-")
}

fn join(parts: impl Iterator<Item = String>) -> String {
    parts.enumerate().fold(String::new(), |mut all, (index, part)| {
        // Writing to a string does not fail.
        let _ = write!(all, "{}{part}", if index == 0 { "" } else { "," });
        all
    })
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number.trim(), unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Option<Duration> {
        Time::read(text)
    }

    #[test]
    fn durations() {
        for (text, millis) in [
            ("250ms", 250),
            ("30s", 30_000),
            ("30", 30_000),
            ("1.5m", 90_000),
            ("2h", 7_200_000),
            (" 5 s ", 5_000),
            ("0", 0),
        ] {
            assert_eq!(time(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for wrong in [
            "",
            "s",
            "-1s",
            "10x",
            "1e400",
            "9999999999h",
            "7200000000",
            "7200000000000ms",
            "inf",
            "NaNs",
            "1m30s",
        ] {
            assert_eq!(time(wrong), None, "{wrong}");
        }
        for nanos in [1, 1_500, 2_000_000, 90_000_000_000, 7_200_000_000_000, 0] {
            let duration = Duration::from_nanos(nanos);
            assert_eq!(time(&Time::write(&duration)), Some(duration), "{duration:?}");
        }
    }

    #[test]
    fn lengths() {
        let read = |text| -> Option<usize> { Len::read(text) };
        assert_eq!(read("64"), Some(64));
        assert_eq!(read("16KiB"), Some(16 << 10));
        assert_eq!(read("1 mib"), Some(1 << 20));
        assert_eq!(read("1_000"), Some(1000));
        for wrong in ["", "KiB", "16kb", "-1", "+1", "1.5MiB", "99999999999GiB"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert_eq!(Len::write(&(1_usize << 20)), "1MiB");
        assert_eq!(Len::write(&1500_usize), "1500");
        assert_eq!(Len::write(&0_usize), "0");
        let small: Option<u16> = Count::read("65536");
        assert_eq!(small, None);
    }

    #[test]
    fn what_may_be_absent_has_a_word() {
        assert_eq!(Count::read("auto"), Some(Sizing::<usize>::Auto));
        assert_eq!(Count::read("4"), Some(Sizing::Fixed(4_usize)));
        assert_eq!(Count::read("Unlimited"), Some(Limit::<u32>::Unlimited));
        assert_eq!(Len::read("off"), Some(None::<usize>));
        assert_eq!(Len::read("1KiB"), Some(Some(1024_usize)));
        assert_eq!(Time::read("off"), Some(None::<Duration>));
        assert_eq!(Time::write(&None), "off");
        for zero in ["0", "0s", "0.0m", "00", "unlimited", "none"] {
            assert_eq!(Time::read(zero), None::<Option<Duration>>, "{zero}");
            assert_eq!(Count::read(zero), None::<Sizing>, "{zero}");
        }
    }

    #[test]
    fn words_and_lists() {
        assert_eq!(Word::read("least_loaded"), Some(Assignment::LeastLoaded));
        assert_eq!(Word::read("io_uring"), Some(DriverKind::Uring));
        assert_eq!(Word::read("15"), Some(Sizing::Fixed(WindowBits::MAX)));
        assert_eq!(Word::read("auto"), Some(Sizing::<WindowBits>::Auto));
        assert_eq!(Word::read("16"), None::<Sizing<WindowBits>>);
        assert_eq!(Word::write(&Sizing::<WindowBits>::Auto), "auto");
        assert_eq!(Word::read("0, 2"), Some(Pinning::Cores(vec![0, 2])));
        let none: Option<Pinning> = Word::read("0,x");
        assert_eq!(none, None);
        let origins: Option<OriginPolicy> =
            Word::read("https://example.org, https://*.example.org:8443");
        let written = origins.map(|origins| Word::write(&origins));
        assert_eq!(written.as_deref(), Some("https://example.org,https://*.example.org:8443"));
        let excess = |text| <Word as Kind<Excess>>::read(text);
        assert_eq!(excess("close"), Some(Excess::Close(CloseCode::POLICY_VIOLATION)));
        assert_eq!(excess("close:4109"), Some(Excess::Close(CloseCode::new(4109))));
        assert_eq!([excess("close:"), excess("close:x"), excess("closed")], [None; 3]);
        let policies: Option<Vec<_>> = Word::read("prices.>=drop-oldest, orders.*=close:1008");
        assert_eq!(
            policies,
            Some(vec![
                ("prices.>".to_owned(), Backpressure::DropOldest),
                ("orders.*".to_owned(), Backpressure::Close(CloseCode::POLICY_VIOLATION)),
            ])
        );
    }
}
