//! A shard of a member's store: it has a view of its own, which says what may be done with a key, and what a removal leaves.

use std::sync::Arc;

use super::{Fresh, Garbage, Shard, Value};
use crate::cache::store::entry::{Layout, Queue};
use crate::cache::store::index::Hashes;
use crate::cache::store::slab::ChunkRef;
use crate::cache::store::{Name, Place as NamedPlace};
use crate::cache::version::{HybridClock, Now, Version};
use crate::ownership::member::MemberId;
use crate::ownership::shard::{Place, Removal, ShardView, Standing};

/// What a shard of a member has beside its entries.
pub(in crate::cache::store) struct Member {
    pub view: ShardView<u64>,
    /// Makes the versions of tombstones.
    pub clock: Arc<HybridClock>,
}

/// What a removal leaves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    Nothing,
    /// A tombstone of the same version: of a copy.
    SameVersion,
    /// A tombstone with a new version.
    NewVersion,
}

impl Hashes {
    /// How the marks of the hand-off name a key: by both of its hashes. The keyed one is secret and both together have 128
    /// bits, so no two keys of a store share them.
    pub(in crate::cache::store) fn mark(self) -> Place<u64> {
        Place { hash: self.route, key: self.keyed }
    }
}

impl Shard {
    /// Whether an operation on a key may run now, under the lock under which this is asked.
    pub(in crate::cache::store) fn admit(&self, hashes: Hashes) -> Result<(), Standing> {
        match self.member.as_ref().map(|member| member.view.standing(&hashes.mark())) {
            None | Some(Standing::Authority) => Ok(()),
            Some(other) => Err(other),
        }
    }

    /// The end of the stretch of settled hashes that a walk may look at from `hash` on.
    pub(in crate::cache::store) fn settled_through(&self, hash: u64) -> Result<u64, Standing> {
        self.member.as_ref().map_or(Ok(u64::MAX), |member| member.view.settled_through(hash))
    }

    /// Removes an entry because of a delete, its time, or for its room, and leaves what the hand-off needs: the authority a
    /// tombstone with a new version while a source has an older copy (rule 8), a copy one of the same version (rule 10).
    /// Answers the bytes that came free.
    pub(in crate::cache::store) fn vanish(
        &mut self,
        at: ChunkRef,
        hashes: Hashes,
        now: Now,
        garbage: &mut Garbage,
    ) -> u64 {
        self.sub_memory(at);
        self.vanish_claimed(at, hashes, now, garbage)
    }

    /// As [`Self::vanish`], of an entry whose memory its account has given up already.
    pub(in crate::cache::store) fn vanish_claimed(
        &mut self,
        at: ChunkRef,
        hashes: Hashes,
        now: Now,
        garbage: &mut Garbage,
    ) -> u64 {
        let left = self.left_by_removal(hashes);
        match (left, &mut self.member) {
            (Left::Nothing, None) => self.remove_claimed(at, hashes, garbage),
            (Left::Nothing, Some(member)) => {
                member.view.forget_miss(&hashes.mark());
                self.remove_claimed(at, hashes, garbage)
            }
            (Left::SameVersion, _) => self.bury(at, hashes, self.entry(at).version(), garbage),
            (Left::NewVersion, None) => self.remove_claimed(at, hashes, garbage),
            (Left::NewVersion, Some(member)) => {
                let version = member.clock.next(now);
                self.bury(at, hashes, version, garbage)
            }
        }
    }

    /// Whether removing an entry makes room: a tombstone may be as large as what it stands for.
    pub(in crate::cache::store) fn gains_by_removal(&self, at: ChunkRef) -> bool {
        if self.member.is_none() {
            return true;
        }
        let entry = self.entry(at);
        let hashes = self.hashes(at);
        self.left_by_removal(hashes) == Left::Nothing
            || Self::tombstone_layout(entry.meta().key_len()).charge() < self.charge(at)
    }

    /// All entries and tombstones.
    pub(in crate::cache::store) fn all(&self) -> impl Iterator<Item = (Hashes, ChunkRef)> {
        self.index.chunks().map(|at| (self.hashes(at), at))
    }

    /// Does the view give this hash to `claimer`?
    pub(in crate::cache::store) fn is_for(&self, claimer: &MemberId, hash: u64) -> bool {
        self.member.as_ref().is_some_and(|member| member.view.is_for(claimer, hash))
    }

    /// The chunk of a key that is known by its mark.
    pub(in crate::cache::store) fn find_marked(&self, hashes: Hashes) -> Option<ChunkRef> {
        self.index.find(hashes, |at| self.hashes(at) == hashes)
    }

    /// How the hand-off names an entry. `None` only for one of an unknown account, which there is not.
    pub(in crate::cache::store) fn place(&self, at: ChunkRef, hashes: Hashes) -> Option<NamedPlace> {
        let entry = self.entry(at);
        let key: Arc<str> = entry.with_key(|key| String::from_utf8_lossy(key).into());
        let space = self.tenant(entry.meta().space_slot())?.id().clone();
        Some(Place { hash: hashes.route, key: Name { space, key } })
    }

    pub(in crate::cache::store) fn bury_unclaimed(
        &mut self,
        at: ChunkRef,
        hashes: Hashes,
        version: Version,
        garbage: &mut Garbage,
    ) -> u64 {
        self.sub_memory(at);
        self.bury(at, hashes, version, garbage)
    }

    /// Rules 8 and 10: what a removal must leave.
    fn left_by_removal(&self, hashes: Hashes) -> Left {
        let Some(member) = &self.member else { return Left::Nothing };
        let mark = hashes.mark();
        if member.view.is_copy(&mark) {
            return Left::SameVersion;
        }
        match member.view.removal(&mark) {
            Removal::Tombstone => Left::NewVersion,
            Removal::Nothing => Left::Nothing,
        }
    }

    /// Puts a tombstone in the place of an entry whose memory its account has given up already. It is never larger, so it
    /// needs no room. Answers the bytes that came free.
    pub(in crate::cache::store) fn bury(
        &mut self,
        at: ChunkRef,
        hashes: Hashes,
        version: Version,
        garbage: &mut Garbage,
    ) -> u64 {
        let entry = self.entry(at);
        let (key, slot) = (entry.with_key(<[u8]>::to_vec), entry.meta().space_slot());
        let Some(space) = self.tenant(slot).cloned() else { return self.remove_claimed(at, hashes, garbage) };
        let layout = Self::tombstone_layout(key.len());
        let fresh =
            Fresh { space: &space, charged: None, key: &key, value: Value::Tombstone, version, expires_ms: None };
        let tombstone = self.insert(fresh, layout, Queue::Tombstones, 0, hashes);
        let after = tombstone.map_or(0, |tombstone| self.count_in(tombstone));
        // Wraps where it grew, as only one in a class with no chunk left can.
        self.remove_claimed(at, hashes, garbage).wrapping_sub(after)
    }

    fn tombstone_layout(key_len: usize) -> Layout {
        Layout { key_len, value_len: 0, expires: false, charged_apart: false, outside: false }
    }
}
