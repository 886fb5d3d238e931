//! What connections took of memory: when they were open, and while they were held.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

use super::Row;
use crate::growth::{has_grown, median, quarter};
use crate::scenario::conductor::{Found, Memory};
use crate::units::{show_bytes, show_count};
use crate::withheld::Withheld;

/// Caches of the kernel that a connection has objects in.
const CACHES: [&str; 8] = [
    "TCP",
    "TCPv6",
    "sock_inode_cache",
    "filp",
    "dentry",
    "eventpoll_epi",
    "eventpoll_pwq",
    "tcp_bind_bucket",
];

/// Memory of a server that holds idle connections comes and goes by as much, in bytes.
const SLACK: u64 = 256 << 10;

/// Bytes a connection that was open and idle. The kernel's are of both ends, where both are on this machine, and of
/// whatever else went on there.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
#[schemars(rename = "MemoryOfConnections")]
pub(crate) struct MemoryReport {
    pub(crate) server_resident_before: Option<u64>,
    pub(crate) server_resident_connected: Option<u64>,
    pub(crate) server_resident_after: Option<u64>,
    pub(crate) server_bytes_per_connection: Option<f64>,
    pub(crate) server_anonymous_bytes_per_connection: Option<f64>,
    pub(crate) kernel_slab_bytes_per_connection: Option<f64>,
    pub(crate) kernel_tcp_bytes_per_connection: Option<f64>,
    /// Of the caches that connections have objects in.
    pub(crate) kernel_caches: BTreeMap<String, f64>,
}

impl MemoryReport {
    pub(super) fn new(
        [before, connected, after]: [&Memory; 3],
        opened: u64,
        withheld: &mut Withheld,
    ) -> Self {
        let mut each = |name: &str, before: u64, now: u64| withheld.each(name, before, now, opened);
        let resident = |memory: &Memory| memory.server.map(|server| server.all);
        let server = before.server.zip(connected.server);
        let bytes = |memory: &Memory, name: &str| memory.kernel.caches.get(name).copied();
        // One that shrank has nothing of these connections.
        let grown = |name: &str| bytes(connected, name)?.checked_sub(bytes(before, name)?);
        let cache = |name: &&str| {
            let grown = grown(name).filter(|_| opened > 0)?;
            Some(((*name).to_owned(), grown as f64 / opened as f64))
        };
        Self {
            server_resident_before: resident(before),
            server_resident_connected: resident(connected),
            server_resident_after: resident(after),
            server_bytes_per_connection: server
                .and_then(|(before, now)| each("server RSS", before.all, now.all)),
            server_anonymous_bytes_per_connection: server.and_then(|(before, now)| {
                each("the server's anonymous memory", before.anonymous, now.anonymous)
            }),
            kernel_slab_bytes_per_connection: each(
                "kernel slab",
                before.kernel.slab,
                connected.kernel.slab,
            ),
            kernel_tcp_bytes_per_connection: each(
                "kernel TCP data",
                before.kernel.tcp,
                connected.kernel.tcp,
            ),
            kernel_caches: CACHES.iter().filter_map(cache).collect(),
        }
    }

    pub(super) fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        if let (Some(before), Some(connected), Some(after)) = (
            self.server_resident_before,
            self.server_resident_connected,
            self.server_resident_after,
        ) {
            let [before, connected, after] =
                [before, connected, after].map(|bytes| show_bytes(bytes as f64));
            rows.push((
                "server RSS",
                format!("{before} alone, {connected} connected, {after} after work"),
            ));
        }
        let shown = |bytes: f64| format!("{} B a connection", show_count(bytes));
        let named = [
            ("server RSS", self.server_bytes_per_connection),
            ("of it anonymous", self.server_anonymous_bytes_per_connection),
            ("kernel slab", self.kernel_slab_bytes_per_connection),
            ("kernel TCP data", self.kernel_tcp_bytes_per_connection),
        ];
        rows.extend(named.into_iter().filter_map(|(name, bytes)| Some((name, shown(bytes?)))));
        rows
    }
}

/// Memory while the connections were held after work. Bytes, where the name says nothing else.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Held {
    pub(crate) seconds: f64,
    /// `None` where the server's process is not known.
    pub(crate) server_resident: Option<Course>,
    pub(crate) server_anonymous: Option<Course>,
    /// The kernel's objects, of the whole machine.
    pub(crate) kernel_slab: Option<Course>,
    /// Whether resident memory grew from the second quarter of that time to the last; `None` with less than four
    /// samples.
    pub(crate) has_grown: Option<bool>,
    pub(crate) samples: Vec<HeldSample>,
}

/// What a value did over time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Course {
    pub(crate) first: u64,
    pub(crate) min: u64,
    pub(crate) median: u64,
    pub(crate) max: u64,
    pub(crate) last: u64,
    /// What the last one is above that without connections, for each that was opened; `None` where it is below.
    pub(crate) bytes_per_connection: Option<f64>,
}

/// Memory at one moment.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
pub(crate) struct HeldSample {
    /// Since they were held.
    pub(crate) seconds: f64,
    pub(crate) server_resident: Option<u64>,
    pub(crate) server_anonymous: Option<u64>,
    pub(crate) kernel_slab: u64,
}

impl Held {
    /// Of a run that held its connections.
    pub(super) fn new(found: &Found) -> Option<Self> {
        let (&(began, _), &(end, _)) = found.held.first().zip(found.held.last())?;
        let seconds = |at: u64| (at - began) as f64 / 1e9;
        let sample = |(at, memory): &(u64, Memory)| HeldSample {
            seconds: seconds(*at),
            server_resident: memory.server.map(|server| server.all),
            server_anonymous: memory.server.map(|server| server.anonymous),
            kernel_slab: memory.kernel.slab,
        };
        let course = |value: fn(&Memory) -> Option<u64>| {
            let values = found.held.iter().map(|(_, memory)| value(memory)).collect();
            Course::new(value(&found.before)?, values, found.total.opened)
        };
        let samples: Vec<_> = found.held.iter().map(sample).collect();
        Some(Self {
            seconds: seconds(end),
            server_resident: course(|memory| Some(memory.server?.all)),
            server_anonymous: course(|memory| Some(memory.server?.anonymous)),
            kernel_slab: course(|memory| Some(memory.kernel.slab)),
            has_grown: grown(&samples),
            samples,
        })
    }

    /// Bytes that the server's resident memory grew by from the first sample to the last.
    pub(super) fn growth(&self) -> Option<f64> {
        let course = self.server_resident?;
        Some(course.last as f64 - course.first as f64)
    }

    pub(super) fn rows(&self) -> Vec<Row> {
        let mut rows =
            vec![("held", format!("{:.1} s, {} samples", self.seconds, self.samples.len()))];
        let courses = [
            ("RSS, held", self.server_resident),
            ("anonymous, held", self.server_anonymous),
            ("slab, held", self.kernel_slab),
        ];
        rows.extend(courses.iter().filter_map(|&(name, course)| Some((name, course?.to_string()))));
        rows.push(("growth", self.shown_growth()));
        rows
    }

    fn shown_growth(&self) -> String {
        let Some(growth) = self.growth() else {
            return "the server's process is not known (--server-pid)".to_owned();
        };
        let judged = match self.has_grown {
            Some(true) => "MEMORY GREW",
            Some(false) => "none",
            None => "too few samples to tell",
        };
        let sign = if growth < 0.0 { "" } else { "+" };
        format!("{judged}; {sign}{} from first to last", show_bytes(growth))
    }
}

impl Course {
    fn new(before: u64, values: Option<Vec<u64>>, opened: u64) -> Option<Self> {
        let values = values?;
        let last = *values.last()?;
        Some(Self {
            first: *values.first()?,
            min: *values.iter().min()?,
            max: *values.iter().max()?,
            last,
            bytes_per_connection: Withheld::default().each("", before, last, opened),
            median: median(values)?,
        })
    }
}

impl fmt::Display for Course {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, min, median, max, last, bytes_per_connection } = *self;
        let [first, min, median, max, last] =
            [first, min, median, max, last].map(|bytes| show_bytes(bytes as f64));
        write!(f, "first {first}, min {min}, median {median}, max {max}, last {last}")?;
        if let Some(bytes) = bytes_per_connection {
            write!(f, ": {} B a connection", show_count(bytes))?;
        }
        Ok(())
    }
}

fn grown(samples: &[HeldSample]) -> Option<bool> {
    if samples.len() < 4 {
        return None;
    }
    let resident = |number: usize| {
        let values = quarter(samples, number).iter().map(|sample| sample.server_resident);
        median(values.collect::<Option<Vec<_>>>()?)
    };
    Some(has_grown(resident(1)?, resident(3)?, SLACK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn course_is_told_above_what_there_was_before() {
        let course = Course::new(1000, Some(vec![5000, 3000, 4000]), 100).unwrap();
        assert_eq!((course.first, course.min, course.max, course.last), (5000, 3000, 5000, 4000));
        assert_eq!((course.median, course.bytes_per_connection), (4000, Some(30.0)));
        let shown = course.to_string();
        assert!(shown.starts_with("first 4.9 KiB, min 2.9 KiB,"), "{shown}");
        assert!(shown.ends_with("last 3.9 KiB: 30 B a connection"), "{shown}");
        assert_eq!(Course::new(1000, Some(vec![1]), 0).unwrap().bytes_per_connection, None);
        let shrunk = Course::new(1000, Some(vec![1]), 9).unwrap();
        assert_eq!((shrunk.bytes_per_connection, shrunk.last), (None, 1));
        assert_eq!(Course::new(1000, None, 100), None);
    }

    /// Resident memory in MiB, and whether it grew.
    fn judged(resident: &[u64]) -> Option<bool> {
        let sample = |&mib: &u64| HeldSample {
            seconds: 0.0,
            server_resident: Some(mib << 20),
            server_anonymous: None,
            kernel_slab: 0,
        };
        grown(&resident.iter().map(sample).collect::<Vec<_>>())
    }

    #[test]
    fn growth_is_judged_after_the_first_quarter() {
        assert_eq!(judged(&[10, 20, 20, 20]), Some(false));
        assert_eq!(judged(&[122, 100, 90, 86]), Some(false));
        assert_eq!(judged(&[20, 20, 20, 22]), Some(true));
        assert_eq!(judged(&[20, 20, 22]), None);
    }
}
