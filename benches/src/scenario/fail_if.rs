//! `--fail-if`: conditions on a report under which the program fails, for use in CI.

use std::fmt;
use std::str::FromStr;

use ringwire_examples::units::parse_bytes;

use crate::echo::Summary;

/// What may be named beside latencies, and its unit.
const METRICS: [(&str, Unit); 5] = [
    ("errors", Unit::Count),
    ("opened", Unit::Count),
    ("rate", Unit::Count),
    ("connects", Unit::Count),
    ("growth", Unit::Bytes),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// A time; kept in microseconds.
    Micros,
    Count,
    Bytes,
}

/// One condition, such as `p99>5ms`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Condition {
    text: String,
    metric: &'static str,
    compare: Compare,
    value: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compare {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

impl Condition {
    /// Whether it holds. A value that a run does not have fails it too: what cannot be told is not fine.
    pub(crate) fn holds(&self, value: impl FnOnce(&str) -> Option<f64>) -> bool {
        value(self.metric).is_none_or(|value| self.is_met_by(value))
    }

    /// Whether it holds for a value that the run has.
    pub(crate) fn holds_surely(&self, value: impl FnOnce(&str) -> Option<f64>) -> bool {
        value(self.metric).is_some_and(|value| self.is_met_by(value))
    }

    /// What it is about.
    pub(crate) fn metric(&self) -> &'static str {
        self.metric
    }

    fn is_met_by(&self, value: f64) -> bool {
        match self.compare {
            Compare::Greater => value > self.value,
            Compare::GreaterOrEqual => value >= self.value,
            Compare::Less => value < self.value,
            Compare::LessOrEqual => value <= self.value,
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let start = text.find(['<', '>']).ok_or_else(|| {
            format!("{text:?} is no condition: write NAME>VALUE or NAME<VALUE, such as p99>5ms")
        })?;
        let (name, rest) = text.split_at(start);
        let operators = [
            (">=", Compare::GreaterOrEqual),
            ("<=", Compare::LessOrEqual),
            (">", Compare::Greater),
            ("<", Compare::Less),
        ];
        let split = |&(sign, compare): &(&str, Compare)| Some((compare, rest.strip_prefix(sign)?));
        let (compare, value) =
            operators.iter().find_map(split).ok_or_else(|| format!("{text:?} compares nothing"))?;
        let name = name.trim();
        let latencies = Summary::NAMES.iter().map(|name| (*name, Unit::Micros));
        let mut metrics = latencies.chain(METRICS);
        let known = metrics.clone().find(|(known, _)| *known == name);
        let (metric, unit) = known.ok_or_else(|| {
            let names: Vec<_> = metrics.by_ref().map(|(name, _)| name).collect();
            format!("{name:?} is not measured: use one of {}", names.join(", "))
        })?;
        let value = match unit {
            Unit::Micros => micros(value.trim())?,
            Unit::Count => value
                .trim()
                .parse()
                .map_err(|_| format!("{:?} is no number, for {metric}", value.trim()))?,
            Unit::Bytes => parse_bytes(value)? as f64,
        };
        Ok(Self { text: text.to_owned(), metric, compare, value })
    }
}

/// Reads `250us`, `5ms` or `1s`.
fn micros(text: &str) -> Result<f64, String> {
    let end = text.find(|c: char| c.is_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor = match unit {
        "us" | "µs" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        _ => return Err(format!("{text:?} is no time: write a number and us, ms or s")),
    };
    let number: f64 = number.trim().parse().map_err(|_| format!("{text:?} is no time"))?;
    Ok(number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(text: &str) -> Condition {
        text.parse().unwrap()
    }

    #[test]
    fn conditions_hold_or_not() {
        let is = |text: &str, value: f64| condition(text).holds(|_| Some(value));
        assert!(is("p99>5ms", 5001.0) && !is("p99>5ms", 5000.0));
        assert!(is("p99.9 >= 1s", 1e6) && !is("p99.9>=1s", 999_999.0));
        assert!(is("rate<1000", 999.0) && !is("rate<1000", 1000.0));
        assert!(is("max<=250us", 250.0) && !is("max <= 250µs", 250.1));
        assert!(is("errors>0", 1.0) && !is("errors>0", 0.0));
        assert!(is("growth>1MiB", 1_048_577.0) && !is("growth> 1MiB", 1_048_576.0));
        let surely = |text: &str, value| condition(text).holds_surely(|_| value);
        assert!(surely("p99<5ms", Some(4999.0)) && !surely("p99<5ms", Some(5000.0)));
        // What a run does not have fails --fail-if, and is no good rate either.
        assert!(!surely("p99<5ms", None));
        let mut asked = String::new();
        let holds = condition("connects<5").holds(|name| {
            name.clone_into(&mut asked);
            None
        });
        assert!(holds && asked == "connects");
        assert_eq!(condition(" p99>5ms ").to_string(), "p99>5ms");
    }

    #[test]
    fn nonsense_is_named() {
        let error = |text: &str| text.parse::<Condition>().unwrap_err();
        assert!(error("p99=5ms").contains("NAME>VALUE"), "{}", error("p99=5ms"));
        assert!(error("p98>5ms").contains("p99.9"), "{}", error("p98>5ms"));
        assert!(error("p99>5").contains("us, ms or s"), "{}", error("p99>5"));
        assert!(error("errors>few").contains("few"), "{}", error("errors>few"));
        assert!(error("p99>").contains("no time"), "{}", error("p99>"));
        assert!(error("growth>1MB").contains("use KiB"), "{}", error("growth>1MB"));
    }
}
