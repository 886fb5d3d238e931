//! The result of a run: the arithmetic, the table and the JSON.

mod churn;
mod memory;
#[cfg(test)]
mod tests;
mod work;

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

pub(crate) use self::churn::Churn;
pub(crate) use self::memory::{Held, MemoryReport};
#[cfg(test)]
pub(crate) use self::work::Traffic;
pub(crate) use self::work::WorkDone;
use super::conductor::{Found, Sample};
use super::plan::{Plan, Work, second_of};
use super::tally::Tally;
use crate::disturbance::Disturbance;
use crate::echo::{Bottleneck, Summary};
use crate::report::{
    self, Chart, Heat, Line, Page, Part, Plot, Section, Tile, Timeline, Unit, Verdict, last_rows,
};
pub(crate) use crate::report::{Row, show_rows};
use crate::spent::{Generator, Server};
use crate::units::{ratio, show_bytes, show_count};
use crate::withheld::Withheld;

/// Columns of a heat map, at most.
const HEAT_COLUMNS: u32 = 120;
/// Share of a machine's CPU time at which it has nothing left to give.
const MACHINE_BUSY: f64 = 0.95;

/// What a run was asked for, for its report.
pub(crate) struct Asked<'a> {
    pub(crate) scenario: &'static str,
    pub(crate) plan: &'a Plan,
    pub(crate) target: String,
    pub(crate) driver: String,
    pub(crate) generators: u32,
    pub(crate) server_processes: usize,
    pub(crate) hold: Duration,
    /// What a reader has to know of how it was done.
    pub(crate) notes: Vec<String>,
}

/// The result of one run. JSON has these names; times are in microseconds unless they say otherwise.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "ScenarioReport")]
pub(crate) struct Report {
    pub(crate) scenario: &'static str,
    pub(crate) target: String,
    pub(crate) machine: String,
    pub(crate) driver: String,
    pub(crate) generators: u32,
    pub(crate) server_processes: usize,
    pub(crate) connections: u64,
    pub(crate) opened: u64,
    /// Connections that were open at the end.
    pub(crate) active: u64,
    pub(crate) connect_seconds: f64,
    pub(crate) connects_per_second: f64,
    pub(crate) connect_us: Option<Summary>,
    pub(crate) hold_seconds: f64,
    pub(crate) payload_bytes: usize,
    pub(crate) text: bool,
    /// `None` without messages.
    pub(crate) work: Option<WorkDone>,
    pub(crate) server: Option<Server>,
    /// CPU time of the server in percent of one CPU, over the seconds of work.
    pub(crate) server_cpu_percent: Option<Span>,
    /// Resident memory of the server's processes in bytes, over the seconds of work.
    pub(crate) server_resident: Option<Span>,
    pub(crate) memory: MemoryReport,
    /// `None` where connections were not held after work.
    pub(crate) held: Option<Held>,
    /// `None` where connections were opened once.
    pub(crate) churn: Option<Churn>,
    pub(crate) generator: Generator,
    pub(crate) generator_cpus: f64,
    pub(crate) bottleneck: Bottleneck,
    /// What else went on during work; `None` where it was too short to tell.
    pub(crate) disturbance: Option<Disturbance>,
    pub(crate) notes: Vec<String>,
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) seconds: Vec<Second>,
    /// What plots begin with.
    #[serde(skip)]
    pub(crate) began: report::Sample,
    /// Latency by share of all messages, up to the maximum.
    #[serde(skip)]
    pub(crate) curve: Vec<(f64, f64)>,
    /// Latency in each second.
    #[serde(skip)]
    pub(crate) heat: Vec<Heat>,
}

/// Least, mean and most of something.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Span {
    pub(crate) min: f64,
    pub(crate) mean: f64,
    pub(crate) max: f64,
}

/// One second of the run, and totals at its end.
#[derive(Clone, Copy, Debug, Default, Serialize, JsonSchema)]
pub(crate) struct Second {
    /// Connections that became open in it.
    pub(crate) opened: u64,
    /// Right replies in it.
    pub(crate) answered: u64,
    /// What went wrong in it.
    pub(crate) errors: u64,
    #[serde(flatten)]
    pub(crate) sample: report::Sample,
}

impl Report {
    /// Does the arithmetic.
    pub(crate) fn new(asked: Asked<'_>, found: Found) -> Self {
        let Asked { scenario, plan, target, driver, generators, server_processes, .. } = asked;
        let mut notes = asked.notes;
        let total = &found.total;
        let spent = &found.spent;
        let span = working_time(plan, &found).as_secs_f64();
        let churn = Churn::new(plan, &found);
        // A message's CPU time would have that of connects and closes in it.
        let messages = if churn.is_none() { total.answered } else { 0 };
        let generator = Generator::of(&spent.generators, span, messages);
        let server = spent.server.as_ref().map(|server| Server::of(server, span, messages));
        let run: Duration = spent.generators.iter().map(|cpu| cpu.run).sum();
        let generator_cpus = ratio(run.as_secs_f64(), span);
        let here = if found.is_elsewhere { 0.0 } else { generator_cpus };
        let (sampled, resident) = working_spans(&found.samples);
        let cpu = server.as_ref().map(|server| {
            // Over all of work, which no sample cuts short, and which may be too short for a sample.
            let mean = server.cpus * 100.0;
            sampled.map_or(Span { min: mean, mean, max: mean }, |cpu| Span { mean, ..cpu })
        });
        let mut withheld = Withheld::default();
        let cpu = cpu.and_then(|cpu| possible_cpu(cpu, &mut withheld));
        let server = server.filter(|_| cpu.is_some());
        let has_messages = !matches!(plan.work, Work::Idle | Work::Churn { messages: 0, .. });
        let work = has_messages.then(|| WorkDone::new(plan, &found, cpu));
        // Connections that come and go say nothing of memory.
        let (connect_began, kept) = match churn {
            Some(_) => (found.work_began, 0),
            None => (found.connect_began, total.opened),
        };
        let moments = [&found.before, &found.connected, &found.after];
        let memory = MemoryReport::new(moments, kept, &mut withheld);
        notes.extend(withheld.into_notes());
        let disturbance = spent.disturbance(!found.is_elsewhere, server.is_some());
        let connect_nanos = total.last_opened.saturating_sub(connect_began);
        let connect_seconds = Duration::from_nanos(connect_nanos).as_secs_f64();
        Self {
            bottleneck: bottleneck(generator, here, server, work.as_ref(), &mut notes)
                .disturbed_by(disturbance),
            disturbance,
            scenario,
            target,
            machine: crate::machine::describe(),
            driver,
            generators,
            server_processes,
            connections: plan.connections.into(),
            opened: total.opened,
            active: total.opened.saturating_sub(total.closed),
            connect_seconds,
            connects_per_second: ratio(total.opened as f64, connect_seconds),
            connect_us: total.connect.summary(),
            hold_seconds: asked.hold.as_secs_f64(),
            payload_bytes: plan.size,
            text: plan.text,
            work,
            server,
            server_cpu_percent: cpu,
            server_resident: resident,
            memory,
            held: Held::new(&found),
            churn,
            generator,
            generator_cpus,
            notes,
            errors: total.failures.clone(),
            seconds: seconds(&found),
            began: moment(found.samples.first(), 0.0),
            curve: total.latency.curve(),
            heat: heat(&found.seconds),
        }
    }

    /// Whether nothing went wrong.
    pub(crate) fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }

    /// A value that a condition names.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let work = self.work.as_ref().filter(|_| self.churn.is_none());
        let latency = work.map_or(self.connect_us, |work| work.latency_us);
        match name {
            "errors" => Some(self.errors.values().sum::<u64>() as f64),
            "opened" => Some(self.opened as f64),
            "connects" => Some(self.connects_per_second),
            "growth" => self.held.as_ref()?.growth(),
            "rate" => Some(self.work.as_ref()?.messages_per_second),
            name => latency?.named(name),
        }
    }

    /// Names and values, as people read them.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let mut rows = self.head_rows();
        rows.extend(self.work_rows());
        rows.extend(self.tail_rows());
        rows
    }

    /// What a page shows of it.
    fn sections(&self, rows: Vec<Row>) -> [Section; 2] {
        let mut timeline = Timeline::default();
        timeline.push(self.began);
        for second in &self.seconds {
            timeline.push(second.sample);
        }
        let mut parts = vec![Part::Verdict(self.verdict()), Part::Tiles(self.tiles())];
        parts.extend(self.notes.iter().cloned().map(Part::Text));
        let curves = [("Latency by percentile, up to the maximum", self.curve.clone())];
        parts.extend(curves.into_iter().map(|(title, points)| {
            let line = Line { name: "latency".to_owned(), points };
            let plot = Plot::Percentiles(vec![line]);
            Part::Chart(Chart { title: title.to_owned(), unit: Unit::Micros, plot })
        }));
        parts.push(Part::Chart(Chart {
            title: "Latency over time, the stronger the more messages".to_owned(),
            unit: Unit::Micros,
            plot: Plot::Heat(self.heat.clone()),
        }));
        parts.extend(timeline.charts());
        let table = Part::Table(report::Table::of_pairs("", rows));
        [
            Section::new(format!("{} over time", self.scenario), parts),
            Section::new(format!("All figures of {}", self.scenario), vec![table]),
        ]
    }

    /// What a reader has to know first.
    fn verdict(&self) -> Verdict {
        report::verdict(self.bottleneck, self.disturbance, &self.errors)
    }

    /// The few figures that matter.
    fn tiles(&self) -> Vec<Tile> {
        let work = self.work.as_ref();
        let latency = work.map_or(self.connect_us, |work| work.latency_us);
        let rate = match work {
            Some(work) => ("messages/s", show_count(work.messages_per_second)),
            None => ("connects/s", show_count(self.connects_per_second)),
        };
        let mut tiles = vec![("connections", show_count(self.opened as f64)), rate];
        if let Some(latency) = latency {
            let [p50, p99, max] = [latency.p50, latency.p99, latency.max].map(show_micros);
            tiles.extend([("p50", p50), ("p99", p99), ("max", max)]);
        }
        if let Some(server) = self.server {
            tiles.push(("server CPUs", format!("{:.2}", server.cpus)));
            let each = server.cpu_us_per_message;
            tiles.extend(each.map(|each| ("server CPU a message", format!("{each:.2} µs"))));
        }
        let memory = self.memory.server_bytes_per_connection;
        tiles.extend(memory.map(|bytes| ("memory of a connection", show_bytes(bytes.round()))));
        let errors: u64 = self.errors.values().sum();
        tiles.push(("errors", show_count(errors as f64)));
        tiles.into_iter().map(|(name, value)| Tile { name: name.to_owned(), value }).collect()
    }

    /// Who was asked, and how connecting went.
    pub(crate) fn head_rows(&self) -> Vec<Row> {
        let asked = self.churn.as_ref().map_or(Some(self.connections), |churn| churn.asked);
        let asked =
            asked.map_or(String::new(), |asked| format!(" of {}", show_count(asked as f64)));
        let opened = format!(
            "{}{asked} in {:.2} s ({}/s)",
            show_count(self.opened as f64),
            self.connect_seconds,
            show_count(self.connects_per_second)
        );
        let mut rows = vec![
            ("scenario", self.scenario.to_owned()),
            ("target", self.target.clone()),
            ("connects", opened),
        ];
        if let Some(connect) = self.connect_us {
            let Summary { p50, p99, max, .. } = connect;
            let times = [p50, p99, max].map(show_micros);
            rows.push((
                "connect time",
                format!("p50 {}, p99 {}, max {}", times[0], times[1], times[2]),
            ));
        }
        rows
    }

    /// What became of messages, and of connections that came and went.
    pub(crate) fn work_rows(&self) -> Vec<Row> {
        let mut rows = self.churn.as_ref().map(Churn::rows).unwrap_or_default();
        rows.extend(self.work.iter().flat_map(WorkDone::rows));
        rows
    }

    /// What stands below what became of the messages.
    pub(crate) fn tail_rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        if let Some(server) = self.server {
            let each = server.cpu_us_per_message;
            let each = each.map_or(String::new(), |each| format!(", {each:.2} µs a message"));
            rows.push(("server CPU", format!("{:.2} CPUs{each}", server.cpus)));
        }
        rows.extend(self.memory.rows());
        rows.extend(self.held.iter().flat_map(Held::rows));
        let Generator { utilisation, waiting, .. } = self.generator;
        rows.push((
            "generator CPU",
            format!(
                "{:.2} CPUs, its busiest thread {:.0} % busy and {:.0} % waiting for a CPU",
                self.generator_cpus,
                utilisation * 100.0,
                waiting * 100.0
            ),
        ));
        rows.extend(last_rows(self.bottleneck, self.disturbance, &self.notes, &self.errors));
        rows
    }
}

/// The page of reports whose rows are those that `rows` makes.
pub(crate) fn page<'r>(
    reports: impl Iterator<Item = &'r Report> + Clone,
    rows: fn(&Report) -> Vec<Row>,
) -> Page {
    let names: Vec<_> = reports.clone().map(|report| report.scenario).collect();
    let target = reports.clone().next().map(|report| report.target.clone()).unwrap_or_default();
    Page {
        title: format!("Load of {target}: {}", names.join(", ")),
        lead: Vec::new(),
        sections: reports.flat_map(|report| report.sections(rows(report))).collect(),
    }
}

/// A time in microseconds as people read it.
pub(crate) fn show_micros(micros: f64) -> String {
    match micros {
        micros if micros < 1e3 => format!("{micros:.1} µs"),
        micros if micros < 1e6 => format!("{:.2} ms", micros / 1e3),
        micros => format!("{:.2} s", micros / 1e6),
    }
}

/// Whose lack of CPU limited the run; and why, in a note, where that is not plain from a thread that was busy.
fn bottleneck(
    generator: Generator,
    // Of this machine that the generators used.
    generator_cpus: f64,
    server: Option<Server>,
    work: Option<&WorkDone>,
    notes: &mut Vec<String>,
) -> Bottleneck {
    if let Some(work) = work
        && work.fell_behind()
    {
        notes.push(format!(
            "the generator fell behind: {} of {} messages sent, p99 of them {} late",
            show_count(work.sent as f64),
            show_count(work.asked.unwrap_or_default() as f64),
            show_micros(work.send_lag_us.map_or(0.0, |lag| lag.p99))
        ));
        return Bottleneck::Generator;
    }
    let cpus = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    let all = generator_cpus + server.map_or(0.0, |server| server.cpus);
    if all >= cpus * MACHINE_BUSY {
        notes.push(format!(
            "load and server had {all:.2} of {cpus} CPUs between them: the machine was full, {:.0} % of it the load's",
            ratio(generator_cpus, all) * 100.0
        ));
    }
    Bottleneck::of(generator, server)
}

/// The time over which CPU time is told: to the last reply, as rates are, and not the wait for one that never comes.
fn working_time(plan: &Plan, found: &Found) -> Duration {
    if found.total.answered == 0 {
        return found.spent.time;
    }
    found.spent.time.min(work::time(plan, found))
}

/// CPU in percent of one, and resident memory, over the samples of work.
fn working_spans(samples: &[Sample]) -> (Option<Span>, Option<Span>) {
    let pairs = samples.windows(2).filter(|pair| pair[1].working);
    let cpu: Vec<f64> =
        pairs.clone().filter_map(|pair| percent(pair, |sample| sample.server_cpu)).collect();
    let resident: Vec<f64> =
        pairs.filter_map(|pair| pair[1].server_resident).map(|bytes| bytes as f64).collect();
    (Span::of(&cpu), Span::of(&resident))
}

/// Samples this close together, in nanoseconds, say nothing: the scheduler's count may be a tick behind.
const SHORTEST: u64 = 200_000_000;

fn percent(pair: &[Sample], cpu: impl Fn(&Sample) -> Option<Duration>) -> Option<f64> {
    let [first, last] = pair else { return None };
    let nanos = last.at.saturating_sub(first.at);
    let used = cpu(last)?.saturating_sub(cpu(first)?);
    (nanos >= SHORTEST).then(|| used.as_nanos() as f64 / nanos as f64 * 100.0)
}

impl Span {
    fn of(values: &[f64]) -> Option<Self> {
        let (first, rest) = values.split_first()?;
        let fold = |pick: fn(f64, f64) -> f64| rest.iter().copied().fold(*first, pick);
        Some(Self {
            min: fold(f64::min),
            mean: values.iter().sum::<f64>() / values.len() as f64,
            max: fold(f64::max),
        })
    }
}

/// Figures of CPU time, if they can be: one published table has −912 %.
fn possible_cpu(cpu: Span, withheld: &mut Withheld) -> Option<Span> {
    let most = std::thread::available_parallelism().map_or(1, usize::from) as f64 * 100.0;
    // A tick of 10 ms either way in a sample.
    let is_possible = cpu.min >= 0.0 && cpu.max <= most * 1.05 && cpu.mean <= most * 1.05;
    withheld.possible(cpu, is_possible, || {
        format!(
            "the server's CPU is withheld: {:.0} to {:.0} % cannot be of {most} %",
            cpu.min, cpu.max
        )
    })
}

/// The run second by second.
fn seconds(found: &Found) -> Vec<Second> {
    let last_sample = found.samples.last().map_or(0, |sample| sample.at);
    let last = found.seconds.keys().next_back().copied().unwrap_or_default();
    let last = last.max(second_of(last_sample));
    let (mut connections, mut messages) = (0_u64, 0);
    let nothing = Tally::default();
    let second = |second: u32| {
        let tally = found.seconds.get(&second).unwrap_or(&nothing);
        connections = (connections + tally.opened).saturating_sub(tally.closed);
        messages += tally.answered;
        // The last sample in it: they are taken at its begin, and at the ends of the run's parts.
        let seen = found.samples.iter().rfind(|sample| second_of(sample.at) <= second);
        Second {
            opened: tally.opened,
            answered: tally.answered,
            errors: tally.failed(),
            sample: report::Sample {
                connections,
                messages,
                latency_us: tally.latency.summary().map(Into::into),
                ..moment(seen, f64::from(second) + 1.0)
            },
        }
    };
    (0..=last).map(second).collect()
}

/// Latency in each second, of so many at most, or of some together.
fn heat(seconds: &BTreeMap<u32, Tally>) -> Vec<Heat> {
    let (first, last) = seconds.keys().next().zip(seconds.keys().next_back()).unwrap_or((&0, &0));
    let together = (last - first) / HEAT_COLUMNS + 1;
    let mut columns = BTreeMap::<u32, Tally>::new();
    for (second, tally) in seconds {
        columns.entry(second / together).or_default().latency.merge(&tally.latency);
    }
    let column = |(number, tally): (u32, Tally)| Heat {
        from: f64::from(number * together),
        to: f64::from((number + 1) * together),
        counts: tally.latency.micros(),
    };
    columns.into_iter().map(column).filter(|column| !column.counts.is_empty()).collect()
}

/// What was seen of the processes, so many seconds after the run began.
fn moment(seen: Option<&Sample>, seconds: f64) -> report::Sample {
    report::Sample {
        seconds,
        server_cpu: seen.and_then(|seen| Some(seen.server_cpu?.as_secs_f64())),
        generator_cpu: seen.map(|seen| seen.generator_cpu.as_secs_f64()),
        server_resident: seen.and_then(|seen| seen.server_resident),
        kernel_slab: seen.map(|seen| seen.slab),
        ..report::Sample::default()
    }
}
