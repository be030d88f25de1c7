//! `larder load`: many entries from a directory or from NDJSON. Memory is bounded, whatever the input: a queue of what was
//! found, a window of calls, and a budget for the bytes of their values.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use futures::StreamExt as _;
use tokio::sync::Semaphore;
use tokio_stream::wrappers::ReceiverStream;

use super::connect::Connect;
use super::exit::Problem;
use super::progress::{Progress, entries};
use crate::cache::limits::MAX_ENTRY_BYTES;
use crate::client::{Client, Error, StoreOptions};
use crate::rpc::failure::Failure;

mod source;

use source::{Content, Found};

/// Bytes of values that are read and not yet stored.
const MAX_BYTES_IN_FLIGHT: usize = 32 * 1024 * 1024;

/// Store every file of a directory (key: its path, with `/`), or every line of NDJSON
///
/// A line of NDJSON is {"key": ..., "value": ... or "value_base64": ..., "ttl_ms": ...}. Temporary errors are retried. What
/// could not be loaded is named on standard error, and the exit status is then 1. Symbolic links to files within the
/// directory are loaded; other links are reported.
#[derive(Args, Debug)]
pub struct Load {
    /// Directory, NDJSON file, or `-` for NDJSON on standard input
    path: PathBuf,

    /// Put this before every key
    #[arg(long, default_value = "", value_name = "PREFIX")]
    prefix: String,

    /// Calls at a time
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,

    /// Values over the limit are named, but do not make the exit status 1
    #[arg(long)]
    skip_too_large: bool,

    #[command(flatten)]
    connect: Connect,
}

/// What became of one entry.
enum Outcome {
    Loaded {
        bytes: usize,
    },
    Failed {
        name: String,
        why: String,
        too_large: bool,
    },
    /// No other entry would fare better.
    Fatal(Error),
    /// The input broke off.
    Broken(String),
}

impl Load {
    pub async fn run(self) -> Result<(), Problem> {
        let verb = if self.connect.dry_run { "checked" } else { "loaded" };
        let client = self.connect.bulk_client()?;
        let input = source::open(&self.path)?;
        let mut progress = Progress::new(input.total);
        let budget = Semaphore::new(MAX_BYTES_IN_FLIGHT);
        let mut outcomes = ReceiverStream::new(input.found)
            .map(|found| settle(&client, &budget, &self.prefix, found))
            .buffer_unordered(usize::from(self.concurrency));
        let mut end = Ok(());
        while let Some(outcome) = outcomes.next().await {
            match outcome {
                Outcome::Loaded { bytes } => progress.done(bytes),
                Outcome::Failed { name, why, too_large } => progress.failed(&name, &why, too_large),
                Outcome::Fatal(error) => {
                    end = Err(Problem::from(error));
                    break;
                }
                Outcome::Broken(why) => end = Err(Problem::failure(&why)),
            }
        }
        progress.finish(verb);
        end?;
        let failures = if self.skip_too_large { progress.other_failures() } else { progress.failures() };
        match failures {
            0 => Ok(()),
            some => Err(Problem::failure(&format!("not {verb}: {}, named above", entries(some)))),
        }
    }
}

/// Stores one entry, or says why not.
async fn settle(client: &Client, budget: &Semaphore, prefix: &str, found: Found) -> Outcome {
    let (name, content, ttl) = match found {
        Found::Entry { key, content, ttl } => (key, content, ttl),
        Found::Bad { name, why } => return Outcome::Failed { name, why, too_large: false },
        Found::Broken(why) => return Outcome::Broken(why),
    };
    let key = format!("{prefix}{name}");
    let size = content.len() + key.len();
    if size > MAX_ENTRY_BYTES {
        return Outcome::Failed { name, why: Failure::EntryTooLarge(size).to_string(), too_large: true };
    }
    // An entry is far smaller than the budget, so this waits for other entries and never for ever.
    let Ok(_permit) = budget.acquire_many(u32::try_from(size).unwrap_or(u32::MAX)).await else {
        return Outcome::Broken("the budget of bytes was closed".to_owned());
    };
    let value = match content {
        Content::Value(value) => value,
        Content::File { path, .. } => match read(path).await {
            Ok(value) => value,
            Err(error) => {
                return Outcome::Failed { name, why: format!("cannot be read: {error}"), too_large: false };
            }
        },
    };
    let options = StoreOptions { ttl, ..StoreOptions::default() };
    match client.store(&key, value.clone(), options).await {
        Ok(_) => Outcome::Loaded { bytes: value.len() },
        Err(error) if is_fatal(&error) => Outcome::Fatal(error),
        Err(error) => {
            let too_large = matches!(error.failure(), Some(Failure::EntryTooLarge(_)));
            Outcome::Failed { name, why: error.to_string(), too_large }
        }
    }
}

fn is_fatal(error: &Error) -> bool {
    let token = matches!(error.failure(), Some(Failure::TokenMissing | Failure::TokenUnknown | Failure::TokenReadOnly));
    token || error.failure().is_none()
}

/// Reads a file, or one byte more than a value may have if it has grown meanwhile.
async fn read(path: PathBuf) -> std::io::Result<Bytes> {
    let read = move |path: &Path| {
        let mut value = Vec::new();
        File::open(path)?.take(MAX_ENTRY_BYTES as u64 + 1).read_to_end(&mut value)?;
        Ok(Bytes::from(value))
    };
    tokio::task::spawn_blocking(move || read(&path)).await.map_err(std::io::Error::other)?
}
