//! What the operating system knows of this process, under the names that Prometheus' own libraries use. Where there is no
//! `/proc`, less of it.

use std::fs;
use std::time::SystemTime;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::family::{Families, Kind, Value};

pub(super) fn encode(families: &mut Families, began: SystemTime) {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = used.tv_sec as f64 + used.tv_nsec as f64 / 1e9;
    let help = "CPU time of the process, user and system";
    families.single("process_cpu_seconds", help, Kind::Counter, Value::Real(seconds));
    let began = began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let help = "When the process began, in seconds since 1970";
    families.single("process_start_time_seconds", help, Kind::Gauge, Value::Real(began));
    if let Some(bytes) = resident_bytes() {
        let help = "Memory of the process that is in RAM";
        families.single("process_resident_memory_bytes", help, Kind::Gauge, Value::Whole(bytes));
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        let help = "Files and connections that the process has open";
        families.single("process_open_fds", help, Kind::Gauge, Value::Whole(open.count() as u64));
    }
    if let Some(most) = getrlimit(Resource::Nofile).current {
        let help = "Files and connections that it may have open";
        families.single("process_max_fds", help, Kind::Gauge, Value::Whole(most));
    }
}

fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}
