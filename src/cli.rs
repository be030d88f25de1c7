//! The command `larder`: what its parts are called and how it ends. Each subcommand is a file of its own; a new one is a line
//! in `Command` and a line in `Command::run`.
//!
//! The commands that talk to a server are built on [`crate::client`] and on nothing else.

use std::process::ExitCode;

use clap::builder::Resettable;
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

mod account;
mod bench;
mod connect;
mod delete;
mod dev;
mod dump;
mod exit;
mod get;
mod health;
mod incr;
mod load;
mod ndjson;
mod progress;
mod ring;
mod serve;
mod stats;
mod store;
mod touch;

/// A multi-tenant cache that speaks gRPC and lives in Kubernetes
#[derive(Debug, Parser)]
#[command(name = "larder", version, arg_required_else_help = true, after_help = exit::HELP)]
struct Larder {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<serve::Serve>),
    Dev(Box<dev::Dev>),
    Account(account::Account),
    Get(get::Get),
    Store(store::Store),
    Delete(delete::Delete),
    Touch(touch::Touch),
    Incr(incr::Incr),
    Load(load::Load),
    Dump(dump::Dump),
    Stats(stats::Stats),
    Health(health::Health),
    Ring(ring::RingCommand),
    Bench(Box<bench::Bench>),
}

/// Parses the command line and does what it says.
#[must_use]
pub fn run() -> ExitCode {
    let parsed = command().try_get_matches().and_then(|matches| {
        let larder = Larder::from_arg_matches(&matches)?;
        Ok((larder.command, matches))
    });
    match parsed {
        Ok((command, matches)) => command.run(matches.subcommand().map_or(&matches, |(_, own)| own)),
        Err(error) => exit::clap(&error),
    }
}

/// The command line, for which a variable that is empty is one that is not set: charts and shells leave such behind.
fn command() -> clap::Command {
    Larder::command().mut_subcommands(without_empty_variables)
}

fn without_empty_variables(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|arg| if has_empty_variable(&arg) { arg.env(Resettable::Reset) } else { arg });
    command.mut_subcommands(without_empty_variables)
}

#[expect(clippy::disallowed_methods, reason = "clap reads the environment; this only looks at what it would read")]
fn has_empty_variable(arg: &clap::Arg) -> bool {
    arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty())
}

impl Command {
    /// `matches` are the subcommand's own: where each value came from.
    fn run(self, matches: &ArgMatches) -> ExitCode {
        match self {
            Self::Serve(serve) => serve::run(&serve, matches),
            Self::Dev(dev) => dev.run(),
            Self::Account(account) => account.run(),
            Self::Get(get) => connect::run(get.run()),
            Self::Store(store) => connect::run(store.run()),
            Self::Delete(delete) => connect::run(delete.run()),
            Self::Touch(touch) => connect::run(touch.run()),
            Self::Incr(incr) => connect::run(incr.run()),
            Self::Load(load) => connect::run(load.run()),
            Self::Dump(dump) => connect::run(dump.run()),
            Self::Stats(stats) => connect::run(stats.run()),
            Self::Health(health) => connect::run(health.run()),
            Self::Ring(ring) => ring.run(),
            Self::Bench(bench) => bench.run(),
        }
    }
}

#[cfg(test)]
mod tests;
