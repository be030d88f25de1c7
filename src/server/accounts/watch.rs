//! Reads the accounts file again when it changes.
//!
//! By polling its content, not by inotify: a Secret is mounted through two symlinks that Kubernetes swaps, and over network
//! file systems and bind mounts no event comes at all. The file is at most a few MiB, once a second.
//!
//! A file that is broken, or missing, changes nothing: the accounts of before stay, and the log says so once per change.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::time::{MissedTickBehavior, interval};

use super::Embedded;
use super::file::{self, FileError, MAX_FILE_BYTES};

/// A file and the accounts that come from it.
#[derive(Debug)]
pub struct FileWatch {
    path: PathBuf,
    accounts: Embedded,
    /// The content that was looked at last, whether it could be used or not.
    seen: Seen,
    /// The content that is in use.
    used: ContentDigest,
    /// Polls, one after the other, that could not read the file.
    unread: u32,
}

/// What a poll came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poll {
    /// The content is that of the poll before.
    Unchanged,
    /// Its accounts are in use now.
    Loaded,
    /// It cannot be used; the accounts of before stay.
    Kept,
}

/// Why accounts could not be read from a file.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "the accounts file {path} cannot be read: {source}; make one with `larder account add --file {path} --id <id>`"
    )]
    Read { path: String, source: io::Error },
    #[error("the accounts file {path} is wrong: {source}")]
    File { path: String, source: FileError },
}

type ContentDigest = [u8; 32];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Content(ContentDigest),
    Nothing,
}

/// How often a file is looked at. Kubernetes itself takes up to a minute or so to bring a changed Secret to the pod.
pub const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Polls that must fail to read the file before that is said: some editors and mounts take it away for a moment.
const UNREAD_POLLS: u32 = 3;

impl FileWatch {
    /// Reads a file for the first time.
    ///
    /// # Errors
    /// When it cannot be read or is wrong: a server that starts needs it right.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let shown = || path.display().to_string();
        let content = read(path).map_err(|source| OpenError::Read { path: shown(), source })?;
        let book = file::parse(&content).map_err(|source| OpenError::File { path: shown(), source })?;
        let used = digest(&content);
        let (seen, accounts) = (Seen::Content(used), Embedded::new(book));
        Ok(Self { path: path.to_owned(), accounts, seen, used, unread: 0 })
    }

    /// The accounts, which change with the file for as long as it is watched.
    #[must_use]
    pub fn accounts(&self) -> Embedded {
        self.accounts.clone()
    }

    /// Looks at the file once. Blocks for as long as the file system takes.
    pub fn poll(&mut self) -> Poll {
        match read(&self.path) {
            Ok(content) => {
                self.unread = 0;
                self.look_at(&content)
            }
            Err(error) => self.miss(&error),
        }
    }

    /// Polls for ever, away from the runtime's own threads.
    pub async fn run(mut self, every: Duration) {
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let polled = tokio::task::spawn_blocking(move || {
                self.poll();
                self
            });
            match polled.await {
                Ok(watch) => self = watch,
                Err(error) => {
                    tracing::error!(%error, "the accounts file is no longer watched");
                    return;
                }
            }
        }
    }

    fn look_at(&mut self, content: &[u8]) -> Poll {
        let digest = digest(content);
        if self.seen == Seen::Content(digest) {
            return Poll::Unchanged;
        }
        self.seen = Seen::Content(digest);
        let path = self.path.display();
        if digest == self.used {
            tracing::info!(%path, "the accounts file is back to what is in use");
            self.accounts.confirm();
            return Poll::Unchanged;
        }
        match file::parse(content) {
            Ok(book) => {
                tracing::info!(%path, accounts = book.len(), tokens = book.tokens(), "accounts loaded");
                self.used = digest;
                self.accounts.replace(book);
                Poll::Loaded
            }
            Err(error) => {
                tracing::error!(%path, %error, "the accounts file is wrong; the accounts of before stay in use");
                self.accounts.keep();
                Poll::Kept
            }
        }
    }

    fn miss(&mut self, error: &io::Error) -> Poll {
        self.unread = self.unread.saturating_add(1);
        if self.unread < UNREAD_POLLS || self.seen == Seen::Nothing {
            return Poll::Unchanged;
        }
        self.seen = Seen::Nothing;
        let path = self.path.display();
        tracing::error!(%path, %error, "the accounts file cannot be read; the accounts of before stay in use");
        self.accounts.keep();
        Poll::Kept
    }
}

/// One byte over the limit is enough to see that it is.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    fs::File::open(path)?.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut content)?;
    Ok(content)
}

fn digest(content: &[u8]) -> ContentDigest {
    Sha256::digest(content).into()
}

#[cfg(test)]
mod tests;
