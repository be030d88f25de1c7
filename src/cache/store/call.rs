//! What the store is asked and answers: plain values.

use bytes::Bytes;

use crate::cache::cursor::Cursor;
use crate::cache::key::AccountId;
use crate::cache::quota::{OverBudget, Tenant};
use crate::cache::version::Version;
use crate::ownership::shard::Standing;

/// How large a store is, and which replica's versions it makes.
#[derive(Clone, Copy, Debug)]
pub struct StoreConfig {
    /// Memory of all entries together, in bytes, overhead included.
    pub capacity_bytes: u64,
    /// Parts with a lock of their own, rounded up to a power of two. [`StoreConfig::DEFAULT_SHARDS`] suits most machines:
    /// more cost memory (each keeps partly filled pages), fewer let threads wait for each other.
    pub shards: usize,
    /// For [`HybridClock`](crate::cache::version::HybridClock): tells replicas apart.
    pub replica: u64,
}

/// On whose behalf, on what, and whether in earnest.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// The key space.
    pub space: &'a Tenant,
    /// Whose budget a new key counts against; `None`: nobody's. In `larder.v1` the same as `space`.
    pub charge: Option<&'a Tenant>,
    pub mode: Mode,
}

/// Whether a call changes anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Apply,
    /// Every check is made and the answer is what it would be, with [`Version::NONE`]; nothing changes, not even what
    /// eviction remembers or what is counted.
    DryRun,
    /// As [`Self::DryRun`], after the account's home said that the call would fit: quotas are not checked.
    DryRunThatFits,
}

/// When a store takes place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    Always,
    IfAbsent,
    IfPresent,
    /// [`Version::NONE`] stands for "no value".
    IfVersion(Version),
}

/// How a touch compares the new time to live with the remaining one. An entry that does not expire counts as longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TouchMode {
    Overwrite,
    ExtendOnly,
    ShortenOnly,
}

/// Why a call changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("the key has a value already")]
    AlreadyExists,
    #[error("the key has no value")]
    NotFound,
    #[error("the version is {current}, not the expected one", current = .current.as_u64())]
    VersionMismatch { current: Version },
    #[error("the value is no decimal number of 64 bits, so it cannot be incremented")]
    NotACounter,
    #[error("the sum does not fit 64 bits")]
    CounterOverflow,
    #[error("account `{account}` has {limit} keys, its maximum")]
    QuotaKeys { limit: u64, account: AccountId },
    #[error("account `{account}` would exceed its maximum of {limit} bytes")]
    QuotaBytes { limit: u64, account: AccountId },
    /// What is leased to this replica is used up: ask the account's home for `keys` and `bytes` more, then try again.
    #[error("account `{account}` has no room left in the lease of this replica; ask for {keys} keys and {bytes} bytes")]
    NeedsLease { account: AccountId, keys: u64, bytes: u64 },
    #[error("the entry is larger than the capacity, or all memory that is left is guaranteed to other accounts")]
    NoRoom,
    #[error("this replica may not carry out an operation on the key now: {0:?}")]
    Elsewhere(Standing),
}

/// What a touch did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touched {
    /// New if the expiry changed; [`Version::NONE`] in a dry run.
    pub version: Version,
    /// In milliseconds, at least 1; `None`: the entry does not expire.
    pub remaining_ttl_ms: Option<u64>,
    /// Whether the expiry changed.
    pub changed: bool,
}

/// What an increment answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    pub value: i64,
    /// [`Version::NONE`] in a dry run.
    pub version: Version,
}

/// Some entries of a dump, in order, copied out: no lock is held.
#[derive(Clone, Debug)]
pub struct Page {
    pub items: Vec<PageItem>,
    /// Where to go on; `None` at the end. A page may be empty and not the last: the work of one call is bounded, and
    /// between two entries of this account there may be very many of others.
    pub next: Option<Cursor>,
    /// `next` is `None`.
    pub end: bool,
}

/// One entry of a dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageItem {
    pub key: String,
    pub value: Bytes,
    pub version: Version,
    /// In milliseconds, at least 1; `None`: the entry does not expire.
    pub remaining_ttl_ms: Option<u64>,
    /// Right after this entry.
    pub cursor: Cursor,
}

/// What a step of a clear did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// Entries removed; in a dry run, that would be.
    pub removed: u64,
    /// Where to go on; `None` at the end. The work of one call is bounded, so `removed` may be less than the limit before.
    pub next: Option<Cursor>,
}

/// Sums over the whole store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Entries that have not been reclaimed; tombstones are none.
    pub entries: u64,
    /// What is left of deleted keys for a hand-off.
    pub tombstones: u64,
    /// The charge of all entries and tombstones, in bytes.
    pub memory_bytes: u64,
    pub capacity_bytes: u64,
    /// Reads that found a value, since the start; and so on.
    pub hits: u64,
    pub misses: u64,
    /// Writes of an entry: stores and increments.
    pub stored: u64,
    /// Entries removed to make room.
    pub evicted: u64,
    /// Entries removed because their time was over.
    pub expired: u64,
}

impl StoreConfig {
    /// Enough that four to eight busy cores seldom meet.
    pub const DEFAULT_SHARDS: usize = 16;

    /// More would only cost memory.
    pub const MAX_SHARDS: usize = 1024;
}

impl Mode {
    #[must_use]
    pub fn is_dry_run(self) -> bool {
        self != Self::Apply
    }
}

impl StoreError {
    pub(super) fn over_budget(over: OverBudget, tenant: &Tenant) -> Self {
        let account = tenant.id().clone();
        match over {
            OverBudget::Keys { limit } => Self::QuotaKeys { limit, account },
            OverBudget::Bytes { limit } => Self::QuotaBytes { limit, account },
            OverBudget::Lease(need) => Self::NeedsLease { account, keys: need.keys, bytes: need.bytes },
        }
    }
}
