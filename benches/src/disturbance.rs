//! What else went on beside a run: time that the hypervisor gave to other machines, and CPUs that other programs had.

use std::fmt;
use std::time::Duration;

use procfs::{CpuTime, CurrentSI as _, KernelStats, ProcResult};
use schemars::JsonSchema;
use serde::Serialize;

/// Share of the machine's CPU time from which a report speaks of it.
const WORTH_TELLING: f64 = 0.005;

/// CPU time of the whole machine since it began, in ticks (`cpu` in `/proc/stat`).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MachineTicks {
    /// Of programs, the kernel and interrupts.
    busy: u64,
    /// Of other machines on the same hardware, while this one had something to do.
    stolen: u64,
    all: u64,
}

/// What else went on during a run. JSON has these names.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Disturbance {
    /// Share of the machine's CPU time that was stolen.
    pub(crate) stolen: f64,
    /// CPUs that programs had which are neither load nor server; `None` where the server's process is not known.
    pub(crate) other_cpus: Option<f64>,
}

impl MachineTicks {
    /// The present values.
    ///
    /// # Errors
    /// When `/proc/stat` is not there or unknown.
    pub(crate) fn read() -> ProcResult<Self> {
        let CpuTime { user, nice, system, idle, iowait, irq, softirq, steal, .. } =
            KernelStats::current()?.total;
        let [iowait, irq, softirq, stolen] =
            [iowait, irq, softirq, steal].map(Option::unwrap_or_default);
        // Guests' time is in that of user and nice already (proc_stat(5)).
        let busy = user + nice + system + irq + softirq;
        Ok(Self { busy, stolen, all: busy + idle + iowait + stolen })
    }
}

impl Disturbance {
    /// Between two moments, in which load and server had that much of `cpus` in `seconds`.
    pub(crate) fn between(
        first: MachineTicks,
        last: MachineTicks,
        own: Option<Duration>,
        seconds: f64,
    ) -> Option<Self> {
        let all = last.all.checked_sub(first.all).filter(|&ticks| ticks > 0)? as f64;
        let share = |now: u64, before: u64| now.saturating_sub(before) as f64 / all;
        let busy = share(last.busy, first.busy) * crate::system::System::real().cpu_count() as f64;
        // Ticks are counted coarsely: less than nothing is nothing.
        let others = |own: Duration| (busy - own.as_secs_f64() / seconds).max(0.0);
        Some(Self {
            stolen: share(last.stolen, first.stolen),
            other_cpus: own.filter(|_| seconds > 0.0).map(others),
        })
    }

    /// Whether so much was stolen that the figures do not count.
    pub(crate) fn is_severe(self, limit: f64) -> bool {
        self.stolen >= limit
    }

    /// Whether a reader has to know of it.
    pub(crate) fn is_worth_telling(self) -> bool {
        self.stolen >= WORTH_TELLING
            || self.other_cpus.is_some_and(|cpus| cpus >= 10.0 * WORTH_TELLING)
    }
}

impl fmt::Display for Disturbance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} % of the machine's CPU time was stolen by its host", self.stolen * 100.0)?;
        match self.other_cpus {
            Some(cpus) => write!(f, ", and other programs had {cpus:.2} CPUs"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(busy: u64, stolen: u64, idle: u64) -> MachineTicks {
        MachineTicks { busy, stolen, all: busy + stolen + idle }
    }

    #[test]
    fn stolen_time_is_a_share_of_all() {
        let (first, last) = (ticks(200, 0, 800), ticks(300, 40, 860));
        let found = Disturbance::between(first, last, None, 1.0).unwrap();
        assert!((found.stolen - 0.2).abs() < 1e-9, "{found:?}");
        assert_eq!(found.other_cpus, None);
        assert!(found.is_worth_telling() && found.is_severe(0.05) && !found.is_severe(0.3));
        assert_eq!(found.to_string(), "20.0 % of the machine's CPU time was stolen by its host");
        assert_eq!(Disturbance::between(last, first, None, 1.0), None);
    }

    #[test]
    fn others_are_what_is_left_of_the_busy_time() {
        let cpus = crate::system::System::real().cpu_count() as f64;
        let (first, last) = (MachineTicks::default(), ticks(100, 0, 100));
        let found = Disturbance::between(first, last, Some(Duration::from_millis(200)), 2.0);
        let others = found.unwrap().other_cpus.unwrap();
        assert!((others - (cpus / 2.0 - 0.1)).abs() < 1e-9, "{others}");
        let all_own = Some(Duration::from_secs(1000));
        let found = Disturbance::between(first, last, all_own, 2.0).unwrap();
        assert_eq!(found.other_cpus, Some(0.0));
        assert!(!found.is_worth_telling());
    }

    #[test]
    fn this_machine_is_read() {
        assert!(MachineTicks::read().unwrap().all > 0);
    }
}
