//! Axes whose marks are where people look for them: at round numbers, binary ones for bytes, decades for latencies, and
//! 90, 99, 99.9 % for the curve of percentiles.

use std::ops::Range;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};

/// About so many marks on an axis.
const MARKS: f64 = 6.0;

/// An axis.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Axis {
    /// From zero, with a mark at each step.
    Linear { top: f64, step: f64 },
    /// From one value above zero to another, each power of a base as long as the others.
    Log { low: f64, high: f64, base: f64 },
    /// Shares: each step to the right leaves a tenth of what was left.
    Nines { high: f64 },
    /// So many categories, of which each has its middle at a whole number.
    Places(usize),
}

impl Axis {
    /// From zero to `top` at least, with marks at 1, 2, 5, 10 and so on.
    pub(super) fn decimal(top: f64) -> Self {
        let raw = top / MARKS;
        let decade = 10_f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * decade);
        let step = step.into_iter().find(|step| *step >= raw).unwrap_or(10.0 * decade);
        Self::Linear { top: (top / step).ceil() * step, step }
    }

    /// The same with marks at powers of two and what lies between them evenly: 64, 128, 192, 256 MiB.
    pub(super) fn binary(top: f64) -> Self {
        let step = 2_f64.powf((top / MARKS).log2().ceil()).max(1.0);
        Self::Linear { top: (top / step).ceil() * step, step }
    }

    /// From the power of `base` below the lowest value above zero to that above the highest.
    pub(super) fn log(values: impl Iterator<Item = f64>, base: f64) -> Self {
        let (low, high) = values
            .filter(|value| value.is_finite() && *value > 0.0)
            .fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
        if high == 0.0 {
            return Self::Log { low: 1.0, high: base, base };
        }
        // What lies on a power, but for rounding, is not the begin of another.
        let low = base.powf((low.log(base) + 1e-9).floor());
        let high = base.powf((high.log(base) - 1e-9).ceil());
        Self::Log { low, high: high.max(low * base), base }
    }

    /// Where a share, of 1, stands on [`Nines`](Self::Nines).
    pub(super) fn nines(share: f64) -> f64 {
        -(1.0 - share).max(1e-9).log10()
    }

    /// The value that lines begin at.
    pub(super) fn ground(&self) -> f64 {
        match self {
            Self::Log { low, .. } => *low,
            _ => 0.0,
        }
    }
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let share = match self {
            Self::Linear { top, .. } => value / top,
            Self::Log { low, high, .. } => {
                (value.clamp(*low, *high) / low).log10() / (high / low).log10()
            }
            Self::Nines { high } => value / high,
            Self::Places(count) => (value + 0.5) / (*count).max(1) as f64,
        };
        let place = f64::from(limit.0) + share * f64::from(limit.1 - limit.0);
        #[expect(clippy::cast_possible_truncation, reason = "within the limits")]
        (place.round() as i32)
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        let up_to = |count: f64| (0_u32..).map(f64::from).take_while(move |at| *at <= count + 1e-9);
        match self {
            Self::Linear { top, step } => up_to(top / step).map(|at| at * step).collect(),
            Self::Log { low, high, base } => {
                let powers = (high / low).log(*base);
                // With few decades there is room for more.
                let is_roomy = *base == 10.0 && powers < 3.5;
                let within: &[f64] = if is_roomy { &[1.0, 2.0, 5.0] } else { &[1.0] };
                let marks = up_to(powers)
                    .flat_map(|at| within.iter().map(move |factor| low * base.powf(at) * factor));
                marks.filter(|mark| *mark <= high * 1.000_001).collect()
            }
            Self::Nines { high } => up_to(*high).collect(),
            Self::Places(count) => (0..*count).map(|place| place as f64).collect(),
        }
    }

    fn range(&self) -> Range<f64> {
        match self {
            Self::Linear { top, .. } => 0.0..*top,
            Self::Log { low, high, .. } => *low..*high,
            Self::Nines { high } => 0.0..*high,
            Self::Places(count) => -0.5..*count as f64 - 0.5,
        }
    }
}

#[cfg(test)]
mod tests {
    use plotters::coord::ranged1d::BoldPoints;

    use super::*;

    fn marks(axis: &Axis) -> Vec<f64> {
        axis.key_points(BoldPoints(10))
    }

    #[test]
    fn marks_of_bytes_are_binary() {
        const MIB: f64 = 1048576.0;
        let axis = Axis::binary(230.0 * MIB);
        let expected = [0.0, 64.0, 128.0, 192.0, 256.0].map(|mib| mib * MIB);
        assert_eq!(marks(&axis), expected);
        assert_eq!(axis.range().end, 256.0 * MIB);
        assert_eq!(marks(&Axis::binary(0.5)), [0.0, 1.0]);
    }

    #[test]
    fn marks_of_counts_are_round() {
        assert_eq!(marks(&Axis::decimal(1.0)), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]);
        assert_eq!(marks(&Axis::decimal(29_000.0)).last(), Some(&30_000.0));
        assert_eq!(marks(&Axis::decimal(6.0)), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    }

    #[test]
    fn decades_are_equally_long() {
        let axis = Axis::log([0.0, 3.0, 700.0, f64::NAN].into_iter(), 10.0);
        assert_eq!(axis, Axis::Log { low: 1.0, high: 1000.0, base: 10.0 });
        let at = |value: f64| axis.map(&value, (0, 300));
        assert_eq!([at(1.0), at(10.0), at(100.0), at(1000.0)], [0, 100, 200, 300]);
        assert_eq!((at(0.0), axis.ground()), (0, 1.0));
        assert_eq!(marks(&axis).len(), 10);
        assert_eq!(marks(&Axis::log([1.0, 1e6].into_iter(), 10.0)).len(), 7);
        assert_eq!(
            Axis::log([100.0].into_iter(), 10.0),
            Axis::Log { low: 100.0, high: 1000.0, base: 10.0 }
        );
        assert_eq!(
            Axis::log(std::iter::empty(), 10.0),
            Axis::Log { low: 1.0, high: 10.0, base: 10.0 }
        );
    }

    #[test]
    fn powers_of_sixteen_suit_bytes() {
        let axis = Axis::log([120.0, 100_000.0].into_iter(), 16.0);
        assert_eq!(marks(&axis), [16.0, 256.0, 4096.0, 65_536.0, 1_048_576.0]);
    }

    #[test]
    fn nines_are_equally_far_apart() {
        let places = [0.0, 0.9, 0.99, 0.999].map(|share| Axis::nines(share).round());
        assert_eq!(places, [0.0, 1.0, 2.0, 3.0]);
        assert!(Axis::nines(1.0).is_finite());
    }
}
