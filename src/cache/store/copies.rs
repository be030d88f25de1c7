//! The store as the hand-off sees it: freezing, lending and taking over entries, one shard's lock at a time.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::Store;
use super::counter::Remembered;
use super::entry::{self, EntryRef};
use super::index::Hashes;
use super::member::{Carried, Name, Place};
use super::outside::Outside;
use super::room::Room;
use super::shard::{Fresh, Garbage, Shard, Value};
use super::slab::ChunkRef;
use crate::cache::key::AccountId;
use crate::cache::quota::Tenant;
use crate::cache::version::Now;
use crate::ownership::Arcs;
use crate::ownership::copies::{Copies, Frozen, Page};
use crate::ownership::member::MemberId;
use crate::ownership::shard::Standing;
use crate::ownership::snapshot::Snapshot;
use crate::ring::Stretch;

/// The hand-off's side of a member's store. One at a time; [`Store::join`] comes first.
pub struct StoreCopies {
    store: Arc<Store>,
    now: Now,
}

impl Store {
    /// The hand-off's side of this store.
    #[must_use]
    pub fn copies(self: &Arc<Self>) -> StoreCopies {
        StoreCopies { store: Arc::clone(self), now: Now { monotonic_ms: 0, wall_us: 0 } }
    }
}

/// A key, found out once.
struct Target {
    space: Tenant,
    hashes: Hashes,
}

impl StoreCopies {
    /// What the time is for what follows.
    pub fn set_now(&mut self, now: Now) {
        self.now = now;
    }

    fn target(&self, place: &Place) -> Target {
        let space = self.store.tenant(&place.key.space);
        let hashes = super::shard::hashes_of(&self.store.hasher, &space, place.key.key.as_bytes());
        debug_assert_eq!(hashes.route, place.hash, "a place has another hash than its key");
        Target { space, hashes }
    }

    /// Calls `f` with each shard under its lock, one after the other.
    fn each(&self, mut f: impl FnMut(&mut Shard)) {
        self.store.shards.iter().for_each(|shard| f(&mut shard.0.lock()));
    }
}

impl Copies for StoreCopies {
    type Key = Name;
    type Value = Carried;

    fn standing(&self, place: &Place) -> Standing {
        let hashes = self.target(place).hashes;
        self.store.lock(hashes).admit(hashes).err().unwrap_or(Standing::Authority)
    }

    fn change(&mut self, snapshot: &Arc<Snapshot>, arcs: &Arc<Arcs>, lost: &[MemberId]) {
        let mut garbage = Garbage::new();
        self.each(|shard| {
            let Some(member) = &mut shard.member else { return };
            for mark in member.view.change(snapshot, arcs, lost) {
                let hashes = Hashes { route: mark.hash, keyed: mark.key };
                if let Some(at) = shard.find_marked(hashes).filter(|&at| !shard.entry(at).meta().is_tombstone()) {
                    let version = shard.entry(at).version();
                    self.store.release(shard.bury_unclaimed(at, hashes, version, &mut garbage));
                }
            }
        });
    }

    fn advance(&mut self, arcs: &Arc<Arcs>) {
        self.each(|shard| {
            if let Some(member) = &mut shard.member {
                member.view.advance(arcs);
            }
        });
    }

    fn settle_below(&mut self, arcs: &Arc<Arcs>, settled: Stretch) {
        self.each(|shard| {
            let Some(member) = &mut shard.member else { return };
            member.view.settle_below(arcs, settled);
            let (snapshot, me) = (Arc::clone(member.view.snapshot()), member.view.me().clone());
            let done = shard.drop_tombstones(|hash| settled.contains(hash) && snapshot.owns(&me, hash));
            self.store.release(done.bytes);
        });
    }

    fn has_copies(&self, claimer: &MemberId) -> bool {
        self.store.shards.iter().any(|shard| {
            let shard = shard.0.lock();
            shard.all().any(|(hashes, _)| shard.is_for(claimer, hashes.route))
        })
    }

    fn lend(&mut self, place: &Place, to: &MemberId) -> Option<Frozen<Carried>> {
        let Target { space, hashes } = self.target(place);
        let mut shard = self.store.lock(hashes);
        let at = shard.find(&space, place.key.key.as_bytes(), hashes)?;
        let copy = frozen(&shard, at, self.now);
        let view = &mut shard.member.as_mut()?.view;
        if !view.is_copy(&hashes.mark()) {
            return None;
        }
        view.lend(&hashes.mark(), to);
        Some(copy)
    }

    fn lend_page(&mut self, to: &MemberId, after: Option<&Place>, max_bytes: usize) -> Page<Name, Carried> {
        let (mut items, mut bytes) = (Vec::new(), 0);
        for shard in &self.store.shards {
            let mut shard = shard.0.lock();
            let mut found: Vec<(Place, Hashes, ChunkRef)> = shard
                .all()
                .filter(|(hashes, _)| shard.is_for(to, hashes.route))
                .filter_map(|(hashes, at)| Some((shard.place(at, hashes)?, hashes, at)))
                .filter(|(place, ..)| after.is_none_or(|after| place > after))
                .collect();
            found.sort_unstable_by(|a, b| a.0.cmp(&b.0));
            for (place, hashes, at) in found {
                if bytes > 0 && bytes >= max_bytes {
                    return (items, false);
                }
                let copy = frozen(&shard, at, self.now);
                bytes += place.key.key.len() + copy.value.as_ref().map_or(0, |carried| carried.value.len()) + 1;
                if let Some(member) = &mut shard.member {
                    member.view.lend(&hashes.mark(), to);
                }
                items.push((place, copy));
            }
        }
        (items, true)
    }

    fn drop_through(&mut self, to: &MemberId, through: &Place) {
        let mut garbage = Garbage::new();
        self.each(|shard| {
            let found: Vec<Hashes> = shard
                .all()
                .filter(|(hashes, _)| hashes.route <= through.hash && shard.is_for(to, hashes.route))
                .filter(|&(hashes, at)| shard.place(at, hashes).is_some_and(|place| place <= *through))
                .map(|(hashes, _)| hashes)
                .collect();
            for hashes in found {
                if let Some(at) = shard.find_marked(hashes) {
                    self.store.release(shard.remove(at, hashes, &mut garbage));
                }
                if let Some(member) = &mut shard.member {
                    member.view.dropped(&hashes.mark());
                }
            }
        });
    }

    fn is_resolved(&self, place: &Place) -> bool {
        let hashes = self.target(place).hashes;
        let shard = self.store.lock(hashes);
        shard.member.as_ref().is_some_and(|member| member.view.is_resolved(&hashes.mark()))
    }

    fn resolve(&mut self, place: &Place, best: Option<Frozen<Carried>>) {
        let Target { space, hashes } = self.target(place);
        let key = place.key.key.as_bytes();
        let mut garbage = Garbage::new();
        let mut shard = self.store.lock(hashes);
        let own = shard.find(&space, key, hashes);
        if let Some(member) = &mut shard.member {
            member.view.resolve(&hashes.mark(), best.is_some());
        }
        let Some(best) = best else { return };
        let rank = own.map(|at| (shard.entry(at).version(), !shard.entry(at).meta().is_tombstone()));
        if rank.is_some_and(|own| own >= best.rank()) {
            return;
        }
        if let Some(at) = own {
            self.store.release(shard.remove(at, hashes, &mut garbage));
        }
        let (value, payer, expires_ms) = match &best.value {
            None => (Value::Tombstone, None, None),
            Some(carried) => {
                let payer = carried.payer.as_ref().map(|id| self.store.tenant(id));
                (value_of(key, carried), payer, carried.expires_ms)
            }
        };
        let bytes = (key.len() + value.len()) as u64;
        let is_value = best.value.is_some();
        let charge = value.charge(key.len(), expires_ms.is_some(), is_value && payer.as_ref() != Some(&space));
        let mut room = Room::none(&self.store.used);
        if !room.grow_to(charge, self.store.capacity.load(Ordering::Relaxed)) && is_value {
            return;
        }
        let fresh = Fresh { space: &space, charged: payer.as_ref(), key, value, version: best.version, expires_ms };
        if let Some(payer) = &payer {
            payer.add_copy(1, bytes);
        }
        if let Some(charge) = shard.write(None, fresh, hashes, &mut garbage) {
            room.keep(0, charge);
        }
    }

    fn forget_miss(&mut self, place: &Place) {
        let Target { space, hashes } = self.target(place);
        let mut shard = self.store.lock(hashes);
        if shard.find(&space, place.key.key.as_bytes(), hashes).is_none()
            && let Some(member) = &mut shard.member
        {
            member.view.forget_miss(&hashes.mark());
        }
    }

    fn tenant(&self, account: &AccountId) -> Option<Tenant> {
        self.store.tenants.lock().get(account).cloned()
    }

    fn tenants(&self) -> Vec<Tenant> {
        self.store.tenants.lock().values().cloned().collect()
    }

    fn expire(&mut self) {
        self.store.expire_due(self.now, usize::MAX);
    }

    fn has_entry(&self, place: &Place) -> bool {
        let Target { space, hashes } = self.target(place);
        self.store.lock(hashes).find(&space, place.key.key.as_bytes(), hashes).is_some()
    }

    fn len(&self) -> usize {
        let count = |shard: &Shard| shard.counts.entries + shard.counts.tombstones;
        let sum: u64 = self.store.shards.iter().map(|shard| count(&shard.0.lock())).sum();
        usize::try_from(sum).unwrap_or(usize::MAX)
    }
}

impl std::fmt::Debug for StoreCopies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreCopies").field("stats", &self.store.stats()).finish_non_exhaustive()
    }
}

/// An entry or tombstone as it travels. One whose time is over is a tombstone (rule 10).
fn frozen(shard: &Shard, at: ChunkRef, now: Now) -> Frozen<Carried> {
    let entry = shard.entry(at);
    let is_value = !entry.meta().is_tombstone() && !entry.is_expired(now);
    Frozen { version: entry.version(), value: is_value.then(|| carried(shard, &entry)) }
}

fn carried(shard: &Shard, entry: &EntryRef<'_>) -> Carried {
    let requests = entry.outside().and_then(|outside| outside.requests.as_deref());
    Carried {
        value: entry.value(),
        expires_ms: entry.expires_ms(),
        payer: shard.charged(entry).map(|payer| payer.id().clone()),
        requests: requests.map(Remembered::list).unwrap_or_default(),
    }
}

/// A copy of what came, so that no message stays in memory for it.
fn value_of<'a>(key: &[u8], carried: &'a Carried) -> Value<'a> {
    if carried.requests.is_empty() && entry::is_inline(key.len(), carried.value.len()) {
        return Value::Inline(Cow::Borrowed(&carried.value));
    }
    let requests = (!carried.requests.is_empty()).then(|| Box::new(Remembered::of(&carried.requests)));
    Value::Outside(Outside { value: Bytes::copy_from_slice(&carried.value), requests })
}
