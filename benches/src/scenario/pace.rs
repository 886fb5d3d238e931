//! Rates that change over time: from one to the next within a stage, evenly.

use std::time::Duration;

use ringwire_examples::units::parse_duration;
use serde::{Deserialize, Serialize};

/// The rate of each connection over time, in messages a second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pace {
    /// At the begin.
    pub(crate) start: f64,
    pub(crate) stages: Vec<Stage>,
}

/// Some time, at whose end there is that rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stage {
    duration: Duration,
    rate: f64,
}

/// Reads `DURATION:RATE`.
pub(super) fn parse_stage(text: &str) -> Result<Stage, String> {
    let (duration, rate) = text
        .split_once(':')
        .ok_or_else(|| format!("{text:?} is no stage: write DURATION:RATE, such as 30s:10"))?;
    let duration = parse_duration(duration)?;
    let rate: f64 = rate.trim().parse().map_err(|_| format!("{rate:?} is no rate"))?;
    if !(0.0..=1e9).contains(&rate) || duration.is_zero() {
        return Err(
            "a stage is longer than nothing, and its rate from 0 to a thousand million".to_owned()
        );
    }
    Ok(Stage { duration, rate })
}

impl Pace {
    /// How long all stages are.
    pub(crate) fn duration(&self) -> Duration {
        self.stages.iter().map(|stage| stage.duration).sum()
    }

    /// Messages of a connection in all.
    pub(crate) fn count(&self) -> f64 {
        self.pieces().map(|piece| piece.count()).sum()
    }

    /// Messages of so many connections, whose messages are spread evenly.
    pub(crate) fn messages(&self, connections: u32) -> u64 {
        let all = (self.count() * f64::from(connections) - 1e-6).ceil().max(0.0);
        #[expect(clippy::cast_possible_truncation, reason = "a whole number")]
        #[expect(clippy::cast_sign_loss, reason = "it is not negative")]
        (all as u64)
    }

    /// When so many messages are due, fractions of one included; `None` after the last stage.
    pub(crate) fn time_of(&self, count: f64) -> Option<Duration> {
        let (mut left, mut passed) = (count, 0.0);
        for piece in self.pieces() {
            let all = piece.count();
            if left < all {
                return Duration::try_from_secs_f64(passed + piece.time_of(left)).ok();
            }
            left -= all;
            passed += piece.seconds;
        }
        None
    }

    fn pieces(&self) -> impl Iterator<Item = Piece> {
        let mut from = self.start;
        self.stages.iter().map(move |stage| {
            let piece = Piece { seconds: stage.duration.as_secs_f64(), from, to: stage.rate };
            from = stage.rate;
            piece
        })
    }
}

/// A stage with the rates at both of its ends.
struct Piece {
    seconds: f64,
    from: f64,
    to: f64,
}

impl Piece {
    fn count(&self) -> f64 {
        (self.from + self.to) / 2.0 * self.seconds
    }

    /// Seconds after its begin: of `from·t + growth·t²/2 = count`, in the form that subtracts no like numbers.
    fn time_of(&self, count: f64) -> f64 {
        if count <= 0.0 {
            return 0.0;
        }
        let growth = (self.to - self.from) / self.seconds;
        let root = (self.from * self.from + 2.0 * growth * count).max(0.0).sqrt();
        (2.0 * count / (self.from + root)).min(self.seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(start: f64, stages: &str) -> Pace {
        Pace { start, stages: stages.split(',').map(|text| parse_stage(text).unwrap()).collect() }
    }

    #[test]
    fn messages_are_due_where_the_area_is() {
        // 10 s from 0 to 10 a second are 50 messages, 10 s at 10 are 100, and 10 s to none 50 more.
        let pace = pace(0.0, "10s:10,10s:10,10s:0");
        assert_eq!((pace.duration(), pace.count()), (Duration::from_secs(30), 200.0));
        assert_eq!(pace.messages(3), 600);
        let at =
            |count: f64| pace.time_of(count).map(|time| (time.as_secs_f64() * 1e6).round() / 1e6);
        assert_eq!(at(0.0), Some(0.0));
        assert_eq!(at(12.5), Some(5.0));
        assert_eq!(at(50.0), Some(10.0));
        assert_eq!(at(100.0), Some(15.0));
        assert_eq!(at(187.5), Some(25.0));
        assert_eq!(at(200.0), None);
        let times: Vec<_> = (0..200).filter_map(|count| at(f64::from(count))).collect();
        assert!(times.len() == 200 && times.is_sorted(), "{times:?}");
    }

    #[test]
    fn steady_stages_are_intervals() {
        let pace = pace(4.0, "2s:4");
        for count in 0..8 {
            let due = Duration::from_millis(250) * count;
            assert_eq!(pace.time_of(f64::from(count)), Some(due));
        }
        assert_eq!(pace.time_of(8.0), None);
    }

    #[test]
    fn what_is_no_stage_is_told() {
        for wrong in ["", "10s", "10s:x", "0:5", "10s:-1", "x:1", "1s:inf"] {
            assert!(parse_stage(wrong).is_err(), "{wrong}");
        }
    }
}
