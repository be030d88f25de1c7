//! The store: a sharded map in memory, bounded in bytes.
//!
//! Interim body: one ordered map behind one lock, without eviction. The interface is the final one.

mod call;

use std::collections::{BTreeMap, HashMap};
use std::marker::PhantomData;
use std::ops::Bound;

use bytes::{BufMut, Bytes};
use parking_lot::Mutex;

pub use self::call::{
    Condition, Counted, Mode, Page, PageItem, Removed, Scope, StoreConfig, StoreError, StoreStats, TouchMode, Touched,
};
use super::cursor::Cursor;
use super::key::{AccountId, Key};
use super::quota::Tenant;
use super::route::route_hash;
use super::version::{HybridClock, Now, Version};

/// A sharded, byte-bounded map with expiry, versions and quotas.
pub struct Store {
    clock: HybridClock,
    inner: Mutex<Inner>,
}

struct Inner {
    tenants: HashMap<AccountId, Tenant>,
    map: BTreeMap<(u32, u64, String), Simple>,
    stats: StoreStats,
}

#[derive(Clone)]
struct Simple {
    value: Bytes,
    version: Version,
    expires: Option<u64>,
    charge: Option<Tenant>,
    requests: Vec<(String, i64, Version, u64)>,
}

/// An entry under its shard's lock.
pub struct EntryRef<'a> {
    value: Bytes,
    version: Version,
    expires: Option<u64>,
    lock: PhantomData<&'a ()>,
}

impl EntryRef<'_> {
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// In milliseconds, at least 1; `None`: the entry does not expire.
    #[must_use]
    pub fn remaining_ttl_ms(&self, now: Now) -> Option<u64> {
        self.expires.map(|at| at.saturating_sub(now.monotonic_ms).max(1))
    }

    /// Bytes.
    #[must_use]
    pub fn value_len(&self) -> usize {
        self.value.len()
    }

    pub fn copy_value_to(&self, target: &mut impl BufMut) {
        target.put_slice(&self.value);
    }

    /// The value: a copy if it is small, shared if it is large.
    #[must_use]
    pub fn value(&self) -> Bytes {
        self.value.clone()
    }
}

fn gone(entry: &Simple, now: Now) -> bool {
    entry.expires.is_some_and(|at| at <= now.monotonic_ms)
}

fn expiry(ttl_ms: Option<u64>, now: Now) -> Option<u64> {
    ttl_ms.map(|ttl| now.monotonic_ms.saturating_add(ttl.max(1)))
}

fn give_back(key: &str, entry: &Simple) {
    if let Some(tenant) = &entry.charge {
        tenant.give_back(1, (key.len() + entry.value.len()) as u64);
    }
}

impl Store {
    #[must_use]
    pub fn new(config: StoreConfig) -> Self {
        let stats = StoreStats { capacity_bytes: config.capacity_bytes, ..StoreStats::default() };
        let inner = Inner { tenants: HashMap::new(), map: BTreeMap::new(), stats };
        Self { clock: HybridClock::new(config.replica), inner: Mutex::new(inner) }
    }

    /// The account's tenant; the same one for the same id.
    pub fn tenant(&self, id: &AccountId) -> Tenant {
        let mut inner = self.inner.lock();
        let slot = u32::try_from(inner.tenants.len()).unwrap_or(u32::MAX);
        inner.tenants.entry(id.clone()).or_insert_with(|| Tenant::new(id.clone(), slot)).clone()
    }

    /// Runs `f` on the entry of `key`, under the lock of its shard: keep it short. `None`: there is no value.
    pub fn read<R>(&self, space: &Tenant, key: Key<'_>, now: Now, f: impl FnOnce(&EntryRef<'_>) -> R) -> Option<R> {
        let mut inner = self.inner.lock();
        let at = (space.slot(), route_hash(space.id(), key), key.as_str().to_owned());
        let found = inner.map.get(&at).filter(|entry| !gone(entry, now)).map(|entry| EntryRef {
            value: entry.value.clone(),
            version: entry.version,
            expires: entry.expires,
            lock: PhantomData,
        });
        *(if found.is_some() { &mut inner.stats.hits } else { &mut inner.stats.misses }) += 1;
        found.map(|entry| f(&entry))
    }

    /// Stores a copy of `value`. `ttl_ms` is the time to live in milliseconds, at least 1; `None`: for ever.
    ///
    /// # Errors
    /// When the condition fails, the budget is used up, or there is no room.
    pub fn store(
        &self,
        scope: Scope<'_>,
        key: Key<'_>,
        value: &[u8],
        ttl_ms: Option<u64>,
        condition: Condition,
        now: Now,
    ) -> Result<Version, StoreError> {
        let mut inner = self.inner.lock();
        let current = inner.current(scope, key, now);
        let version = current.as_ref().map_or(Version::NONE, |entry| entry.version);
        match condition {
            Condition::IfAbsent if current.is_some() => return Err(StoreError::AlreadyExists),
            Condition::IfPresent if current.is_none() => return Err(StoreError::NotFound),
            Condition::IfVersion(expected) if expected != version => {
                return Err(StoreError::VersionMismatch { current: version });
            }
            _ => {}
        }
        inner.put(&self.clock, scope, key, value, expiry(ttl_ms, now), current, Vec::new(), now)
    }

    /// Removes the key. Answers whether there was a value.
    ///
    /// # Errors
    /// [`StoreError::VersionMismatch`] when `if_version` is another than the current one.
    pub fn delete(
        &self,
        scope: Scope<'_>,
        key: Key<'_>,
        if_version: Option<Version>,
        now: Now,
    ) -> Result<bool, StoreError> {
        let mut inner = self.inner.lock();
        let current = inner.current(scope, key, now);
        let version = current.as_ref().map_or(Version::NONE, |entry| entry.version);
        if if_version.is_some_and(|expected| expected != version) {
            return Err(StoreError::VersionMismatch { current: version });
        }
        let Some(entry) = current else { return Ok(false) };
        if !scope.mode.is_dry_run() {
            inner.map.remove(&(scope.space.slot(), route_hash(scope.space.id(), key), key.as_str().to_owned()));
            give_back(key.as_str(), &entry);
        }
        Ok(true)
    }

    /// Changes how long the entry lives. `ttl_ms` as in [`Self::store`].
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub fn touch(
        &self,
        scope: Scope<'_>,
        key: Key<'_>,
        ttl_ms: Option<u64>,
        mode: TouchMode,
        now: Now,
    ) -> Result<Touched, StoreError> {
        let mut inner = self.inner.lock();
        let current = inner.current(scope, key, now).ok_or(StoreError::NotFound)?;
        let new = expiry(ttl_ms, now);
        let longest = |at: Option<u64>| at.unwrap_or(u64::MAX);
        let changed = match mode {
            TouchMode::Overwrite => new != current.expires,
            TouchMode::ExtendOnly => longest(new) > longest(current.expires),
            TouchMode::ShortenOnly => longest(new) < longest(current.expires),
        };
        let expires = if changed { new } else { current.expires };
        let mut version = current.version;
        if scope.mode.is_dry_run() {
            version = Version::NONE;
        } else if changed {
            version = self.clock.next(now);
            let at = (scope.space.slot(), route_hash(scope.space.id(), key), key.as_str().to_owned());
            inner.map.insert(at, Simple { expires, version, ..current });
        }
        let remaining_ttl_ms = expires.map(|at| at.saturating_sub(now.monotonic_ms).max(1));
        Ok(Touched { version, remaining_ttl_ms, changed })
    }

    /// Adds to a counter, created at 0 with `ttl_ms` if absent.
    ///
    /// # Errors
    /// When the value is no counter, the sum does not fit, or as in [`Self::store`].
    pub fn increment(
        &self,
        scope: Scope<'_>,
        key: Key<'_>,
        delta: i64,
        request_id: &str,
        ttl_ms: Option<u64>,
        now: Now,
    ) -> Result<Counted, StoreError> {
        let mut inner = self.inner.lock();
        let current = inner.current(scope, key, now);
        let (before, expires, mut requests) = match &current {
            None => (0, expiry(ttl_ms, now), Vec::new()),
            Some(entry) => {
                let text = std::str::from_utf8(&entry.value).map_err(|_| StoreError::NotACounter)?;
                let number: i64 = text.parse().map_err(|_| StoreError::NotACounter)?;
                (number, entry.expires, entry.requests.clone())
            }
        };
        requests.retain(|(_, _, _, until)| *until > now.monotonic_ms);
        if let Some((_, value, version, _)) = requests.iter().find(|(id, ..)| !id.is_empty() && id == request_id) {
            let version = if scope.mode.is_dry_run() { Version::NONE } else { *version };
            return Ok(Counted { value: *value, version });
        }
        let value = before.checked_add(delta).ok_or(StoreError::CounterOverflow)?;
        let text = value.to_string();
        let version = inner.put(&self.clock, scope, key, text.as_bytes(), expires, current, requests, now)?;
        if !scope.mode.is_dry_run() && !request_id.is_empty() {
            let at = (scope.space.slot(), route_hash(scope.space.id(), key), key.as_str().to_owned());
            if let Some(entry) = inner.map.get_mut(&at) {
                let until = now.monotonic_ms + super::limits::REMEMBER_REQUEST_ID_MS;
                entry.requests.push((request_id.to_owned(), value, version, until));
                if entry.requests.len() > super::limits::REMEMBERED_REQUEST_IDS {
                    entry.requests.remove(0);
                }
            }
        }
        Ok(Counted { value, version })
    }

    /// The next entries of `space` whose key begins with `prefix`, after a place, in the order of [`Cursor`]: at most
    /// `max_bytes` of keys and values, but at least one entry.
    pub fn page(&self, space: &Tenant, prefix: &str, after: Option<&Cursor>, max_bytes: usize, now: Now) -> Page {
        let inner = self.inner.lock();
        let mut page = Page { items: Vec::new(), next: None, end: true };
        let mut bytes = 0;
        for (hash, key, entry) in inner.after(space, after) {
            if !key.starts_with(prefix) || gone(entry, now) {
                continue;
            }
            bytes += key.len() + entry.value.len();
            if bytes > max_bytes && !page.items.is_empty() {
                page.next = page.items.last().map(|item: &PageItem| item.cursor.clone());
                page.end = false;
                break;
            }
            page.items.push(PageItem {
                key: key.to_owned(),
                value: entry.value.clone(),
                version: entry.version,
                remaining_ttl_ms: entry.expires.map(|at| at - now.monotonic_ms),
                cursor: Cursor::after(hash, key),
            });
        }
        page
    }

    /// Removes up to `limit` entries of the scope's space whose key begins with `prefix`, after a place.
    pub fn remove_page(
        &self,
        scope: Scope<'_>,
        prefix: &str,
        after: Option<&Cursor>,
        limit: usize,
        now: Now,
    ) -> Removed {
        let mut inner = self.inner.lock();
        let keys: Vec<(u64, String)> = inner
            .after(scope.space, after)
            .filter(|(_, key, entry)| key.starts_with(prefix) && !gone(entry, now))
            .take(limit.max(1))
            .map(|(hash, key, _)| (hash, key.to_owned()))
            .collect();
        let next = if keys.len() < limit { None } else { keys.last().map(|(hash, key)| Cursor::after(*hash, key)) };
        let removed = keys.len() as u64;
        if !scope.mode.is_dry_run() {
            for (hash, key) in keys {
                if let Some(entry) = inner.map.remove(&(scope.space.slot(), hash, key.clone())) {
                    give_back(&key, &entry);
                }
            }
        }
        Removed { removed, next }
    }

    /// Reclaims entries whose time is over, at most `limit`; answers how many.
    pub fn expire_due(&self, now: Now, limit: usize) -> usize {
        let mut inner = self.inner.lock();
        let due: Vec<_> =
            inner.map.iter().filter(|(_, entry)| gone(entry, now)).take(limit).map(|(at, _)| at.clone()).collect();
        for at in &due {
            if let Some(entry) = inner.map.remove(at) {
                give_back(&at.2, &entry);
                inner.stats.expired += 1;
            }
        }
        due.len()
    }

    /// Changes the capacity and evicts down to it.
    pub fn set_capacity(&self, bytes: u64, _now: Now) {
        self.inner.lock().stats.capacity_bytes = bytes;
    }

    #[must_use]
    pub fn stats(&self) -> StoreStats {
        let inner = self.inner.lock();
        let memory = inner.map.iter().map(|((_, _, key), entry)| key.len() + entry.value.len() + 40).sum::<usize>();
        StoreStats { entries: inner.map.len() as u64, memory_bytes: memory as u64, ..inner.stats }
    }

    /// Makes the versions of this store.
    #[must_use]
    pub fn clock(&self) -> &HybridClock {
        &self.clock
    }
}

impl Inner {
    fn current(&self, scope: Scope<'_>, key: Key<'_>, now: Now) -> Option<Simple> {
        let at = (scope.space.slot(), route_hash(scope.space.id(), key), key.as_str().to_owned());
        self.map.get(&at).filter(|entry| !gone(entry, now)).cloned()
    }

    #[expect(clippy::too_many_arguments, reason = "interim")]
    fn put(
        &mut self,
        clock: &HybridClock,
        scope: Scope<'_>,
        key: Key<'_>,
        value: &[u8],
        expires: Option<u64>,
        current: Option<Simple>,
        requests: Vec<(String, i64, Version, u64)>,
        now: Now,
    ) -> Result<Version, StoreError> {
        let charge = current.as_ref().map_or_else(|| scope.charge.cloned(), |entry| entry.charge.clone());
        let held = current.as_ref().map(|entry| (key.as_str().len() + entry.value.len()) as u64);
        let bytes = (key.as_str().len() + value.len()) as u64;
        if let Some(tenant) = &charge {
            let keys = u64::from(held.is_none());
            let more = bytes.saturating_sub(held.unwrap_or(0));
            let fits = if scope.mode.is_dry_run() { tenant.would_fit(keys, more) } else { tenant.take(keys, more) };
            fits.map_err(|over| StoreError::over_budget(over, tenant))?;
            if !scope.mode.is_dry_run() {
                tenant.give_back(0, held.unwrap_or(0).saturating_sub(bytes));
            }
        }
        if scope.mode.is_dry_run() {
            return Ok(Version::NONE);
        }
        let version = clock.next(now);
        let at = (scope.space.slot(), route_hash(scope.space.id(), key), key.as_str().to_owned());
        if let Some(old) = self.map.get(&at)
            && held.is_none()
        {
            give_back(key.as_str(), old);
        }
        let value = Bytes::copy_from_slice(value);
        self.map.insert(at, Simple { value, version, expires, charge, requests });
        self.stats.stored += 1;
        Ok(version)
    }

    fn after<'s>(
        &'s self,
        space: &Tenant,
        after: Option<&Cursor>,
    ) -> impl Iterator<Item = (u64, &'s str, &'s Simple)> + use<'s> {
        let slot = space.slot();
        let from = match after {
            Some(cursor) => Bound::Excluded((slot, cursor.hash(), cursor.key().to_owned())),
            None => Bound::Included((slot, 0, String::new())),
        };
        let to = Bound::Excluded((slot + 1, 0, String::new()));
        self.map.range((from, to)).map(|((_, hash, key), entry)| (*hash, key.as_str(), entry))
    }
}
