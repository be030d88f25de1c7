//! Who may use the cache, and how much of it.
//!
//! Two sources: **embedded**, a file with hashed tokens that is reloaded when it changes, and **remote**, any gRPC server of
//! `larder.v1.Accounts` or the tutorial's `rpc.Accounts`, whose answers are cached. Callers see one value, [`Accounts`], and
//! two questions: [`Accounts::cached`], which never waits and is asked on every call, and [`Accounts::grant`], which may.
//!
//! Not here: limits are only told, not enforced (the wall and the store do that), and a token's way from the request
//! (`rpc::metadata`).

pub mod answer;
pub mod api;
mod book;
mod cache;
mod embedded;
pub mod file;
pub mod hash;
pub mod remote;
pub mod watch;

use std::path::Path;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::time::Instant;

pub use book::Book;
pub use embedded::{Embedded, EmbeddedStats};
pub use remote::{Remote, RemoteConfig, RemoteError, RemoteStats};
pub use watch::{FileWatch, OpenError};

use crate::cache::key::AccountId;
use crate::cache::limits::MAX_TTL_MS;
use crate::rpc::failure::Failure;
use crate::server::trace::Traced;

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub id: AccountId,
    pub limits: Limits,
}

/// What an account may use. `None`: no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Keys, over the whole cluster.
    pub max_keys: Option<u64>,
    /// Bytes of keys and values, over the whole cluster.
    pub max_bytes: Option<u64>,
    /// Calls per second and replica.
    pub requests_per_second: Option<u32>,
    /// Calls at once on top of `requests_per_second`; 0 only where that is `None`.
    pub burst: u32,
    /// Bytes of memory per replica that other accounts' stores do not take away.
    pub guaranteed_bytes: u64,
    /// Milliseconds that an entry lives if its store does not say.
    pub default_ttl_ms: Option<u64>,
    /// Milliseconds that an entry may live at most.
    pub max_ttl_ms: u64,
}

/// What a token allows.
#[derive(Clone, Debug)]
pub struct Grant {
    pub account: Arc<Account>,
    /// Whether the token may change nothing.
    pub read_only: bool,
    /// When a kept grant must be asked for again; `None`: when [`Accounts::generation`] has grown.
    pub valid_until: Option<Instant>,
}

/// On whose behalf is asked; a remote service hears all of it.
#[derive(Clone, Debug, Default)]
pub struct Asking {
    pub deadline: Option<Instant>,
    pub trace: Traced,
    pub dry_run: bool,
}

/// Where accounts come from. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Accounts {
    Embedded(Embedded),
    Remote(Remote),
}

impl Limits {
    /// These limits with a rate; `requests_per_second` 0: none, `burst` 0: a tenth of the rate, at least 1.
    #[must_use]
    pub fn with_rate(self, requests_per_second: u32, burst: u32) -> Self {
        let burst = match (requests_per_second, burst) {
            (0, _) => 0,
            (rate, 0) => (rate / 10).max(1),
            (_, burst) => burst,
        };
        Self { requests_per_second: (requests_per_second > 0).then_some(requests_per_second), burst, ..self }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_keys: None,
            max_bytes: None,
            requests_per_second: None,
            burst: 0,
            guaranteed_bytes: 0,
            default_ttl_ms: None,
            max_ttl_ms: MAX_TTL_MS,
        }
    }
}

impl Accounts {
    /// Accounts of a file, which change with it while the second of the two is run or polled.
    ///
    /// # Errors
    /// When the file cannot be read or is wrong.
    pub fn file(path: &Path) -> Result<(Self, FileWatch), OpenError> {
        let watch = FileWatch::open(path)?;
        Ok((Self::Embedded(watch.accounts()), watch))
    }

    /// Accounts that do not change: for tests, benchmarks and `larder dev`.
    #[must_use]
    pub fn fixed(book: Book) -> Self {
        Self::Embedded(Embedded::new(book))
    }

    /// Accounts from a service; `home` is the runtime on which it is asked.
    ///
    /// # Errors
    /// When its URL or CA cannot be used. Whether it answers shows when it is asked.
    pub fn remote(config: &RemoteConfig, home: &Handle) -> Result<Self, RemoteError> {
        Remote::new(config, home).map(Self::Remote)
    }

    /// What a token grants, if that is known without waiting. Embedded accounts always know.
    #[must_use]
    pub fn cached(&self, token: &str) -> Option<Result<Grant, Failure>> {
        match self {
            Self::Embedded(embedded) => Some(embedded.find(token)),
            Self::Remote(remote) => remote.cached(token),
        }
    }

    /// What a token grants.
    ///
    /// # Errors
    /// When it is empty or unknown, when the remote service cannot be asked, or when the deadline passes meanwhile.
    pub async fn grant(&self, token: &str, asking: &Asking) -> Result<Grant, Failure> {
        match self {
            Self::Embedded(embedded) => embedded.find(token),
            Self::Remote(remote) => remote.grant(token, asking).await,
        }
    }

    /// Grows whenever an earlier answer may have become wrong. Read it before the answer that is kept with it.
    #[must_use]
    pub fn generation(&self) -> u64 {
        match self {
            Self::Embedded(embedded) => embedded.generation(),
            Self::Remote(remote) => remote.generation(),
        }
    }

    /// Every account that is known; of a remote service none.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Account>> {
        match self {
            Self::Embedded(embedded) => embedded.book().accounts().cloned().collect(),
            Self::Remote(_) => Vec::new(),
        }
    }
}
