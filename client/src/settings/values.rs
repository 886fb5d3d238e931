//! How values are read and written as text.

use std::time::Duration;

use http::HeaderValue;

use crate::compression::DeflateConfig;
use crate::proxy::Choice;

/// A way to write values of type `T`.
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
/// Durations, and no limit where there need be none.
pub(super) struct Time;
/// Yes or no.
pub(super) struct Switch;
/// Lists of names.
pub(super) struct Names;
/// Whatever the type says.
pub(super) struct Word;

impl Kind<u32> for Count {
    const ACCEPTS: &'static str = "a whole number up to 4294967295";

    fn read(text: &str) -> Option<u32> {
        text.parse().ok()
    }

    fn write(value: &u32) -> String {
        value.to_string()
    }
}

impl Kind<usize> for Len {
    const ACCEPTS: &'static str = "bytes, such as 512, 64KiB, 1MiB or 2GiB";

    fn read(text: &str) -> Option<usize> {
        let (number, unit) = split_unit(text);
        let shift = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "kib" => 10,
            "mib" => 20,
            "gib" => 30,
            _ => return None,
        };
        number.parse::<usize>().ok()?.checked_mul(1 << shift)
    }

    fn write(value: &usize) -> String {
        let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
        let fits = |shift: u32| *value != 0 && value.is_multiple_of(1 << shift);
        let unit = units.iter().find(|(shift, _)| fits(*shift));
        unit.map_or_else(|| value.to_string(), |(shift, unit)| format!("{}{unit}", value >> shift))
    }
}

impl Kind<Duration> for Time {
    const ACCEPTS: &'static str =
        "a duration, such as 250ms, 30s, 5m or 1h (a bare number: seconds)";

    fn read(text: &str) -> Option<Duration> {
        let (number, unit) = split_unit(text);
        let unit = match unit {
            "ms" => 0.001,
            "" | "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        Duration::try_from_secs_f64(number.parse::<f64>().ok()? * unit).ok()
    }

    fn write(value: &Duration) -> String {
        let seconds = value.as_secs();
        match () {
            () if value.subsec_nanos() != 0 => format!("{}ms", value.as_secs_f64() * 1000.0),
            () if seconds == 0 => "0s".to_owned(),
            () if seconds.is_multiple_of(3600) => format!("{}h", seconds / 3600),
            () if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
            () => format!("{seconds}s"),
        }
    }
}

impl Kind<Option<Duration>> for Time {
    const ACCEPTS: &'static str =
        "off, or a duration, such as 250ms, 30s, 5m or 1h (a bare number: seconds)";

    fn read(text: &str) -> Option<Option<Duration>> {
        match text {
            "off" => Some(None),
            text => Self::read(text).filter(|time: &Duration| !time.is_zero()).map(Some),
        }
    }

    fn write(value: &Option<Duration>) -> String {
        value.as_ref().map_or_else(|| "off".to_owned(), Self::write)
    }
}

impl Kind<bool> for Switch {
    const ACCEPTS: &'static str = "true or false (on or off, yes or no)";

    fn read(text: &str) -> Option<bool> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "on" | "yes" => Some(true),
            "false" | "off" | "no" => Some(false),
            _ => None,
        }
    }

    fn write(value: &bool) -> String {
        value.to_string()
    }
}

impl Kind<Vec<String>> for Names {
    const ACCEPTS: &'static str = "names with commas between them";

    fn read(text: &str) -> Option<Vec<String>> {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        let names: Vec<_> = names.map(str::to_owned).collect();
        let is_name = |name: &String| name.bytes().all(|byte| byte.is_ascii_graphic());
        names.iter().all(is_name).then_some(names)
    }

    fn write(value: &Vec<String>) -> String {
        value.join(",")
    }
}

impl Kind<Option<HeaderValue>> for Word {
    const ACCEPTS: &'static str = "none, or an origin such as https://example.org";

    fn read(text: &str) -> Option<Option<HeaderValue>> {
        match text {
            "none" => Some(None),
            text => HeaderValue::from_str(text).ok().filter(|it| !it.is_empty()).map(Some),
        }
    }

    fn write(value: &Option<HeaderValue>) -> String {
        let value = value.as_ref().and_then(|value| value.to_str().ok());
        value.unwrap_or("none").to_owned()
    }
}

impl Kind<Option<DeflateConfig>> for Word {
    const ACCEPTS: &'static str = "on or off";

    fn read(text: &str) -> Option<Option<DeflateConfig>> {
        match text {
            "on" => Some(Some(DeflateConfig::default())),
            "off" => Some(None),
            _ => None,
        }
    }

    fn write(value: &Option<DeflateConfig>) -> String {
        if value.is_some() { "on" } else { "off" }.to_owned()
    }
}

impl Kind<Choice> for Word {
    const ACCEPTS: &'static str =
        "environment (https_proxy and the like), none, or a URL such as http://proxy:3128";

    fn read(text: &str) -> Option<Choice> {
        Some(match text {
            "environment" => Choice::Environment,
            "none" => Choice::None,
            text => Choice::One(text.parse().ok()?),
        })
    }

    fn write(value: &Choice) -> String {
        match value {
            Choice::Environment => "environment".to_owned(),
            Choice::None => "none".to_owned(),
            // Without the password.
            Choice::One(proxy) => format!("{}://{proxy}", proxy.scheme()),
            Choice::By(_) => "a function".to_owned(),
        }
    }
}

/// A number, and what follows it.
fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|char: char| !char.is_ascii_digit() && char != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_lengths() {
        for (text, millis) in [
            ("250ms", 250),
            ("0.5s", 500),
            ("333ms", 333),
            ("30", 30_000),
            ("5 m", 300_000),
            ("2h", 7_200_000),
        ] {
            let time: Duration = Time::read(text).unwrap();
            assert_eq!(time, Duration::from_millis(millis), "{text}");
            assert_eq!(Time::read(&Time::write(&time)), Some(time), "{text}");
        }
        for text in ["", "s", "-1s", "1d", "off", "1e999", "99999999999999999999h"] {
            assert_eq!(<Time as Kind<Duration>>::read(text), None, "{text}");
        }
        assert_eq!(Time::read("off"), Some(None::<Duration>));
        assert_eq!(<Time as Kind<Option<Duration>>>::read("0"), None, "which is off, or a slip");
        for (text, len) in [("512", 512), ("64KiB", 65_536), ("1mib", 1 << 20), ("2GiB", 2 << 30)] {
            assert_eq!(Len::read(text), Some(len), "{text}");
            assert_eq!(Len::read(&Len::write(&len)), Some(len), "{text}");
        }
        for text in ["1.5KiB", "1TiB", "99999999999999999999", "18446744073709551615KiB"] {
            assert_eq!(Len::read(text), None, "{text}");
        }
    }
}
