//! The result of one run: the arithmetic, the table and the JSON.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::Plan;
use super::load::Outcome;
use crate::disturbance::Disturbance;
use crate::echo::{Bottleneck, Summary, TlsTotals};
use crate::report::{cpu_rows, last_rows, show_rows};
use crate::spent::Judged;
use crate::units::{ratio, show_bytes, show_count};

/// The result of one run. JSON has these names.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "BroadcastReport")]
pub(crate) struct Report {
    pub(crate) target: String,
    pub(crate) subscribers: u32,
    /// Publications on their way at a time.
    pub(crate) window: usize,
    pub(crate) payload_bytes: usize,
    /// Subscribers that became open.
    pub(crate) opened: u64,
    pub(crate) seconds: f64,
    /// Publications that were with everyone.
    pub(crate) publications: u64,
    pub(crate) publications_per_second: f64,
    pub(crate) deliveries: u64,
    pub(crate) deliveries_per_second: f64,
    /// From the sending of a publication to its last delivery.
    pub(crate) latency_us: Option<Summary>,
    /// `None` where the server's process is not known.
    pub(crate) server_cpu_us_per_delivery: Option<f64>,
    pub(crate) server_utilisation: Option<f64>,
    pub(crate) generator_cpu_us_per_delivery: Option<f64>,
    pub(crate) generator_utilisation: f64,
    pub(crate) bottleneck: Bottleneck,
    /// What else went on; `None` where that cannot be told.
    disturbance: Option<Disturbance>,
    /// `None` without TLS.
    pub(crate) tls: Option<TlsTotals>,
    pub(crate) errors: BTreeMap<String, u64>,
}

impl Report {
    /// Does the arithmetic.
    pub(crate) fn new(plan: &Plan, outcome: Outcome) -> Self {
        let deliveries = outcome.deliveries;
        let Judged { seconds, generator, server, disturbance, bottleneck } =
            outcome.spent.judge(deliveries);
        Self {
            target: plan.target.to_string(),
            subscribers: plan.subscribers,
            window: plan.window,
            payload_bytes: plan.payload_len,
            opened: outcome.opened,
            seconds,
            publications: outcome.publications,
            publications_per_second: ratio(outcome.publications as f64, seconds),
            deliveries,
            deliveries_per_second: ratio(deliveries as f64, seconds),
            latency_us: outcome.latency,
            server_cpu_us_per_delivery: server.and_then(|server| server.cpu_us_per_message),
            server_utilisation: server.map(|server| server.utilisation),
            generator_cpu_us_per_delivery: generator.cpu_us_per_message,
            generator_utilisation: generator.utilisation,
            bottleneck,
            disturbance,
            tls: outcome.tls.version.map(|_| outcome.tls),
            errors: outcome.failures,
        }
    }

    /// Whether everyone got everything, once and in order.
    pub(crate) fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }

    /// A value that a condition names; `None` for one that broadcasts do not have.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        match name {
            "errors" => Some(self.errors.values().sum::<u64>() as f64),
            "opened" => Some(self.opened as f64),
            "rate" => Some(self.publications_per_second),
            name => self.latency_us?.named(name),
        }
    }

    /// The table for people.
    pub(crate) fn table(&self) -> String {
        let size = show_bytes(self.payload_bytes as f64);
        let mut rows = vec![
            ("target", self.target.clone()),
            (
                "load",
                format!(
                    "{} subscribers × {} on their way × {size}, {:.1} s",
                    self.subscribers, self.window, self.seconds
                ),
            ),
            ("publications", format!("{}/s", show_count(self.publications_per_second))),
            ("deliveries", format!("{}/s", show_count(self.deliveries_per_second))),
        ];
        if let Some(tls) = self.tls.and_then(|tls| tls.text()) {
            rows.push(("TLS", tls));
        }
        if let Some(Summary { p50, p99, p999, max, .. }) = self.latency_us {
            for (name, value) in
                [("last delivery p50", p50), ("p99", p99), ("p99.9", p999), ("max", max)]
            {
                rows.push((name, format!("{value:.1} µs")));
            }
        }
        rows.extend(cpu_rows(
            ("delivery", 3),
            self.server_cpu_us_per_delivery.zip(self.server_utilisation),
            self.generator_cpu_us_per_delivery.map(|each| (each, self.generator_utilisation)),
        ));
        rows.extend(last_rows(self.bottleneck, self.disturbance, &[], &self.errors));
        show_rows(&rows)
    }
}

/// A report of one second with 1000 deliveries that took the server so long each.
#[cfg(test)]
pub(crate) fn test_report(server_cpu_micros: u64) -> Report {
    let outcome = Outcome {
        deliveries: 1000,
        publications: 10,
        opened: 100,
        // Milliseconds, for a thousand.
        spent: crate::spent::Spent::for_tests(1, &[0], &[server_cpu_micros]),
        ..Outcome::default()
    };
    Report::new(&Plan::for_tests("ws://127.0.0.1:1/"), outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_divided_by_deliveries() {
        let report = test_report(500);
        assert!((report.server_cpu_us_per_delivery.unwrap() - 500.0).abs() < 1e-9);
        assert!((report.deliveries_per_second - 1000.0).abs() < 1e-9);
        assert!((report.publications_per_second - 10.0).abs() < 1e-9);
        let table = report.table();
        assert!(table.contains("500.000 µs per delivery, 50 % busy"), "{table}");
    }

    #[test]
    fn nothing_is_divided_by_nothing() {
        let plan = Plan::for_tests("ws://127.0.0.1:1/");
        let report = Report::new(&plan, Outcome::default());
        assert_eq!((report.server_cpu_us_per_delivery, report.latency_us), (None, None));
        assert!(report.table().contains("0/s"), "{}", report.table());
    }
}
