//! What this process uses of the machine.

use std::time::Duration;

/// Memory that is resident, in bytes.
pub(crate) fn resident_len() -> usize {
    const PAGE_LEN: usize = 4096;
    let statm = std::fs::read_to_string("/proc/self/statm").expect("procfs is there");
    let pages = statm.split(' ').nth(1).expect("the second number is the resident pages");
    pages.parse::<usize>().expect("it is a number") * PAGE_LEN
}

/// Time that all threads have run for.
pub(crate) fn cpu_time() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").expect("procfs is there");
    let run_ns = |task: std::fs::DirEntry| {
        // A thread may have ended meanwhile.
        let schedstat = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        schedstat.split(' ').next()?.parse::<u64>().ok()
    };
    Duration::from_nanos(tasks.flatten().filter_map(run_ns).sum())
}
