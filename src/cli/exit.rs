//! How the command ends: exit statuses as `sysexits.h` numbers them, and a sentence on standard error.

use std::fmt::Display;
use std::process::ExitCode;

/// The command was called wrongly, or its configuration cannot work.
const USAGE: u8 = 64;

/// What clap says: help and version are no mistakes.
pub(super) fn clap(error: &clap::Error) -> ExitCode {
    // Nothing is left to be told if standard error is closed.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS }
}

/// A mistake of the caller's.
pub(super) fn usage(error: &impl Display) -> ExitCode {
    eprintln!("larder: {error}");
    ExitCode::from(USAGE)
}

/// It did not work.
pub(super) fn failure(error: &impl Display) -> ExitCode {
    eprintln!("larder: {error}");
    ExitCode::FAILURE
}
