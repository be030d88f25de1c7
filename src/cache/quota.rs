//! What an account may use and does use: budgets, exact usage, and the token bucket of its request rate.
//!
//! Usage is exact under concurrency: room is checked and taken in one step, so a budget is never exceeded and never refused
//! while there is room. Memory is not refused but evicted; here it is only counted, against `guaranteed_bytes`.
//! Not here: leases between replicas, which hand out shares of one cluster-wide budget.

mod token_bucket;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

pub use self::token_bucket::TokenBucket;
use super::key::AccountId;

/// What an account may use. The default is no limit and no guarantee.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Keys.
    pub max_keys: Option<u64>,
    /// Bytes of keys and values together.
    pub max_bytes: Option<u64>,
    /// Bytes of memory (keys, values and overhead) that other accounts' stores cannot evict.
    pub guaranteed_bytes: u64,
}

/// What an account uses: the entries charged to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Keys.
    pub keys: u64,
    /// Bytes of keys and values together.
    pub bytes: u64,
    /// Bytes of memory: keys, values and overhead.
    pub memory: u64,
}

/// Which budget has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OverBudget {
    Keys { limit: u64 },
    Bytes { limit: u64 },
}

/// An account as the store knows it. Cheap to clone; all clones are the same account.
#[derive(Clone)]
pub struct Tenant(Arc<Shared>);

struct Shared {
    id: AccountId,
    /// Number of this account in the store; entries name it by this.
    slot: u32,
    /// Keys and bytes, with what they may become: checked and taken under one lock.
    quota: Mutex<Quota>,
    /// Apart from the quota, because eviction reads both for every entry it looks at.
    memory: AtomicU64,
    guaranteed: AtomicU64,
}

#[derive(Default)]
struct Quota {
    keys: u64,
    bytes: u64,
    max_keys: Option<u64>,
    max_bytes: Option<u64>,
}

impl Tenant {
    pub(super) fn new(id: AccountId, slot: u32) -> Self {
        let quota = Mutex::new(Quota::default());
        Self(Arc::new(Shared { id, slot, quota, memory: AtomicU64::new(0), guaranteed: AtomicU64::new(0) }))
    }

    #[must_use]
    pub fn id(&self) -> &AccountId {
        &self.0.id
    }

    #[must_use]
    pub fn usage(&self) -> Usage {
        let quota = self.0.quota.lock();
        Usage { keys: quota.keys, bytes: quota.bytes, memory: self.memory() }
    }

    #[must_use]
    pub fn budget(&self) -> Budget {
        let quota = self.0.quota.lock();
        Budget {
            max_keys: quota.max_keys,
            max_bytes: quota.max_bytes,
            guaranteed_bytes: self.0.guaranteed.load(Ordering::Relaxed),
        }
    }

    /// Takes effect on the next store; what is over a smaller budget stays until it is deleted, expires or is evicted.
    pub fn set_budget(&self, budget: Budget) {
        let mut quota = self.0.quota.lock();
        quota.max_keys = budget.max_keys;
        quota.max_bytes = budget.max_bytes;
        self.0.guaranteed.store(budget.guaranteed_bytes, Ordering::Relaxed);
    }

    pub(super) fn slot(&self) -> u32 {
        self.0.slot
    }

    pub(super) fn memory(&self) -> u64 {
        self.0.memory.load(Ordering::Relaxed)
    }

    /// Gives up `bytes` of memory, unless less than its guarantee would be left. Answers whether it did.
    pub(super) fn try_lose_memory(&self, bytes: u64) -> bool {
        let guaranteed = self.0.guaranteed.load(Ordering::Relaxed);
        let left = |memory: u64| memory.checked_sub(bytes).filter(|&left| guaranteed == 0 || left >= guaranteed);
        self.0.memory.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).is_ok()
    }

    /// Whether it surely has an entry that it can lose and keep its guarantee: an average one, than which some entry is not
    /// larger. A few spare bytes are no entry, and looking for one among all would be in vain.
    pub(super) fn has_a_spare_entry(&self) -> bool {
        let Usage { keys, memory, .. } = self.usage();
        let spare = memory.saturating_sub(self.0.guaranteed.load(Ordering::Relaxed));
        memory.checked_div(keys).is_some_and(|average| memory > 0 && average <= spare)
    }

    /// Whether `keys` and `bytes` more would fit; takes nothing.
    pub(super) fn would_fit(&self, keys: u64, bytes: u64) -> Result<(), OverBudget> {
        self.0.quota.lock().check(keys, bytes)
    }

    /// Takes `keys` and `bytes` if they fit, else nothing.
    pub(super) fn take(&self, keys: u64, bytes: u64) -> Result<(), OverBudget> {
        let mut quota = self.0.quota.lock();
        quota.check(keys, bytes)?;
        quota.keys += keys;
        quota.bytes += bytes;
        Ok(())
    }

    /// Takes `keys` and `bytes` whether they fit or not: a copy comes with what its account used elsewhere.
    pub(super) fn take_anyway(&self, keys: u64, bytes: u64) {
        let mut quota = self.0.quota.lock();
        quota.keys += keys;
        quota.bytes += bytes;
    }

    /// Gives back what was taken.
    pub(super) fn give_back(&self, keys: u64, bytes: u64) {
        let mut quota = self.0.quota.lock();
        debug_assert!(quota.keys >= keys && quota.bytes >= bytes, "more is given back than was taken");
        quota.keys -= keys;
        quota.bytes -= bytes;
    }

    pub(super) fn add_memory(&self, bytes: u64) {
        self.0.memory.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn sub_memory(&self, bytes: u64) {
        let before = self.0.memory.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(before >= bytes, "more memory is given back than was taken");
    }
}

impl PartialEq for Tenant {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Tenant {}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tenant").field(&self.0.id.as_str()).finish()
    }
}

impl Quota {
    /// Nothing asked always fits, also over a budget that was made smaller.
    fn check(&self, keys: u64, bytes: u64) -> Result<(), OverBudget> {
        if let Some(limit) = self.max_keys
            && keys > 0
            && self.keys + keys > limit
        {
            return Err(OverBudget::Keys { limit });
        }
        if let Some(limit) = self.max_bytes
            && bytes > 0
            && self.bytes + bytes > limit
        {
            return Err(OverBudget::Bytes { limit });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_taken_to_its_last_key_and_byte_and_not_beyond() {
        let tenant = Tenant::new(AccountId::new("a").unwrap(), 0);
        tenant.set_budget(Budget { max_keys: Some(2), max_bytes: Some(10), guaranteed_bytes: 0 });
        assert_eq!(tenant.take(1, 11), Err(OverBudget::Bytes { limit: 10 }));
        assert_eq!(tenant.take(1, 10), Ok(()));
        assert_eq!(tenant.take(1, 1), Err(OverBudget::Bytes { limit: 10 }));
        assert_eq!(tenant.take(1, 0), Ok(()));
        assert_eq!(tenant.take(1, 0), Err(OverBudget::Keys { limit: 2 }));
        assert_eq!(tenant.usage(), Usage { keys: 2, bytes: 10, memory: 0 });
    }

    #[test]
    fn over_a_budget_that_shrank_an_entry_may_still_shrink() {
        let tenant = Tenant::new(AccountId::new("a").unwrap(), 0);
        tenant.take(2, 10).unwrap();
        tenant.set_budget(Budget { max_keys: Some(1), max_bytes: Some(5), guaranteed_bytes: 0 });
        assert_eq!(tenant.would_fit(0, 0), Ok(()));
        assert_eq!(tenant.would_fit(0, 1), Err(OverBudget::Bytes { limit: 5 }));
    }
}
