//! One `larder serve` process of a `larder dev`: its flags, its log, its end.
//!
//! What a child writes goes to a file of its replica; what is a warning or worse, or no line of a log at all, also to the
//! terminal, with the replica's name. A child notices when its supervisor is gone, however that ended: see
//! `src/cli/serve/parent.rs`. It is in a process group of its own, so that a Ctrl-C is the supervisor's to act on.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, Command};
use tokio::task::JoinHandle;

use super::super::exit;
use super::fleet::Ended;

/// Of the log of one replica; the part before it is kept in a second file.
const MAX_LOG_BYTES: u64 = 16 * 1024 * 1024;

/// Of one line; a longer one becomes several.
const MAX_LINE_BYTES: u64 = 64 * 1024;

/// Levels of the lines that the terminal does without.
const QUIET: [&str; 3] = ["TRACE", "DEBUG", "INFO"];

/// A running process. Dropped, it is killed.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// The end of which is the end of this process, for the child.
    _input: Option<ChildStdin>,
    /// Ends with the process, and answers the last line.
    log: JoinHandle<String>,
}

/// The file that a replica's log goes to.
struct Log {
    path: PathBuf,
    file: Option<File>,
    bytes: u64,
}

impl Process {
    /// Starts a replica; `name` is how people call it, `heard` whether they want to hear of it.
    pub fn start(
        program: &Path,
        flags: &[OsString],
        name: String,
        log: PathBuf,
        heard: Arc<AtomicBool>,
    ) -> io::Result<Self> {
        let mut child = Command::new(program)
            .arg("serve")
            .args(flags)
            // Variables of a `larder serve` beside it do not count here.
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| !name.to_string_lossy().starts_with("LARDER_")))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let lines = child.stderr.take().ok_or_else(|| io::Error::other("the process has no standard error"))?;
        // Waiting for the child would close it.
        let input = child.stdin.take();
        Ok(Self { child, _input: input, log: tokio::spawn(copy(lines, name, Log::open(log), heard)) })
    }

    pub fn pid(&self) -> Option<i32> {
        self.child.id().and_then(|pid| i32::try_from(pid).ok())
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> Ended {
        // The log ends with the process. Only then is that waited for: until it is, its id is no other's.
        let said = (&mut self.log).await.unwrap_or_default();
        let how = match self.child.wait().await {
            Ok(status) => status,
            Err(error) => return Ended { how: error.to_string(), usage: false, said },
        };
        Ended { how: told(how), usage: how.code() == Some(i32::from(exit::USAGE)), said }
    }
}

/// Sends a signal to a child that has not been waited for, so the process is it.
pub fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // One that ended a moment ago needs no signal.
        let _ = kill_process(pid, signal);
    }
}

fn told(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "no status".to_owned(),
    }
}

/// Copies lines until the process ends. Answers the last.
async fn copy(from: ChildStderr, name: String, mut log: Log, heard: Arc<AtomicBool>) -> String {
    let mut from = BufReader::new(from);
    let mut last = String::new();
    let mut line = Vec::new();
    while let Ok(read) = (&mut from).take(MAX_LINE_BYTES).read_until(b'\n', &mut line).await
        && read > 0
    {
        log.add(&line);
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        if heard.load(Ordering::Relaxed)
            && let Some(told) = for_the_terminal(&text)
        {
            exit::note(&format_args!("{name}: {told}"));
        }
        last = text;
        line.clear();
    }
    last
}

/// What a person at the terminal should see of a line, without its time.
fn for_the_terminal(line: &str) -> Option<&str> {
    let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
    let rest = rest.trim_start();
    let level = rest.split(' ').next().unwrap_or_default();
    if first.ends_with('Z') && QUIET.contains(&level) {
        return None;
    }
    if first.ends_with('Z') { Some(rest) } else { Some(line) }
}

impl Log {
    fn open(path: PathBuf) -> Self {
        let file = File::options().create(true).append(true).open(&path).ok();
        let bytes = file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |its| its.len());
        Self { path, file, bytes }
    }

    /// A log that cannot be written does not end the replica.
    fn add(&mut self, line: &[u8]) {
        if self.bytes >= MAX_LOG_BYTES && fs::rename(&self.path, self.path.with_extension("log.before")).is_ok() {
            *self = Self::open(std::mem::take(&mut self.path));
        }
        if let Some(file) = &mut self.file
            && file.write_all(line).is_ok()
        {
            self.bytes += line.len() as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_terminal_gets_warnings_and_what_is_no_log() {
        assert_eq!(for_the_terminal("2026-11-23T20:33:50.1Z  INFO larder: serving"), None);
        assert_eq!(for_the_terminal("2026-11-23T20:33:50.1Z  WARN larder: late"), Some("WARN larder: late"));
        assert_eq!(for_the_terminal("thread 'main' panicked at x"), Some("thread 'main' panicked at x"));
    }

    #[test]
    fn a_log_begins_anew_when_it_is_large() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("replica-0.log");
        let mut log = Log::open(path.clone());
        log.add(b"before\n");
        log.bytes = MAX_LOG_BYTES;
        log.add(b"after\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "after\n");
        assert_eq!(fs::read_to_string(path.with_extension("log.before")).unwrap(), "before\n");
    }
}
