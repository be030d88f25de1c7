//! A `larder dev` of the test's own: free ports, a runtime directory of its own, killed with its replicas at the end.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use larder::cluster::members::{Member, Members};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::time::{Instant, sleep, timeout};

/// How long anything that must happen may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The token of the account that may do everything.
pub const TOKEN: &str = "larder_dev_demo_read_and_write";

/// Whoever measures has the machine alone: another's processes would be in the figures.
static MACHINE: RwLock<()> = RwLock::const_new(());

/// A running one.
pub struct Dev {
    child: Child,
    directory: TempDir,
    pub base_port: u16,
    pub pid: i32,
    members_file: PathBuf,
    _machine: Machine,
}

/// Held as long as processes run.
#[expect(dead_code, reason = "dropping it is its use")]
enum Machine {
    Shared(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

/// What a command said and how it ended.
#[derive(Debug)]
pub struct Said {
    pub status: i32,
    pub out: String,
    pub err: String,
}

/// One line of `larder dev ring`.
#[derive(Debug)]
pub struct Row {
    pub number: u16,
    pub address: String,
    pub state: String,
    pub pid: Option<i32>,
    pub starts: u32,
}

impl Dev {
    /// With so many replicas, all of which serve.
    pub async fn start(replicas: u16) -> Self {
        Self::begin(replicas, Machine::Shared(MACHINE.read().await)).await
    }

    /// The same while no other test has one.
    pub async fn alone(replicas: u16) -> Self {
        Self::begin(replicas, Machine::Alone(MACHINE.write().await)).await
    }

    async fn begin(replicas: u16, machine: Machine) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ready = directory.path().join("ready.json");
        let log = File::create(directory.path().join("log")).unwrap();
        let mut child = larder(directory.path())
            .args(["dev", "--base-port=0", "--capacity=256MiB"])
            .arg(format!("--replicas={replicas}"))
            .arg(format!("--ready-file={}", ready.display()))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id().unwrap()).unwrap();
        let log = directory.path().join("log");
        until("all replicas serve", || {
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "it ended with {ended:?}: {}", fs::read_to_string(&log).unwrap());
            ready.exists()
        })
        .await;
        let said: Value = serde_json::from_slice(&fs::read(&ready).unwrap()).unwrap();
        let base_port = u16::try_from(said["base_port"].as_u64().unwrap()).unwrap();
        Self {
            child,
            base_port,
            pid,
            members_file: said["members_file"].as_str().unwrap().into(),
            directory,
            _machine: machine,
        }
    }

    /// Gives it a command.
    pub async fn run(&self, arguments: &[&str]) -> Said {
        let port = format!("--base-port={}", self.base_port);
        run(self.directory.path(), &[&["dev"], arguments, &[&port]].concat()).await
    }

    /// A command that must succeed; answers its output.
    pub async fn ok(&self, arguments: &[&str]) -> String {
        let said = self.run(arguments).await;
        assert_eq!(said.status, 0, "{arguments:?}: {}{}\n{}", said.out, said.err, self.log());
        said.out
    }

    /// What `larder dev ring` shows.
    pub async fn ring(&self) -> Vec<Row> {
        self.ok(&["ring"]).await.lines().skip(1).map(Row::parse).collect()
    }

    /// The file of members as it is now.
    pub fn members(&self) -> Members {
        Members::parse(&fs::read(&self.members_file).unwrap()).unwrap()
    }

    pub fn members_file(&self) -> &Path {
        &self.members_file
    }

    /// A metric without labels of a replica.
    pub async fn metric(&self, number: u16, name: &str) -> u64 {
        let mut stream = TcpStream::connect(("127.0.0.1", self.base_port + 10 * number + 3)).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut page = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut page)).await.unwrap().unwrap();
        let of = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
        page.lines().find_map(of).unwrap_or_else(|| panic!("no metric {name} in {page}"))
    }

    /// What it and its replicas told the terminal.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    pub fn runtime(&self) -> &Path {
        self.directory.path()
    }

    pub fn signal(&self, signal: Signal) {
        send(self.pid, signal);
    }

    /// Waits for its end; answers the exit status, none if a signal ended it.
    pub async fn ended(&mut self) -> Option<i32> {
        timeout(PATIENCE, self.child.wait()).await.expect("it does not end").unwrap().code()
    }
}

impl Row {
    fn parse(line: &str) -> Self {
        let cells: Vec<&str> = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        let [number, address, state, _, _, _, pid, starts] = cells[..] else { panic!("no row: {line}") };
        Self {
            number: number.parse().unwrap(),
            address: address.to_owned(),
            state: state.to_owned(),
            pid: pid.parse().ok(),
            starts: starts.parse().unwrap(),
        }
    }
}

/// Runs the command with a runtime directory.
pub async fn run(runtime: &Path, arguments: &[&str]) -> Said {
    let output =
        timeout(2 * PATIENCE, larder(runtime).args(arguments).output()).await.expect("it does not end").unwrap();
    Said {
        status: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

pub fn larder(runtime: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_larder"));
    command.env_clear().env("XDG_RUNTIME_DIR", runtime).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Whether the source lists it as one that serves.
pub fn serves(member: &Member) -> bool {
    member.serving == Some(true) && member.terminating == Some(false)
}

pub fn send(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// Whether there is such a process, running or not.
pub fn lives(pid: i32) -> bool {
    test_kill_process(Pid::from_raw(pid).unwrap()).is_ok()
}

/// Waits, in bounded time, until something is so.
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < end, "it did not happen: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}
