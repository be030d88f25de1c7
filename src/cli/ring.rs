//! `larder ring`: who the members are, and who owns what. Asks a cluster; or computes here and now, of members that are named,
//! for people who wonder where a key would be, and for scripts that compare.

use std::io::{self, BufRead as _, BufWriter, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Args;

use super::connect::{self, Connect};
use super::exit::{self, Problem};
use crate::cache::key::{AccountId, Key};
use crate::cache::route::route;
use crate::client::Topology;
use crate::ring::Ring;

/// Show the members of a cluster and their shares, or who owns a key
#[derive(Args, Debug)]
#[command(
    after_help = "Of a key it prints route, hash, owner and successor, separated by tabs. A route is ACCOUNT/KEY, the key's \
                        bytes outside 0x20..0x7E and `%` percent-encoded. With --members no server is asked, and routes are given."
)]
pub struct RingCommand {
    /// Keys, or routes with --members; `-` reads them from standard input, one a line
    #[arg(value_name = "KEY")]
    keys: Vec<String>,

    /// Compute the ring of these members, like 10.0.0.1:7070,[fd00::2]:7070, and ask no server
    #[arg(long, value_name = "A,B,…", value_delimiter = ',', requires = "keys")]
    members: Vec<SocketAddr>,

    #[command(flatten)]
    connect: Connect,
}

impl RingCommand {
    pub(super) fn run(self) -> ExitCode {
        if self.members.is_empty() {
            return connect::run(self.ask());
        }
        let ring = Ring::new(self.members.iter().map(ToString::to_string));
        let printed = print(&self.keys, |route| Ok(ring.placement(route)));
        printed.map_or_else(|problem| problem.exit(), |()| ExitCode::SUCCESS)
    }

    async fn ask(self) -> Result<(), Problem> {
        let topology = self.connect.client()?.topology().await?;
        if self.keys.is_empty() {
            return exit::say(&members(&topology));
        }
        let ring = Ring::new(topology.members().iter().filter(|its| its.in_ring).map(|its| &its.address));
        let wrong = |problem: &dyn std::fmt::Display| Problem::usage(&format!("{problem}"));
        let account = AccountId::new(topology.account()).map_err(|error| wrong(&error))?;
        print(&self.keys, |key| {
            let key = Key::new(key).map_err(|error| wrong(&error))?;
            Ok(ring.placement(&route(&account, key)))
        })
    }
}

/// The members, as a table.
fn members(topology: &Topology) -> String {
    let head = format!("account {}, topology {:016x}", topology.account(), topology.digest());
    if topology.members().is_empty() {
        return format!("{head}\nthe replica is alone: every key is its own");
    }
    let mut members: Vec<_> = topology.members().iter().collect();
    members.sort_unstable_by(|one, other| one.address.cmp(&other.address));
    let row =
        |address: &str, state: &str, share: &str, uid: &str| format!("{address:<22} {state:<11} {share:>7}  {uid}");
    let mut lines = vec![head, row("member", "state", "share", "uid")];
    for member in members {
        let share = if member.in_ring { format!("{:.1} %", topology.share(member) * 100.0) } else { "-".to_owned() };
        lines.push(row(&member.address, member.state.name(), &share, &member.uid));
    }
    lines.join("\n")
}

/// Prints a line for each key, and for each line of standard input where a key is `-`.
fn print(keys: &[String], line_of: impl Fn(&str) -> Result<String, Problem>) -> Result<(), Problem> {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut print = |key: &str| writeln!(out, "{}", line_of(key)?).map_err(|error| Problem::output(&error));
    for key in keys {
        if key == "-" {
            for line in io::stdin().lock().lines() {
                let line = line.map_err(|error| Problem::usage(&format!("cannot read standard input: {error}")))?;
                print(&line)?;
            }
        } else {
            print(key)?;
        }
    }
    out.flush().map_err(|error| Problem::output(&error))
}
