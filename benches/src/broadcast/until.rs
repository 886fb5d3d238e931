//! `--until`: how many subscribers a server can have before a condition holds, such as a p95 that is too long.
//!
//! Each step is a run of its own, with new connections. The first step at which the condition holds, or anything
//! goes wrong, is the last one.

use serde::Serialize;

use super::{BroadcastArgs, Plan, Report, run};
use crate::machine;
use crate::output::JsonArgs;
use crate::report::Table;
use crate::scenario::Condition;
use crate::units::show_count;

/// The most subscribers that a search may come to, and why not more.
#[derive(Clone, Debug)]
pub(super) struct Ceiling {
    pub(super) subscribers: u32,
    why: String,
}

/// The result. JSON has these names.
#[derive(Debug, Serialize)]
pub(super) struct Search {
    target: String,
    until: String,
    /// The most subscribers with which the condition did not hold; `None` if it held from the first step on.
    pub(super) held: Option<u32>,
    pub(super) ended_by: EndedBy,
    /// The same in words.
    why: String,
    pub(super) steps: Vec<Report>,
}

/// Why there was no further step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum EndedBy {
    /// It held.
    Condition,
    /// Deliveries or connections failed.
    Errors,
    /// There may be no more subscribers.
    Ceiling,
}

impl Ceiling {
    /// What the flags and the limit of open files allow.
    ///
    /// # Errors
    /// When that cannot be read.
    pub(super) fn of(args: &BroadcastArgs) -> anyhow::Result<Self> {
        // A server in this process has the other end of each.
        let each = if args.server.url.is_none() { 2 } else { 1 };
        let fit = machine::connections_that_fit(each)?.saturating_sub(1);
        Ok(match args.max_subscribers {
            Some(asked) if asked <= fit => {
                Self { subscribers: asked, why: "--max-subscribers ends the search".to_owned() }
            }
            _ => Self {
                subscribers: fit,
                why: format!(
                    "the limit of open files ends the search: {} subscribers fit (ulimit -Hn)",
                    show_count(f64::from(fit))
                ),
            },
        })
    }
}

/// Searches, prints and writes. Whether any number of subscribers held.
///
/// # Errors
/// When a run cannot be made at all, or a file cannot be written.
pub(super) fn command(
    plan: Plan,
    until: Condition,
    step: u32,
    ceiling: &Ceiling,
    json: &JsonArgs,
) -> anyhow::Result<bool> {
    let search = search(plan, &until, step, ceiling)?;
    json.tell(search.text(), &search)?;
    Ok(search.held.is_some())
}

/// Runs with more and more subscribers.
///
/// # Errors
/// When a run cannot be made at all.
pub(super) fn search(
    mut plan: Plan,
    until: &Condition,
    step: u32,
    ceiling: &Ceiling,
) -> anyhow::Result<Search> {
    let (mut steps, mut held) = (Vec::new(), None);
    plan.subscribers = step.min(ceiling.subscribers);
    let (ended_by, why) = loop {
        let report = run(&plan)?;
        let (is_clean, mut value) = (report.is_clean(), None);
        let holds = until.holds(|name| {
            value = report.metric(name);
            value
        });
        steps.push(report);
        // What was not measured holds too; where it is for errors, these are what to tell.
        if holds && (value.is_some() || is_clean) {
            break (EndedBy::Condition, format!("{until} holds"));
        }
        if !is_clean {
            break (EndedBy::Errors, "not everyone got everything".to_owned());
        }
        held = Some(plan.subscribers);
        if plan.subscribers >= ceiling.subscribers {
            break (EndedBy::Ceiling, ceiling.why.clone());
        }
        plan.subscribers = plan.subscribers.saturating_add(step).min(ceiling.subscribers);
    };
    let target = plan.target.to_string();
    Ok(Search { target, until: until.to_string(), held, ended_by, why, steps })
}

impl Search {
    /// For people: a table of the steps, and what they come to.
    pub(super) fn text(&self) -> String {
        let columns = [
            "subscribers",
            "publications/s",
            "deliveries/s",
            "p50",
            "p95",
            "p99",
            "max",
            "bottleneck",
            "errors",
        ];
        let table = Table::new(&columns, self.steps.iter().map(cells));
        let mut text = format!("{}\n{}\n\n{table}\n", machine::describe(), self.target);
        for step in &self.steps {
            for (kind, count) in &step.errors {
                text += &format!("ERROR, {} subscribers: {count} × {kind}\n", step.subscribers);
            }
        }
        let held = self.held.map_or_else(
            || "no number of subscribers held".to_owned(),
            |held| format!("{} subscribers held", show_count(f64::from(held))),
        );
        text + &format!("{held}; {}", self.why)
    }
}

fn cells(step: &Report) -> Vec<String> {
    let at = |name: &str| step.metric(name).map_or_else(|| "–".to_owned(), show_millis);
    vec![
        show_count(f64::from(step.subscribers)),
        show_count(step.publications_per_second),
        show_count(step.deliveries_per_second),
        at("p50"),
        at("p95"),
        at("p99"),
        at("max"),
        step.bottleneck.text().to_owned(),
        show_count(step.errors.values().sum::<u64>() as f64),
    ]
}

fn show_millis(micros: f64) -> String {
    format!("{:.1} ms", micros / 1e3)
}

#[cfg(test)]
impl Ceiling {
    /// So many, by a flag.
    pub(super) fn for_tests(subscribers: u32) -> Self {
        Self { subscribers, why: "the test ends the search".to_owned() }
    }
}
