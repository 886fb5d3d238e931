//! What `/proc` says of a process: the CPU time of its threads, its memory, the CPUs it may use.
//!
//! CPU time is the scheduler's run time in nanoseconds (the first field of `schedstat`), which has no
//! sampling error, unlike the clock ticks of `stat`. A thread that is running right now may be up to
//! one tick (at most 10 ms) behind.

use std::collections::BTreeMap;
use std::time::Duration;
use std::{fs, io};

/// The threads that count as "the server" in a report.
#[derive(Clone, Debug)]
pub(crate) enum Account {
    /// Every thread of a process.
    Process(u32),
    /// Some threads of this process: a server that runs beside its load generator.
    Threads(Vec<u32>),
}

/// CPU time of each of some threads since it began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CpuTimes(BTreeMap<u32, Duration>);

impl CpuTimes {
    /// What these threads used since `earlier`. A thread that ended meanwhile is left out, one that
    /// began meanwhile counts whole.
    pub(crate) fn since(&self, earlier: &Self) -> Duration {
        let before = |tid| earlier.0.get(tid).copied().unwrap_or_default();
        self.0.iter().map(|(tid, time)| time.saturating_sub(before(tid))).sum()
    }
}

impl Account {
    /// CPU time used so far.
    ///
    /// # Errors
    /// When the process is gone.
    pub(crate) fn cpu(&self) -> io::Result<CpuTimes> {
        let pid = self.pid();
        let tids = match self {
            Self::Process(pid) => thread_ids(*pid)?,
            Self::Threads(tids) => tids.clone(),
        };
        let mut times = BTreeMap::new();
        for tid in tids {
            match fs::read_to_string(format!("/proc/{pid}/task/{tid}/schedstat")) {
                Ok(text) => drop(times.insert(tid, run_time(&text)?)),
                // The thread ended after the directory was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(CpuTimes(times))
    }

    /// How many CPUs it could keep busy: those it may run on, but no more than it has threads.
    pub(crate) fn capacity(&self) -> io::Result<usize> {
        match self {
            Self::Process(pid) => Ok(thread_ids(*pid)?.len().min(allowed_cpus(*pid)?)),
            Self::Threads(tids) => Ok(tids.len().min(allowed_cpus(std::process::id())?)),
        }
    }

    /// The process whose memory is the server's.
    pub(crate) fn pid(&self) -> u32 {
        match self {
            Self::Process(pid) => *pid,
            Self::Threads(_) => std::process::id(),
        }
    }
}

/// CPU time of one thread of this process.
pub(crate) fn thread_cpu(tid: u32) -> io::Result<Duration> {
    run_time(&fs::read_to_string(format!("/proc/self/task/{tid}/schedstat"))?)
}

/// The kernel's number of the calling thread.
pub(crate) fn own_thread_id() -> io::Result<u32> {
    let link = fs::read_link("/proc/thread-self")?;
    link.file_name().and_then(|name| name.to_str()?.parse().ok()).ok_or_else(malformed)
}

/// The kernel's numbers of all threads of a process.
pub(crate) fn thread_ids(pid: u32) -> io::Result<Vec<u32>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        ids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(ids)
}

/// Resident memory of a process (`VmRSS`), in bytes.
pub(crate) fn resident_bytes(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = status_field(&status, "VmRSS").and_then(|value| value.strip_suffix(" kB"));
    let kib: u64 = kib.and_then(|kib| kib.trim().parse().ok()).ok_or_else(malformed)?;
    Ok(kib * 1024)
}

/// How many CPUs the main thread of a process may run on.
fn allowed_cpus(pid: u32) -> io::Result<usize> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let list = status_field(&status, "Cpus_allowed_list").ok_or_else(malformed)?;
    let list: crate::units::CpuList = list.parse().map_err(|_| malformed())?;
    Ok(list.0.len())
}

fn status_field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
}

fn run_time(schedstat: &str) -> io::Result<Duration> {
    let nanoseconds = schedstat.split_whitespace().next().and_then(|field| field.parse().ok());
    nanoseconds.map(Duration::from_nanos).ok_or_else(malformed)
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "/proc has an unknown format")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        assert_eq!(run_time("600249 12 1\n").unwrap(), Duration::from_nanos(600_249));
        assert!(run_time("").is_err());
        let status = "Name:\techo\nVmRSS:\t    1234 kB\nCpus_allowed_list:\t0-1,3\n";
        assert_eq!(status_field(status, "VmRSS"), Some("1234 kB"));
        assert_eq!(status_field(status, "Cpus_allowed_list"), Some("0-1,3"));
        assert_eq!(status_field(status, "Cpus_allowed"), None);
    }

    #[test]
    fn busy_thread_shows() {
        let tid = own_thread_id().unwrap();
        assert!(thread_ids(std::process::id()).unwrap().contains(&tid));
        let process = Account::Process(std::process::id());
        let times = process.cpu().unwrap();
        let before = thread_cpu(tid).unwrap();
        let mut value = 1_u64;
        while thread_cpu(tid).unwrap() < before + Duration::from_millis(15) {
            for _ in 0..100_000 {
                value = std::hint::black_box(value.wrapping_mul(31).wrapping_add(7));
            }
        }
        assert!(process.capacity().unwrap() >= 1);
        assert!(resident_bytes(process.pid()).unwrap() > 0);
        assert!(process.cpu().unwrap().since(&times) >= Duration::from_millis(15));
        let thread = Account::Threads(vec![tid]).cpu().unwrap();
        assert!(thread.since(&times) >= Duration::from_millis(15));
    }

    #[test]
    fn threads_that_come_and_go() {
        let times = |list: &[(u32, u64)]| {
            CpuTimes(list.iter().map(|&(tid, ms)| (tid, Duration::from_millis(ms))).collect())
        };
        let earlier = times(&[(1, 100), (2, 500)]);
        let later = times(&[(1, 130), (3, 7)]);
        assert_eq!(later.since(&earlier), Duration::from_millis(37));
    }
}
