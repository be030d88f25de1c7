//! The CPU time of another process, and who runs on which core.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

/// `/proc/<pid>/stat` counts in hundredths of a second on every architecture that Linux runs this on.
const TICK: Duration = Duration::from_millis(10);

/// Reads user and system time of a process, over all its threads.
#[derive(Clone, Copy, Debug)]
pub struct CpuClock {
    pub pid: u32,
}

/// Which cores the servers and the load generator get. Absent on a machine with fewer cores than that takes, without
/// `taskset`, or when asked not to pin.
#[derive(Clone, Debug)]
pub struct Pinning {
    pub servers: String,
    pub generator: String,
}

impl CpuClock {
    /// The sum since the process began, to 10 ms.
    pub fn read(self) -> Result<Duration, String> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid))
            .map_err(|error| format!("the server (process {}) is gone: {error}", self.pid))?;
        // The name, in parentheses, may hold anything; fields are counted from behind it (proc(5): utime 14, stime 15).
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        let ticks = after_name.split_whitespace().skip(11).take(2).map(str::parse::<u32>);
        let ticks: u32 = ticks.sum::<Result<_, _>>().map_err(|error| format!("/proc/{}/stat: {error}", self.pid))?;
        Ok(TICK * ticks)
    }
}

impl Pinning {
    /// The first cores for the servers, which take turns, and the others for the load generator.
    pub fn new(server_threads: usize) -> Option<Self> {
        let cores = thread::available_parallelism().ok()?.get();
        let works = Command::new("taskset").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if cores < server_threads + 1 || !works.is_ok_and(|status| status.success()) {
            return None;
        }
        let range = |from: usize, to: usize| format!("{from}-{}", to - 1);
        Some(Self { servers: range(0, server_threads), generator: range(server_threads, cores) })
    }

    /// Moves this process, and the threads it will start, to the load generator's cores.
    pub fn apply_to_self(&self) -> Result<(), String> {
        let pid = std::process::id().to_string();
        let status = Command::new("taskset").args(["-cp", &self.generator, &pid]).stdout(Stdio::null()).status();
        match status {
            Ok(status) if status.success() => Ok(()),
            other => Err(format!("taskset -cp {} {pid}: {other:?}; try --no-pin", self.generator)),
        }
    }

    /// A command for a program on the servers' cores. taskset replaces itself, so the child's process id is the program's.
    pub fn command(pinning: Option<&Self>, program: &str) -> Command {
        match pinning {
            Some(pinning) => {
                let mut command = Command::new("taskset");
                command.args(["-c", &pinning.servers, program]);
                command
            }
            None => Command::new(program),
        }
    }
}
