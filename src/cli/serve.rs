//! `larder serve`: one replica in the foreground, until SIGTERM or an interrupt.

mod parent;

use std::process::ExitCode;

use clap::{ArgMatches, Args};

use super::exit;
use crate::server::app;
use crate::server::config::{self, Config, Setting};
use crate::server::{descriptors, telemetry};

/// Run a replica until SIGTERM
#[derive(Args, Debug)]
pub struct Serve {
    #[command(flatten)]
    pub config: Config,

    /// Print the effective configuration as an environment file and end
    #[arg(long)]
    pub print_config: bool,

    /// End with the process of this id, which started this one and holds its standard input
    #[arg(long, value_name = "PID", hide = true)]
    pub parent: Option<i32>,
}

/// Runs it. Bad configuration ends with exit status 64 and a sentence.
#[must_use]
pub fn run(serve: &Serve, matches: &ArgMatches) -> ExitCode {
    let settings = config::effective(matches);
    if serve.print_config {
        for Setting { variable, value } in &settings {
            // As an environment file, an empty value would be a wrong one.
            let unset = if value.is_empty() { "# " } else { "" };
            if let Err(problem) = exit::say(&format_args!("{unset}{variable}={value}")) {
                return problem.exit();
            }
        }
        return ExitCode::SUCCESS;
    }
    if let Some(parent) = serve.parent
        && let Err(error) = parent::follow(parent)
    {
        return exit::failure(&error);
    }
    if let Err(error) = serve.config.check() {
        return exit::usage(&error);
    }
    if let Err(error) = telemetry::init(&serve.config.process) {
        return exit::usage(&error);
    }
    for Setting { variable, value } in &settings {
        tracing::info!(target: "larder::config", variable, value, "setting");
    }
    let mut config = serve.config.clone();
    descriptors::make_room(&mut config);
    match app::run(&config, |_| {}) {
        // Also when calls were cut, which is in the log: the process ended in good order and in time.
        Ok(_) => ExitCode::SUCCESS,
        Err(error) if error.is_configuration() => exit::usage(&error),
        Err(error) => exit::failure(&error),
    }
}
