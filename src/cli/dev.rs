//! `larder dev`: a replica on loopback with ready-made accounts, and lines to paste. For trying out and for tests of
//! programs that use Larder; its tokens are public, so it never listens beyond loopback.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, io};

use bytesize::ByteSize;
use clap::Args;

use super::exit;
use crate::cache::key::{AccountId, AccountIdError};
use crate::server::accounts::file::{Access, File, FileAccount, FileToken};
use crate::server::accounts::hash::Digest;
use crate::server::app::{self, Addresses, AppError};
use crate::server::config::Config;
use crate::server::telemetry;

/// Run a replica on loopback with ready-made accounts
#[derive(Args, Debug)]
pub struct Dev {
    /// gRPC on P, health on P+2, admin on P+3; 0 takes free ports
    #[arg(long, env = "LARDER_BASE_PORT", default_value_t = 7070, value_name = "P")]
    pub base_port: u16,

    /// Memory for entries; default: 25 % of the machine, or 75 % of the container's limit
    #[arg(long, value_name = "BYTES")]
    pub capacity: Option<ByteSize>,

    /// What is logged, see `larder serve --help`
    #[arg(long, env = "LARDER_LOG", default_value = "warn", value_name = "FILTER")]
    pub log: String,

    /// Do not serve the tutorial's API (package `rpc`)
    #[arg(long)]
    pub no_tutorial_api: bool,

    /// File that receives the addresses as JSON once the replica serves
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
}

/// A ready-made account. The tokens are no secrets.
struct Ready {
    id: &'static str,
    token: &'static str,
    access: Access,
    max_cache_keys: u64,
    what_for: &'static str,
}

/// The accounts of `larder dev`; documented in the README, so these do not change.
const READY: [Ready; 3] = [
    Ready {
        id: "demo",
        token: "larder_dev_demo_read_and_write",
        access: Access::ReadWrite,
        max_cache_keys: 0,
        what_for: "reads and writes, no limits",
    },
    Ready {
        id: "demo",
        token: "larder_dev_demo_read_only",
        access: Access::ReadOnly,
        max_cache_keys: 0,
        what_for: "reads what the one above wrote",
    },
    Ready {
        id: "small",
        token: "larder_dev_small",
        access: Access::ReadWrite,
        max_cache_keys: 10,
        what_for: "has room for 10 keys, to see a quota",
    },
];

/// Ports that a replica takes, counted from its base port: gRPC, peers (not yet), health, admin.
const PORTS: u16 = 4;

/// Runs it until an interrupt.
#[must_use]
pub fn run(dev: &Dev) -> ExitCode {
    if dev.base_port != 0 && dev.base_port.checked_add(PORTS - 1).is_none() {
        return exit::usage(&format!(
            "--base-port is over {}; a replica takes {PORTS} ports from it on",
            u16::MAX - PORTS + 1
        ));
    }
    let directory = match tempfile::Builder::new().prefix("larder-dev-").tempdir() {
        Ok(directory) => directory,
        Err(error) => return exit::failure(&format!("no temporary directory for the accounts file: {error}")),
    };
    let accounts = directory.path().join("accounts.json");
    let written = accounts_file().map_err(io::Error::other).and_then(|text| fs::write(&accounts, text));
    if let Err(error) = written {
        return exit::failure(&format!("cannot write {}: {error}", accounts.display()));
    }
    let config = match config(dev, &accounts) {
        Ok(config) => config,
        Err(error) => return exit::usage(&error),
    };
    if let Err(error) = config.check() {
        return exit::usage(&error);
    }
    if let Err(error) = telemetry::init(&config.process) {
        return exit::usage(&error);
    }
    // The replica is of use also when nobody reads this.
    let greet = |addresses: &Addresses| drop(exit::say(&welcome(addresses, &accounts)));
    match app::run(&config, greet) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => exit::failure(&explain(&error)),
    }
}

/// What went wrong, in terms of the flags that `larder dev` has.
fn explain(error: &AppError) -> String {
    match error {
        AppError::Bind { address, source, .. } => {
            format!("cannot listen on {address}: {source}; choose other ports with --base-port")
        }
        other => other.to_string(),
    }
}

/// The replica's configuration: defaults, but for loopback, free shutdown and text logs. `LARDER_*` variables of a
/// `larder serve` beside it do not count here, so that a shell prepared for one does not change the other.
fn config(dev: &Dev, accounts: &Path) -> Result<Config, String> {
    let port = |offset: u16| if dev.base_port == 0 { 0 } else { dev.base_port + offset };
    let mut flags: Vec<String> = [
        ("listen", format!("127.0.0.1:{}", port(0))),
        ("health-listen", format!("127.0.0.1:{}", port(2))),
        ("admin-listen", format!("127.0.0.1:{}", port(3))),
        ("accounts", accounts.display().to_string()),
        ("tutorial-api", (!dev.no_tutorial_api).to_string()),
        ("drain-delay", "0".to_owned()),
        ("drain-timeout", "5s".to_owned()),
        ("log", dev.log.clone()),
        ("log-format", "text".to_owned()),
    ]
    .into_iter()
    .map(|(flag, value)| format!("--{flag}={value}"))
    .collect();
    if let Some(capacity) = dev.capacity {
        flags.push(format!("--capacity={}", capacity.as_u64()));
    }
    if let Some(file) = &dev.ready_file {
        flags.push(format!("--ready-file={}", file.display()));
    }
    Config::from_flags(flags).map_err(|error| error.to_string())
}

fn accounts_file() -> Result<String, AccountIdError> {
    let mut file = File::default();
    for ready in &READY {
        let id = AccountId::new(ready.id)?;
        let token = FileToken { hash: Digest::of(ready.token), access: ready.access };
        match file.accounts.iter_mut().find(|account| account.id == id) {
            Some(account) => account.tokens.push(token),
            None => file.accounts.push(FileAccount {
                tokens: vec![token],
                max_cache_keys: ready.max_cache_keys,
                ..FileAccount::new(id)
            }),
        }
    }
    // Only maps with keys that are no text fail, and there are none.
    Ok(serde_json::to_string_pretty(&file).unwrap_or_default())
}

/// What a person sees who started it.
fn welcome(addresses: &Addresses, accounts: &Path) -> String {
    let Addresses { grpc, health, admin } = addresses;
    let mut text = format!(
        "larder dev: one replica on loopback; its tokens are public, so keep no secrets in it\n\n\
         \x20 gRPC     {grpc}   larder.v1, the tutorial's rpc, health, reflection\n\
         \x20 health   {health}   gRPC health for probes\n\
         \x20 admin    http://{admin}/metrics\n\
         \x20 accounts {}   edit it, it is read again\n\n  tokens\n",
        accounts.display()
    );
    for Ready { token, id, what_for, .. } in &READY {
        let _ = writeln!(text, "    {token:<32} {id:<6} {what_for}");
    }
    let command = command();
    let _ = write!(
        text,
        "\npaste into another shell:\n\n\
         \x20 export LARDER_TARGET={} LARDER_TOKEN={}\n\
         \x20 {command} store greeting 'hello, larder'\n\
         \x20 {command} get greeting\n\
         \x20 {command} stats\n\n\
         Ctrl-C ends it; what it holds is gone then.",
        grpc, READY[0].token
    );
    text
}

/// The command as a shell finds it.
fn command() -> String {
    std::env::args().next().filter(|name| !name.is_empty()).unwrap_or_else(|| "larder".to_owned())
}
