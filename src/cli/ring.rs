//! `larder ring`: who owns a route, computed here and now; no server is asked. For people who wonder where a key is, and for
//! scripts that compare.

use std::io::{self, BufRead as _, BufWriter, Write as _};
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Args;

use super::exit;
use crate::ring::Ring;

/// Say which member of a ring owns a route
#[derive(Args, Debug)]
#[command(
    after_help = "Prints route, hash, owner and successor, separated by tabs. A route is ACCOUNT/KEY, the key's bytes outside \
                        0x20..0x7E and `%` percent-encoded."
)]
pub struct RingCommand {
    /// Addresses of all members, like 10.0.0.1:7070,[fd00::2]:7070
    #[arg(long, value_name = "A,B,…", value_delimiter = ',', required = true)]
    pub members: Vec<SocketAddr>,

    /// Routes; `-` reads them from standard input, one a line
    #[arg(value_name = "ROUTE", required = true)]
    pub routes: Vec<String>,
}

impl RingCommand {
    pub(super) fn run(&self) -> ExitCode {
        match self.print() {
            Ok(()) => ExitCode::SUCCESS,
            // Whoever reads has enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Err(error) => exit::failure(&format!("cannot read the routes or print the answer: {error}")),
        }
    }

    fn print(&self) -> io::Result<()> {
        let ring = Ring::new(self.members.iter().map(ToString::to_string));
        let mut out = BufWriter::new(io::stdout().lock());
        for route in &self.routes {
            if route == "-" {
                for line in io::stdin().lock().lines() {
                    writeln!(out, "{}", ring.placement(&line?))?;
                }
            } else {
                writeln!(out, "{}", ring.placement(route))?;
            }
        }
        out.flush()
    }
}
