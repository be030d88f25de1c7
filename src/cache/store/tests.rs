//! The store against a simple model, and promises that a model does not show.

mod concurrency;
mod eviction;
mod growth;
mod handoff;
mod members;
mod model;
mod pages;
mod promises;
mod removal;

use super::*;
use crate::cache::version::Version;

/// A moment, by both clocks.
fn at(monotonic_ms: u64) -> Now {
    Now { monotonic_ms, wall_us: 1_000_000 + monotonic_ms * 1000 }
}

fn store_of(capacity_bytes: u64, shards: usize) -> Store {
    Store::new(StoreConfig { capacity_bytes, shards, replica: 1 })
}

fn tenant(store: &Store, id: &str) -> Tenant {
    store.tenant(&AccountId::new(id).unwrap())
}

fn key(text: &str) -> Key<'_> {
    Key::new(text).unwrap()
}

fn scope(tenant: &Tenant) -> Scope<'_> {
    Scope { space: tenant, charge: Some(tenant), mode: Mode::Apply }
}

fn get(store: &Store, space: &Tenant, name: &str, now: Now) -> Option<Vec<u8>> {
    store.read(space, key(name), now, |entry| entry.value().to_vec()).unwrap()
}

fn put(store: &Store, space: &Tenant, name: &str, value: &[u8]) -> Result<Version, StoreError> {
    store.store(scope(space), key(name), value, None, Condition::Always, at(0))
}

/// All entries of a space, page by page.
fn dump(store: &Store, space: &Tenant, prefix: &str, max_bytes: usize, now: Now) -> Vec<PageItem> {
    let mut items = Vec::new();
    let mut after = None;
    loop {
        let page = store.page(space, prefix, after.as_ref(), max_bytes, now).unwrap();
        assert_eq!(page.end, page.next.is_none());
        items.extend(page.items);
        match page.next {
            Some(next) => after = Some(next),
            None => return items,
        }
    }
}

/// That what is counted is what is there, to the byte. Only for stores in which no counter remembers request ids.
fn assert_exact(store: &Store, spaces: &[&Tenant], now: Now) {
    store.expire_due(now, usize::MAX);
    let mut memory = 0;
    for space in spaces {
        let items = dump(store, space, "", 1 << 20, now);
        let bytes: usize = items.iter().map(|item| item.key.len() + item.value.len()).sum();
        let charges: u64 = items
            .iter()
            .map(|item| entry_charge(item.key.len(), item.value.len(), item.remaining_ttl_ms.is_some(), false))
            .sum();
        let usage = space.usage();
        assert_eq!((usage.keys, usage.bytes, usage.memory), (items.len() as u64, bytes as u64, charges), "{space:?}");
        memory += charges;
    }
    assert_eq!(store.stats().memory_bytes, memory);
    assert_eq!(store.used.load(Ordering::Relaxed), memory);
}
