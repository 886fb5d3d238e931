//! Metrics as Prometheus reads them, and what the process has used of the machine.

use std::fmt::{self, Display, Write as _};
use std::fs;
use std::time::Duration;

/// Metrics in Prometheus' text format (0.0.4). [`Router::monitoring_with`](crate::Router::monitoring_with) gives an
/// application one, for what it counts beside the engine.
///
/// ```
/// let mut text = ringwire::stats::MetricsText::default();
/// text.gauge("chat_rooms", "Rooms with members.", 3.0);
/// text.counters("chat_refused_total", "Logins that were refused.", "reason", [("expired", 2.0)]);
/// assert_eq!(text.as_str(), "\
/// ## HELP chat_rooms Rooms with members.
/// ## TYPE chat_rooms gauge
/// chat_rooms 3
/// ## HELP chat_refused_total Logins that were refused.
/// ## TYPE chat_refused_total counter
/// chat_refused_total{reason=\"expired\"} 2
/// ");
/// ```
#[derive(Clone, Debug, Default)]
pub struct MetricsText(String);

impl MetricsText {
    pub(super) fn with_capacity(len: usize) -> Self {
        Self(String::with_capacity(len))
    }

    /// The text so far.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text.
    pub fn into_string(self) -> String {
        self.0
    }

    /// Something that goes up and down.
    pub fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    /// Something that only grows. By custom its name ends with `_total`.
    pub fn counter(&mut self, name: &str, help: &str, value: f64) {
        self.family(name, "counter", help);
        self.sample(name, &[], value);
    }

    /// A gauge for each value of a label.
    pub fn gauges<V: Display>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        samples: impl IntoIterator<Item = (V, f64)>,
    ) {
        self.labelled((name, "gauge", help), label, samples);
    }

    /// A counter for each value of a label.
    pub fn counters<V: Display>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        samples: impl IntoIterator<Item = (V, f64)>,
    ) {
        self.labelled((name, "counter", help), label, samples);
    }

    fn labelled<V: Display>(
        &mut self,
        (name, kind, help): (&str, &str, &str),
        label: &str,
        samples: impl IntoIterator<Item = (V, f64)>,
    ) {
        self.family(name, kind, help);
        samples.into_iter().for_each(|(of, value)| self.sample(name, &[(label, &of)], value));
    }

    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &dyn Display)], value: f64) {
        let escaped = |value: &dyn Display| {
            value.to_string().replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
        };
        let labels: Vec<_> =
            labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
        match labels.as_slice() {
            [] => self.line(format_args!("{name} {value}")),
            labels => self.line(format_args!("{name}{{{}}} {value}", labels.join(","))),
        }
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        // A string takes whatever is written to it.
        let _ = writeln!(self.0, "{line}");
    }
}

/// What the process has used of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessStats {
    /// CPU time, of all threads.
    pub cpu: Duration,
    /// Resident memory, in bytes (proc_pid_statm(5)).
    pub resident_len: u64,
}

impl ProcessStats {
    /// As it is now. Memory is 0 where `/proc` is not mounted.
    #[must_use]
    pub fn now() -> Self {
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let pages = fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages: u64 = pages.split(' ').nth(1).and_then(|it| it.parse().ok()).unwrap_or_default();
        let page_len = rustix::param::page_size() as u64;
        Self { cpu: cpu.try_into().unwrap_or_default(), resident_len: pages * page_len }
    }

    /// By the names that Prometheus' clients have for it.
    pub(super) fn write(self, text: &mut MetricsText) {
        let (cpu, resident) = (self.cpu.as_secs_f64(), self.resident_len as f64);
        text.counter("process_cpu_seconds_total", "CPU time, user and system.", cpu);
        text.gauge("process_resident_memory_bytes", "Resident memory.", resident);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Prometheus' exposition formats, "Comments, help text, and type information".
    #[test]
    fn what_has_a_meaning_is_escaped() {
        let mut text = MetricsText::default();
        text.gauges("a", "two\nlines \\", "of", [("x\"y\\z\n", 0.5)]);
        assert_eq!(
            text.into_string(),
            "# HELP a two\\nlines \\\\\n# TYPE a gauge\na{of=\"x\\\"y\\\\z\\n\"} 0.5\n"
        );
    }

    #[test]
    fn the_process_uses_what_it_uses() {
        let before = ProcessStats::now();
        let block = vec![1_u8; 32 << 20];
        let sum = || block.iter().map(|it| u64::from(*it)).sum::<u64>();
        while ProcessStats::now().cpu < before.cpu + Duration::from_millis(20) {
            assert_eq!(sum(), 32 << 20);
        }
        let now = ProcessStats::now();
        assert_eq!(sum(), 32 << 20);
        assert!(now.resident_len >= 32 << 20, "{now:?}");
        assert!(now.cpu < Duration::from_secs(3600), "{now:?}");
    }
}
