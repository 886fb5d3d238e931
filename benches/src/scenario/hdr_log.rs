//! Latencies of each second as an HdrHistogram log (format 1.3), for the tools that merge and plot these.

use std::fs::OpenOptions;
use std::io::{BufWriter, Write as _};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, anyhow};
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use super::conductor::Found;

/// The highest value of an interval is written in milliseconds, as other writers have it.
const NANOS_PER_MILLISECOND: f64 = 1e6;

/// Writes the latencies of a run, in nanoseconds and with the scenario as their tag; connect times where it had no
/// messages. Behind a run before it, where the file has one of this process.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn write(
    file: &str,
    is_first: bool,
    scenario: &str,
    found: &Found,
) -> anyhow::Result<()> {
    let mut options = OpenOptions::new();
    options.create(true).write(true).truncate(is_first).append(!is_first);
    let log = options.open(file).with_context(|| format!("cannot write {file}"))?;
    let mut log = BufWriter::new(log);
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    builder.add_comment("[Histogram log format version 1.3]");
    builder.with_start_time(UNIX_EPOCH + Duration::from_nanos(found.epoch));
    let mut writer = builder
        .with_max_value_divisor(NANOS_PER_MILLISECOND)
        .begin_log_with(&mut log, &mut serializer)?;
    let has_work = found.total.answered > 0;
    for (second, tally) in &found.seconds {
        let sample = if has_work { &tally.latency } else { &tally.connect };
        if let Some(histogram) = sample.nanos() {
            let at = Duration::from_secs(u64::from(*second));
            writer
                .write_histogram(&histogram, at, Duration::from_secs(1), Tag::new(scenario))
                .map_err(|error| anyhow!("cannot write {file}: {error}"))?;
        }
    }
    log.flush().with_context(|| format!("cannot write {file}"))
}
