//! What the wall keeps of each account: its rate, its budget in the store, what it was counted. All connections and workers
//! share it, so that a rate holds for the account and not for each of its connections.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use crate::cache::key::AccountId;
use crate::cache::quota::{Budget, Tenant, TokenBucket, Usage};
use crate::cache::store::Store;
use crate::rpc::failure::Failure;
use crate::server::accounts::{Account, Grant, Limits};

/// How many accounts are kept at once. More than the connections and calls that can be open, so that there is always one
/// that nobody uses and that can be forgotten; what is lost with it is how full its bucket was, and its counts.
pub const MAX_ACCOUNTS: usize = 16_384;

/// Every account that was seen.
pub struct Accounted {
    store: Arc<Store>,
    states: RwLock<HashMap<AccountId, Arc<AccountState>>>,
}

/// What is kept of one account.
#[derive(Debug)]
pub struct AccountState {
    pub tenant: Tenant,
    applied: Mutex<Limits>,
    /// Whether there is a rate at all; read before the bucket, so that an account without one pays nothing.
    limited: AtomicBool,
    bucket: TokenBucket,
    calls: AtomicU64,
    refused: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

/// Who calls: what the token grants, and what is kept of the account.
#[derive(Debug)]
pub struct Principal {
    pub grant: Grant,
    pub state: Arc<AccountState>,
}

/// One account's counts, for the metrics.
#[derive(Clone, Debug)]
pub struct AccountCounts {
    pub id: AccountId,
    pub calls: u64,
    pub refused: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub budget: Budget,
    pub usage: Usage,
}

impl Accounted {
    #[must_use]
    pub fn new(store: Arc<Store>) -> Self {
        Self { store, states: RwLock::default() }
    }

    /// What is kept of an account, with its limits as they are now.
    pub fn state(&self, account: &Account) -> Arc<AccountState> {
        let known = self.states.read().get(&account.id).cloned();
        let state = known.unwrap_or_else(|| self.add(account));
        state.apply(&account.limits);
        state
    }

    /// Applies the limits of all these accounts, also of those that nobody uses: their guarantees hold against others.
    pub fn apply(&self, accounts: &[Arc<Account>]) {
        for account in accounts {
            self.state(account);
        }
    }

    /// Takes the guarantees away from accounts that are not among these: nobody can use what they hold, so it must not stay
    /// in others' way.
    pub fn retire_others(&self, accounts: &[Arc<Account>]) {
        let ids: HashSet<&AccountId> = accounts.iter().map(|account| &account.id).collect();
        let states = self.states.read();
        for (_, state) in states.iter().filter(|(id, _)| !ids.contains(id)) {
            let limits = *state.applied.lock();
            state.apply(&Limits { guaranteed_bytes: 0, ..limits });
        }
    }

    /// Every account's counts, in the order of ids.
    #[must_use]
    pub fn counts(&self) -> Vec<AccountCounts> {
        let states: Vec<Arc<AccountState>> = self.states.read().values().cloned().collect();
        let mut counts: Vec<AccountCounts> = states.iter().map(|state| state.counts()).collect();
        counts.sort_by(|a, b| a.id.cmp(&b.id));
        counts
    }

    fn add(&self, account: &Account) -> Arc<AccountState> {
        let tenant = self.store.tenant(&account.id);
        let mut states = self.states.write();
        if states.len() >= MAX_ACCOUNTS {
            states.retain(|_, state| Arc::strong_count(state) > 1);
        }
        states.entry(account.id.clone()).or_insert_with(|| Arc::new(AccountState::new(tenant, account.limits))).clone()
    }
}

impl AccountState {
    fn new(tenant: Tenant, limits: Limits) -> Self {
        tenant.set_budget(budget(&limits));
        Self {
            tenant,
            applied: Mutex::new(limits),
            limited: AtomicBool::new(limits.requests_per_second.is_some()),
            bucket: TokenBucket::new(limits.requests_per_second.unwrap_or(1), limits.burst),
            calls: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
        }
    }

    fn apply(&self, limits: &Limits) {
        let mut applied = self.applied.lock();
        if *applied == *limits {
            return;
        }
        self.tenant.set_budget(budget(limits));
        if let Some(rate) = limits.requests_per_second {
            self.bucket.set_rate(rate, limits.burst);
        }
        self.limited.store(limits.requests_per_second.is_some(), Ordering::Release);
        *applied = *limits;
    }

    /// Takes one call from the account's rate.
    ///
    /// # Errors
    /// [`Failure::AccountRate`].
    pub fn take(&self, now_us: u64) -> Result<(), Failure> {
        if self.limited.load(Ordering::Acquire)
            && let Err(retry_after) = self.bucket.try_take(now_us)
        {
            return Err(self.over_rate(retry_after));
        }
        Ok(())
    }

    /// Counts calls, also those that were refused.
    pub fn count(&self, calls: u64, bytes_in: u64, bytes_out: u64) {
        self.calls.fetch_add(calls, Ordering::Relaxed);
        self.bytes_in.fetch_add(bytes_in, Ordering::Relaxed);
        self.bytes_out.fetch_add(bytes_out, Ordering::Relaxed);
    }

    fn over_rate(&self, retry_after: Duration) -> Failure {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let limit = self.applied.lock().requests_per_second.unwrap_or_default();
        Failure::AccountRate { account: self.tenant.id().to_string(), limit, retry_after }
    }

    fn counts(&self) -> AccountCounts {
        AccountCounts {
            id: self.tenant.id().clone(),
            calls: self.calls.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
            budget: self.tenant.budget(),
            usage: self.tenant.usage(),
        }
    }
}

impl Principal {
    #[must_use]
    pub fn new(accounted: &Accounted, grant: Grant) -> Arc<Self> {
        let state = accounted.state(&grant.account);
        Arc::new(Self { grant, state })
    }

    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.grant.account.limits
    }
}

impl fmt::Debug for Accounted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accounted").field("accounts", &self.states.read().len()).finish_non_exhaustive()
    }
}

fn budget(limits: &Limits) -> Budget {
    Budget { max_keys: limits.max_keys, max_bytes: limits.max_bytes, guaranteed_bytes: limits.guaranteed_bytes }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::store::StoreConfig;

    fn account(id: &str) -> Arc<Account> {
        let limits = Limits { guaranteed_bytes: 7, max_keys: Some(3), ..Limits::default() };
        Arc::new(Account { id: AccountId::new(id).unwrap(), limits })
    }

    #[test]
    fn an_account_that_is_removed_keeps_its_limits_and_loses_its_guarantee() {
        let store = Arc::new(Store::new(StoreConfig { capacity_bytes: 1 << 20, shards: 1, replica: 0 }));
        let accounted = Accounted::new(store);
        let (stays, goes) = (account("stays"), account("goes"));
        accounted.apply(&[stays.clone(), goes.clone()]);
        accounted.retire_others(std::slice::from_ref(&stays));
        let budget = |account: &Account| accounted.states.read()[&account.id].tenant.budget();
        assert_eq!((budget(&stays).guaranteed_bytes, budget(&goes).guaranteed_bytes), (7, 0));
        assert_eq!(budget(&goes).max_keys, Some(3));
        accounted.apply(std::slice::from_ref(&goes));
        assert_eq!(budget(&goes).guaranteed_bytes, 7);
    }
}
