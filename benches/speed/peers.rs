//! The servers as child processes: started, waited for, ended with the run.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::cpu::{CpuClock, Pinning};
use crate::load::{Protocol, Target};
use crate::noop::Runtime;
use crate::value::Values;

/// How long a server may take to listen.
const START_LIMIT: Duration = Duration::from_secs(10);

/// Who is measured. The order is that of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Larder,
    /// Another build: with `--before`.
    Before,
    /// Larder that records one call in a hundred.
    Traced,
    /// Larder that records every call.
    AllTraced,
    /// Larder whose metrics are sent and scraped every second.
    Measured,
    /// tonic, no-op, same runtime and IO as Larder.
    Bare,
    /// tonic, no-op, as it comes.
    Default,
    Redis,
    Memcached,
}

/// A server that runs. Dropping it ends the process.
#[derive(Debug)]
pub struct Running {
    pub peer: Peer,
    pub target: Target,
    child: Child,
}

impl Peer {
    pub const ALL: [Self; 9] = [
        Self::Larder,
        Self::Before,
        Self::Traced,
        Self::AllTraced,
        Self::Measured,
        Self::Bare,
        Self::Default,
        Self::Redis,
        Self::Memcached,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Larder => "larder",
            Self::Before => "before",
            Self::Traced => "traced 1 %",
            Self::AllTraced => "traced all",
            Self::Measured => "metrics sent",
            Self::Bare => "bare tonic no-op",
            Self::Default => "default tonic no-op",
            Self::Redis => "redis",
            Self::Memcached => "memcached",
        }
    }

    /// The program and the Debian package it is from, for peers that are not ours.
    pub fn foreign(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Redis => Some(("redis-server", "redis-server")),
            Self::Memcached => Some(("memcached", "memcached")),
            _ => None,
        }
    }

    /// Whether the program is there.
    pub fn installed(self) -> bool {
        let Some((program, _)) = self.foreign() else { return true };
        let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        found.is_ok_and(|status| status.success())
    }

    /// Whether it is Larder told otherwise, which takes part only where that is asked for.
    pub fn variant(self) -> bool {
        matches!(self, Self::Before | Self::Traced | Self::AllTraced | Self::Measured)
    }

    /// No-op peers answer one constant value and need a process per size; they are not filled.
    pub fn constant(self) -> bool {
        matches!(self, Self::Bare | Self::Default)
    }
}

impl Running {
    /// Starts a tonic no-op: this same program in its server mode.
    pub fn noop(peer: Peer, threads: usize, values: Values, pinning: Option<&Pinning>) -> Result<Self, String> {
        let runtime = if peer == Peer::Bare { Runtime::PerCore } else { Runtime::Default };
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Pinning::command(pinning, &program.to_string_lossy());
        command.args(["serve", if runtime == Runtime::PerCore { "per-core" } else { "default" }]);
        command.args(["--threads", &threads.to_string(), "--bytes", &values.bytes.to_string()]);
        let mut child = spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()), peer)?;
        let mut line = String::new();
        let output = child.stdout.take().ok_or("the no-op server has no output")?;
        BufReader::new(output).read_line(&mut line).map_err(|error| error.to_string())?;
        let address = line.trim().parse().map_err(|error| format!("{}: {line:?}: {error}", peer.name()))?;
        let protocol = Protocol::Grpc { token: "token-of-nobody-0000000000000000".into(), constant: true };
        Ok(Self::new(peer, address, protocol, child))
    }

    /// Starts Redis or memcached with the same number of threads, without persistence.
    pub fn foreign(peer: Peer, threads: usize, pinning: Option<&Pinning>) -> Result<Self, String> {
        let (program, _) = peer.foreign().ok_or("not a foreign peer")?;
        let address = free_address()?;
        let (port, threads) = (address.port().to_string(), threads.to_string());
        let mut command = Pinning::command(pinning, program);
        let protocol = if peer == Peer::Redis {
            command.args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
            command.args(["--io-threads", &threads]);
            Protocol::Redis
        } else {
            command.args(["-p", &port, "-l", "127.0.0.1", "-U", "0", "-t", &threads, "-m", "256", "-u", "nobody"]);
            Protocol::Memcached
        };
        let child = spawn(command.stdin(Stdio::null()).stdout(Stdio::null()), peer)?;
        let mut running = Self::new(peer, address, protocol, child);
        running.wait_until_it_listens()?;
        Ok(running)
    }

    pub fn new(peer: Peer, address: SocketAddr, protocol: Protocol, child: Child) -> Self {
        let clock = CpuClock { pid: child.id() };
        Self { peer, target: Target { address, protocol, clock }, child }
    }

    /// How the process ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    fn wait_until_it_listens(&mut self) -> Result<(), String> {
        let started = Instant::now();
        while TcpStream::connect(self.target.address).is_err() {
            if let Some(status) = self.ended() {
                return Err(format!("{} ended: {status}", self.peer.name()));
            }
            if started.elapsed() > START_LIMIT {
                return Err(format!("{} did not listen within {} s", self.peer.name(), START_LIMIT.as_secs()));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub fn spawn(command: &mut Command, peer: Peer) -> Result<Child, String> {
    command.spawn().map_err(|error| format!("{} does not start: {error}", peer.name()))
}

/// An address that was free a moment ago, for programs that cannot say which one they chose.
pub fn free_address() -> Result<SocketAddr, String> {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).map_err(|error| error.to_string())
}
