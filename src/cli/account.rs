//! `larder account`: makes and keeps the accounts file. A running server takes each change within a second or so.
//!
//! A token is printed once, on standard output and nothing else there, so that it can be piped to where it belongs; the file
//! has only its hash.

mod disk;
mod edit;

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, Subcommand};
use zeroize::Zeroizing;

use self::disk::{DiskError, load, load_or_new, save};
use self::edit::{EditError, SHORT_HASH, describe};
use super::exit;
use crate::cache::key::AccountId;
use crate::server::accounts::file::{Access, FileToken};
use crate::server::accounts::hash::{Digest, WeakToken, check_strength, new_token};

/// Make and keep the accounts file
#[derive(Args, Debug)]
pub struct Account {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Add an account, or a token to one that is there; prints the token, this once
    Add(Add),
    /// Change the limits of an account
    Set(Set),
    /// Take a token from an account
    Revoke(Revoke),
    /// Take an account out of the file, with all its tokens
    Remove(One),
    /// List accounts, their limits, and the beginnings of their tokens' hashes
    List(InFile),
    /// Print the hash of a token that comes on standard input
    Hash,
}

#[derive(Args, Debug)]
struct InFile {
    /// Accounts file
    #[arg(long, env = "LARDER_ACCOUNTS", value_name = "FILE")]
    file: PathBuf,
}

#[derive(Args, Debug)]
struct One {
    #[command(flatten)]
    file: InFile,

    /// Account: 1 to 63 characters of a-z, 0-9 and '-'
    #[arg(long, value_parser = AccountId::new, value_name = "ID")]
    id: AccountId,
}

#[derive(Args, Debug)]
struct Add {
    #[command(flatten)]
    account: One,

    /// The new token may change nothing
    #[arg(long)]
    read_only: bool,

    /// Add this token (from `larder account hash`) instead of making one
    #[arg(long, value_name = "HASH")]
    hash: Option<Digest>,

    #[command(flatten)]
    limits: Limits,
}

#[derive(Args, Debug)]
struct Set {
    #[command(flatten)]
    account: One,

    #[command(flatten)]
    limits: Limits,
}

#[derive(Args, Debug)]
struct Revoke {
    #[command(flatten)]
    account: One,

    /// The token's hash, or its beginning as `larder account list` shows it
    #[arg(long, value_name = "HASH")]
    hash: String,
}

/// Limits to set; what is left out stays as it is, and 0 takes a limit away.
#[derive(Args, Clone, Debug, Default, PartialEq)]
#[command(next_help_heading = "Limits (0: none)")]
struct Limits {
    /// Keys, over the whole cluster
    #[arg(long, value_name = "KEYS")]
    max_cache_keys: Option<u64>,

    /// Keys and values together, over the whole cluster, like 512MiB
    #[arg(long, value_name = "SIZE")]
    max_bytes: Option<ByteSize>,

    /// Calls per second that one replica takes
    #[arg(long, value_name = "CALLS")]
    requests_per_second: Option<u64>,

    /// Calls at once on top of that; 0: a tenth of it
    #[arg(long, value_name = "CALLS")]
    burst: Option<u64>,

    /// Memory per replica that no other account takes away, like 64MiB
    #[arg(long, value_name = "SIZE")]
    guaranteed_bytes: Option<ByteSize>,

    /// How long entries live whose store does not say, like 1h
    #[arg(long, value_name = "TIME", value_parser = time)]
    default_ttl: Option<Duration>,

    /// The longest that entries may live, like 30d
    #[arg(long, value_name = "TIME", value_parser = time)]
    max_ttl: Option<Duration>,
}

/// Why the command did nothing.
#[derive(Debug, thiserror::Error)]
enum AccountError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Edit(#[from] EditError),
    #[error(transparent)]
    Weak(#[from] WeakToken),
    #[error("cannot read the token from standard input: {0}")]
    Input(io::Error),
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
}

/// Bytes of standard input that are read: more than any token, so that its length can be told.
const MAX_INPUT_BYTES: u64 = 64 * 1024;

impl Account {
    /// Does what the command line says.
    pub fn run(self) -> ExitCode {
        let done = match self.command {
            Command::Add(add) => add.run(),
            Command::Set(set) => set.run(),
            Command::Revoke(revoke) => revoke.run(),
            Command::Remove(one) => one.remove(),
            Command::List(file) => file.list(),
            Command::Hash => hash(),
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(AccountError::Disk(error @ (DiskError::Wrong { .. } | DiskError::WouldBeWrong { .. }))) => {
                exit::usage(&error)
            }
            Err(error) => exit::failure(&error),
        }
    }
}

impl Add {
    fn run(self) -> Result<(), AccountError> {
        let (path, id) = (&self.account.file.file, &self.account.id);
        let mut file = load_or_new(path)?;
        let token = new_token();
        let hash = self.hash.unwrap_or_else(|| Digest::of(&token));
        let access = if self.read_only { Access::ReadOnly } else { Access::ReadWrite };
        let news = edit::add(&mut file, id, FileToken { hash, access }, &self.limits);
        save(path, &file)?;
        exit::note(&format_args!(
            "account `{id}` {news}; its token with hash {} is {}",
            hash.short(SHORT_HASH),
            describe(access)
        ));
        if self.hash.is_none() {
            exit::note(&format_args!("keep the token, it is shown only now:"));
            print(&token)?;
        }
        Ok(())
    }
}

impl Set {
    fn run(self) -> Result<(), AccountError> {
        let path = &self.account.file.file;
        let mut file = load(path)?;
        edit::set(&mut file, &self.account.id, &self.limits)?;
        Ok(save(path, &file)?)
    }
}

impl Revoke {
    fn run(self) -> Result<(), AccountError> {
        let (path, id) = (&self.account.file.file, &self.account.id);
        let mut file = load(path)?;
        let left = edit::revoke(&mut file, id, &self.hash)?;
        save(path, &file)?;
        match left {
            0 => exit::note(&format_args!(
                "revoked; account `{id}` has no token left, so nobody can use it until one is added"
            )),
            left => exit::note(&format_args!("revoked; account `{id}` has {left} left")),
        }
        Ok(())
    }
}

impl One {
    fn remove(self) -> Result<(), AccountError> {
        let mut file = load(&self.file.file)?;
        edit::remove(&mut file, &self.id)?;
        save(&self.file.file, &file)?;
        exit::note(&format_args!(
            "account `{}` is removed; its entries stay until they expire or are evicted",
            self.id
        ));
        Ok(())
    }
}

impl InFile {
    fn list(self) -> Result<(), AccountError> {
        let file = load(&self.file)?;
        print(edit::list(&file).trim_end())
    }
}

/// On standard input, because other users of the machine can see arguments.
fn hash() -> Result<(), AccountError> {
    let input = io::stdin();
    if input.is_terminal() {
        exit::note(&format_args!("type the token (it is shown as you type), then Enter and Ctrl-D:"));
    }
    let mut token = Zeroizing::new(String::new());
    let read = input.lock().take(MAX_INPUT_BYTES).read_to_string(&mut token);
    read.map_err(AccountError::Input)?;
    let token = token.strip_suffix('\n').map_or(token.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    check_strength(token)?;
    print(&Digest::of(token).to_string())
}

fn print(line: &str) -> Result<(), AccountError> {
    writeln!(io::stdout(), "{line}").map_err(AccountError::Output)
}

fn time(text: &str) -> Result<Duration, String> {
    match text {
        "0" => Ok(Duration::ZERO),
        text => humantime::parse_duration(text).map_err(|error| format!("{error}; write it like 30s, 5min, 1h or 30d")),
    }
}
