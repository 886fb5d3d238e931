//! What `/proc` says of a process: the CPU time of its threads, its memory, the CPUs it may use.
//!
//! CPU time is the scheduler's run time in nanoseconds (the first field of `schedstat`), which has no
//! sampling error, unlike the clock ticks of `stat`. A thread that is running right now may be up to
//! one tick (at most 10 ms) behind.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use procfs::process::{Process, Schedstat, Task};
use procfs::{Current as _, Meminfo, ProcError, ProcResult};
use serde::{Deserialize, Serialize};

/// The threads that count as "the server" in a report.
#[derive(Clone, Debug)]
pub(crate) enum Account {
    /// Every thread of a process, and of those that it started: a server may have workers, or a shell before it.
    Process(u32),
    /// Some threads of this process: a server that runs beside its load generator.
    Threads(Vec<u32>),
}

/// What a thread had of the CPUs since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CpuTime {
    /// Time on a CPU.
    pub(crate) run: Duration,
    /// Time it could have run, while another thread had its CPU.
    pub(crate) wait: Duration,
}

impl CpuTime {
    /// The difference to an earlier value.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            run: self.run.saturating_sub(earlier.run),
            wait: self.wait.saturating_sub(earlier.wait),
        }
    }
}

impl From<Schedstat> for CpuTime {
    fn from(Schedstat { sum_exec_runtime, run_delay, .. }: Schedstat) -> Self {
        Self { run: Duration::from_nanos(sum_exec_runtime), wait: Duration::from_nanos(run_delay) }
    }
}

/// The time of each of some threads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CpuTimes(BTreeMap<u32, CpuTime>);

impl CpuTimes {
    /// Of all threads together.
    pub(crate) fn total(&self) -> CpuTime {
        let sum = |time: fn(&CpuTime) -> Duration| self.0.values().map(time).sum();
        CpuTime { run: sum(|time| time.run), wait: sum(|time| time.wait) }
    }

    /// What each of these threads used since `earlier`. A thread that ended meanwhile is left out, one that
    /// began meanwhile counts whole.
    pub(crate) fn since(&self, earlier: &Self) -> Vec<CpuTime> {
        let before = |tid| earlier.0.get(tid).copied().unwrap_or_default();
        self.0.iter().map(|(tid, time)| time.since(before(tid))).collect()
    }

    /// Time on a CPU of all of them.
    pub(crate) fn run(&self) -> Duration {
        self.0.values().map(|time| time.run).sum()
    }
}

impl Account {
    /// CPU time used so far.
    ///
    /// # Errors
    /// When the process is gone.
    pub(crate) fn cpu(&self) -> ProcResult<CpuTimes> {
        let times = match self {
            Self::Process(pid) => tasks_of(*pid)?.into_iter().map(of_task).collect(),
            Self::Threads(tids) => tids
                .iter()
                .map(|&tid| Ok(unless_ended(thread_cpu(tid))?.map(|cpu| (tid, cpu))))
                .collect(),
        };
        let times: ProcResult<Vec<_>> = times;
        Ok(CpuTimes(times?.into_iter().flatten().collect()))
    }

    /// How many CPUs it could keep busy: those it may run on, but no more than it has threads.
    pub(crate) fn capacity(&self) -> ProcResult<usize> {
        match self {
            Self::Process(pid) => Ok(tasks_of(*pid)?.len().min(allowed_cpus(*pid)?.len())),
            // Each has a CPU of its own.
            Self::Threads(tids) => Ok(tids.len()),
        }
    }

    /// Its memory; `None` where that cannot be told from the load generator's.
    pub(crate) fn footprint(&self) -> ProcResult<Option<Footprint>> {
        let Self::Process(pid) = self else { return Ok(None) };
        Ok(Some(Footprint { resident: Resident::of(*pid)?.all, slab: slab_bytes()? }))
    }
}

/// Memory in bytes at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Footprint {
    /// Resident memory of the process.
    pub(crate) resident: u64,
    /// The kernel's objects (`Slab` in `/proc/meminfo`) on the whole machine.
    pub(crate) slab: u64,
}

/// Resident memory of a process in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resident {
    /// All of it (`VmRSS`).
    pub(crate) all: u64,
    /// That which is no file's (`RssAnon`).
    pub(crate) anonymous: u64,
}

impl Resident {
    /// Of a process and of those that it started; what they share counts for each.
    ///
    /// # Errors
    /// When the process is gone.
    pub(crate) fn of(pid: u32) -> ProcResult<Self> {
        let family = family(pid)?;
        let mut sum = Self::of_one(&family[0])?;
        // One that it started may have ended meanwhile.
        for one in family[1..].iter().flat_map(Self::of_one) {
            sum.all += one.all;
            sum.anonymous += one.anonymous;
        }
        Ok(sum)
    }

    fn of_one(process: &Process) -> ProcResult<Self> {
        let status = process.status()?;
        // One that has ended, and is not waited for yet, has none.
        let sizes = status.vmrss.zip(status.rssanon).ok_or(ProcError::NotFound(None))?;
        Ok(Self { all: sizes.0 * 1024, anonymous: sizes.1 * 1024 })
    }
}

/// The kernel's memory at one moment, in bytes, on the whole machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KernelMemory {
    /// Its objects (`Slab` in `/proc/meminfo`).
    pub(crate) slab: u64,
    /// Data in the buffers of TCP sockets (`mem` in `/proc/net/sockstat`, whole pages).
    pub(crate) tcp: u64,
    /// Objects by cache (`/proc/slabinfo`); empty where that may not be read.
    pub(crate) caches: BTreeMap<String, u64>,
}

impl KernelMemory {
    /// Reads all of it.
    ///
    /// # Errors
    /// When `/proc` is not there or unknown. A `/proc/slabinfo` that may not be read is no error.
    pub(crate) fn read() -> ProcResult<Self> {
        let sockstat = fs::read_to_string("/proc/net/sockstat")?;
        let slabinfo = fs::read_to_string("/proc/slabinfo").unwrap_or_default();
        Ok(Self {
            slab: slab_bytes()?,
            tcp: tcp_pages(&sockstat).ok_or("/proc/net/sockstat has an unknown form")?
                * procfs::page_size(),
            caches: slab_caches(&slabinfo),
        })
    }
}

// What procfs does not read.

fn tcp_pages(sockstat: &str) -> Option<u64> {
    let tcp = sockstat.lines().find_map(|line| line.strip_prefix("TCP:"))?;
    tcp.split_once(" mem ")?.1.split_whitespace().next()?.parse().ok()
}

/// Lines are: name, objects in use, objects, bytes of one, objects and pages of a slab, and more.
fn slab_caches(slabinfo: &str) -> BTreeMap<String, u64> {
    let cache = |line: &str| {
        let mut fields = line.split_whitespace();
        let name = fields.next()?.to_owned();
        let mut number = || fields.next()?.parse::<u64>().ok();
        let (_, objects, len) = (number()?, number()?, number()?);
        Some((name, objects * len))
    };
    slabinfo.lines().filter_map(cache).collect()
}

/// CPU time of one thread of this process.
pub(crate) fn thread_cpu(tid: u32) -> ProcResult<CpuTime> {
    Ok(Process::myself()?.task_from_tid(tid.cast_signed())?.schedstat()?.into())
}

/// The kernel's number of the calling thread.
pub(crate) fn own_thread_id() -> u32 {
    rustix::thread::gettid().as_raw_pid().cast_unsigned()
}

/// The kernel's numbers of all threads of this process.
pub(crate) fn own_thread_ids() -> ProcResult<Vec<u32>> {
    Ok(Process::myself()?.tasks()?.flatten().map(|task| task.tid.cast_unsigned()).collect())
}

/// A process and, behind it, those that it started, as far as they live.
fn family(pid: u32) -> ProcResult<Vec<Process>> {
    let mut members = vec![Process::new(pid.cast_signed())?];
    let mut at = 0;
    while let Some(parent) = members.get(at) {
        // Missing where the thread has ended, and in kernels without CONFIG_PROC_CHILDREN.
        let children =
            parent.tasks().into_iter().flatten().flatten().flat_map(|task| task.children());
        let children: Vec<_> = children.flatten().collect();
        members.extend(children.into_iter().flat_map(|pid| Process::new(pid.cast_signed())));
        at += 1;
    }
    Ok(members)
}

/// The threads of a process and of those that it started.
fn tasks_of(pid: u32) -> ProcResult<Vec<Task>> {
    let family = family(pid)?;
    let own = family[0].tasks()?;
    let others = family[1..].iter().flat_map(Process::tasks).flatten();
    Ok(own.chain(others).flatten().collect())
}

fn of_task(task: Task) -> ProcResult<Option<(u32, CpuTime)>> {
    let cpu = unless_ended(task.schedstat())?;
    Ok(cpu.map(|cpu| (task.tid.cast_unsigned(), cpu.into())))
}

/// What was found of a thread, if that has not ended: before a file of it was opened (ENOENT), or between that and the
/// reading (ESRCH, proc(5)).
fn unless_ended<T>(found: ProcResult<T>) -> ProcResult<Option<T>> {
    match found {
        Err(ProcError::NotFound(_)) => Ok(None),
        other => other.map(Some),
    }
}

/// The kernel's objects on the whole machine (`Slab`), in bytes.
pub(crate) fn slab_bytes() -> ProcResult<u64> {
    Ok(Meminfo::current()?.slab)
}

/// The CPUs that the main thread of a process may run on.
pub(crate) fn allowed_cpus(pid: u32) -> ProcResult<Vec<usize>> {
    let ranges = Process::new(pid.cast_signed())?.status()?.cpus_allowed_list;
    let ranges = ranges.ok_or("/proc does not tell which CPUs may be used")?;
    Ok(ranges.into_iter().flat_map(|(first, last)| first as usize..=last as usize).collect())
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn kernel_memory_is_read() {
        let sockstat =
            "sockets: used 14\nTCP: inuse 1 orphan 0 tw 1748 alloc 1 mem 12\nUDP: inuse 0 mem 5\n";
        assert_eq!(tcp_pages(sockstat), Some(12));
        let slabinfo = "slabinfo - version: 2.1\n# name <active_objs> <num_objs> <objsize>\n\
                        TCP 10 13 2432 13 8 : tunables 0 0 0\n";
        assert_eq!(slab_caches(slabinfo), [("TCP".to_owned(), 13 * 2432)].into());
        assert!(KernelMemory::read().unwrap().slab > 0);
        let own = Resident::of(std::process::id()).unwrap();
        assert!(own.all >= own.anonymous && own.anonymous > 0, "{own:?}");
    }

    #[test]
    fn busy_thread_shows() {
        let tid = own_thread_id();
        assert!(own_thread_ids().unwrap().contains(&tid));
        let process = Account::Process(std::process::id());
        let times = process.cpu().unwrap();
        let before = thread_cpu(tid).unwrap();
        let mut value = 1_u64;
        while thread_cpu(tid).unwrap().since(before).run < Duration::from_millis(15) {
            for _ in 0..100_000 {
                value = std::hint::black_box(value.wrapping_mul(31).wrapping_add(7));
            }
        }
        assert!(process.capacity().unwrap() >= 1);
        let footprint = process.footprint().unwrap().unwrap();
        assert!(footprint.resident > 0 && footprint.slab > 0);
        let busy = |time: &CpuTime| time.run >= Duration::from_millis(15);
        assert!(process.cpu().unwrap().since(&times).iter().any(busy));
        let thread = Account::Threads(vec![tid]).cpu().unwrap();
        assert!(matches!(&thread.since(&times)[..], [time] if busy(time)));
    }

    #[test]
    fn threads_that_have_ended_are_left_out() {
        let tid = thread::spawn(own_thread_id).join().unwrap();
        // The kernel takes the thread off its lists shortly after it says that it has ended.
        while own_thread_ids().unwrap().contains(&tid) {
            thread::yield_now();
        }
        assert!(thread_cpu(tid).is_err());
        assert!(Account::Threads(vec![tid]).cpu().unwrap().since(&CpuTimes::default()).is_empty());
    }

    #[test]
    fn what_a_process_started_is_part_of_it() {
        use std::os::unix::process::CommandExt as _;

        let mut shell = std::process::Command::new("sh");
        let mut shell = shell.args(["-c", "sleep 60 & wait"]).process_group(0).spawn().unwrap();
        let pid = shell.id();
        while family(pid).unwrap().len() < 2 {
            thread::yield_now();
        }
        let account = Account::Process(pid);
        assert!(account.cpu().unwrap().0.len() >= 2);
        let alone = Resident::of_one(&family(pid).unwrap()[0]).unwrap();
        assert!(Resident::of(pid).unwrap().all > alone.all);
        crate::machine::kill_group(&shell);
        shell.wait().unwrap();
        assert!(account.cpu().is_err());
    }

    #[test]
    fn threads_that_come_and_go() {
        let time = |run, wait| CpuTime {
            run: Duration::from_millis(run),
            wait: Duration::from_millis(wait),
        };
        let earlier = CpuTimes([(1, time(100, 3)), (2, time(500, 0))].into());
        let later = CpuTimes([(1, time(130, 4)), (3, time(7, 2))].into());
        assert_eq!(later.since(&earlier), [time(30, 1), time(7, 2)]);
    }
}
