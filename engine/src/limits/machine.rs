//! How much memory this process may have: what the machine has, or less where a cgroup or a limit of the process says
//! so.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit};

/// What is left of a limit, at least: the budget of a process that has next to none is small, not unlimited.
const MIN_LEFT_LEN: usize = 2 << 20;

/// In bytes. `None`: nothing says.
pub(crate) fn memory() -> Option<usize> {
    let data = left(Resource::Data, "VmData:");
    memory_under(Path::new("/")).into_iter().chain(address_space()).chain(data).min()
}

/// What is left of the address space, in bytes, where it is limited.
pub(crate) fn address_space() -> Option<usize> {
    left(Resource::As, "VmSize:")
}

fn left(resource: Resource, used: &str) -> Option<usize> {
    let limit = usize::try_from(getrlimit(resource).current?).ok()?;
    left_of(limit, field_of(&fs::read_to_string("/proc/self/status").ok()?, used))
}

/// What is left of a limit of setrlimit(2), which counts what is mapped, not what is resident.
fn left_of(limit: usize, used: Option<usize>) -> Option<usize> {
    Some(limit.saturating_sub(used?).max(MIN_LEFT_LEN))
}

fn memory_under(root: &Path) -> Option<usize> {
    let physical = fs::read_to_string(root.join("proc/meminfo")).ok();
    let physical = physical.and_then(|text| field_of(&text, "MemTotal:"));
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    groups.lines().filter_map(|line| limit_of(root, line)).chain(physical).min()
}

/// A field of proc_meminfo(5) or proc_pid_status(5), which is in KiB.
fn field_of(text: &str, name: &str) -> Option<usize> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
}

/// The lowest limit of a group and those around it; `line` is one of cgroups(7)'s `/proc/[pid]/cgroup`.
fn limit_of(root: &Path, line: &str) -> Option<usize> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?.trim_start_matches('/'));
    let (mount, file) = match controllers {
        "" => ("sys/fs/cgroup", "memory.max"),
        _ if controllers.split(',').any(|name| name == "memory") => {
            ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
        }
        _ => return None,
    };
    let mount = root.join(mount);
    let group = mount.join(path);
    let around = group.ancestors().take_while(|group| group.starts_with(&mount));
    // "max" is no number: no limit here.
    let limits = around.map(|group: &Path| -> PathBuf { group.join(file) });
    limits.filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    const MEMINFO: (&str, &str) =
        ("proc/meminfo", "MemTotal:        2048 kB\nMemFree:          100 kB\n");

    #[test]
    fn the_machine_has_what_meminfo_says() {
        let bare = root(&[MEMINFO]);
        assert_eq!(memory_under(bare.path()), Some(2 << 20));
        assert_eq!(memory_under(root(&[]).path()), None);
        assert!(memory().is_some_and(|len| len > 64 << 20));
    }

    #[test]
    fn a_group_has_the_lowest_limit_of_those_around_it() {
        let version_2 = root(&[
            MEMINFO,
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/memory.max", "1000000\n"),
            ("sys/fs/cgroup/a/b/memory.max", "max\n"),
        ]);
        assert_eq!(memory_under(version_2.path()), Some(1_000_000));
        let contained = root(&[
            MEMINFO,
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/memory.max", "1500000\n"),
        ]);
        assert_eq!(memory_under(contained.path()), Some(1_500_000));
        let version_1 = root(&[
            MEMINFO,
            ("proc/self/cgroup", "3:cpu,cpuacct:/x\n7:memory:/x\n"),
            ("sys/fs/cgroup/cpu/x/memory.limit_in_bytes", "1\n"),
            ("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "1200000\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        assert_eq!(memory_under(version_1.path()), Some(1_200_000));
    }

    #[test]
    fn a_limit_beyond_the_machine_is_none() {
        let generous = root(&[
            MEMINFO,
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/memory.max", "1500000000\n"),
        ]);
        assert_eq!(memory_under(generous.path()), Some(2 << 20));
    }

    #[test]
    fn an_address_space_has_what_is_not_mapped_yet() {
        let status = "Name:\techo\nVmPeak:\t  90000 kB\nVmSize:\t   81920 kB\n";
        assert_eq!(field_of(status, "VmSize:"), Some(80 << 20));
        assert_eq!(left_of(150 << 20, Some(80 << 20)), Some(70 << 20));
        assert_eq!(left_of(70 << 20, Some(80 << 20)), Some(MIN_LEFT_LEN));
        assert_eq!(left_of(70 << 20, None), None);
    }
}
