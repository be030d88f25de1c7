//! The store: a sharded map in memory, bounded in bytes, with expiry, versions and quotas.
//!
//! # Shape
//!
//! A key's *route hash* chooses its shard by its leading bits, and by the next ones a bucket in it (`index`). Entries lie in
//! gapless arrays of equal chunks (`slab`, `entry`), linked through themselves into eviction queues (`queue`,
//! `shard::evict`) and a timing wheel (`expiry`). Each shard has one lock; no call holds two.
//!
//! # What holds
//!
//! - The charges of all entries together never exceed the capacity ([`Store::set_capacity`] may take a moment to get there);
//!   in a hand-off marks and tombstones count too, and may exceed it once nothing else is left that may go.
//! - `memory_bytes` is the sum of [`entry_charge`] over all entries, to the byte (counters that remember request ids are
//!   charged for these too, until they are written without), and of the tombstones and marks of a hand-off.
//! - An account's usage is exact, and its budget is never exceeded; before a refusal everything that is due is expired.
//! - No account's memory gets below its guarantee by the stores of others.
//! - What expires at a time is gone at that time, whether it is reclaimed or not.
//! - Versions of a key grow, also over deletes.
//!
//! - At a member of a cluster ([`Store::join`]): no operation runs where its shard's view says that it may not.
//!
//! Not here: clocks (`now` is passed in), async, who owns what (`ownership` says, `copies` and `shard::member` carry it out). A large value under an [`EntryRef`] is shared
//! with the store, so its memory is in use until the reader drops it, though it is evicted.

mod call;
mod copies;
mod counter;
mod entry;
mod expiry;
mod ghost;
mod index;
mod member;
mod outside;
mod queue;
mod room;
mod shard;
mod slab;
mod walk;
mod write;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use foldhash::quality::SeedableRandomState;
use parking_lot::{Mutex, MutexGuard};

pub use self::call::{
    Condition, Counted, Mode, Page, PageItem, Removed, Scope, StoreConfig, StoreError, StoreStats, TouchMode, Touched,
};
pub use self::copies::{Lent, LentValue, Pieces, StoreCopies, WriteCopy};
pub use self::entry::{EntryRef, entry_charge};
use self::index::Hashes;
pub use self::member::{Carried, Name, Place, RememberedRequest};
use self::shard::Shard;
use super::key::{AccountId, Key};
use super::quota::Tenant;
use super::version::{HybridClock, Now};
use crate::ownership::shard::Standing;
pub use room::evicted_by_this_thread;

/// A sharded, byte-bounded map with expiry, versions and quotas.
pub struct Store {
    clock: Arc<HybridClock>,
    /// A power of two of them.
    shards: Box<[Aligned]>,
    shard_bits: u32,
    /// The charges of all entries, and of those that are about to be written.
    used: AtomicU64,
    capacity: AtomicU64,
    /// The shard that the next search for something to evict begins at.
    rotor: AtomicUsize,
    tenants: Mutex<HashMap<AccountId, Tenant>>,
    /// It is a member's: budgets are the cluster's.
    leased: AtomicBool,
    hasher: SeedableRandomState,
}

/// Apart by two cache lines, which are fetched together.
#[repr(align(128))]
struct Aligned(Mutex<Shard>);

impl Store {
    #[must_use]
    pub fn new(config: StoreConfig) -> Self {
        Self::hashing_with(config, SeedableRandomState::random())
    }

    /// A store that does the same things each time, for simulations.
    #[cfg(feature = "simulation")]
    #[must_use]
    pub fn simulated(config: StoreConfig, seed: u64) -> Self {
        Self::hashing_with(config, SeedableRandomState::with_seed(seed, foldhash::SharedSeed::global_fixed()))
    }

    fn hashing_with(config: StoreConfig, hasher: SeedableRandomState) -> Self {
        let count = config.shards.clamp(1, StoreConfig::MAX_SHARDS).next_power_of_two();
        let shard_bits = count.trailing_zeros();
        let shards = (0..count).map(|_| Aligned(Mutex::new(Shard::new(shard_bits, hasher.clone()))));
        Self {
            clock: Arc::new(HybridClock::new(config.replica)),
            shards: shards.collect(),
            shard_bits,
            used: AtomicU64::new(0),
            capacity: AtomicU64::new(config.capacity_bytes),
            rotor: AtomicUsize::new(0),
            tenants: Mutex::new(HashMap::new()),
            leased: AtomicBool::new(false),
            hasher,
        }
    }

    /// The account's tenant; the same one for the same id. Never forgotten: accounts are few.
    ///
    /// # Panics
    /// At the 2^24th account.
    pub fn tenant(&self, id: &AccountId) -> Tenant {
        let mut tenants = self.tenants.lock();
        if let Some(tenant) = tenants.get(id) {
            return tenant.clone();
        }
        let slot = u32::try_from(tenants.len()).unwrap_or(u32::MAX);
        assert!(slot < entry::MAX_TENANTS, "a store takes at most 2^24 accounts");
        let tenant = Tenant::new(id.clone(), slot, self.leased.load(Ordering::Relaxed));
        tenants.insert(id.clone(), tenant.clone());
        tenant
    }

    /// Runs `f` on the entry of `key`, under the lock of its shard: keep it short. `None`: there is no value.
    ///
    /// # Errors
    /// When this replica may not carry out an operation on the key now.
    pub fn read<R>(
        &self,
        space: &Tenant,
        key: Key<'_>,
        now: Now,
        f: impl FnOnce(&EntryRef<'_>) -> R,
    ) -> Result<Option<R>, Standing> {
        let hashes = self.hashes(space, key);
        let mut shard = self.lock(hashes);
        shard.admit(hashes)?;
        let Some(at) = shard.find_live(space, key.as_bytes(), hashes, now) else {
            shard.counts.misses += 1;
            return Ok(None);
        };
        shard.counts.hits += 1;
        shard.touch_frequency(at);
        Ok(Some(f(&shard.entry(at))))
    }

    /// As [`Self::read`], but leaves no trace: it is not counted, and the entry lives no longer for it.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn peek<R>(
        &self,
        space: &Tenant,
        key: Key<'_>,
        now: Now,
        f: impl FnOnce(&EntryRef<'_>) -> R,
    ) -> Result<Option<R>, Standing> {
        let hashes = self.hashes(space, key);
        let shard = self.lock(hashes);
        shard.admit(hashes)?;
        Ok(shard.find_live(space, key.as_bytes(), hashes, now).map(|at| f(&shard.entry(at))))
    }

    #[must_use]
    pub fn stats(&self) -> StoreStats {
        let mut sum = StoreStats { capacity_bytes: self.capacity.load(Ordering::Relaxed), ..StoreStats::default() };
        for shard in &self.shards {
            let counts = shard.0.lock().counts;
            sum.entries += counts.entries;
            sum.tombstones += counts.tombstones;
            sum.memory_bytes += counts.memory;
            sum.hits += counts.hits;
            sum.misses += counts.misses;
            sum.stored += counts.stored;
            sum.evicted += counts.evicted;
            sum.expired += counts.expired;
        }
        sum
    }

    /// Makes the versions of this store.
    #[must_use]
    pub fn clock(&self) -> &Arc<HybridClock> {
        &self.clock
    }

    fn hashes(&self, space: &Tenant, key: Key<'_>) -> Hashes {
        shard::hashes_of(&self.hasher, space, key.as_bytes())
    }

    #[expect(clippy::cast_possible_truncation, reason = "10 bits")]
    fn shard_of(&self, route: u64) -> usize {
        route.checked_shr(64 - self.shard_bits).unwrap_or(0) as usize
    }

    fn lock_at(&self, route: u64) -> MutexGuard<'_, Shard> {
        self.shards[self.shard_of(route)].0.lock()
    }

    /// The last route hash of a hash's shard.
    fn shard_end(&self, route: u64) -> u64 {
        route | u64::MAX.checked_shr(self.shard_bits).unwrap_or(0)
    }

    fn lock(&self, hashes: Hashes) -> MutexGuard<'_, Shard> {
        self.lock_at(hashes.route)
    }
}

#[cfg(test)]
mod tests;
