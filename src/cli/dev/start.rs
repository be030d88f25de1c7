//! The life of a `larder dev`: its place, its replicas, its greeting, the commands that it takes, its end.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::super::exit::{self, Problem};
use super::operations::Trouble;
use super::place::{Place, PlaceError};
use super::supervisor::{Settings, Supervisor};
use super::{Dev, accounts, control, ports, show};
use crate::server::config::Config;
use crate::server::memory::Kernel;

/// How many bases are tried when any free ports will do and somebody else takes them first.
const ATTEMPTS: usize = 8;

/// What ends it.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

/// Runs it until SIGTERM or an interrupt.
pub fn run(dev: &Dev) -> ExitCode {
    let greatest = ports::greatest_base(dev.replicas);
    if dev.at.base_port > greatest {
        return exit::usage(&format_args!(
            "--base-port is over {greatest}; {} replicas take their ports from it on",
            dev.replicas
        ));
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit::failure(&format_args!("the system gives no runtime: {error}")),
    };
    match runtime.block_on(live(dev)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => problem.exit(),
    }
}

async fn live(dev: &Dev) -> Result<(), Problem> {
    let mut signals = Signals::listen().map_err(|error| Problem::failure(&format_args!("no signals: {error}")))?;
    let capacity = capacity(dev)?;
    let (mut place, supervisor) = tokio::select! {
        begun = begin(dev, capacity) => begun?,
        () = signals.any() => return Ok(()),
    };
    let base_port = supervisor.settings.base_port;
    let listener =
        listen(&place.socket()).map_err(|error| Problem::failure(&format_args!("no socket for commands: {error}")))?;
    tokio::spawn(control::serve(listener, Arc::clone(&supervisor)));
    place
        .announce(base_port)
        .map_err(|error| Problem::failure(&format_args!("cannot write the state file: {error}")))?;
    if let Some(path) = &dev.ready_file {
        say_ready(path, &supervisor).map_err(|error| {
            Problem::failure(&format_args!("cannot write the ready file {}: {error}", path.display()))
        })?;
    }
    // The cluster is of use also when nobody reads this.
    drop(exit::say(&show::welcome(&supervisor.fleet(), base_port, capacity, &place.file(ACCOUNTS))));
    signals.any().await;
    exit::note(&"ending; again to end at once");
    supervisor.end(signals.any()).await;
    if let Some(path) = &dev.ready_file {
        // Whoever removed it before wanted the same.
        let _ = fs::remove_file(path);
    }
    Ok(())
}

/// The accounts file, in the place of a run.
const ACCOUNTS: &str = "accounts.json";

/// Finds the ports and starts the replicas on them.
async fn begin(dev: &Dev, capacity: u64) -> Result<(Place, Arc<Supervisor>), Problem> {
    let mut attempts = if dev.at.base_port == 0 { ATTEMPTS } else { 1 };
    loop {
        attempts -= 1;
        let base_port = match dev.at.base_port {
            0 => ports::free_base(dev.replicas, rand::random())
                .ok_or_else(|| Problem::failure(&"there are no free ports"))?,
            given => given,
        };
        let mut place = match Place::take(dev.at.runtime_dir.as_deref(), base_port) {
            Err(PlaceError::Runs { .. }) if attempts > 0 => continue,
            taken => taken.map_err(|error| Problem::failure(&error))?,
        };
        let supervisor = Supervisor::new(settings(dev, &place, base_port, capacity)?);
        let Err(trouble) = supervisor.begin(dev.replicas).await else { return Ok((place, supervisor)) };
        supervisor.kill_all();
        supervisor.end(std::future::ready(())).await;
        // Somebody took a port between our look and the replica's own.
        let race = matches!(&trouble, Trouble::Taken(_))
            || matches!(&trouble, Trouble::Stillborn { ended, .. } if ended.usage);
        if attempts == 0 || !race {
            let usage = matches!(&trouble, Trouble::Stillborn { ended, .. } if ended.usage);
            if matches!(trouble, Trouble::Stillborn { .. }) {
                place.keep();
            }
            return Err(if usage { Problem::usage(&trouble) } else { Problem::failure(&trouble) });
        }
    }
}

fn settings(dev: &Dev, place: &Place, base_port: u16, capacity: u64) -> Result<Settings, Problem> {
    let accounts = place.file(ACCOUNTS);
    accounts::file()
        .map_err(io::Error::other)
        .and_then(|text| fs::write(&accounts, text))
        .map_err(|error| Problem::failure(&format_args!("cannot write {}: {error}", accounts.display())))?;
    let program = std::env::current_exe()
        .map_err(|error| Problem::failure(&format_args!("this very command is not found: {error}")))?;
    let members_file = place.file("members.json");
    let mut flags = flags(dev, &accounts, capacity);
    // Before it has a file of members, which would want more of its flags to be right.
    let config = Config::from_flags(&flags).map_err(|error| Problem::usage(&error))?;
    config.check().map_err(|error| Problem::usage(&error))?;
    flags.push(format!("--members-file={}", members_file.display()));
    flags.push(format!("--parent={}", std::process::id()));
    Ok(Settings {
        program,
        base_port,
        flags: flags.into_iter().map(OsString::from).collect(),
        members_file,
        directory: place.file(""),
    })
}

/// The flags that all replicas have: defaults, but for an end without delay and logs for people.
fn flags(dev: &Dev, accounts: &Path, capacity: u64) -> Vec<String> {
    [
        ("accounts", accounts.display().to_string()),
        ("capacity", capacity.to_string()),
        ("tutorial-api", (!dev.no_tutorial_api).to_string()),
        ("drain-delay", "0".to_owned()),
        ("linger", "200ms".to_owned()),
        ("log", dev.log.clone()),
        ("log-format", "text".to_owned()),
    ]
    .into_iter()
    .map(|(flag, value)| format!("--{flag}={value}"))
    .collect()
}

/// Of one replica, in bytes.
fn capacity(dev: &Dev) -> Result<u64, Problem> {
    if let Some(capacity) = dev.capacity {
        return Ok(capacity.as_u64());
    }
    let all = Kernel::default().capacity().ok_or_else(|| {
        Problem::usage(&"the memory of this machine is unknown; say with --capacity how much the entries may take")
    })?;
    Ok(all.bytes / u64::from(dev.replicas))
}

fn listen(socket: &PathBuf) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(socket)?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Written to a temporary name and renamed, so that who sees the file sees all of it.
fn say_ready(path: &Path, supervisor: &Supervisor) -> io::Result<()> {
    let fleet = supervisor.fleet();
    let replica = |member: &super::fleet::Member| {
        serde_json::json!({
            "grpc": member.ports.grpc().to_string(),
            "peer": member.ports.peer().to_string(),
            "health": member.ports.health().to_string(),
            "admin": member.ports.admin().to_string(),
            "pid": member.pid,
        })
    };
    let text = serde_json::json!({
        "base_port": supervisor.settings.base_port,
        "pid": std::process::id(),
        "members_file": supervisor.settings.members_file,
        "replicas": fleet.members().iter().map(replica).collect::<Vec<_>>(),
    });
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    fs::write(&temporary, format!("{text}\n"))?;
    fs::rename(&temporary, path)
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next of them.
    async fn any(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
