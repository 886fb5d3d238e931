//! What the machine allows and what it is: descriptor limit, CPU affinity, a line for the report.
#![expect(unsafe_code, reason = "resource limits and affinity are system calls")]

use std::{io, mem};

use anyhow::{Context as _, bail};

use crate::system::System;

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
    // SAFETY: an all-zero `cpu_set_t` is the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    for &cpu in cpus {
        if cpu >= 8 * size_of::<libc::cpu_set_t>() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no such CPU"));
        }
        // SAFETY: `cpu` is within the set, checked above.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: the pointer and the length are those of `set`; 0 is the calling thread.
    let result =
        unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has the kernel kill the calling process when the thread that started it is gone.
///
/// Async-signal-safe, so that it may run between `fork` and `exec`.
pub(crate) fn die_with_parent() -> io::Result<()> {
    // SAFETY: PR_SET_PDEATHSIG takes a signal number and touches no memory of ours.
    let result = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Kills all processes of the group that this one leads.
pub(crate) fn kill_group(leader: i32) {
    // SAFETY: kill takes numbers and touches no memory of ours.
    unsafe {
        libc::kill(-leader, libc::SIGKILL);
    }
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
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit for the kernel to fill.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: `limit` is a valid rlimit for the kernel to read.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(limit.rlim_cur)
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
