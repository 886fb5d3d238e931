//! What `/proc` and `/sys` say of the machine, by the names that people know: `net.core.somaxconn`, `Max open files`.
//!
//! All of it is read below a root directory, so that tests can make up a machine.

use std::fs;
use std::path::{Path, PathBuf};

/// Settings of the kernel that matter to many connections, in the order of a report.
pub(crate) const SYSCTLS: [&str; 17] = [
    "fs.file-max",
    "fs.nr_open",
    "kernel.io_uring_disabled",
    "net.core.netdev_max_backlog",
    "net.core.rmem_max",
    "net.core.somaxconn",
    "net.core.wmem_max",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_congestion_control",
    "net.ipv4.tcp_max_orphans",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_mem",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_tw_reuse",
    "net.ipv4.tcp_wmem",
    "net.netfilter.nf_conntrack_max",
    "vm.max_map_count",
];

/// The machine, or a directory that looks like one.
#[derive(Clone, Debug)]
pub(crate) struct System {
    root: PathBuf,
}

/// A resource limit of this process. `None` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) soft: Option<u64>,
    pub(crate) hard: Option<u64>,
}

impl System {
    /// This machine.
    pub(crate) fn real() -> Self {
        Self::at(Path::new("/"))
    }

    /// A machine whose `/proc` and `/sys` are below a directory.
    pub(crate) fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The text of a file such as `proc/meminfo`, without white space at its ends.
    pub(crate) fn text(&self, path: &str) -> Option<String> {
        let text = fs::read_to_string(self.root.join(path)).ok()?;
        Some(text.trim().to_owned())
    }

    /// A sysctl, as it stands in `/proc/sys`; a tab between its numbers is a space.
    pub(crate) fn sysctl(&self, name: &str) -> Option<String> {
        let text = self.text(&format!("proc/sys/{}", name.replace('.', "/")))?;
        Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// The numbers of a sysctl; none where there is no such sysctl.
    pub(crate) fn numbers(&self, name: &str) -> Vec<u64> {
        let text = self.sysctl(name).unwrap_or_default();
        text.split(' ').filter_map(|number| number.parse().ok()).collect()
    }

    /// A limit of this process by its name in `/proc/self/limits`.
    pub(crate) fn limit(&self, name: &str) -> Option<Limit> {
        let limits = self.text("proc/self/limits")?;
        let values = limits.lines().find_map(|line| line.strip_prefix(name))?;
        let mut values = values.split_whitespace().map(|value| match value {
            "unlimited" => Some(None),
            number => number.parse().ok().map(Some),
        });
        Some(Limit { soft: values.next()??, hard: values.next()?? })
    }

    /// A field of `/proc/meminfo`, in bytes.
    pub(crate) fn memory(&self, name: &str) -> Option<u64> {
        let meminfo = self.text("proc/meminfo")?;
        let value = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let kib: u64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kib * 1024)
    }

    /// CPU model, where the kernel tells.
    pub(crate) fn cpu_model(&self) -> Option<String> {
        let cpuinfo = self.text("proc/cpuinfo")?;
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"))?;
        Some(model.split_once(": ")?.1.to_owned())
    }

    /// How many CPUs are online: not those that this process may run on, which its pinning limits.
    pub(crate) fn cpu_count(&self) -> usize {
        let cpuinfo = self.text("proc/cpuinfo").unwrap_or_default();
        cpuinfo.lines().filter(|line| line.starts_with("processor")).count()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A machine that has these files only.
    pub(crate) fn made_up(files: &[(&str, &str)]) -> (tempfile::TempDir, System) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let system = System::at(dir.path());
        (dir, system)
    }

    #[test]
    fn reads_what_the_kernel_writes() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
             Max open files            1024                 1048576              files     \n\
             Max locked memory         unlimited            unlimited            bytes     \n";
        let (_dir, system) = made_up(&[
            ("proc/self/limits", limits),
            ("proc/meminfo", "MemTotal:       24686080 kB\nSlab:  12 kB\n"),
            ("proc/sys/net/ipv4/tcp_mem", "1\t22\t333\n"),
            ("proc/cpuinfo", "processor\t: 0\nmodel name\t: A CPU: new\nprocessor\t: 1\n"),
        ]);
        let open_files = Limit { soft: Some(1024), hard: Some(1_048_576) };
        assert_eq!(system.limit("Max open files"), Some(open_files));
        assert_eq!(system.limit("Max locked memory"), Some(Limit { soft: None, hard: None }));
        assert_eq!(system.limit("Max nothing"), None);
        assert_eq!(system.memory("Slab"), Some(12 * 1024));
        assert_eq!(system.sysctl("net.ipv4.tcp_mem").as_deref(), Some("1 22 333"));
        assert_eq!(system.numbers("net.ipv4.tcp_mem"), [1, 22, 333]);
        assert_eq!(system.numbers("net.ipv4.missing"), [0; 0]);
        assert_eq!(system.cpu_model().as_deref(), Some("A CPU: new"));
        assert_eq!(system.cpu_count(), 2);
    }

    #[test]
    fn this_machine_is_known() {
        let system = System::real();
        assert!(system.limit("Max open files").is_some());
        assert!(system.memory("MemTotal") > Some(0));
        assert!(system.cpu_count() > 0);
    }
}
