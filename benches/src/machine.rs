//! What the machine allows and what it is: descriptor limit, CPU affinity, a line for the report.

use std::io;
use std::process::Child;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::system::System;
use crate::units::CpuList;

/// Descriptors a run needs beside its connections: epoll, the standard streams, `/proc` files.
const SPARE_DESCRIPTORS: u64 = 64;

/// Raises the soft descriptor limit to the hard one and checks that `connections` fit, each of which
/// takes `each` descriptors.
///
/// # Errors
/// When the hard limit is too low; the text says what to do.
pub(crate) fn allow_descriptors(connections: u32, each: u64) -> anyhow::Result<()> {
    let limit = raise_descriptor_limit().context("cannot read the limit of open files")?;
    let needed = u64::from(connections) * each + SPARE_DESCRIPTORS;
    if needed > limit {
        let both = if each > 1 { ", with both ends in this process," } else { "" };
        bail!(
            "{connections} connections{both} need {needed} open files; {limit} is the hard limit: \
             raise it (ulimit -Hn, or LimitNOFILE= of the service) or ask for fewer connections"
        );
    }
    Ok(())
}

/// Raises the soft descriptor limit to the hard one, and says how many connections fit, each of which takes `each`
/// descriptors.
///
/// # Errors
/// When the limit cannot be read or raised.
pub(crate) fn connections_that_fit(each: u64) -> anyhow::Result<u32> {
    let limit = raise_descriptor_limit().context("cannot read the limit of open files")?;
    let room = limit.saturating_sub(SPARE_DESCRIPTORS) / each;
    Ok(u32::try_from(room).unwrap_or(u32::MAX))
}

/// Binds the calling thread, and what it starts from now on, to some CPUs.
pub(crate) fn pin_thread(cpus: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    for &cpu in cpus {
        if cpu >= CpuSet::MAX_CPU {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no such CPU"));
        }
        set.set(cpu);
    }
    Ok(sched_setaffinity(None, &set)?)
}

/// The same for a load and the CPUs of its `--cpu`.
pub(crate) fn pin_load(cpus: Option<&CpuList>) -> anyhow::Result<()> {
    cpus.map_or(Ok(()), |cpus| pin_thread(&cpus.0)).context("cannot pin to --cpu")
}

/// Has the kernel kill the calling process when the thread that started it is gone.
///
/// Async-signal-safe, so that it may run between `fork` and `exec`.
pub(crate) fn die_with_parent() -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// Kills all processes of the group that this one leads.
pub(crate) fn kill_group(leader: &Child) {
    // Fails only if all are gone already.
    let _ = rustix::process::kill_process_group(Pid::from_child(leader), Signal::KILL);
}

/// CPU model, number of CPUs, kernel and TCP's congestion control, for a report's head.
pub(crate) fn describe() -> String {
    let system = System::real();
    let model = system.cpu_model().unwrap_or_else(|| "unknown CPU".to_owned());
    let sysctl = |name| system.sysctl(name).unwrap_or_default();
    let (kernel, congestion) =
        (sysctl("kernel.osrelease"), sysctl("net.ipv4.tcp_congestion_control"));
    format!("{model}, {} CPUs, Linux {kernel}, TCP {congestion}", system.cpu_count())
}

/// Raises the soft limit of open files to the hard one, and says what that is.
pub(crate) fn raise_descriptor_limit() -> io::Result<u64> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    Ok(maximum.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_connections_are_diagnosed() {
        let limit = raise_descriptor_limit().unwrap();
        let connections = u32::try_from(limit / 2).unwrap();
        let text = allow_descriptors(connections, 2).unwrap_err().to_string();
        assert!(text.contains(&format!("{limit} is the hard limit")), "{text}");
        assert!(text.contains("both ends"), "{text}");
        allow_descriptors(1, 1).unwrap();
        for each in [1, 2] {
            let most = connections_that_fit(each).unwrap();
            allow_descriptors(most, each).unwrap();
            assert!(allow_descriptors(most + 1, each).is_err());
        }
    }

    #[test]
    fn pinned_thread_stays() {
        std::thread::spawn(|| {
            pin_thread(&[0]).unwrap();
            assert!(pin_thread(&[1 << 20]).is_err());
            assert_eq!(std::thread::available_parallelism().unwrap().get(), 1);
        })
        .join()
        .unwrap();
    }
}
