//! Room under the capacity, which is one for all shards: taking it, and making it by eviction and expiry.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Store;
use super::shard::{Evict, Garbage, MAX_SECOND_CHANCES, Shard};
use crate::cache::quota::Tenant;
use crate::cache::version::Now;

/// Entries that are evicted, or expired, before a shard's lock is let go: some 20 microseconds of work.
const BATCH: usize = 64;

/// Guarded entries that a search looks at in one shard before it goes on to the next.
pub(super) const PATIENCE: usize = 256;

/// Entries that one call looks at in its last search, for the few that may go among very many that may not: some 10
/// milliseconds. What was looked at went to the front of its queue, so the next call goes on where this one stopped.
const MAX_SEARCHED: usize = 65_536;

/// How often room is made for one thing before it goes without: others may take what comes free.
pub(super) const MAX_ATTEMPTS: usize = 1024;

/// Room that is taken for an entry to be written. What is not kept goes back on drop.
pub(super) struct Room<'a> {
    used: &'a AtomicU64,
    bytes: u64,
}

impl<'a> Room<'a> {
    pub(super) fn none(used: &'a AtomicU64) -> Self {
        Self { used, bytes: 0 }
    }

    /// Takes what is missing to `bytes`, if all of it fits.
    pub(super) fn grow_to(&mut self, bytes: u64, capacity: u64) -> bool {
        let missing = bytes.saturating_sub(self.bytes);
        let with_it = |used: u64| used.checked_add(missing).filter(|&with_it| missing == 0 || with_it <= capacity);
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with_it).is_ok();
        if taken {
            self.bytes += missing;
        }
        taken
    }

    /// An entry's charge went from `before` to `after`: keeps the difference and lets the rest go.
    pub(super) fn keep(&mut self, before: u64, after: u64) {
        let held = before + std::mem::take(&mut self.bytes);
        if after > held {
            self.used.fetch_add(after - held, Ordering::Relaxed);
        } else {
            self.used.fetch_sub(held - after, Ordering::Relaxed);
        }
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.used.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

thread_local! {
    /// Entries that this thread has evicted, from any store.
    static EVICTED: Cell<u64> = const { Cell::new(0) };
}

/// How many entries this thread has evicted so far: the difference over a call is what the call evicted.
#[must_use]
pub fn evicted_by_this_thread() -> u64 {
    EVICTED.get()
}

impl Store {
    /// Counts marks that came or went in a shard.
    pub(super) fn count_marks(&self, shard: &mut Shard) {
        Room::none(&self.used).keep(shard.marks(), shard.count_marks());
    }

    /// Reclaims entries whose time is over, at most `limit`; answers how many. Call it about ten times a second.
    pub fn expire_due(&self, now: Now, limit: usize) -> usize {
        let mut expired = 0;
        for shard in &self.shards {
            loop {
                if expired >= limit {
                    return expired;
                }
                let mut garbage = Garbage::new();
                let done = shard.0.lock().expire(now, BATCH.min(limit - expired), &mut garbage);
                self.used.fetch_sub(done.bytes, Ordering::Relaxed);
                expired += done.entries;
                if !done.more {
                    break;
                }
            }
        }
        expired
    }

    /// Changes the capacity and evicts down to it, as far as guarantees let it.
    pub fn set_capacity(&self, bytes: u64, now: Now) {
        self.capacity.store(bytes, Ordering::Relaxed);
        loop {
            let surplus = self.used.load(Ordering::Relaxed).saturating_sub(bytes);
            if surplus == 0 || !self.evict_somewhere(None, surplus, now) {
                return;
            }
        }
    }

    /// Whether a shard holds its share of what is used, so that it may as well evict its own.
    pub(super) fn holds_its_share(&self, shard: &Shard) -> bool {
        shard.counts.memory.saturating_mul(self.shards.len() as u64) >= self.used.load(Ordering::Relaxed)
    }

    /// Evicts from one shard until `missing` bytes came free, or its bound is reached. Answers how many did.
    pub(super) fn evict_from(
        &self,
        shard: &mut Shard,
        search: &mut Evict<'_>,
        missing: u64,
        garbage: &mut Garbage,
    ) -> u64 {
        let mut freed: u64 = 0;
        for _ in 0..BATCH {
            let Some(bytes) = shard.evict_one(search, garbage) else { break };
            EVICTED.set(EVICTED.get() + 1);
            // At once, so that others may use it and nobody evicts more than is needed.
            self.used.fetch_sub(bytes, Ordering::Relaxed);
            freed = freed.saturating_add(bytes);
            // Without second chances, what is read often would go too: they are for a batch, so that its time is bounded.
            if freed >= missing || search.second_chances == 0 {
                break;
            }
        }
        freed
    }

    /// Evicts up to `missing` bytes, at least something, in whichever shard has something that may go: first in one that
    /// holds its share, then in any, then by looking at very many entries. `false`: there is nothing, or about nothing.
    pub(super) fn evict_somewhere(&self, asker: Option<&Tenant>, missing: u64, now: Now) -> bool {
        let first = self.rotor.fetch_add(1, Ordering::Relaxed);
        let shards = || (0..self.shards.len()).map(move |step| (first + step) % self.shards.len());
        let mut garbage = Garbage::new();
        let mut evict = |index: usize, only_full: bool, second_chances: usize| {
            let mut shard = self.shards[index].0.lock();
            if only_full && !self.holds_its_share(&shard) {
                return false;
            }
            let mut search = Evict { asker, keep: None, patience: PATIENCE, second_chances, now };
            self.evict_from(&mut shard, &mut search, missing, &mut garbage) > 0
        };
        let chances = MAX_SECOND_CHANCES;
        if shards().any(|index| evict(index, true, chances)) {
            return true;
        }
        if !self.may_evict_anything(asker) {
            return false;
        }
        if shards().any(|index| evict(index, false, chances)) {
            return true;
        }
        let mut searches = MAX_SEARCHED / PATIENCE;
        shards().any(|index| {
            let entries = self.shards[index].0.lock().evictable();
            let here = searches.min(2 * entries / PATIENCE + 1);
            searches -= here;
            (0..here).any(|_| evict(index, false, 0))
        })
    }

    /// Whether any account surely has an entry that is not guaranteed against the asker, or nobody is charged for something
    /// (be it a tombstone). Locks no shard, since it is called under one.
    pub(super) fn may_evict_anything(&self, asker: Option<&Tenant>) -> bool {
        let tenants = self.tenants.lock();
        let charged: u64 = tenants.values().map(Tenant::memory).sum();
        charged < self.used.load(Ordering::Relaxed)
            || tenants
                .values()
                .any(|tenant| tenant.has_a_spare_entry() || (Some(tenant) == asker && tenant.memory() > 0))
    }
}
