//! How much memory this process may have: the limit of its cgroup (v1 or v2), or the machine.
//!
//! The limit in force is the smallest on the way from the process's own group up to the root, since a pod's limit stands
//! above the container's. Read again by the caller: limits change while containers run.

use std::fs;
use std::path::{Path, PathBuf};

/// What of the container's limit the entries may take. The rest is for connections, buffers and the allocator.
const CONTAINER_PERCENT: u64 = 75;

/// What of the machine, where nothing limits the process.
const MACHINE_PERCENT: u64 = 25;

/// cgroup v1 says "no limit" as the greatest page-aligned i64; anything from here up is meant so.
const NO_LIMIT: u64 = 1 << 60;

/// A capacity and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    pub bytes: u64,
    pub source: Source,
}

/// What a capacity was derived from; the number is the whole, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// 75 % of the container's limit.
    Container(u64),
    /// 25 % of the machine's memory, as there is no limit.
    Machine(u64),
}

/// Where the kernel's files are; another root in tests.
#[derive(Clone, Debug)]
pub struct Kernel {
    root: PathBuf,
}

impl Default for Kernel {
    fn default() -> Self {
        Self { root: PathBuf::from("/") }
    }
}

impl Kernel {
    /// Reads the kernel's files below another root.
    #[must_use]
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The capacity for entries; `None` when the kernel says nothing (not Linux).
    #[must_use]
    pub fn capacity(&self) -> Option<Capacity> {
        let machine = self.machine();
        match (self.container_limit(), machine) {
            (Some(limit), _) if machine.is_none_or(|machine| limit < machine) => {
                Some(Capacity { bytes: percent(limit, CONTAINER_PERCENT), source: Source::Container(limit) })
            }
            (_, Some(machine)) => {
                Some(Capacity { bytes: percent(machine, MACHINE_PERCENT), source: Source::Machine(machine) })
            }
            (_, None) => None,
        }
    }

    fn machine(&self) -> Option<u64> {
        let text = fs::read_to_string(self.root.join("proc/meminfo")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
    }

    fn container_limit(&self) -> Option<u64> {
        let groups = fs::read_to_string(self.root.join("proc/self/cgroup")).unwrap_or_default();
        let v2 = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
        let v1 = groups.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            controllers.split(',').any(|name| name == "memory").then_some(path)
        });
        let unified = self.smallest("sys/fs/cgroup", v2, "memory.max");
        let legacy = self.smallest("sys/fs/cgroup/memory", v1.unwrap_or("/"), "memory.limit_in_bytes");
        unified.into_iter().chain(legacy).min()
    }

    /// The smallest limit from `group` up to the mount. In a container the group's path is often the host's, which is not
    /// there; the mount itself then is the container's own group.
    fn smallest(&self, mount: &str, group: &str, file: &str) -> Option<u64> {
        let mount = self.root.join(mount);
        Path::new(group.trim_start_matches('/'))
            .ancestors()
            .filter_map(|level| fs::read_to_string(mount.join(level).join(file)).ok())
            .filter_map(|text| text.trim().parse::<u64>().ok())
            .filter(|limit| *limit < NO_LIMIT)
            .min()
    }
}

fn percent(whole: u64, share: u64) -> u64 {
    whole / 100 * share
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    /// Path and content of each.
    type Files<'a> = &'a [(&'a str, &'a str)];

    fn kernel(files: Files<'_>) -> (tempfile::TempDir, Kernel) {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let kernel = Kernel::below(root.path());
        (root, kernel)
    }

    #[test]
    fn the_capacity_is_75_percent_of_the_smallest_limit_or_25_percent_of_the_machine() {
        const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:        8192000 kB\nMemFree: 1 kB\n");
        let container = |mib: u64| Some(Source::Container(mib * MIB));
        let machine = Some(Source::Machine(8_192_000 * 1024));
        let cases: [(&str, Files<'_>, Option<Source>); 7] = [
            (
                "v2",
                &[MEMINFO, ("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "268435456\n")],
                container(256),
            ),
            (
                "v2 without a limit",
                &[MEMINFO, ("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "max\n")],
                machine,
            ),
            (
                "v2, the pod's limit above the container's group",
                &[
                    MEMINFO,
                    ("proc/self/cgroup", "0::/pod/box\n"),
                    ("sys/fs/cgroup/pod/memory.max", "134217728\n"),
                    ("sys/fs/cgroup/pod/box/memory.max", "268435456\n"),
                ],
                container(128),
            ),
            (
                "v1, with the host's path in the group file",
                &[
                    MEMINFO,
                    ("proc/self/cgroup", "9:cpu,cpuacct:/x\n5:memory:/kubepods/p/c\n"),
                    ("sys/fs/cgroup/memory/memory.limit_in_bytes", "536870912\n"),
                ],
                container(512),
            ),
            (
                "v1 without a limit",
                &[
                    MEMINFO,
                    ("proc/self/cgroup", "5:memory:/\n"),
                    ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
                ],
                machine,
            ),
            ("a limit over the machine", &[MEMINFO, ("sys/fs/cgroup/memory.max", "99999999999999\n")], machine),
            ("no kernel files at all", &[], None),
        ];
        for (name, files, source) in cases {
            let (_root, kernel) = kernel(files);
            assert_eq!(kernel.capacity().map(|capacity| capacity.source), source, "{name}");
        }
        let (_root, kernel) = kernel(&[("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "268435456\n")]);
        assert_eq!(kernel.capacity().map(|capacity| capacity.bytes), Some(268_435_456 / 100 * 75));
    }
}
