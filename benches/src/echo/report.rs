//! The result of one run: the arithmetic, the table, the page and the JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use super::deflate_totals::DeflateTotals;
use super::latency::Summary;
use super::payload::Payload;
use super::tls_totals::TlsTotals;
use crate::bottleneck::{Bottleneck, DISTURBED};
use crate::disturbance::Disturbance;
use crate::procstat::{CpuTime, Footprint};
use crate::report::{self, Page, Part, Row, Section, Tile, Timeline, last_rows, show_rows};
use crate::spent::{Judged, Spent};
use crate::units::{ratio, show_bytes, show_count};
use crate::withheld::Withheld;

/// A load thread this busy has nothing left to give.
const GENERATOR_BUSY: f64 = 0.95;
/// A server this busy is what limits the run.
const SERVER_BUSY: f64 = 0.90;

/// What was measured, before any arithmetic.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    pub(crate) target: String,
    pub(crate) connections: u64,
    pub(crate) opened: u64,
    pub(crate) connect_time: Duration,
    pub(crate) in_flight: usize,
    pub(crate) payload_len: usize,
    pub(crate) text: bool,
    pub(crate) payload: Payload,
    /// Within the measured time.
    pub(crate) spent: Spent,
    pub(crate) messages: u64,
    pub(crate) latency: Option<Summary>,
    pub(crate) tls: TlsTotals,
    pub(crate) deflate: DeflateTotals,
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) timeline: Timeline,
}

/// What was measured of a server whose process is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct MeasuredServer {
    /// CPU time of each of its threads within the window.
    pub(crate) cpu: Vec<CpuTime>,
    /// CPUs it could keep busy.
    pub(crate) capacity: usize,
    /// `None` where it cannot be told from the load generator's.
    pub(crate) memory: Option<Footprints>,
}

/// Memory at three moments.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Footprints {
    pub(crate) before: Footprint,
    pub(crate) connected: Footprint,
    pub(crate) loaded: Footprint,
}

/// The result of one run. JSON has these names.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "EchoReport")]
pub(crate) struct Report {
    pub(crate) target: String,
    pub(crate) connections: u64,
    pub(crate) in_flight: usize,
    pub(crate) payload_bytes: usize,
    pub(crate) text: bool,
    #[schemars(with = "String")]
    pub(crate) payload: Payload,
    pub(crate) opened: u64,
    pub(crate) connects_per_second: f64,
    pub(crate) seconds: f64,
    pub(crate) messages: u64,
    pub(crate) messages_per_second: f64,
    /// Payload in one direction, in millions of bytes.
    pub(crate) megabytes_per_second: f64,
    pub(crate) latency_us: Option<Summary>,
    pub(crate) server: Option<Server>,
    pub(crate) generator: Generator,
    pub(crate) bottleneck: Bottleneck,
    /// What else went on; `None` where the window was too short to tell.
    pub(crate) disturbance: Option<Disturbance>,
    /// Figures that are withheld, and why.
    pub(crate) notes: Vec<String>,
    /// `None` without TLS.
    pub(crate) tls: Option<TlsTotals>,
    /// `None` without compression.
    pub(crate) compression: Option<DeflateTotals>,
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) timeline: Timeline,
}

/// The server's part of a report.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub(crate) struct Server {
    /// `None` without any message.
    pub(crate) cpu_us_per_message: Option<f64>,
    /// CPUs in use, on average.
    pub(crate) cpus: f64,
    /// Of its busiest thread, or of all CPUs it could use if that is more.
    pub(crate) utilisation: f64,
    /// Share of the time that its busiest thread waited for a CPU.
    pub(crate) waiting: f64,
    pub(crate) memory: Option<Memory>,
}

/// Resident memory of the server's process, and the kernel's.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub(crate) struct Memory {
    pub(crate) bytes_before: u64,
    pub(crate) bytes_connected: u64,
    pub(crate) bytes_loaded: u64,
    /// What a connection added before it had any message, or with compression after it had one; `None` without
    /// connections, and where memory became less meanwhile.
    pub(crate) bytes_per_idle_connection: Option<f64>,
    /// The same of the kernel's objects: sockets, files, pending requests. Of both ends, where the load
    /// generator is on the same machine, and of whatever else went on there.
    pub(crate) kernel_bytes_per_idle_connection: Option<f64>,
}

/// The load generator's part of a report.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub(crate) struct Generator {
    pub(crate) cpu_us_per_message: Option<f64>,
    /// Of the busiest load thread.
    pub(crate) utilisation: f64,
    /// Share of the time that a load thread waited for a CPU, for the one that did most.
    pub(crate) waiting: f64,
}

impl Report {
    /// Does the arithmetic.
    pub(crate) fn new(measured: Measured) -> Self {
        let mut withheld = Withheld::default();
        let Judged { seconds, generator, server, disturbance, bottleneck } =
            measured.spent.judge(measured.messages);
        let memory = measured.spent.server.and_then(|server| server.memory);
        let memory = memory.map(|it| Memory::of(it, measured.opened, &mut withheld));
        let server = server.map(|server| Server { memory, ..server });
        let messages_per_second = ratio(measured.messages as f64, seconds);
        Self {
            bottleneck,
            disturbance,
            notes: withheld.into_notes(),
            connects_per_second: ratio(measured.opened as f64, measured.connect_time.as_secs_f64()),
            megabytes_per_second: messages_per_second * measured.payload_len as f64 / 1e6,
            target: measured.target,
            connections: measured.connections,
            in_flight: measured.in_flight,
            payload_bytes: measured.payload_len,
            text: measured.text,
            payload: measured.payload,
            opened: measured.opened,
            seconds,
            messages: measured.messages,
            messages_per_second,
            latency_us: measured.latency,
            server,
            generator,
            tls: measured.tls.version.map(|_| measured.tls),
            compression: measured.deflate.agreed.map(|_| measured.deflate),
            errors: measured.errors,
            timeline: measured.timeline,
        }
    }

    /// Whether every connection did what it should.
    pub(crate) fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }

    /// The table for people.
    pub(crate) fn table(&self) -> String {
        show_rows(&self.rows())
    }

    /// The page for people.
    pub(crate) fn page(&self) -> Page {
        let table = Part::Table(report::Table::of_pairs("", self.rows()));
        let verdict = report::verdict(self.bottleneck, self.disturbance, &self.errors);
        let mut parts = vec![Part::Verdict(verdict), Part::Tiles(self.tiles())];
        parts.extend(self.timeline.charts());
        let sections =
            vec![Section::new("Over time", parts), Section::new("All figures", vec![table])];
        let lead = vec![self.load()];
        Page { title: format!("Echo of {}", self.target), lead, sections }
    }

    /// The few figures that matter.
    fn tiles(&self) -> Vec<Tile> {
        let mut tiles = vec![("messages/s", show_count(self.messages_per_second))];
        if let Some(latency) = self.latency_us {
            let shown = |micros: f64| format!("{micros:.0} µs");
            let [p50, p99, max] = [latency.p50, latency.p99, latency.max].map(shown);
            tiles.extend([("p50", p50), ("p99", p99), ("max", max)]);
        }
        let server = self.server;
        let each = server.and_then(|server| server.cpu_us_per_message);
        tiles.extend(each.map(|each| ("server CPU a message", format!("{each:.2} µs"))));
        let memory = server.and_then(|server| server.memory?.bytes_per_idle_connection);
        tiles.extend(memory.map(|bytes| ("memory of a connection", show_bytes(bytes.round()))));
        tiles.push(("errors", show_count(self.errors.values().sum::<u64>() as f64)));
        tiles.into_iter().map(|(name, value)| Tile { name: name.to_owned(), value }).collect()
    }

    /// Names and values, as people read them.
    fn rows(&self) -> Vec<Row> {
        let mut rows = vec![
            ("target", self.target.clone()),
            ("load", self.load()),
            ("connects", format!("{} ({}/s)", self.opened, show_count(self.connects_per_second))),
            ("messages", format!("{}/s", show_count(self.messages_per_second))),
            ("payload", format!("{:.1} MB/s each way", self.megabytes_per_second)),
        ];
        if let Some(tls) = self.tls.and_then(|tls| tls.text()) {
            rows.push(("TLS", tls));
        }
        if let Some(text) = self.compression.and_then(|compression| compression.text()) {
            rows.push(("compression", text));
        }
        if let Some(latency) = self.latency_us {
            let named = Summary::NAMES.into_iter().zip(latency.values());
            let told =
                named.filter(|(name, _)| ["p50", "p90", "p99", "p99.9", "max"].contains(name));
            rows.extend(told.map(|(name, value)| (name, format!("{value:.1} µs"))));
        }
        if let Some(server) = self.server {
            rows.push((
                "server CPU",
                cpu(server.cpu_us_per_message, server.utilisation, server.waiting),
            ));
            let memory = server.memory.iter().flat_map(|memory| {
                [
                    ("server RSS", memory.bytes_per_idle_connection),
                    ("kernel slab", memory.kernel_bytes_per_idle_connection),
                ]
            });
            rows.extend(memory.filter_map(|(name, bytes)| {
                Some((name, format!("{} per idle connection", show_bytes(bytes?.round()))))
            }));
        }
        let Generator { cpu_us_per_message, utilisation, waiting } = self.generator;
        rows.push(("generator CPU", cpu(cpu_us_per_message, utilisation, waiting)));
        rows.extend(last_rows(self.bottleneck, self.disturbance, &self.notes, &self.errors));
        rows
    }

    fn load(&self) -> String {
        let kind = match (self.payload, self.text) {
            (Payload::Noise, true) => "text".to_owned(),
            (Payload::Noise, false) => "binary".to_owned(),
            (payload, _) => payload.to_string(),
        };
        let size = show_bytes(self.payload_bytes as f64);
        format!(
            "{} connections × {} in flight × {size} {kind}, {:.1} s",
            self.connections, self.in_flight, self.seconds
        )
    }
}

impl Generator {
    /// Of threads that had so much CPU time in these seconds, for so many messages.
    pub(crate) fn of(threads: &[CpuTime], seconds: f64, messages: u64) -> Self {
        let most = |time: fn(&CpuTime) -> Duration| {
            let most = threads.iter().map(time).max().unwrap_or_default();
            ratio(most.as_secs_f64(), seconds)
        };
        Self {
            cpu_us_per_message: per_message(threads.iter().map(|cpu| cpu.run).sum(), messages),
            utilisation: most(|cpu| cpu.run),
            waiting: most(|cpu| cpu.wait),
        }
    }
}

impl Server {
    /// Of what was measured in these seconds, with so many messages; without memory.
    pub(crate) fn of(measured: &MeasuredServer, seconds: f64, messages: u64) -> Self {
        let run: Duration = measured.cpu.iter().map(|thread| thread.run).sum();
        let busiest = measured.cpu.iter().max_by_key(|thread| thread.run).copied();
        let busiest = busiest.unwrap_or_default();
        let cpus = ratio(run.as_secs_f64(), seconds);
        let alone = ratio(busiest.run.as_secs_f64(), seconds);
        Self {
            cpu_us_per_message: per_message(run, messages),
            cpus,
            utilisation: ratio(cpus, measured.capacity as f64).max(alone),
            waiting: ratio(busiest.wait.as_secs_f64(), seconds),
            memory: None,
        }
    }
}

impl Memory {
    fn of(moments: Footprints, connections: u64, withheld: &mut Withheld) -> Self {
        let Footprints { before, connected, loaded } = moments;
        let mut each = |name, before, now| withheld.each(name, before, now, connections);
        Self {
            bytes_before: before.resident,
            bytes_connected: connected.resident,
            bytes_loaded: loaded.resident,
            bytes_per_idle_connection: each("server RSS", before.resident, connected.resident),
            kernel_bytes_per_idle_connection: each("kernel slab", before.slab, connected.slab),
        }
    }
}

impl Bottleneck {
    /// Judges by how busy both were.
    pub(crate) fn of(generator: Generator, server: Option<Server>) -> Self {
        let server_waiting = server.map_or(0.0, |server| server.waiting);
        if generator.waiting.max(server_waiting) >= DISTURBED {
            return Self::Disturbed;
        }
        let Some(server) = server else { return Self::Unknown };
        match (generator.utilisation >= GENERATOR_BUSY, server.utilisation >= SERVER_BUSY) {
            (true, true) => Self::Both,
            (true, false) => Self::Generator,
            (false, true) => Self::Server,
            (false, false) => Self::Neither,
        }
    }
}

/// Microseconds; `None` without any message.
fn per_message(cpu: Duration, messages: u64) -> Option<f64> {
    (messages > 0).then(|| cpu.as_secs_f64() * 1e6 / messages as f64)
}

fn cpu(per_message: Option<f64>, utilisation: f64, waiting: f64) -> String {
    let share = |part: f64| part * 100.0;
    let mut text = match per_message {
        Some(micros) => format!("{micros:.3} µs per message, {:.0} % busy", share(utilisation)),
        None => format!("{:.0} % busy", share(utilisation)),
    };
    if waiting >= DISTURBED {
        text.push_str(&format!(", {:.0} % waiting for a CPU", share(waiting)));
    }
    text
}

/// A report of one second with so many messages.
#[cfg(test)]
pub(crate) fn test_report(messages: u64) -> Report {
    let spent = Spent { time: Duration::from_secs(1), ..Spent::default() };
    Report::new(Measured { spent, messages, ..Measured::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured() -> Measured {
        let mut spent = Spent::for_tests(2, &[500, 1500], &[100, 1800]);
        spent.server.as_mut().unwrap().memory = Some(Footprints {
            before: Footprint { resident: 1000, slab: 100 },
            connected: Footprint { resident: 5000, slab: 16_100 },
            loaded: Footprint { resident: 9000, slab: 0 },
        });
        Measured {
            connections: 10,
            opened: 8,
            connect_time: Duration::from_millis(4),
            payload_len: 500,
            spent,
            messages: 1_000_000,
            ..Measured::default()
        }
    }

    fn close(value: f64, expected: f64) -> bool {
        (value - expected).abs() < 1e-9
    }

    #[test]
    fn arithmetic() {
        let report = Report::new(measured());
        assert!(close(report.messages_per_second, 500_000.0));
        assert!(close(report.megabytes_per_second, 250.0));
        assert!(close(report.connects_per_second, 2000.0));
        assert!(close(report.generator.cpu_us_per_message.unwrap(), 2.0));
        assert!(close(report.generator.utilisation, 0.75));
        let server = report.server.unwrap();
        assert!(close(server.cpu_us_per_message.unwrap(), 1.9));
        assert!(close(server.utilisation, 0.95));
        let memory = server.memory.unwrap();
        assert!(close(memory.bytes_per_idle_connection.unwrap(), 500.0));
        assert!(close(memory.kernel_bytes_per_idle_connection.unwrap(), 2000.0));
        assert_eq!(report.bottleneck, Bottleneck::Server);
        assert!(report.is_clean());
    }

    #[test]
    fn generator_that_limits_is_named() {
        let judged = |generators, server, capacity| {
            let mut spent = Spent::for_tests(2, generators, server);
            spent.server.as_mut().unwrap().capacity = capacity;
            Report::new(Measured { spent, ..measured() })
        };
        assert_eq!(judged(&[1990], &[100, 1800], 1).bottleneck, Bottleneck::Both);
        // One thread with nothing left to give limits a server of several.
        assert_eq!(judged(&[1990], &[10, 1900], 2).bottleneck, Bottleneck::Both);
        let report = judged(&[1990], &[900, 1000], 2);
        assert_eq!(report.bottleneck, Bottleneck::Generator);
        assert!(report.table().contains("THE GENERATOR"));
        assert_eq!(judged(&[], &[900, 1000], 2).bottleneck, Bottleneck::Neither);
        let mut unknown = measured();
        unknown.spent.server = None;
        assert_eq!(Report::new(unknown).bottleneck, Bottleneck::Unknown);
    }

    #[test]
    fn disturbed_run_is_named() {
        for of_server in [true, false] {
            let mut measured = measured();
            let Spent { generators, server, .. } = &mut measured.spent;
            let server = &mut server.as_mut().unwrap().cpu[1];
            let time = if of_server { server } else { &mut generators[0] };
            time.wait = Duration::from_millis(200);
            let report = Report::new(measured);
            assert_eq!(report.bottleneck, Bottleneck::Disturbed);
            assert!(report.table().contains("10 % waiting for a CPU"));
        }
    }

    #[test]
    fn memory_that_became_less_is_withheld() {
        let mut measured = measured();
        let server = measured.spent.server.as_mut().unwrap();
        server.memory.as_mut().unwrap().connected.slab = 0;
        let report = Report::new(measured);
        let memory = report.server.unwrap().memory.unwrap();
        assert_eq!(memory.kernel_bytes_per_idle_connection, None);
        assert!(close(memory.bytes_per_idle_connection.unwrap(), 500.0));
        let table = report.table();
        assert!(table.contains("kernel slab a connection is withheld"), "{table}");
        assert!(!table.contains("-12"), "{table}");
    }

    #[test]
    fn run_without_messages_divides_by_nothing() {
        let errors = [("connect refused".to_owned(), 10)].into();
        let report = Report::new(Measured { errors, ..Measured::default() });
        assert!(close(report.messages_per_second, 0.0));
        assert_eq!(report.generator.cpu_us_per_message, None);
        assert!(!report.is_clean());
        assert!(report.table().contains("10 × connect refused"));
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["errors"]["connect refused"], 10);
        assert!(json["latency_us"].is_null());
    }
}
