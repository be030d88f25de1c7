//! The store as the hand-off sees it: freezing, lending and taking over entries, one shard's lock at a time.
//!
//! What concerns many entries is done bucket by bucket, some entries per lock, only where copies may be: `frozen` is
//! where this replica owned something and does not any more, so a claim of somebody for whom there is nothing looks at
//! nothing. Only one thread, the hand-off's, changes views and lends; operations of others come between two locks, and all
//! that they can do to a copy is to make a tombstone of the same version of it (rule 10).

mod install;
mod lent;
mod pages;
#[cfg(feature = "simulation")]
mod simulation;
mod walk;

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

pub use self::lent::{Lent, LentValue, Pieces, WriteCopy};
use super::Store;
use super::index::Hashes;
use super::member::{Carried, Name, Place};
use super::shard::Shard;
use super::slab::ChunkRef;
use crate::cache::key::AccountId;
use crate::cache::quota::Tenant;
use crate::cache::version::Now;
use crate::ownership::Arcs;
use crate::ownership::copies::{Copies, Frozen, Page, WrittenPage};
use crate::ownership::member::MemberId;
use crate::ownership::shard::{ShardView, Standing};
use crate::ownership::snapshot::Snapshot;
use crate::ownership::stretches::{difference, intersection, union};
use crate::ring::Stretch;

/// Entries that are changed before a shard's lock is let go: some 100 microseconds of work.
const BATCH: usize = 256;

/// Entries that are reclaimed because of their time in one go: a few milliseconds of work.
const MAX_EXPIRED: usize = 10_000;

/// The hand-off's side of a member's store. One at a time; [`Store::join`] comes first.
pub struct StoreCopies {
    store: Arc<Store>,
    now: Now,
    /// What every shard has.
    snapshot: Option<Arc<Snapshot>>,
    /// This replica's hashes.
    mine: Vec<Stretch>,
    /// Where entries of others' keys may be; nowhere else are any.
    frozen: Mutex<Vec<Stretch>>,
    /// When, and for whose entry, nothing was found that may be evicted.
    refused: Mutex<Option<(Now, Option<u32>)>>,
    /// The tenant of the place before, which is mostly that of the next.
    last_tenant: Mutex<Option<Tenant>>,
    /// How pages are written for the wire, and into what.
    write: Option<WriteCopy>,
    pieces: Pieces,
}

impl Store {
    /// The hand-off's side of this store.
    #[must_use]
    pub fn copies(self: &Arc<Self>) -> StoreCopies {
        let mut copies = StoreCopies {
            store: Arc::clone(self),
            now: Now { monotonic_ms: 0, wall_us: 0 },
            snapshot: None,
            mine: Vec::new(),
            frozen: Mutex::default(),
            refused: Mutex::new(None),
            last_tenant: Mutex::default(),
            write: None,
            pieces: Pieces::default(),
        };
        if !copies.is_empty() {
            *copies.frozen.get_mut() = vec![Stretch::ALL];
        }
        copies
    }
}

impl StoreCopies {
    /// What the time is for what follows.
    pub fn set_now(&mut self, now: Now) {
        self.now = now;
    }

    /// From now on pages are written as they go over the wire.
    pub fn write_pages(&mut self, write: WriteCopy) {
        self.write = Some(write);
    }

    /// As [`Store::evict_somewhere`]. A search in vain takes milliseconds: one at a moment is enough for all of a page.
    fn evict(&self, asker: Option<&Tenant>, missing: u64) -> bool {
        let search = (self.now, asker.map(Tenant::slot));
        if *self.refused.lock() == Some(search) {
            return false;
        }
        let evicted = self.store.evict_somewhere(asker, missing, self.now);
        if !evicted {
            *self.refused.lock() = Some(search);
        }
        evicted
    }

    fn target(&self, place: &Place) -> (Tenant, Hashes) {
        let space = self.tenant_of(&place.key.space);
        let hashes = super::shard::hashes_of(&self.store.hasher, &space, place.key.key.as_bytes());
        debug_assert_eq!(hashes.route, place.hash, "a place has another hash than its key");
        (space, hashes)
    }

    /// As [`Store::tenant`].
    fn tenant_of(&self, id: &AccountId) -> Tenant {
        let mut last = self.last_tenant.lock();
        match &*last {
            Some(tenant) if tenant.id() == id => tenant.clone(),
            _ => last.insert(self.store.tenant(id)).clone(),
        }
    }

    /// Calls `f` with the key's shard under its lock, and the key's chunk, if it has one.
    pub(super) fn at<R>(&self, place: &Place, f: impl FnOnce(&mut Shard, Hashes, Option<ChunkRef>) -> R) -> R {
        let (space, hashes) = self.target(place);
        let mut shard = self.store.lock(hashes);
        let at = shard.find(&space, place.key.key.as_bytes(), hashes);
        f(&mut shard, hashes, at)
    }

    /// Calls `f` with each shard's view under its lock, one after the other.
    fn each_view<R>(&self, mut f: impl FnMut(&mut ShardView<u64>) -> R) -> Vec<R> {
        let mut answers = Vec::with_capacity(self.store.shards.len());
        for shard in &self.store.shards {
            let mut shard = shard.0.lock();
            answers.extend(shard.member.as_mut().map(|member| f(&mut member.view)));
            self.store.count_marks(&mut shard);
        }
        answers
    }

    /// Where copies for a member may be.
    fn frozen_for(&self, to: &MemberId) -> Vec<Stretch> {
        let frozen = self.frozen.lock();
        if frozen.is_empty() {
            return Vec::new();
        }
        let theirs = self.snapshot.as_ref().map(|snapshot| snapshot.stretches_of(to)).unwrap_or_default();
        intersection(&frozen, &theirs)
    }

    /// There are no copies here any more.
    fn thawed(&self, stretches: &[Stretch]) {
        let mut frozen = self.frozen.lock();
        *frozen = difference(&frozen, stretches);
    }
}

impl Copies for StoreCopies {
    type Key = Name;
    type Value = Carried;

    fn standing(&self, place: &Place) -> Standing {
        let hashes = self.target(place).1;
        self.store.lock(hashes).admit(hashes).err().unwrap_or(Standing::Authority)
    }

    fn change(&mut self, snapshot: &Arc<Snapshot>, arcs: &Arc<Arcs>, lost: &[MemberId]) {
        let outdated = self.each_view(|view| {
            let outdated = view.change(snapshot, arcs, lost);
            (outdated, view.me().clone())
        });
        let mine = outdated.first().map(|(_, me)| snapshot.stretches_of(me)).unwrap_or_default();
        let was_mine = std::mem::replace(&mut self.mine, mine);
        let frozen = self.frozen.get_mut();
        *frozen = difference(&union(frozen, &was_mine), &self.mine);
        self.snapshot = Some(Arc::clone(snapshot));
        for (marks, _) in outdated {
            self.make_tombstones(&marks);
        }
    }

    fn advance(&mut self, arcs: &Arc<Arcs>) {
        self.each_view(|view| view.advance(arcs));
    }

    fn settle_below(&mut self, arcs: &Arc<Arcs>, settled: Stretch) {
        self.each_view(|view| view.settle_below(arcs, settled));
        self.drop_tombstones(settled);
    }

    fn has_copies(&self, claimer: &MemberId) -> bool {
        self.has_entry_in(&self.frozen_for(claimer))
    }

    fn lend(&mut self, place: &Place, to: &MemberId) -> Option<Frozen<Carried>> {
        // An account is never forgotten: one that only others name is not made here.
        self.tenant(&place.key.space)?;
        let mut room = self.room_for(ShardView::<u64>::LENT_BYTES);
        self.at(place, |shard, hashes, at| {
            let copy = frozen(shard, at?, self.now);
            let marks = shard.marks();
            let view = &mut shard.member.as_mut()?.view;
            if !view.is_copy(&hashes.mark()) {
                return None;
            }
            view.lend(&hashes.mark(), to);
            room.keep(marks, shard.count_marks());
            Some(copy)
        })
    }

    fn lend_page(&mut self, to: &MemberId, after: Option<&Place>, max_bytes: usize) -> Page<Name, Carried> {
        self.page_for(to, after, max_bytes)
    }

    fn write_page(&mut self, to: &MemberId, after: Option<&Place>, max_bytes: usize) -> Option<WrittenPage> {
        self.written_page_for(to, after, max_bytes)
    }

    fn drop_through(&mut self, to: &MemberId, through: &Place) {
        self.drop_copies_through(to, through);
    }

    fn is_resolved(&self, place: &Place) -> bool {
        self.at(place, |shard, hashes, _| {
            shard.member.as_ref().is_some_and(|member| member.view.is_resolved(&hashes.mark()))
        })
    }

    fn resolve(&mut self, place: &Place, best: Option<Frozen<Carried>>) {
        self.install(place, best.as_ref());
    }

    fn forget_miss(&mut self, place: &Place) {
        self.at(place, |shard, hashes, at| {
            if let (None, Some(member)) = (at, &mut shard.member) {
                member.view.forget_miss(&hashes.mark());
                self.store.count_marks(shard);
            }
        });
    }

    fn tenant(&self, account: &AccountId) -> Option<Tenant> {
        self.store.tenants.lock().get(account).cloned()
    }

    fn tenants(&self) -> Vec<Tenant> {
        let mut tenants: Vec<Tenant> = self.store.tenants.lock().values().cloned().collect();
        // Always in one order, whatever the map's.
        tenants.sort_unstable_by_key(Tenant::slot);
        tenants
    }

    fn expire(&mut self) -> bool {
        self.store.expire_due(self.now, MAX_EXPIRED) < MAX_EXPIRED
    }

    fn has_entry(&self, place: &Place) -> bool {
        self.at(place, |_, _, at| at.is_some())
    }

    fn len(&self) -> usize {
        let count = |shard: &Shard| shard.counts.entries + shard.counts.tombstones;
        let sum: u64 = self.store.shards.iter().map(|shard| count(&shard.0.lock())).sum();
        usize::try_from(sum).unwrap_or(usize::MAX)
    }
}

impl fmt::Debug for StoreCopies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreCopies").field("stats", &self.store.stats()).finish_non_exhaustive()
    }
}

/// An entry or tombstone as it travels.
fn frozen(shard: &Shard, at: ChunkRef, now: Now) -> Frozen<Carried> {
    let entry = shard.entry(at);
    Frozen { version: entry.version(), value: LentValue::of(shard, entry, now).map(LentValue::into_carried) }
}
