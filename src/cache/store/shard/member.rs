//! A shard of a member's store: it has a view of its own, which says what may be done with a key, and what a removal leaves.

use std::sync::Arc;

use super::{Fresh, Garbage, Shard, Value};
use crate::cache::store::copies::{Lent, LentValue};
use crate::cache::store::entry::{Layout, Queue};
use crate::cache::store::index::Hashes;
use crate::cache::store::slab::ChunkRef;
use crate::cache::store::{Name, Place as NamedPlace};
use crate::cache::version::{HybridClock, Now, Version};
use crate::ownership::mistake::Mistake;
use crate::ownership::shard::{Place, Removal, ShardView, Standing};
use crate::ring::Stretch;

/// What a shard of a member has beside its entries.
pub(in crate::cache::store) struct Member {
    pub view: ShardView<u64>,
    /// What the marks are charged, as it was counted last.
    pub marks: u64,
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
            (Left::SameVersion, _) => self.bury(at, hashes, self.entry(at).version(), garbage),
            (Left::NewVersion, Some(member)) => {
                let version = member.clock.next(now);
                self.bury(at, hashes, version, garbage)
            }
            _ => {
                let freed = self.remove_claimed(at, hashes, garbage);
                if let Some(member) = &mut self.member {
                    member.view.forget_miss(&hashes.mark());
                }
                freed.wrapping_add(self.marks_freed())
            }
        }
    }

    /// Whether removing an entry makes room: a tombstone may be as large as what it stands for.
    pub(in crate::cache::store) fn gains_by_removal(&self, at: ChunkRef) -> bool {
        if self.member.is_none() {
            return true;
        }
        Self::tombstone_layout(self.entry(at).meta().key_len()).charge() < self.charge(at)
            || self.left_by_removal(self.hashes(at)) == Left::Nothing
    }

    /// The entries and tombstones in a stretch's first bucket, in no order, and where in the stretch the next one begins.
    pub(in crate::cache::store) fn bucket(
        &self,
        stretch: Stretch,
    ) -> (impl Iterator<Item = (Hashes, ChunkRef)>, Option<u64>) {
        let (chunks, end) = self.index.bucket_of(stretch.first);
        let named = chunks.map(|at| (self.hashes(at), at));
        let found = named.filter(move |(hashes, _)| stretch.contains(hashes.route));
        (found, end.checked_add(1).filter(|next| *next <= stretch.last))
    }

    /// Bytes that the marks are charged.
    pub(in crate::cache::store) fn marks(&self) -> u64 {
        self.member.as_ref().map_or(0, |member| member.marks)
    }

    /// As [`Self::marks`], after they changed.
    pub(in crate::cache::store) fn count_marks(&mut self) -> u64 {
        let Some(member) = &mut self.member else { return 0 };
        let before = std::mem::replace(&mut member.marks, member.view.charge());
        self.counts.memory = self.counts.memory - before + member.marks;
        member.marks
    }

    /// Is what is here of a key a copy: not this replica's to change?
    pub(super) fn is_copy(&self, hashes: Hashes) -> bool {
        self.member.as_ref().is_some_and(|member| member.view.is_copy(&hashes.mark()))
    }

    /// Only for deliberate mistakes.
    pub(super) fn makes(&self, mistake: Mistake) -> bool {
        self.member.as_ref().is_some_and(|member| member.view.mistakes().make(mistake))
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

    /// Calls `f` with an entry or tombstone as it is lent. `None`: as [`Self::place`].
    pub(in crate::cache::store) fn with_lent<R>(
        &self,
        at: ChunkRef,
        now: Now,
        f: impl FnOnce(&Lent<'_>) -> R,
    ) -> Option<R> {
        let entry = self.entry(at);
        let (space, version) = (self.tenant(entry.meta().space_slot())?.id(), entry.version());
        let value = LentValue::of(self, entry, now);
        Some(entry.with_key(|key| f(&Lent { space, key, version, value })))
    }

    /// Rule 15: a copy becomes a tombstone of the same version. Answers the bytes that came free.
    pub(in crate::cache::store) fn make_tombstone(
        &mut self,
        at: ChunkRef,
        hashes: Hashes,
        garbage: &mut Garbage,
    ) -> u64 {
        if self.entry(at).meta().is_tombstone() {
            return 0;
        }
        self.sub_memory(at);
        self.bury(at, hashes, self.entry(at).version(), garbage)
    }

    /// Rule 10: drops a copy, its marks too. Answers the bytes that came free.
    pub(in crate::cache::store) fn drop_copy(&mut self, at: ChunkRef, hashes: Hashes, garbage: &mut Garbage) -> u64 {
        let freed = self.remove(at, hashes, garbage);
        if let Some(member) = &mut self.member {
            member.view.dropped(&hashes.mark());
        }
        freed.wrapping_add(self.marks_freed())
    }

    fn marks_freed(&mut self) -> u64 {
        self.marks().wrapping_sub(self.count_marks())
    }

    /// Rules 8 and 10: what a removal must leave.
    fn left_by_removal(&self, hashes: Hashes) -> Left {
        let Some(member) = &self.member else { return Left::Nothing };
        let mark = hashes.mark();
        if self.is_copy(hashes) {
            return Left::SameVersion;
        }
        match member.view.removal(&mark) {
            Removal::Tombstone => Left::NewVersion,
            Removal::Nothing => Left::Nothing,
        }
    }

    /// Puts a tombstone in the place of an entry whose memory its account has given up already. It is never larger, so it
    /// needs no room. Answers the bytes that came free.
    fn bury(&mut self, at: ChunkRef, hashes: Hashes, version: Version, garbage: &mut Garbage) -> u64 {
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
