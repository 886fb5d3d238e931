//! The figures of a run over time, and the charts they make.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Chart, Line, Part, Plot, Unit};
use crate::units::ratio;

/// With more samples than this every second one goes: a chart has no room for them, and a run may take days.
const MAX_SAMPLES: usize = 2000;

/// What was seen at one moment. Totals count from the beginning of the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[schemars(rename = "Moment")]
pub(crate) struct Sample {
    /// Seconds since the run began.
    pub(crate) seconds: f64,
    /// Connections that are open.
    pub(crate) connections: u64,
    /// Messages that arrived back so far.
    pub(crate) messages: u64,
    /// Of the messages since the sample before; `None` without any that counts.
    pub(crate) latency_us: Option<Percentiles>,
    /// CPU time of the server so far, in seconds.
    pub(crate) server_cpu: Option<f64>,
    /// CPU time of the load generator so far, in seconds.
    pub(crate) generator_cpu: Option<f64>,
    /// Resident memory of the server's process, in bytes.
    pub(crate) server_resident: Option<u64>,
    /// The kernel's objects (`Slab`) on the whole machine, in bytes.
    pub(crate) kernel_slab: Option<u64>,
}

/// What most messages of an interval did not exceed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
pub(crate) struct Percentiles {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

/// Samples of a run, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct Timeline {
    samples: Vec<Sample>,
}

/// One value of a sample, where it has it.
type Value = fn(&Sample) -> Option<f64>;

impl Timeline {
    /// Adds what was seen after all other samples.
    pub(crate) fn push(&mut self, sample: Sample) {
        self.samples.push(sample);
        if self.samples.len() > MAX_SAMPLES {
            self.thin_out();
        }
    }

    /// The charts of a run: connections, messages, latency, memory, CPU. Those without any value are left out by the
    /// page.
    pub(crate) fn charts(&self) -> Vec<Part> {
        let latency: [(&str, Value); 4] = [
            ("p50", |sample| Some(sample.latency_us?.p50)),
            ("p90", |sample| Some(sample.latency_us?.p90)),
            ("p99", |sample| Some(sample.latency_us?.p99)),
            ("p99.9", |sample| Some(sample.latency_us?.p999)),
        ];
        let slab: Value = |sample| Some(sample.kernel_slab? as f64);
        let cpu = vec![
            self.rate("server", |sample| sample.server_cpu),
            self.rate("load generator", |sample| sample.generator_cpu),
        ];
        // Without messages there is no rate of them to be drawn.
        let has_messages = self.samples.last().is_some_and(|sample| sample.messages > 0);
        let rate = has_messages.then(|| self.rate("messages", messages));
        vec![
            chart("Connections", Unit::Count, vec![self.line("connections", connections)]),
            chart("Messages", Unit::PerSecond, rate.into_iter().collect()),
            chart("Latency", Unit::Micros, self.lines(&latency)),
            chart("CPUs in use", Unit::Cpus, cpu),
            chart(
                "Memory of the server, resident",
                Unit::Bytes,
                vec![self.line("server", resident)],
            ),
            chart(
                "Kernel objects of the whole machine (slab)",
                Unit::Bytes,
                vec![self.line("slab", slab)],
            ),
        ]
    }

    fn lines(&self, values: &[(&str, Value)]) -> Vec<Line> {
        values.iter().map(|(name, value)| self.line(name, *value)).collect()
    }

    fn line(&self, name: &str, value: Value) -> Line {
        let points =
            self.samples.iter().filter_map(|sample| Some((sample.seconds, value(sample)?)));
        Line { name: name.to_owned(), points: points.collect() }
    }

    /// A total's growth a second, from each sample to the next.
    fn rate(&self, name: &str, total: Value) -> Line {
        let pairs = self.samples.iter().zip(self.samples.iter().skip(1));
        let points = pairs.filter_map(|(before, after)| {
            let grown = total(after)? - total(before)?;
            Some((after.seconds, ratio(grown.max(0.0), after.seconds - before.seconds)))
        });
        Line { name: name.to_owned(), points: points.collect() }
    }

    /// Joins each sample with the one after it. Totals are then those of the later one; a percentile of both together
    /// is not known, so the higher one stands.
    fn thin_out(&mut self) {
        let join = |pair: &[Sample]| {
            let last = pair[pair.len() - 1];
            let latency_us =
                pair.iter().filter_map(|sample| sample.latency_us).reduce(|a, b| Percentiles {
                    p50: a.p50.max(b.p50),
                    p90: a.p90.max(b.p90),
                    p99: a.p99.max(b.p99),
                    p999: a.p999.max(b.p999),
                    max: a.max.max(b.max),
                });
            Sample { latency_us, ..last }
        };
        self.samples = self.samples.chunks(2).map(join).collect();
    }
}

/// Charts of several runs, a line for each.
pub(crate) fn side_by_side(runs: &[(&str, &Timeline)]) -> Vec<Part> {
    let lines = |value: Value| runs.iter().map(|(name, run)| run.line(name, value)).collect();
    let rates = |total: Value| runs.iter().map(|(name, run)| run.rate(name, total)).collect();
    vec![
        chart("Messages", Unit::PerSecond, rates(messages)),
        chart("Latency p50", Unit::Micros, lines(|sample| Some(sample.latency_us?.p50))),
        chart("Latency p99", Unit::Micros, lines(|sample| Some(sample.latency_us?.p99))),
        chart("Connections", Unit::Count, lines(connections)),
        chart("Server, resident memory", Unit::Bytes, lines(resident)),
        chart("Server, CPUs in use", Unit::Cpus, rates(|sample| sample.server_cpu)),
    ]
}

fn chart(title: &str, unit: Unit, lines: Vec<Line>) -> Part {
    Part::Chart(Chart { title: title.to_owned(), unit, plot: Plot::Lines(lines) })
}

fn connections(sample: &Sample) -> Option<f64> {
    Some(sample.connections as f64)
}

fn messages(sample: &Sample) -> Option<f64> {
    Some(sample.messages as f64)
}

fn resident(sample: &Sample) -> Option<f64> {
    Some(sample.server_resident? as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(seconds: f64, messages: u64, latency: Option<f64>) -> Sample {
        let same = |p50: f64| Percentiles { p50, p90: p50, p99: p50, p999: p50, max: p50 };
        Sample { seconds, messages, latency_us: latency.map(same), ..Sample::default() }
    }

    fn lines(part: &Part) -> &[Line] {
        match part {
            Part::Chart(Chart { plot: Plot::Lines(lines), .. }) => lines,
            other => panic!("{other:?}"),
        }
    }

    fn timeline() -> Timeline {
        let samples =
            vec![sample(0.0, 0, None), sample(0.5, 100, Some(3.0)), sample(1.0, 100, None)];
        Timeline { samples }
    }

    #[test]
    fn totals_become_rates() {
        let charts = timeline().charts();
        assert_eq!(lines(&charts[1])[0].points, [(0.5, 200.0), (1.0, 0.0)]);
        assert_eq!(lines(&charts[2])[3].points, [(0.5, 3.0)]);
        assert_eq!(lines(&charts[4])[0].points, []);
    }

    #[test]
    fn runs_share_a_chart() {
        let (one, other) = (timeline(), Timeline::default());
        let charts = side_by_side(&[("one", &one), ("other", &other)]);
        let lines = lines(&charts[0]);
        assert_eq!(lines[0].points.len(), 2);
        assert!(lines[1].name == "other" && lines[1].points.is_empty());
    }

    #[test]
    fn long_runs_keep_their_ends_and_their_worst_latency() {
        let mut timeline = Timeline::default();
        for at in 0..=10 * MAX_SAMPLES {
            let latency = if at == 777 { 9e6 } else { 1.0 };
            timeline.push(sample(at as f64, at as u64 * 5, Some(latency)));
        }
        assert!(timeline.samples.len() <= MAX_SAMPLES);
        assert_eq!(timeline.samples.last().map(|sample| sample.messages), Some(100_000));
        let charts = timeline.charts();
        assert!(lines(&charts[1])[0].points.iter().all(|point| point.1 == 5.0));
        assert!(lines(&charts[2])[0].points.iter().any(|point| point.1 == 9e6));
    }
}
