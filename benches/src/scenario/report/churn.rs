//! What became of connections that were opened and closed again and again.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use super::Row;
use super::work::{EachSecond, due_count};
use crate::scenario::conductor::Found;
use crate::scenario::plan::{Plan, Work};
use crate::units::show_count;

/// How connections came and went.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Churn {
    /// Connects that were due; `None` where they went as fast as they could.
    pub(crate) asked: Option<u64>,
    /// Closes that the server answered.
    pub(crate) closed_cleanly: u64,
    /// Ends of any other kind. What they were is in the errors.
    pub(crate) closed_otherwise: u64,
    /// Connects in each second.
    pub(crate) each_second: Option<EachSecond>,
    /// CPU time of the server for each connection, with its messages and its close.
    pub(crate) server_cpu_us_per_connect: Option<f64>,
}

impl Churn {
    /// Of a run whose work is that.
    pub(super) fn new(plan: &Plan, found: &Found) -> Option<Self> {
        let Work::Churn { interval, duration, .. } = plan.work else { return None };
        let total = &found.total;
        let server = found.spent.server.as_ref().filter(|_| total.opened > 0);
        let run = server.map(|server| server.cpu.iter().map(|cpu| cpu.run).sum::<Duration>());
        Some(Self {
            asked: due_count(interval, duration),
            closed_cleanly: total.closed_cleanly,
            closed_otherwise: total.closed - total.closed_cleanly,
            each_second: EachSecond::new(plan, found, |tally| tally.opened),
            server_cpu_us_per_connect: run.map(|run| run.as_secs_f64() * 1e6 / total.opened as f64),
        })
    }

    pub(super) fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        if let Some(each) = &self.each_second {
            rows.push(("connects/s", each.shown()));
        }
        let closed =
            [self.closed_cleanly, self.closed_otherwise].map(|count| show_count(count as f64));
        rows.push(("closes", format!("{} clean, {} not", closed[0], closed[1])));
        if let Some(micros) = self.server_cpu_us_per_connect {
            rows.push(("each connection", format!("{micros:.1} µs of the server's CPU time")));
        }
        rows
    }
}
