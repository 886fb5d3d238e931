//! `ringwire-bench search`: the highest rate of messages at which the latencies stay under a limit.
//!
//! Each step is a short run of an open loop. The rate doubles until a run is not good, then the gap between the highest
//! good and the lowest other rate is halved until it is narrow.

use std::time::Duration;

use anyhow::bail;
use ringwire_examples::units::parse_duration;
use serde::Serialize;

use super::fail_if::Condition;
use super::rate::{Clients, interval};
use super::report::{self, Report, Row, WorkDone, show_micros, show_rows};
use crate::echo::Bottleneck;
use crate::output;
use crate::report::{Page, Part, Section, Table};
use crate::units::show_count;

/// Messages a second below which nothing is looked for.
const LEAST_RATE: f64 = 1.0;
/// Runs at a rate, as long as they say nothing of the server: the reason may be gone the next time.
const TRIES: u32 = 2;

/// Flags of `ringwire-bench search`.
#[derive(Debug, clap::Args)]
pub(crate) struct SearchArgs {
    #[command(flatten)]
    clients: Clients,
    /// Conditions that hold at a good rate, such as 'p99<5ms', with the names of --fail-if. A rate with errors is not
    /// good, unless a condition names them.
    #[arg(
        long = "while",
        value_delimiter = ',',
        default_value = "p99<5ms",
        value_name = "CONDITIONS"
    )]
    conditions: Vec<Condition>,
    /// Messages a second to begin with, over all clients.
    #[arg(long, default_value = "1000")]
    start_rate: f64,
    /// Messages a second above which nothing is looked for.
    #[arg(long, default_value = "10000000")]
    max_rate: f64,
    /// How far the good rate that is found may be below one that is not, in percent of it.
    #[arg(long, default_value = "5")]
    precision: f64,
    /// Time during which the messages of a step are due.
    #[arg(long, default_value = "3s", value_parser = parse_duration)]
    duration: Duration,
}

/// Runs the subcommand; whether a rate was found and no condition failed.
pub(crate) fn command(mut args: SearchArgs) -> anyhow::Result<bool> {
    let mut gap = args.gap()?;
    let mut steps = Vec::new();
    while let Some(rate) = gap.next() {
        gap.learn(rate, args.is_good(rate, &mut steps)?);
    }
    let found = Found::new(&args, steps);
    args.clients.common.write(&found, || found.page())?;
    if !args.clients.common.json.is_to_stdout() {
        let machine = crate::machine::describe();
        output::say(format_args!("{machine}\n{}\n", show_rows(&found.rows())))?;
    }
    let Some(best) = found.best() else { return Ok(false) };
    // Errors were asked for, or there are none.
    let common = &args.clients.common;
    Ok(common.fail_if.is_empty() || common.judge([&best.report]))
}

impl SearchArgs {
    fn gap(&self) -> anyhow::Result<Gap> {
        let Self { start_rate, max_rate, precision, .. } = *self;
        if !(start_rate >= LEAST_RATE && start_rate <= max_rate && max_rate.is_finite()) {
            bail!("--start-rate {start_rate}: from {LEAST_RATE} to --max-rate ({max_rate})");
        }
        if !(0.1..100.0).contains(&precision) {
            bail!("--precision {precision}: from 0.1 to less than 100 percent");
        }
        Ok(Gap { good: None, other: None, start_rate, max_rate, precision: precision / 100.0 })
    }

    /// Makes a run at a rate, and again if it says nothing of the server; whether the last one was good.
    fn is_good(&mut self, rate: f64, steps: &mut Vec<Step>) -> anyhow::Result<bool> {
        for _ in 0..TRIES {
            let step = self.step(rate)?;
            self.tell(&step)?;
            let outcome = step.outcome;
            steps.push(step);
            if outcome.is_certain() {
                return Ok(outcome == Outcome::Good);
            }
        }
        Ok(false)
    }

    /// Prints a step, beside a result that goes to the standard output.
    fn tell(&self, step: &Step) -> anyhow::Result<()> {
        match self.clients.common.json.is_to_stdout() {
            true => output::note(step.line()),
            false => output::say(step.line())?,
        }
        Ok(())
    }

    fn step(&mut self, rate: f64) -> anyhow::Result<Step> {
        let interval = interval("a client's rate", rate / f64::from(self.clients.clients))?;
        let scenario = self.clients.scenario("search", interval, self.duration);
        let report = self.clients.common.run(&scenario)?;
        if report.opened == 0 {
            bail!("{}: no connection was opened: {:?}", report.target, report.errors);
        }
        let outcome = Outcome::of(&report, &self.conditions);
        Ok(Step { messages_per_second: rate, outcome, report })
    }
}

/// What is known of the rate that is looked for.
#[derive(Clone, Copy, Debug)]
struct Gap {
    /// The highest good rate.
    good: Option<f64>,
    /// The lowest rate that is not.
    other: Option<f64>,
    start_rate: f64,
    max_rate: f64,
    /// A share of `other`.
    precision: f64,
}

impl Gap {
    /// The rate to look at; `None`: enough is known.
    fn next(&self) -> Option<f64> {
        match (self.good, self.other) {
            (None, None) => Some(self.start_rate),
            (Some(good), None) => (good < self.max_rate).then(|| self.max_rate.min(good * 2.0)),
            (good, Some(other)) => {
                let good = good.unwrap_or(0.0);
                let is_wide = other - good > other * self.precision && other > LEAST_RATE;
                is_wide.then(|| f64::midpoint(good, other).max(LEAST_RATE))
            }
        }
    }

    fn learn(&mut self, rate: f64, is_good: bool) {
        let place = if is_good { &mut self.good } else { &mut self.other };
        *place = Some(rate);
    }
}

/// What a step says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Good,
    /// A condition did not hold, or there were errors.
    Missed,
    /// The same, or not all was sent in time, with a generator that could do no more: nothing is known of the server.
    Generator,
    /// The same, while other programs had the CPU.
    Disturbed,
}

impl Outcome {
    fn of(report: &Report, conditions: &[Condition]) -> Self {
        let holds = |condition: &Condition| condition.holds_surely(|name| report.metric(name));
        let names_errors = conditions.iter().any(|condition| condition.metric() == "errors");
        let holds_all = conditions.iter().all(holds) && (names_errors || report.is_clean());
        // Connections that are gone sent nothing.
        let was_offered = report.work.as_ref().is_none_or(WorkDone::was_offered);
        let fell_behind = report.work.as_ref().is_none_or(WorkDone::fell_behind);
        match report.bottleneck {
            _ if holds_all && !fell_behind && was_offered => Self::Good,
            Bottleneck::Generator => Self::Generator,
            Bottleneck::Disturbed => Self::Disturbed,
            _ => Self::Missed,
        }
    }

    /// Whether it says something of the server.
    fn is_certain(self) -> bool {
        matches!(self, Self::Good | Self::Missed)
    }

    fn text(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Missed => "missed",
            Self::Generator => "THE GENERATOR was the bottleneck",
            Self::Disturbed => "disturbed by OTHER PROGRAMS",
        }
    }
}

/// A run at one rate.
#[derive(Debug, Serialize)]
struct Step {
    /// Messages that were asked for, over all clients.
    messages_per_second: f64,
    outcome: Outcome,
    report: Report,
}

impl Step {
    /// Its figures, as people read them: the rate that came of it, p50 and p99, errors.
    fn figures(&self) -> [String; 4] {
        let metric = |name: &str| self.report.metric(name);
        let time = |name: &str| metric(name).map_or_else(|| "–".to_owned(), show_micros);
        let count = |name: &str| show_count(metric(name).unwrap_or_default());
        [count("rate"), time("p50"), time("p99"), count("errors")]
    }

    fn line(&self) -> String {
        let asked = show_count(self.messages_per_second);
        let [rate, p50, p99, errors] = self.figures();
        let outcome = self.outcome.text();
        format!(
            "{asked:>12}/s: {rate}/s answered, p50 {p50}, p99 {p99}, {errors} errors: {outcome}"
        )
    }
}

/// What was found. JSON has these names.
#[derive(Debug, Serialize)]
struct Found {
    scenario: &'static str,
    target: String,
    clients: u32,
    conditions: Vec<String>,
    /// The highest good rate, over all clients; `None`: no rate was good.
    messages_per_second: Option<f64>,
    /// The lowest rate that was not; `None`: all were good.
    missed_at: Option<f64>,
    /// Why no higher rate was good.
    limited_by: LimitedBy,
    /// In the order in which they were made.
    steps: Vec<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum LimitedBy {
    /// The conditions do not hold above.
    Conditions,
    /// The load generator: the server may well do more.
    Generator,
    /// Other programs: the same.
    Disturbed,
    /// Nothing up to the highest rate that was to be looked at.
    MaxRate,
}

impl Found {
    fn new(args: &SearchArgs, steps: Vec<Step>) -> Self {
        let of = |is_good: bool| {
            steps.iter().filter(move |step| (step.outcome == Outcome::Good) == is_good)
        };
        let rate = |step: &&Step| step.messages_per_second;
        let best = of(true).map(|step| rate(&step)).max_by(f64::total_cmp);
        // The last run at a rate is what counts.
        let above = of(false).rev().filter(|step| best.is_none_or(|best| rate(step) > best));
        let missed = above.min_by(|a, b| rate(a).total_cmp(&rate(b)));
        Self {
            scenario: "search",
            target: steps.first().map(|step| step.report.target.clone()).unwrap_or_default(),
            clients: args.clients.clients,
            conditions: args.conditions.iter().map(Condition::to_string).collect(),
            messages_per_second: best,
            missed_at: missed.as_ref().map(rate),
            limited_by: match missed.map(|step| step.outcome) {
                None => LimitedBy::MaxRate,
                Some(Outcome::Generator) => LimitedBy::Generator,
                Some(Outcome::Disturbed) => LimitedBy::Disturbed,
                Some(_) => LimitedBy::Conditions,
            },
            steps,
        }
    }

    /// The step at the highest good rate.
    fn best(&self) -> Option<&Step> {
        // No rate is looked at again once it was good.
        self.steps.iter().rfind(|step| Some(step.messages_per_second) == self.messages_per_second)
    }

    fn rows(&self) -> Vec<Row> {
        let rate = self.messages_per_second.map_or_else(
            || "none was good".to_owned(),
            |rate| format!("{} messages/s of {} clients", show_count(rate), self.clients),
        );
        let mut rows = vec![
            ("while", self.conditions.join(", ")),
            ("highest rate", rate),
            ("above", self.above()),
        ];
        rows.extend(self.best().map(|step| step.report.rows()).unwrap_or_default());
        rows
    }

    /// What there was above the highest good rate.
    fn above(&self) -> String {
        let why = match self.limited_by {
            LimitedBy::MaxRate => return "nothing was looked at (--max-rate)".to_owned(),
            LimitedBy::Conditions => "they did not hold",
            LimitedBy::Generator => {
                "THE GENERATOR was the bottleneck: the server's limit is not known"
            }
            LimitedBy::Disturbed => "OTHER PROGRAMS had the CPU: the server's limit is not known",
        };
        format!("at {}/s {why}", show_count(self.missed_at.unwrap_or_default()))
    }

    /// The steps as a table, then what the best one was like, or the last.
    fn page(&self) -> Page {
        let columns = ["asked for, messages/s", "", "answered, messages/s", "p50", "p99", "errors"];
        let row = |step: &Step| {
            let head = [show_count(step.messages_per_second), step.outcome.text().to_owned()];
            head.into_iter().chain(step.figures()).collect()
        };
        let table = Table {
            title: self.conditions.join(", "),
            columns: columns.map(str::to_owned).to_vec(),
            rows: self.steps.iter().map(row).collect(),
        };
        let shown = self.best().or_else(|| self.steps.last()).map(|step| &step.report);
        let mut page = report::page(shown.into_iter(), Report::rows);
        page.lead.push(format!("Highest rate: {}.", self.rows()[1].1));
        page.sections.insert(0, Section::new("Steps", vec![Part::Table(table)]));
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::parse;

    fn gap(flags: &str) -> anyhow::Result<Gap> {
        parse::<SearchArgs>(flags)?.gap()
    }

    /// The rates that are looked at if those up to `limit` are good, and the one that is found.
    fn search(flags: &str, limit: f64) -> (Vec<f64>, Option<f64>) {
        let mut gap = gap(flags).unwrap();
        let mut rates = Vec::new();
        while let Some(rate) = gap.next() {
            assert!(rates.len() < 100, "{rates:?}");
            rates.push(rate);
            gap.learn(rate, rate <= limit);
        }
        (rates, gap.good)
    }

    #[test]
    fn rates_are_doubled_and_then_halved_in_between() {
        let (rates, found) = search("--precision 10", 5000.0);
        assert_eq!(rates, [1000.0, 2000.0, 4000.0, 8000.0, 6000.0, 5000.0, 5500.0]);
        assert_eq!(found, Some(5000.0));
        let (rates, found) = search("--start-rate 64 --precision 50", 9.0);
        assert_eq!((rates, found), (vec![64.0, 32.0, 16.0, 8.0], Some(8.0)));
        let (rates, found) = search("--max-rate 3000", 1e9);
        assert_eq!((rates, found), (vec![1000.0, 2000.0, 3000.0], Some(3000.0)));
        let (rates, found) = search("", 0.0);
        assert_eq!((rates.last(), found), (Some(&1.0), None));
    }

    #[test]
    fn flags_that_make_no_sense_are_refused() {
        for wrong in ["--start-rate 0", "--start-rate 2000 --max-rate 1000", "--precision 0"] {
            assert!(gap(wrong).is_err(), "{wrong}");
        }
        let wrong = parse::<SearchArgs>("--while p98<1ms").unwrap_err().to_string();
        assert!(wrong.contains("\"p98\" is not measured"), "{wrong}");
    }

    fn args(flags: &str) -> SearchArgs {
        parse(&format!("--clients 4 --duration 300ms --resp-timeout {flags}")).unwrap()
    }

    /// What a run says by these conditions, with a generator that was late by so much, and this bottleneck.
    fn outcome(report: &Report, conditions: &str, late: f64, bottleneck: Bottleneck) -> Outcome {
        let conditions: Vec<_> = conditions.split(',').map(|text| text.parse().unwrap()).collect();
        let mut report = Report { bottleneck, ..report.clone() };
        let lag = report.work.as_mut().unwrap().send_lag_us.as_mut().unwrap();
        lag.p99 = late;
        Outcome::of(&report, &conditions)
    }

    #[test]
    fn rate_is_good_if_the_conditions_hold() {
        let step = args("10s").step(40.0).unwrap();
        let mut report = step.report;
        assert_eq!(report.work.as_ref().unwrap().asked, Some(12));
        let (fine, wrong) = ("p99<100s,rate>1", "p99<100s,rate<1");
        assert_eq!(outcome(&report, fine, 1.0, Bottleneck::Neither), Outcome::Good);
        // What other programs do makes it slower, never faster.
        assert_eq!(outcome(&report, fine, 1.0, Bottleneck::Disturbed), Outcome::Good);
        assert_eq!(outcome(&report, fine, 1.0, Bottleneck::Generator), Outcome::Good);
        assert_eq!(outcome(&report, fine, 30_000.0, Bottleneck::Generator), Outcome::Generator);
        for server in [Bottleneck::Server, Bottleneck::Neither, Bottleneck::Unknown] {
            assert_eq!(outcome(&report, wrong, 1.0, server), Outcome::Missed);
        }
        assert_eq!(outcome(&report, wrong, 1.0, Bottleneck::Generator), Outcome::Generator);
        assert_eq!(outcome(&report, wrong, 1.0, Bottleneck::Disturbed), Outcome::Disturbed);
        report.errors.insert("reply late".to_owned(), 1);
        assert_eq!(outcome(&report, fine, 1.0, Bottleneck::Neither), Outcome::Missed);
        assert_eq!(outcome(&report, "errors<2", 1.0, Bottleneck::Neither), Outcome::Good);
    }

    #[test]
    fn last_run_at_a_rate_counts() {
        let mut args = args("10s");
        let report = args.step(40.0).unwrap().report;
        let step = |messages_per_second: f64, outcome: Outcome| Step {
            messages_per_second,
            outcome,
            report: report.clone(),
        };
        let (good, missed) = (Outcome::Good, Outcome::Missed);
        let steps = vec![
            step(40.0, Outcome::Disturbed),
            step(40.0, good),
            step(80.0, Outcome::Disturbed),
            step(80.0, missed),
            step(60.0, good),
        ];
        let found = Found::new(&args, steps);
        assert_eq!((found.messages_per_second, found.missed_at), (Some(60.0), Some(80.0)));
        assert_eq!(found.limited_by, LimitedBy::Conditions);
        assert_eq!(found.best().unwrap().outcome, good);
        let found = Found::new(&args, vec![step(40.0, Outcome::Generator), step(40.0, good)]);
        assert_eq!((found.missed_at, found.limited_by), (None, LimitedBy::MaxRate));
        assert_eq!(found.best().unwrap().outcome, good);
    }

    #[test]
    fn generator_that_falls_behind_is_not_the_servers_limit() {
        let mut args = args("300ms --while p99<600s");
        let step = args.step(2e7).unwrap();
        // Of a machine whose time was stolen that is said first.
        let (outcome, limit) = match step.report.bottleneck {
            Bottleneck::Disturbed => (Outcome::Disturbed, LimitedBy::Disturbed),
            _ => (Outcome::Generator, LimitedBy::Generator),
        };
        assert_eq!(step.outcome, outcome, "{}", step.line());
        let found = Found::new(&args, vec![step]);
        assert_eq!((found.messages_per_second, found.missed_at), (None, Some(2e7)));
        assert_eq!(found.limited_by, limit);
        let rows = show_rows(&found.rows());
        assert!(rows.contains("none was good") && rows.contains("is not known"), "{rows}");
        let page = found.page();
        assert_eq!((page.sections.len(), page.sections[0].title.as_str()), (3, "Steps"));
    }

    #[test]
    fn server_that_is_not_there_is_told_at_once() {
        let mut args: SearchArgs = parse("ws://127.9.8.7:9/ --duration 100ms").unwrap();
        let error = args.step(100.0).unwrap_err().to_string();
        assert!(error.contains("connect refused"), "{error}");
    }
}
