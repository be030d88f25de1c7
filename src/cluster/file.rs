//! Members from a file (`super::members` has its form), looked at many times a second and read when it has changed.
//!
//! By polling, not by inotify, which misses bind mounts, network file systems and swapped symlinks. A file that cannot be
//! used changes nothing: the view of before stays, and the log says so once per content. A file that is not there yet is
//! no error, as whoever writes it may start later.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use xxhash_rust::xxh3::xxh3_128;

use super::discover::{Discover, LastHeard};
use super::members::{MAX_FILE_BYTES, Members, MembersError};
use crate::ownership::view::View;

/// How often the file is looked at.
pub const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Polls after which it is read although nothing seems to have changed: a clock that ticks coarsely and an inode that is
/// used again can make two files look like one.
const READ_AGAIN_POLLS: u32 = 20;

/// A file that lists the members.
#[derive(Debug)]
pub struct FileSource {
    path: PathBuf,
    /// The view in use.
    current: Option<Arc<View>>,
    seen: Seen,
    polls_since_read: u32,
    last_heard: LastHeard,
}

/// Why a file that lists members is kept out.
#[derive(Debug, thiserror::Error)]
pub enum KeptOut {
    #[error("there is no members file yet; this replica waits for it")]
    NotThereYet,
    #[error("it cannot be read: {0}")]
    Unread(String),
    #[error(transparent)]
    Members(#[from] MembersError),
    #[error("its version went back from {used} to {found}; versions only grow")]
    Older { used: u64, found: u64 },
    #[error("it has version {0} as before, and other endpoints; every change takes a greater version")]
    SameVersion(u64),
}

/// What was found at the last poll.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Nothing,
    /// In this state, with this digest of its content; whether it was taken.
    Content {
        state: State,
        digest: u128,
        taken: bool,
    },
    /// It could not be read, in the system's words.
    Unread(String),
}

/// What changes with a file's content, nearly always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    inode: u64,
    bytes: u64,
    /// Seconds and nanoseconds of the last change of the content, and of the inode.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileSource {
    #[must_use]
    pub fn new(path: &Path) -> Self {
        let (path, last_heard) = (path.to_owned(), LastHeard::never());
        Self { path, current: None, seen: Seen::Nothing, polls_since_read: 0, last_heard }
    }

    /// Looks at the file once. Returns the view when it is another. Blocks for as long as the file system takes.
    ///
    /// # Errors
    /// When the file cannot be used: once for each content, and once while it is away.
    pub fn poll(&mut self) -> Result<Option<Arc<View>>, KeptOut> {
        let state = match fs::metadata(&self.path) {
            Ok(metadata) => State::of(&metadata),
            Err(error) => return self.miss(&error),
        };
        self.polls_since_read += 1;
        if let Seen::Content { state: before, taken, .. } = &self.seen
            && *before == state
            && self.polls_since_read < READ_AGAIN_POLLS
        {
            self.note(*taken);
            return Ok(None);
        }
        self.polls_since_read = 0;
        match read(&self.path) {
            Ok(content) => self.look_at(state, &content),
            Err(error) => self.miss(&error),
        }
    }

    fn look_at(&mut self, state: State, content: &[u8]) -> Result<Option<Arc<View>>, KeptOut> {
        let digest = xxh3_128(content);
        if let Seen::Content { digest: before, taken, .. } = self.seen
            && before == digest
        {
            self.seen = Seen::Content { state, digest, taken };
            self.note(taken);
            return Ok(None);
        }
        let news = self.judge(content);
        let taken = news.is_ok();
        self.seen = Seen::Content { state, digest, taken };
        self.note(taken);
        let view = news?;
        if self.current.as_ref() == Some(&view) {
            return Ok(None);
        }
        self.current = Some(view.clone());
        Ok(Some(view))
    }

    fn judge(&self, content: &[u8]) -> Result<Arc<View>, KeptOut> {
        let view = Members::parse(content)?.view()?;
        let (found, _) = view.source_version();
        let Some(current) = &self.current else { return Ok(Arc::new(view)) };
        let (used, _) = current.source_version();
        if found < used {
            return Err(KeptOut::Older { used, found });
        }
        if found == used && view != **current {
            return Err(KeptOut::SameVersion(found));
        }
        Ok(Arc::new(view))
    }

    fn miss(&mut self, error: &io::Error) -> Result<Option<Arc<View>>, KeptOut> {
        let unread = Seen::Unread(error.to_string());
        if self.seen == unread {
            return Ok(None);
        }
        self.seen = unread;
        if self.current.is_none() && error.kind() == io::ErrorKind::NotFound {
            return Err(KeptOut::NotThereYet);
        }
        Err(KeptOut::Unread(error.to_string()))
    }

    /// Polls, and says what came of it.
    fn look(&mut self) -> Option<Arc<View>> {
        let polled = self.poll();
        let path = self.path.display();
        match &polled {
            Ok(None) => {}
            Ok(Some(view)) => {
                let (version, _) = view.source_version();
                tracing::info!(%path, version, endpoints = view.endpoints().len(), "members read");
            }
            Err(error @ KeptOut::NotThereYet) => tracing::info!(%path, "{error}"),
            Err(error) => tracing::error!(%path, %error, "the members file is kept out; the view of before stays"),
        }
        polled.unwrap_or_default()
    }

    fn note(&self, taken: bool) {
        if taken {
            self.last_heard.heard();
        }
    }
}

impl Discover for FileSource {
    fn last_heard(&self) -> LastHeard {
        self.last_heard.clone()
    }

    async fn run(mut self, to: watch::Sender<Option<Arc<View>>>) {
        let mut ticks = interval(POLL_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = to.closed() => return,
                _ = ticks.tick() => {}
            }
            let polled = tokio::task::spawn_blocking(move || {
                let news = self.look();
                (self, news)
            });
            let news;
            match polled.await {
                Ok(polled) => (self, news) = polled,
                Err(error) => {
                    tracing::error!(%error, "the members file is no longer watched");
                    return;
                }
            }
            if news.is_some() {
                to.send_replace(news);
            }
        }
    }
}

impl State {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// One byte over the limit is enough to see that it is.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    fs::File::open(path)?.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests;
