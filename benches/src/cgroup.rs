//! A control group of its own for a process, with a limit of memory.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Where the memory controller is, with the name of its limit: cgroup v2, and v1.
const HIERARCHIES: [(&str, &str, &str); 2] = [
    ("/sys/fs/cgroup", "cgroup.controllers", "memory.max"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.limit_in_bytes"),
];

/// A control group, which goes when it is dropped and its processes have ended.
#[derive(Debug)]
pub(crate) struct Cgroup(PathBuf);

impl Cgroup {
    /// Makes one with a limit in bytes.
    ///
    /// # Errors
    /// When there is no memory controller, or this process may not make groups.
    pub(crate) fn with_memory(limit: u64) -> anyhow::Result<Self> {
        let found = HIERARCHIES.iter().find(|(root, mark, _)| Path::new(root).join(mark).exists());
        let (root, _, file) = found.context("no memory controller under /sys/fs/cgroup")?;
        let path = Path::new(root).join(format!("ringwire-bench-{}", std::process::id()));
        let why = || format!("cannot make {}: run as root, or without --cgroup", path.display());
        fs::create_dir(&path).with_context(why)?;
        let group = Self(path);
        fs::write(group.0.join(file), limit.to_string()).with_context(|| {
            format!("{file} cannot be set there: the memory controller is not delegated")
        })?;
        Ok(group)
    }

    /// Moves a process there.
    ///
    /// # Errors
    /// When it may not be moved.
    pub(crate) fn take(&self, pid: u32) -> anyhow::Result<()> {
        fs::write(self.0.join("cgroup.procs"), pid.to_string())
            .with_context(|| format!("cannot move process {pid} to {}", self.0.display()))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Fails while a process is left, and leaves an empty group at worst.
        let _ = fs::remove_dir(&self.0);
    }
}
