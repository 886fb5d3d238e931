//! What `/proc` says of a process: the CPU time of its threads, its memory, the CPUs it may use.
//!
//! CPU time is the scheduler's run time in nanoseconds (the first field of `schedstat`), which has no
//! sampling error, unlike the clock ticks of `stat`. A thread that is running right now may be up to
//! one tick (at most 10 ms) behind.

use std::collections::BTreeMap;
use std::time::Duration;
use std::{fs, io};

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
    pub(crate) fn cpu(&self) -> io::Result<CpuTimes> {
        let threads: Vec<(u32, u32)> = match self {
            Self::Process(pid) => threads_of_family(*pid)?,
            Self::Threads(tids) => tids.iter().map(|&tid| (std::process::id(), tid)).collect(),
        };
        let mut times = BTreeMap::new();
        for (pid, tid) in threads {
            match fs::read_to_string(format!("/proc/{pid}/task/{tid}/schedstat")) {
                Ok(text) => drop(times.insert(tid, cpu_time(&text)?)),
                // The thread ended after the directory was listed.
                Err(error) if has_ended(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(CpuTimes(times))
    }

    /// How many CPUs it could keep busy: those it may run on, but no more than it has threads.
    pub(crate) fn capacity(&self) -> io::Result<usize> {
        match self {
            Self::Process(pid) => Ok(threads_of_family(*pid)?.len().min(allowed_cpus(*pid)?.len())),
            // Each has a CPU of its own.
            Self::Threads(tids) => Ok(tids.len()),
        }
    }

    /// Its memory; `None` where that cannot be told from the load generator's.
    pub(crate) fn footprint(&self) -> io::Result<Option<Footprint>> {
        match self {
            Self::Process(pid) => {
                Ok(Some(Footprint { resident: Resident::of(*pid)?.all, slab: slab_bytes()? }))
            }
            Self::Threads(_) => Ok(None),
        }
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
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let mut sum = Self::default();
        for member in family(pid) {
            match Self::of_one(member) {
                Ok(one) => {
                    sum.all += one.all;
                    sum.anonymous += one.anonymous;
                }
                // One that it started has ended meanwhile.
                Err(_) if member != pid => {}
                Err(error) => return Err(error),
            }
        }
        Ok(sum)
    }

    fn of_one(pid: u32) -> io::Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        Ok(Self { all: kib_field(&status, "VmRSS")?, anonymous: kib_field(&status, "RssAnon")? })
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
    pub(crate) fn read() -> io::Result<Self> {
        let sockstat = fs::read_to_string("/proc/net/sockstat")?;
        let slabinfo = fs::read_to_string("/proc/slabinfo").unwrap_or_default();
        Ok(Self {
            slab: slab_bytes()?,
            tcp: tcp_pages(&sockstat).ok_or_else(malformed)? * PAGE_LEN,
            caches: slab_caches(&slabinfo),
        })
    }
}

/// On all machines that this runs on.
const PAGE_LEN: u64 = 4096;

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
pub(crate) fn thread_cpu(tid: u32) -> io::Result<CpuTime> {
    cpu_time(&fs::read_to_string(format!("/proc/self/task/{tid}/schedstat"))?)
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

/// A process and those that it started, as far as they live.
fn family(pid: u32) -> Vec<u32> {
    let mut members = vec![pid];
    let mut at = 0;
    while let Some(&parent) = members.get(at) {
        for tid in thread_ids(parent).unwrap_or_default() {
            // Missing where the thread has ended, and in kernels without CONFIG_PROC_CHILDREN.
            let children = fs::read_to_string(format!("/proc/{parent}/task/{tid}/children"));
            let children = children.unwrap_or_default();
            members.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        at += 1;
    }
    members
}

/// The numbers of all threads of a process and of those that it started, each behind its process's.
fn threads_of_family(pid: u32) -> io::Result<Vec<(u32, u32)>> {
    let mut threads = Vec::new();
    for member in family(pid) {
        match thread_ids(member) {
            Ok(tids) => threads.extend(tids.into_iter().map(|tid| (member, tid))),
            Err(_) if member != pid => {}
            Err(error) => return Err(error),
        }
    }
    Ok(threads)
}

/// The kernel's objects on the whole machine (`Slab`), in bytes.
pub(crate) fn slab_bytes() -> io::Result<u64> {
    kib_field(&fs::read_to_string("/proc/meminfo")?, "Slab")
}

fn kib_field(status: &str, name: &str) -> io::Result<u64> {
    let kib = status_field(status, name).and_then(|value| value.strip_suffix(" kB"));
    let kib: u64 = kib.and_then(|kib| kib.trim().parse().ok()).ok_or_else(malformed)?;
    Ok(kib * 1024)
}

/// The CPUs that the main thread of a process may run on.
pub(crate) fn allowed_cpus(pid: u32) -> io::Result<Vec<usize>> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let list = status_field(&status, "Cpus_allowed_list").ok_or_else(malformed)?;
    let list: crate::units::CpuList = list.parse().map_err(|_| malformed())?;
    Ok(list.0)
}

fn status_field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
}

fn cpu_time(schedstat: &str) -> io::Result<CpuTime> {
    let mut fields = schedstat.split_whitespace().map(|field| field.parse().ok());
    let mut next = || fields.next().flatten().map(Duration::from_nanos).ok_or_else(malformed);
    Ok(CpuTime { run: next()?, wait: next()? })
}

/// Whether a file of a thread could not be read because the thread has ended: before the file was opened (ENOENT), or
/// between that and the reading (ESRCH, proc(5)).
fn has_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "/proc has an unknown format")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let (run, wait) = (Duration::from_nanos(600_249), Duration::from_nanos(12));
        assert_eq!(cpu_time("600249 12 1\n").unwrap(), CpuTime { run, wait });
        assert!(cpu_time("").is_err());
        let status = "Name:\techo\nVmRSS:\t    1234 kB\nCpus_allowed_list:\t0-1,3\n";
        assert_eq!(status_field(status, "VmRSS"), Some("1234 kB"));
        assert_eq!(status_field(status, "Cpus_allowed_list"), Some("0-1,3"));
        assert_eq!(status_field(status, "Cpus_allowed"), None);
    }

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
        let tid = own_thread_id().unwrap();
        assert!(thread_ids(std::process::id()).unwrap().contains(&tid));
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
    fn threads_end_before_their_file_is_opened_and_before_it_is_read() {
        let (said, heard) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            said.send(own_thread_id().unwrap()).unwrap();
            let _ = ended.recv();
        });
        let tid = heard.recv().unwrap();
        let path = format!("/proc/self/task/{tid}/schedstat");
        let mut open = fs::File::open(&path).unwrap();
        drop(end);
        thread.join().unwrap();
        // The kernel takes the thread off its lists shortly after it says that it has ended.
        while fs::exists(&path).unwrap() {
            thread::yield_now();
        }
        let error = io::read_to_string(&mut open).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(3), "ESRCH: {error}");
        assert!(has_ended(&error), "{error}");
        assert!(has_ended(&fs::File::open(&path).unwrap_err()));
        assert!(Account::Threads(vec![tid]).cpu().unwrap().since(&CpuTimes::default()).is_empty());
    }

    #[test]
    fn what_a_process_started_is_part_of_it() {
        use std::os::unix::process::CommandExt as _;

        let mut shell = std::process::Command::new("sh");
        let mut shell = shell.args(["-c", "sleep 60 & wait"]).process_group(0).spawn().unwrap();
        let pid = shell.id();
        while family(pid).len() < 2 {
            thread::yield_now();
        }
        let account = Account::Process(pid);
        assert!(account.cpu().unwrap().0.len() >= 2);
        let alone = Resident::of_one(pid).unwrap();
        assert!(Resident::of(pid).unwrap().all > alone.all);
        crate::machine::kill_group(i32::try_from(pid).unwrap());
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
