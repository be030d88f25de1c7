//! `larder dev`: a cluster on loopback with ready-made accounts, and lines to paste. For trying out and for tests of
//! programs that use Larder; its tokens are public, so it never listens beyond loopback.
//!
//! Its replicas are processes of their own, as pods would be; it supervises them and is no replica itself. `larder dev
//! scale`, `restart`, `kill` and `ring` are commands to the one that runs.

mod accounts;
mod child;
mod control;
mod fleet;
mod members;
mod operations;
mod place;
mod ports;
mod running;
mod show;
mod start;
mod supervisor;

use std::path::PathBuf;
use std::process::ExitCode;

use bytesize::ByteSize;
use clap::{Args, Subcommand};

use super::connect;
use operations::MAX_REPLICAS;
use running::{Kill, Restart, RingOf, Scale};

/// Where people look for it.
const DEFAULT_BASE_PORT: u16 = 7070;

/// Run a cluster on loopback with ready-made accounts, or change the one that runs
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_help_heading = "Commands to the one that runs")]
pub struct Dev {
    #[command(subcommand)]
    pub command: Option<Running>,

    #[command(flatten)]
    pub at: At,

    /// Replicas, each a process of its own
    #[arg(long, env = "LARDER_REPLICAS", default_value_t = 3, value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_REPLICAS)))]
    pub replicas: u16,

    /// Memory for entries of each replica; default: 25 % of the machine, or 75 % of the container's limit, divided by N
    #[arg(long, value_name = "BYTES")]
    pub capacity: Option<ByteSize>,

    /// What the replicas log to their files, see `larder serve --help`; warnings are shown here too
    #[arg(long, env = "LARDER_LOG", default_value = "info,larder::access=warn", value_name = "FILTER")]
    pub log: String,

    /// Do not serve the tutorial's API (package `rpc`)
    #[arg(long)]
    pub no_tutorial_api: bool,

    /// File that receives the addresses as JSON once all replicas serve
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
}

/// Which `larder dev`.
#[derive(Args, Clone, Debug)]
pub struct At {
    /// Replica k has gRPC on P+10k, peers on the port after it, health and admin on the next two; 0 finds free ports
    #[arg(long, env = "LARDER_BASE_PORT", default_value_t = DEFAULT_BASE_PORT, value_name = "P")]
    pub base_port: u16,

    /// Where the state of running programs is kept; default: the temporary directory
    #[arg(long, env = "XDG_RUNTIME_DIR", value_name = "DIR")]
    pub runtime_dir: Option<PathBuf>,
}

/// Commands to the one that runs.
#[derive(Debug, Subcommand)]
pub enum Running {
    Scale(Scale),
    Restart(Restart),
    Kill(Kill),
    Ring(RingOf),
}

impl Dev {
    /// Runs it until an interrupt, or gives a running one a command.
    pub fn run(self) -> ExitCode {
        match self.command {
            None => start::run(&self),
            Some(Running::Scale(scale)) => connect::run(scale.run()),
            Some(Running::Restart(restart)) => connect::run(restart.run()),
            Some(Running::Kill(kill)) => connect::run(kill.run()),
            Some(Running::Ring(ring)) => connect::run(ring.run()),
        }
    }
}
