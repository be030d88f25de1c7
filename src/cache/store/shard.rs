//! One shard: chunks, the index that finds them, the queues that evict them and the wheel that expires them, kept in step.
//!
//! Everything here runs under the shard's lock, so nothing here waits, and what must be dropped (large values) is handed out
//! in [`Garbage`] to be dropped after unlock. Every entry is in the index and in one queue; with an expiry, in the wheel too.
//! Not here: conditions, quotas' refusals and the capacity, which are between shards.

mod evict;
mod member;
mod reclaim;
mod scan;
mod warm;

use std::borrow::Cow;
use std::hash::{BuildHasher, Hasher};

use foldhash::quality::SeedableRandomState;

pub(super) use self::evict::{Evict, MAX_SECOND_CHANCES};
pub(super) use self::member::Member;
use super::entry::{self, EntryRef, Layout, Meta, Queue};
use super::expiry::Wheel;
use super::ghost::Ghosts;
use super::index::{Hashes, Index};
use super::outside::{Outside, Outsides};
use super::queue::List;
use super::slab::{ChunkRef, Moved, Slab};
use crate::cache::quota::Tenant;
use crate::cache::route;
use crate::cache::version::{Now, Version};
use crate::ownership::mistake::Mistake;

/// What is dropped after unlock.
pub(super) type Garbage = Vec<Outside>;

/// Sums of a shard.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub entries: u64,
    pub tombstones: u64,
    /// The charge of all of them, in bytes.
    pub memory: u64,
    pub hits: u64,
    pub misses: u64,
    pub stored: u64,
    pub evicted: u64,
    pub expired: u64,
}

pub(super) struct Shard {
    slab: Slab,
    index: Index,
    outsides: Outsides,
    /// By [`Queue`].
    queues: [List; 3],
    ghosts: Ghosts,
    wheel: Wheel,
    /// By slot: the accounts that entries of this shard name.
    tenants: Vec<Option<Tenant>>,
    hasher: SeedableRandomState,
    /// `None`: the store is alone, and the authority for everything.
    pub member: Option<Box<Member>>,
    pub counts: Counts,
}

/// An entry to be written.
pub(super) struct Fresh<'a> {
    pub space: &'a Tenant,
    pub charged: Option<&'a Tenant>,
    pub key: &'a [u8],
    pub value: Value<'a>,
    pub version: Version,
    /// Monotonic milliseconds.
    pub expires_ms: Option<u64>,
}

/// A value to be written.
#[derive(Clone)]
pub(super) enum Value<'a> {
    Inline(Cow<'a, [u8]>),
    Outside(Outside),
    Tombstone,
}

impl Value<'_> {
    /// Bytes.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Inline(value) => value.len(),
            Self::Outside(outside) => outside.value.len(),
            Self::Tombstone => 0,
        }
    }

    /// What an entry with this value is charged.
    pub(super) fn charge(&self, key_len: usize, expires: bool, charged_apart: bool) -> u64 {
        let outside = if let Self::Outside(outside) = self { outside.charge() } else { 0 };
        self.layout(key_len, expires, charged_apart).charge() + outside
    }

    pub(super) fn is_tombstone(&self) -> bool {
        matches!(self, Self::Tombstone)
    }

    /// Tells a counter's youngest answer the version that the entry gets.
    pub(super) fn set_version(&mut self, version: Version) {
        if let Self::Outside(Outside { requests: Some(requests), .. }) = self {
            requests.set_version(version);
        }
    }

    fn layout(&self, key_len: usize, expires: bool, charged_apart: bool) -> Layout {
        let value_len = if let Self::Inline(value) = self { value.len() } else { 0 };
        Layout { key_len, value_len, expires, charged_apart, outside: matches!(self, Self::Outside(_)) }
    }
}

/// Both hashes of a key.
pub(super) fn hashes_of(hasher: &SeedableRandomState, space: &Tenant, key: &[u8]) -> Hashes {
    let mut keyed = hasher.build_hasher();
    keyed.write_u32(space.slot());
    keyed.write(key);
    Hashes { route: route::hash_bytes(space.id().as_str().as_bytes(), key), keyed: keyed.finish() }
}

impl Shard {
    pub(super) fn new(shard_bits: u32, hasher: SeedableRandomState) -> Self {
        Self {
            slab: Slab::new(),
            index: Index::new(shard_bits),
            outsides: Outsides::default(),
            queues: [List::new(), List::new(), List::new()],
            ghosts: Ghosts::default(),
            wheel: Wheel::new(),
            tenants: Vec::new(),
            hasher,
            member: None,
            counts: Counts::default(),
        }
    }

    /// The chunk of a key: an entry, also one whose time is over, or a tombstone.
    pub(super) fn find(&self, space: &Tenant, key: &[u8], hashes: Hashes) -> Option<ChunkRef> {
        self.index.find(hashes, |at| {
            let entry = self.entry(at);
            entry.meta().space_slot() == space.slot() && entry.key_equals(key)
        })
    }

    /// The chunk of a key that has a value.
    pub(super) fn find_live(&self, space: &Tenant, key: &[u8], hashes: Hashes, now: Now) -> Option<ChunkRef> {
        self.find(space, key, hashes).filter(|&at| {
            let entry = self.entry(at);
            !entry.meta().is_tombstone() && !entry.is_expired(now)
        })
    }

    pub(super) fn entry(&self, at: ChunkRef) -> EntryRef<'_> {
        EntryRef::new(&self.slab, &self.outsides, at)
    }

    /// Writes an entry in place of the one at `at`, if any, and counts the difference. `None`, and nothing is changed, when
    /// the slab has no chunk left. Answers what is charged for it now; quotas are the caller's.
    pub(super) fn write(
        &mut self,
        at: Option<ChunkRef>,
        fresh: Fresh<'_>,
        hashes: Hashes,
        garbage: &mut Garbage,
    ) -> Option<u64> {
        let charged_apart = is_charged_apart(&fresh);
        let layout = fresh.value.layout(fresh.key.len(), fresh.expires_ms.is_some(), charged_apart);
        let Some(at) = at else {
            let (queue, frequency) = self.first_queue(&fresh.value, hashes);
            return self.insert(fresh, layout, queue, frequency, hashes).map(|at| self.count_in(at));
        };
        let meta = self.entry(at).meta();
        let same_place = self.entry(at).layout() == Layout { value_len: meta.value_len(), ..layout }
            && Slab::chunk_bytes(layout.bytes()) == Slab::size(at)
            && !meta.is_tombstone()
            && !matches!(fresh.value, Value::Tombstone);
        if same_place {
            return Some(self.overwrite(at, fresh, layout, garbage));
        }
        let (queue, frequency) = if meta.is_tombstone() || matches!(fresh.value, Value::Tombstone) {
            self.first_queue(&fresh.value, hashes)
        } else {
            (meta.queue(), (meta.frequency() + 1).min(evict::MAX_FREQUENCY))
        };
        // The new one first: when there is no chunk for it, the old one must still be there.
        let new = self.insert(fresh, layout, queue, frequency, hashes)?;
        let charge = self.count_in(new);
        self.count_out(at);
        self.sub_memory(at);
        garbage.extend(self.unlink(at, hashes));
        Some(charge)
    }

    /// Removes an entry or tombstone, from quotas and counts too. Answers its charge.
    pub(super) fn remove(&mut self, at: ChunkRef, hashes: Hashes, garbage: &mut Garbage) -> u64 {
        self.sub_memory(at);
        self.remove_claimed(at, hashes, garbage)
    }

    /// As [`Self::remove`], of an entry whose memory its account has given up already.
    fn remove_claimed(&mut self, at: ChunkRef, hashes: Hashes, garbage: &mut Garbage) -> u64 {
        let entry = self.entry(at);
        let charge = self.charge(at);
        if !entry.meta().is_tombstone()
            && let Some(tenant) = self.charged(&entry)
        {
            if self.is_copy(hashes) && !self.makes(Mistake::DroppedCopyGivesRoom) {
                tenant.drop_copy(1, entry.quota_bytes());
            } else {
                tenant.give_back(1, entry.quota_bytes());
            }
        }
        self.count_out(at);
        garbage.extend(self.unlink(at, hashes));
        charge
    }

    /// Takes all entries off the quotas and memory of their accounts: the shard is dropped.
    pub(super) fn give_back_everything(&self) {
        for at in self.index.chunks() {
            self.sub_memory(at);
            let entry = self.entry(at);
            if !entry.meta().is_tombstone()
                && let Some(tenant) = self.charged(&entry)
            {
                tenant.give_back(1, entry.quota_bytes());
            }
        }
    }

    /// What an entry or tombstone is charged.
    pub(super) fn charge(&self, at: ChunkRef) -> u64 {
        let entry = self.entry(at);
        let rounding = Slab::size(at) - Slab::chunk_bytes(entry.layout().bytes());
        let outside = entry.outside().map_or(0, Outside::charge);
        entry.layout().charge() + rounding as u64 + outside
    }

    /// Takes an entry's charge off its account.
    fn sub_memory(&self, at: ChunkRef) {
        let entry = self.entry(at);
        if !entry.meta().is_tombstone()
            && let Some(tenant) = self.charged(&entry)
        {
            tenant.sub_memory(self.charge(at));
        }
    }

    /// The account that an entry is charged to.
    pub(super) fn charged(&self, entry: &EntryRef<'_>) -> Option<&Tenant> {
        self.tenant(entry.charged_slot()?)
    }

    fn tenant(&self, slot: u32) -> Option<&Tenant> {
        self.tenants.get(slot as usize)?.as_ref()
    }

    pub(super) fn hashes(&self, at: ChunkRef) -> Hashes {
        hashes_in(&self.slab, &self.outsides, &self.tenants, &self.hasher, at)
    }

    /// Where an entry begins its life.
    fn first_queue(&mut self, value: &Value<'_>, hashes: Hashes) -> (Queue, u8) {
        match value {
            Value::Tombstone => (Queue::Tombstones, 0),
            _ if self.ghosts.recall(hashes.keyed) => (Queue::Main, 0),
            _ => (Queue::Small, 0),
        }
    }

    /// Links a new chunk everywhere; counts nothing.
    fn insert(
        &mut self,
        fresh: Fresh<'_>,
        layout: Layout,
        queue: Queue,
        frequency: u8,
        hashes: Hashes,
    ) -> Option<ChunkRef> {
        let at = self.slab.alloc(layout.bytes())?;
        let meta = Meta::new(fresh.space.slot(), layout, queue, frequency);
        let charged = fresh.charged.map(Tenant::slot);
        layout.write(&mut self.slab, at, meta, charged, fresh.key);
        entry::set_version(&mut self.slab, at, fresh.version);
        match fresh.value {
            Value::Inline(value) => self.slab.write(at, meta.value_offset(), &value),
            Value::Outside(outside) => {
                let index = self.outsides.push(at, outside);
                entry::set_outside_index(&mut self.slab, at, index);
            }
            Value::Tombstone => {}
        }
        if let Some(expires_ms) = fresh.expires_ms {
            entry::set_expiry(&mut self.slab, at, expires_ms);
            self.wheel.insert(&mut self.slab, at);
        }
        self.know(fresh.space);
        if let Some(charged) = fresh.charged {
            self.know(charged);
        }
        let Self { slab, outsides, tenants, hasher, index, .. } = self;
        let warm = |at| entry::warm(slab, at);
        index.insert(at, hashes, |at| hashes_in(slab, outsides, tenants, hasher, at), warm);
        let charge = self.charge(at);
        self.queues[queue as usize].push_front(&mut self.slab, at, charge);
        Some(at)
    }

    /// Replaces value, version and expiry in the chunk. Answers the new charge.
    fn overwrite(&mut self, at: ChunkRef, fresh: Fresh<'_>, layout: Layout, garbage: &mut Garbage) -> u64 {
        let before = self.charge(at);
        let old = Meta::read(&self.slab, at);
        let frequency = (old.frequency() + 1).min(evict::MAX_FREQUENCY);
        Meta::new(fresh.space.slot(), layout, old.queue(), frequency).write(&mut self.slab, at);
        entry::set_version(&mut self.slab, at, fresh.version);
        match fresh.value {
            Value::Inline(value) => self.slab.write(at, old.value_offset(), &value),
            Value::Outside(outside) => {
                garbage.extend(self.outsides.replace(entry::outside_index(&self.slab, at), outside));
            }
            Value::Tombstone => {}
        }
        if let Some(expires_ms) = fresh.expires_ms {
            self.wheel.remove(&mut self.slab, at);
            entry::set_expiry(&mut self.slab, at, expires_ms);
            self.wheel.insert(&mut self.slab, at);
        }
        let after = self.charge(at);
        self.queues[old.queue() as usize].resize(before, after);
        self.counts.memory = self.counts.memory - before + after;
        if let Some(tenant) = self.charged(&self.entry(at)) {
            tenant.add_memory(after);
            tenant.sub_memory(before);
        }
        after
    }

    /// Takes a chunk out of everything and frees it; counts nothing.
    fn unlink(&mut self, at: ChunkRef, hashes: Hashes) -> Option<Outside> {
        let meta = Meta::read(&self.slab, at);
        let charge = self.charge(at);
        self.queues[meta.queue() as usize].remove(&mut self.slab, at, charge);
        if meta.has_expiry() {
            self.wheel.remove(&mut self.slab, at);
        }
        let Self { slab, outsides, tenants, hasher, index, .. } = self;
        index.remove(at, hashes, |at| hashes_in(slab, outsides, tenants, hasher, at));
        let mut taken = None;
        if meta.is_outside() {
            let index = entry::outside_index(&self.slab, at);
            let (outside, moved) = self.outsides.remove(index);
            taken = outside;
            if let Some(owner) = moved {
                entry::set_outside_index(&mut self.slab, owner, index);
            }
        }
        if let Some(moved) = self.slab.free(at) {
            self.follow(moved);
        }
        taken
    }

    /// Puts right everything that names a chunk that moved.
    fn follow(&mut self, moved: Moved) {
        let meta = Meta::read(&self.slab, moved.to);
        self.queues[meta.queue() as usize].moved(&mut self.slab, moved);
        if meta.has_expiry() {
            self.wheel.moved(&mut self.slab, moved);
        }
        if meta.is_outside() {
            self.outsides.set_owner(entry::outside_index(&self.slab, moved.to), moved.to);
        }
        self.index.replace(moved.from, moved.to, self.hashes(moved.to));
    }

    fn count_in(&mut self, at: ChunkRef) -> u64 {
        let charge = self.charge(at);
        self.counts.memory += charge;
        let entry = self.entry(at);
        if entry.meta().is_tombstone() {
            self.counts.tombstones += 1;
        } else {
            if let Some(tenant) = self.charged(&entry) {
                tenant.add_memory(charge);
            }
            self.counts.entries += 1;
        }
        charge
    }

    /// Without the account's memory.
    fn count_out(&mut self, at: ChunkRef) {
        let charge = self.charge(at);
        self.counts.memory -= charge;
        if self.entry(at).meta().is_tombstone() {
            self.counts.tombstones -= 1;
        } else {
            self.counts.entries -= 1;
        }
    }

    /// So that an entry's slot leads to its account.
    fn know(&mut self, tenant: &Tenant) {
        let slot = tenant.slot() as usize;
        if self.tenants.len() <= slot {
            self.tenants.resize(slot + 1, None);
        }
        if self.tenants[slot].is_none() {
            self.tenants[slot] = Some(tenant.clone());
        }
    }
}

/// Tombstones are charged to nobody and need no word that says so.
fn is_charged_apart(fresh: &Fresh<'_>) -> bool {
    !matches!(fresh.value, Value::Tombstone) && fresh.charged != Some(fresh.space)
}

fn hashes_in(
    slab: &Slab,
    outsides: &Outsides,
    tenants: &[Option<Tenant>],
    hasher: &SeedableRandomState,
    at: ChunkRef,
) -> Hashes {
    let entry = EntryRef::new(slab, outsides, at);
    let space = tenants.get(entry.meta().space_slot() as usize).and_then(Option::as_ref);
    debug_assert!(space.is_some(), "an entry names an unknown account");
    space.map_or(Hashes { route: 0, keyed: 0 }, |space| entry.with_key(|key| hashes_of(hasher, space, key)))
}
