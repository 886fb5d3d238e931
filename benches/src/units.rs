//! CPU lists as people write them on a command line, and quantities as people read them.

/// A set of CPU numbers, written `0,2-3`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CpuList(pub(crate) Vec<usize>);

impl std::str::FromStr for CpuList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |part: &str| {
            part.trim().parse::<usize>().map_err(|_| format!("{part:?} is not a CPU number"))
        };
        let mut cpus = Vec::new();
        for part in text.trim().split(',') {
            match part.split_once('-') {
                Some((first, last)) => cpus.extend(number(first)?..=number(last)?),
                None => cpus.push(number(part)?),
            }
        }
        cpus.sort_unstable();
        cpus.dedup();
        if cpus.is_empty() { Err(format!("{text:?} names no CPU")) } else { Ok(Self(cpus)) }
    }
}

/// A byte count as people read it: `64 B`, `16 KiB`, `1.5 MiB`.
pub(crate) fn show_bytes(bytes: f64) -> String {
    let mut value = bytes;
    for unit in ["B", "KiB", "MiB"] {
        if value.abs() < 1024.0 {
            return format!("{} {unit}", trim(value));
        }
        value /= 1024.0;
    }
    format!("{} GiB", trim(value))
}

/// A count with its thousands apart: `1 234 567`.
pub(crate) fn show_count(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) && !shown.ends_with('-') {
            shown.push(' ');
        }
        shown.push(digit);
    }
    shown
}

/// The share of what succeeded, in percent.
pub(crate) fn show_success(succeeded: u64, failed: u64) -> String {
    match succeeded + failed {
        0 => "–".to_owned(),
        all => format!("{:.2} %", succeeded as f64 * 100.0 / all as f64),
    }
}

/// A quotient, or 0 of nothing.
pub(crate) fn ratio(value: f64, by: f64) -> f64 {
    if by > 0.0 { value / by } else { 0.0 }
}

fn trim(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists() {
        assert_eq!("1".parse(), Ok(CpuList(vec![1])));
        assert_eq!("3,0-1,1".parse(), Ok(CpuList(vec![0, 1, 3])));
        for wrong in ["", "a", "1-", "3-1"] {
            assert!(wrong.parse::<CpuList>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn shown() {
        assert_eq!(show_bytes(64.0), "64 B");
        assert_eq!(show_bytes(16384.0), "16 KiB");
        assert_eq!(show_bytes(1_572_864.0), "1.5 MiB");
        assert_eq!(show_count(1_234_567.4), "1 234 567");
        assert_eq!(show_count(999.0), "999");
        assert_eq!((show_success(3, 1), show_success(0, 0)), ("75.00 %".into(), "–".into()));
    }
}
