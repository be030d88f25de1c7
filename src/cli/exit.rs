//! How the command ends: a sentence on standard error, and an exit status that a script can tell apart (sysexits.h).

use std::fmt::Display;
use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::client::{Error, ErrorKind};
use crate::rpc::failure::Failure;

/// The answer is an error, or there is no such key.
pub const FAILURE: u8 = 1;
/// The command line or the configuration is wrong.
pub const USAGE: u8 = 64;
/// No server answers, or it cannot serve now.
const UNAVAILABLE: u8 = 69;

/// A bench was below its planned rate, so that it tested something else: try again.
pub const VOID: u8 = 75;

/// The foot of `larder --help`.
pub const HELP: &str = "Exit status: 0 done; 1 the answer is an error, or there is no such key; 64 the command line or the \
                        configuration is wrong; 69 no server answers, or it cannot serve now; 75 a bench was below its \
                        planned rate, which makes it void.";

/// Why a command ends early: its exit status and its sentence.
#[derive(Debug)]
pub struct Problem {
    status: u8,
    sentence: String,
}

/// Ends because the command line or the configuration is wrong.
pub fn usage(problem: &impl Display) -> ExitCode {
    Problem::usage(problem).exit()
}

/// Ends because something failed.
pub fn failure(problem: &impl Display) -> ExitCode {
    Problem::failure(problem).exit()
}

/// Ends as the parser of the command line says: help and version are no mistakes.
pub fn clap(error: &clap::Error) -> ExitCode {
    // Nothing is left to tell it to when standard error is closed.
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS }
}

/// Writes a line to standard output. `println!` would panic when nobody reads it, or the disk is full.
pub fn say(line: &impl Display) -> Result<(), Problem> {
    writeln!(io::stdout(), "{line}").map_err(|error| Problem::output(&error))
}

/// Writes a line to standard error, if anybody can be told there.
pub fn note(line: &impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

impl Problem {
    pub fn usage(problem: &impl Display) -> Self {
        Self { status: USAGE, sentence: problem.to_string() }
    }

    pub fn failure(problem: &impl Display) -> Self {
        Self { status: FAILURE, sentence: problem.to_string() }
    }

    pub fn unavailable(problem: &impl Display) -> Self {
        Self { status: UNAVAILABLE, sentence: problem.to_string() }
    }

    /// Standard output could not be written. A reader that has gone, like `head`, had what it wanted: there is nothing to say.
    pub fn output(error: &io::Error) -> Self {
        let sentence = match error.kind() {
            io::ErrorKind::BrokenPipe => String::new(),
            _ => format!("cannot write to standard output: {error}"),
        };
        Self { status: FAILURE, sentence }
    }

    /// Says it and ends.
    pub fn exit(&self) -> ExitCode {
        if !self.sentence.is_empty() {
            note(&format_args!("larder: {}", self.sentence));
        }
        ExitCode::from(self.status)
    }
}

impl Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            ErrorKind::Unreachable { .. } => UNAVAILABLE,
            ErrorKind::Answer(failure) if failure.code() == tonic::Code::Unavailable => UNAVAILABLE,
            ErrorKind::Answer(_) | ErrorKind::Full { .. } => FAILURE,
            ErrorKind::NoSeeds | ErrorKind::Channel(_) | ErrorKind::TokenFile { .. } => USAGE,
        };
        Self { status, sentence: format!("{error}{}", hint(&error)) }
    }
}

/// What a person at a terminal can do about it.
fn hint(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::Unreachable { problem, .. } if problem.contains("CaUsedAsEndEntity") => {
            "; the server shows a CA's own certificate: give it one with basicConstraints=CA:FALSE"
        }
        ErrorKind::Unreachable { problem, .. } if problem.contains("peer certificate") => {
            "; name the CA that signed it with --tls-ca, or the host that it is for with --tls-server-name"
        }
        ErrorKind::Unreachable { problem, .. } if problem.contains("before it said anything") => {
            "; what listens there is not a Larder server, or wants TLS (https://, --tls-ca) or a client certificate (--tls-cert)"
        }
        ErrorKind::Unreachable { .. } => {
            "; start one with `larder dev`, or say where it is with --target or LARDER_TARGET (TLS: https:// and --tls-ca)"
        }
        ErrorKind::Answer(Failure::TokenMissing) => "; here: --token, --token-file or LARDER_TOKEN",
        ErrorKind::Answer(Failure::TokenUnknown) => "; check --token, --token-file or LARDER_TOKEN",
        ErrorKind::Answer(Failure::Other { message, .. }) if message.is_empty() => {
            "the server answered with an error and no message; is this its gRPC port?"
        }
        ErrorKind::Answer(Failure::DeadlineExceeded) => "; give it longer with --timeout",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_cannot_serve_is_told_from_an_answer() {
        let status = |failure| Problem::from(Error::from(failure)).status;
        assert_eq!(status(Failure::Draining), UNAVAILABLE);
        assert_eq!(status(Failure::NotFound), FAILURE);
        for (problem, wanted) in [
            ("refused", "larder dev"),
            ("invalid peer certificate: UnknownIssuer", "--tls-ca"),
            ("invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))", "CA:FALSE"),
        ] {
            let target = crate::client::Target::default();
            let problem = Problem::from(Error::from(ErrorKind::Unreachable { target, problem: problem.to_owned() }));
            assert_eq!(problem.status, UNAVAILABLE);
            assert!(problem.sentence.contains(wanted), "{}", problem.sentence);
        }
    }
}
