//! The `larder` command: one file per subcommand.

mod dev;
mod exit;
mod serve;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

/// A multi-tenant cache that speaks gRPC and lives in Kubernetes
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<serve::Serve>),
    Dev(dev::Dev),
}

/// Runs the command line of this process.
#[must_use]
pub fn run() -> ExitCode {
    let parsed = Cli::command().try_get_matches().and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, matches)));
    let (cli, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return exit::clap(&error),
    };
    let its = matches.subcommand().map_or(&matches, |(_, its)| its);
    match &cli.command {
        Command::Serve(serve) => serve::run(serve, its),
        Command::Dev(dev) => dev::run(dev),
    }
}
