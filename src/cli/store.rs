//! `larder store`.

use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;

use super::connect::{Connect, ttl};
use super::exit::{self, Problem};
use crate::cache::limits::MAX_ENTRY_BYTES;
use crate::client::{Condition, StoreOptions};

/// Store a value and print its version
#[derive(Args, Debug)]
#[command(override_usage = "larder store [OPTIONS] <KEY> <VALUE | - | --file FILE>")]
#[command(group = clap::ArgGroup::new("source").args(["value", "file"]).required(true))]
pub struct Store {
    /// Key to store under
    key: String,

    /// Value; `-` reads standard input
    value: Option<String>,

    /// Read the value from a file
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,

    /// Time to live, like 10m or 500ms; default: the account's own, else for ever
    #[arg(long, value_name = "TIME", value_parser = ttl)]
    ttl: Option<Duration>,

    /// Only if the key has no value
    #[arg(long, group = "condition")]
    if_absent: bool,

    /// Only if the key has a value
    #[arg(long, group = "condition")]
    if_present: bool,

    /// Only if the current version is this one
    #[arg(long, group = "condition", value_name = "VERSION", value_parser = clap::value_parser!(u64).range(1..))]
    if_version: Option<u64>,

    #[command(flatten)]
    connect: Connect,
}

impl Store {
    pub async fn run(self) -> Result<(), Problem> {
        let options = StoreOptions { ttl: self.ttl, condition: self.condition() };
        let value = self.value()?;
        let version = self.connect.client()?.store(&self.key, value, options).await?;
        exit::say(&version)
    }

    fn condition(&self) -> Condition {
        match (self.if_absent, self.if_present, self.if_version) {
            (true, ..) => Condition::IfAbsent,
            (_, true, _) => Condition::IfPresent,
            (.., Some(version)) => Condition::IfVersion(version),
            _ => Condition::Always,
        }
    }

    fn value(&self) -> Result<Bytes, Problem> {
        match (&self.file, &self.value) {
            (Some(path), _) => std::fs::File::open(path)
                .and_then(read_bounded)
                .map_err(|error| Problem::usage(&format!("cannot read {}: {error}", path.display()))),
            (None, Some(value)) if value == "-" => read_bounded(std::io::stdin().lock())
                .map_err(|error| Problem::usage(&format!("cannot read standard input: {error}"))),
            (None, Some(value)) => Ok(Bytes::from(value.clone())),
            (None, None) => Err(Problem::usage(&"give a VALUE, --file FILE, or - for standard input")),
        }
    }
}

/// Reads all of it, and no more than a value may have: the input may have no end.
fn read_bounded(source: impl Read) -> std::io::Result<Bytes> {
    let mut value = Vec::new();
    source.take(MAX_ENTRY_BYTES as u64 + 1).read_to_end(&mut value)?;
    if value.len() > MAX_ENTRY_BYTES {
        let problem = format!("it is larger than a value may be, {MAX_ENTRY_BYTES} bytes together with its key");
        return Err(std::io::Error::other(problem));
    }
    Ok(Bytes::from(value))
}
