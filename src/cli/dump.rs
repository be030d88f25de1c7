//! `larder dump`: every entry to a directory or to NDJSON, so that `larder load` reads it back. Memory is bounded by a short
//! queue to the writer. A dump that breaks off the library goes on with by itself.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use tokio::sync::mpsc;

use super::connect::Connect;
use super::exit::Problem;
use super::ndjson;
use super::progress::{Progress, entries};
use crate::client::{Client, DumpedEntry, Error};

mod directory;

use directory::{Directory, Refusal};

/// Entries that are received and not yet written, up to 4 MiB each.
const MAX_QUEUED: usize = 16;

/// Write every entry to a directory (file: its key), or as NDJSON
///
/// A path that ends in .ndjson or .jsonl, or `-`, gets NDJSON, with versions and remaining times to live; any other is a
/// directory. Keys that can be no path there are named on standard error, and the exit status is then 1. A dump is no
/// snapshot: entries that change meanwhile are written as they are when their turn comes.
#[derive(Args, Debug)]
pub struct Dump {
    /// Directory, NDJSON file, or `-` for NDJSON on standard output
    #[arg(default_value = "-")]
    path: PathBuf,

    /// Only keys that begin with this
    #[arg(long, default_value = "", value_name = "PREFIX")]
    prefix: String,

    #[command(flatten)]
    connect: Connect,
}

/// Where entries are written to.
enum Sink {
    Directory(Directory),
    Lines(BufWriter<Box<dyn Write + Send>>),
}

impl Dump {
    pub async fn run(self) -> Result<(), Problem> {
        let client = self.connect.bulk_client()?;
        let sink = Sink::open(&self.path)
            .map_err(|error| Problem::usage(&format!("cannot write {}: {error}", self.path.display())))?;
        let (to, from) = mpsc::channel(MAX_QUEUED);
        let writer = tokio::task::spawn_blocking(move || write_all(from, sink));
        let received = receive(&client, &self.prefix, to).await;
        let (progress, written) = writer.await.map_err(|error| Problem::failure(&error))?;
        progress.finish("dumped");
        written.map_err(|error| {
            if self.path == Path::new("-") {
                Problem::output(&error)
            } else {
                Problem::failure(&format!("cannot write {}: {error}", self.path.display()))
            }
        })?;
        received?;
        match progress.failures() {
            0 => Ok(()),
            some => Err(Problem::failure(&format!("not dumped: {}, named above", entries(some)))),
        }
    }
}

/// Passes every entry on. Ends early, without an error of its own, when the writer does.
async fn receive(client: &Client, prefix: &str, to: mpsc::Sender<DumpedEntry>) -> Result<(), Error> {
    let mut dump = client.dump(prefix, Bytes::new()).await?;
    while let Some(entry) = dump.next().await? {
        if to.send(entry).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Writes what comes until there is no more, or writing as such fails.
fn write_all(mut from: mpsc::Receiver<DumpedEntry>, mut sink: Sink) -> (Progress, io::Result<()>) {
    let mut progress = Progress::new(None);
    while let Some(entry) = from.blocking_recv() {
        match sink.write(&entry) {
            Ok(()) => progress.done(entry.value.len()),
            Err(Refusal::Entry(why)) => progress.failed(&entry.key, &why, false),
            Err(Refusal::All(error)) => return (progress, Err(error)),
        }
    }
    let end = sink.close();
    (progress, end)
}

impl Sink {
    fn open(path: &Path) -> io::Result<Self> {
        let lines = |file: Box<dyn Write + Send>| Self::Lines(BufWriter::with_capacity(64 * 1024, file));
        let is_lines = path.extension().is_some_and(|extension| extension == "ndjson" || extension == "jsonl");
        if path == Path::new("-") {
            Ok(lines(Box::new(io::stdout())))
        } else if is_lines && !path.is_dir() {
            Ok(lines(Box::new(File::create(path)?)))
        } else if path.is_file() {
            Err(io::Error::other("it is a file; NDJSON goes to a name that ends in .ndjson or .jsonl"))
        } else {
            Ok(Self::Directory(Directory::create(path)?))
        }
    }

    fn write(&mut self, entry: &DumpedEntry) -> Result<(), Refusal> {
        match self {
            Self::Directory(directory) => directory.write(&entry.key, &entry.value),
            Self::Lines(lines) => ndjson::write(entry, lines).map_err(Refusal::All),
        }
    }

    fn close(&mut self) -> io::Result<()> {
        match self {
            Self::Directory(_) => Ok(()),
            Self::Lines(lines) => lines.flush(),
        }
    }
}
