//! What this process uses of the machine.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// Memory that is resident, in bytes.
pub(crate) fn resident_len() -> usize {
    const PAGE_LEN: usize = 4096;
    let statm = std::fs::read_to_string("/proc/self/statm").expect("procfs is there");
    let pages = statm.split(' ').nth(1).expect("the second number is the resident pages");
    pages.parse::<usize>().expect("it is a number") * PAGE_LEN
}

/// The time that this process has run for, on all cores. Holds its file open, for when no other can be opened.
pub(crate) struct CpuTime(File);

impl CpuTime {
    pub(crate) fn new() -> Self {
        Self(File::open("/proc/self/stat").expect("procfs is there"))
    }

    /// User and system time, in steps of 10 ms.
    pub(crate) fn get(&self) -> Duration {
        const TICK: Duration = Duration::from_millis(10);
        let mut stat = [0; 1024];
        let len = self.0.read_at(&mut stat, 0).expect("procfs can be read");
        let stat = String::from_utf8_lossy(&stat[..len]);
        // The name may have spaces in it; behind it, the times are fields 14 and 15 of all (proc(5)).
        let (_, fields) = stat.rsplit_once(") ").expect("the name is in parentheses");
        let times = fields.split(' ').skip(11).take(2);
        times.map(|ticks| TICK * ticks.parse::<u32>().expect("a number")).sum()
    }
}
