//! Where the entries of a load come from. A thread of its own finds them and stops when the queue is full.

use std::fs::{self, File, ReadDir};
use std::io::{BufRead, BufReader, IsTerminal as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::cli::exit::Problem;
use crate::cli::ndjson;

/// Entries that are found and not yet taken. Those of NDJSON hold their values, up to 4 MiB each.
const MAX_QUEUED: usize = 16;

/// What was found at a place of the input.
#[derive(Debug)]
pub enum Found {
    Entry {
        key: String,
        content: Content,
        ttl: Option<Duration>,
    },
    /// Not an entry; the others may be.
    Bad {
        name: String,
        why: String,
    },
    /// The rest cannot be read.
    Broken(String),
}

/// The value of an entry.
#[derive(Debug)]
pub enum Content {
    /// Read when its turn comes.
    File {
        path: PathBuf,
        bytes: u64,
    },
    Value(Bytes),
}

/// An input that is being read.
#[derive(Debug)]
pub struct Input {
    pub found: mpsc::Receiver<Found>,
    /// How many there will be, if that is known and somebody looks.
    pub total: Option<u64>,
}

type Visit<'a> = &'a mut dyn FnMut(Found) -> ControlFlow<()>;

/// Opens a directory, a file, or standard input (`-`).
pub fn open(path: &Path) -> Result<Input, Problem> {
    let cannot = |error: &std::io::Error| Problem::usage(&format!("cannot read {}: {error}", path.display()));
    let (to, found) = mpsc::channel(MAX_QUEUED);
    let mut visit = move |found| match to.blocking_send(found) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    };
    let mut total = None;
    let work: Box<dyn FnOnce() -> ControlFlow<()> + Send> = if path == Path::new("-") {
        Box::new(move || read_lines(&mut BufReader::new(std::io::stdin()), &mut visit))
    } else if fs::metadata(path).map_err(|error| cannot(&error))?.is_dir() {
        let root = path.canonicalize().map_err(|error| cannot(&error))?;
        let top = fs::read_dir(&root).map_err(|error| cannot(&error))?;
        total = std::io::stderr().is_terminal().then(|| count(&root));
        Box::new(move || walk(&root, top, &mut visit))
    } else {
        let mut file = BufReader::new(File::open(path).map_err(|error| cannot(&error))?);
        Box::new(move || read_lines(&mut file, &mut visit))
    };
    thread::Builder::new().name("load-source".to_owned()).spawn(work).map_err(|error| cannot(&error))?;
    Ok(Input { found, total })
}

fn count(root: &Path) -> u64 {
    let mut total = 0;
    if let Ok(top) = fs::read_dir(root) {
        let _ = walk(root, top, &mut |_| {
            total += 1;
            ControlFlow::Continue(())
        });
    }
    total
}

fn read_lines(input: &mut impl BufRead, visit: Visit<'_>) -> ControlFlow<()> {
    let mut line = Vec::new();
    for number in 1_u64.. {
        let parsed = match ndjson::next_line(input, &mut line) {
            Ok(None) => break,
            Ok(Some(Ok(()))) if line.trim_ascii().is_empty() => continue,
            Ok(Some(Ok(()))) => ndjson::parse(&line),
            Ok(Some(Err(error))) => Err(error),
            Err(error) => return visit(Found::Broken(format!("line {number} cannot be read: {error}"))),
        };
        visit(match parsed {
            Ok(entry) => Found::Entry { key: entry.key, content: Content::Value(entry.value), ttl: entry.ttl },
            Err(error) => Found::Bad { name: format!("line {number}"), why: error.to_string() },
        })?;
    }
    ControlFlow::Continue(())
}

/// Visits every file below `root`, which is canonical. Open directories are as many as the tree is deep.
fn walk(root: &Path, top: ReadDir, visit: Visit<'_>) -> ControlFlow<()> {
    let mut open = vec![(root.to_owned(), top)];
    while let Some((directory, entries)) = open.last_mut() {
        let path = match entries.next() {
            None => {
                open.pop();
                continue;
            }
            Some(Ok(entry)) => entry.path(),
            Some(Err(error)) => {
                let name = shown(root, directory);
                visit(Found::Bad { name, why: format!("the rest of the directory cannot be read: {error}") })?;
                open.pop();
                continue;
            }
        };
        match look(root, &path) {
            Ok(Seen::Directory(entries)) => open.push((path, entries)),
            Ok(Seen::File { key, path, bytes }) => {
                visit(Found::Entry { key, content: Content::File { path, bytes }, ttl: None })?;
            }
            Err(why) => visit(Found::Bad { name: shown(root, &path), why })?,
        }
    }
    ControlFlow::Continue(())
}

enum Seen {
    Directory(ReadDir),
    File { key: String, path: PathBuf, bytes: u64 },
}

fn look(root: &Path, path: &Path) -> Result<Seen, String> {
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    let mut metadata = fs::symlink_metadata(path).map_err(cannot)?;
    if metadata.is_dir() {
        return fs::read_dir(path).map(Seen::Directory).map_err(cannot);
    }
    let mut path_to_read = path.to_owned();
    if metadata.is_symlink() {
        path_to_read = path.canonicalize().map_err(|error| format!("a symbolic link that leads nowhere: {error}"))?;
        if !path_to_read.starts_with(root) {
            return Err("a symbolic link that leads out of the directory".to_owned());
        }
        metadata = fs::symlink_metadata(&path_to_read).map_err(cannot)?;
        if metadata.is_dir() {
            return Err("a symbolic link to a directory; its files are loaded where they are".to_owned());
        }
    }
    if !metadata.is_file() {
        return Err("not a regular file".to_owned());
    }
    let key = key(root, path).ok_or("its name is not UTF-8, so it can be no key")?;
    Ok(Seen::File { key, path: path_to_read, bytes: metadata.len() })
}

/// The path below `root`, with `/` between its parts on every system.
fn key(root: &Path, path: &Path) -> Option<String> {
    let parts: Option<Vec<&str>> = path.strip_prefix(root).ok()?.iter().map(|part| part.to_str()).collect();
    Some(parts?.join("/"))
}

fn shown(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned()
}

impl Content {
    pub fn len(&self) -> usize {
        match self {
            Self::File { bytes, .. } => usize::try_from(*bytes).unwrap_or(usize::MAX / 2),
            Self::Value(value) => value.len(),
        }
    }
}

#[cfg(test)]
mod tests;
