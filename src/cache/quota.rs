//! What an account may use and does use: budgets, exact usage, and the token bucket of its request rate.
//!
//! Usage is exact under concurrency: room is checked and taken in one step, so a budget is never exceeded and never refused
//! while there is room. Memory is not refused but evicted; here it is only counted, against `guaranteed_bytes`.
//!
//! A store that is alone has the whole budget. One of a cluster may create what was leased to it ([`lease`]), of whatever has a
//! limit. What a cluster's replicas hold as copies for each other counts as used where it lies.
//! Not here: who leases (`ownership::quota`).

mod lease;
mod token_bucket;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

pub use self::lease::{Amount, Counting, Holding};
use self::lease::{Lease, Limited};
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
pub(crate) enum OverBudget {
    Keys {
        limit: u64,
    },
    Bytes {
        limit: u64,
    },
    /// Not leased to this replica.
    Lease(Amount),
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
    known: Known,
    /// None: this store is alone, and the budget is all its own.
    lease: Option<Lease>,
}

/// Where a budget is from.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Known {
    /// None was ever set.
    #[default]
    No,
    /// From another replica.
    Heard,
    /// From a call of the account.
    Set,
}

impl Tenant {
    /// `slot`: its number in its store. `leased`: the store is one of a cluster's.
    #[must_use]
    pub fn new(id: AccountId, slot: u32, leased: bool) -> Self {
        let quota = Mutex::new(Quota { lease: leased.then(Lease::default), ..Quota::default() });
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
        self.know(budget, Known::Set);
    }

    /// As [`Self::set_budget`], of what another replica knows: counts until a call of the account says it here.
    pub(super) fn hear_budget(&self, budget: Budget) {
        self.know(budget, Known::Heard);
    }

    /// [`Self::budget`], if it was ever set.
    pub(super) fn known_budget(&self) -> Option<Budget> {
        let is_known = self.0.quota.lock().known != Known::No;
        is_known.then(|| self.budget())
    }

    fn know(&self, budget: Budget, known: Known) {
        let mut quota = self.0.quota.lock();
        if known == Known::Heard && quota.known == Known::Set {
            return;
        }
        quota.known = known;
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
    pub(crate) fn take(&self, keys: u64, bytes: u64) -> Result<(), OverBudget> {
        let mut quota = self.0.quota.lock();
        quota.check(keys, bytes)?;
        quota.use_more(keys, bytes);
        let limited = quota.limited();
        if let Some(lease) = &mut quota.lease {
            lease.take(Amount { keys, bytes }, limited);
        }
        Ok(())
    }

    /// Gives back what was taken: not used, or removed by the authority of its key.
    pub(crate) fn give_back(&self, keys: u64, bytes: u64) {
        let mut quota = self.0.quota.lock();
        quota.use_less(keys, bytes);
        let limited = quota.limited();
        if let Some(lease) = &mut quota.lease {
            lease.give_back(Amount { keys, bytes }, limited);
        }
    }

    /// A copy came here from another replica. Nobody is asked: it was counted there.
    pub(super) fn add_copy(&self, keys: u64, bytes: u64) {
        self.0.quota.lock().use_more(keys, bytes);
    }

    /// A copy is not kept any more: another replica has it, or may have it. Gives no room for anything else.
    pub(super) fn drop_copy(&self, keys: u64, bytes: u64) {
        self.0.quota.lock().use_less(keys, bytes);
    }

    pub(super) fn add_memory(&self, bytes: u64) {
        self.0.memory.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn sub_memory(&self, bytes: u64) {
        let before = self.0.memory.fetch_sub(bytes, Ordering::Relaxed);
        debug_assert!(before >= bytes, "more memory is given back than was taken");
    }
}

/// In a cluster: what the hand-off and the account's home do with the lease.
impl Tenant {
    /// From now on the store is one of a cluster's, and nothing is leased; or the view changed, and nothing is leased any more.
    pub fn void_lease(&self) {
        let mut quota = self.0.quota.lock();
        let used = quota.used();
        quota.lease = Some(Lease::of_new_view(used));
    }

    /// The account's home leased more, knowing what was counted in `round`. Answers whether that still counts.
    #[must_use]
    pub fn grant(&self, more: Amount, round: u64) -> bool {
        self.0.quota.lock().lease.as_mut().is_some_and(|lease| lease.grant(more, round))
    }

    /// So much of the lease is for operations that are about to run.
    pub fn promise(&self, need: Amount, now_ms: u64) {
        if let Some(lease) = &mut self.0.quota.lock().lease {
            lease.promise(need, now_ms);
        }
    }

    /// The account's home counts, and calls in what is neither used nor promised. `None`: the store is alone.
    #[must_use]
    pub fn count(&self, counting: Counting) -> Option<Holding> {
        let mut quota = self.0.quota.lock();
        let used = quota.used();
        Some(quota.lease.as_mut()?.count(used, counting))
    }

    /// Leased and not used.
    #[must_use]
    pub fn free(&self) -> Amount {
        self.0.quota.lock().lease.as_ref().map(Lease::free).unwrap_or_default()
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
        if let Some(lease) = &self.lease {
            let need = Amount { keys, bytes };
            return if lease.has(need, self.limited()) { Ok(()) } else { Err(OverBudget::Lease(need)) };
        }
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

    fn used(&self) -> Amount {
        Amount { keys: self.keys, bytes: self.bytes }
    }

    fn limited(&self) -> Limited {
        Limited { keys: self.max_keys.is_some(), bytes: self.max_bytes.is_some() }
    }

    fn use_more(&mut self, keys: u64, bytes: u64) {
        self.keys += keys;
        self.bytes += bytes;
    }

    fn use_less(&mut self, keys: u64, bytes: u64) {
        debug_assert!(self.keys >= keys && self.bytes >= bytes, "more is given back than was taken");
        self.keys -= keys;
        self.bytes -= bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_taken_to_its_last_key_and_byte_and_not_beyond() {
        let tenant = Tenant::new(AccountId::new("a").unwrap(), 0, false);
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
        let tenant = Tenant::new(AccountId::new("a").unwrap(), 0, false);
        tenant.take(2, 10).unwrap();
        tenant.set_budget(Budget { max_keys: Some(1), max_bytes: Some(5), guaranteed_bytes: 0 });
        assert_eq!(tenant.would_fit(0, 0), Ok(()));
        assert_eq!(tenant.would_fit(0, 1), Err(OverBudget::Bytes { limit: 5 }));
    }
}
