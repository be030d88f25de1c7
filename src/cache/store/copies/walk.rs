//! Copies that go, or turn into tombstones, bucket by bucket and some per lock.

use super::{BATCH, StoreCopies};
use crate::cache::store::index::Hashes;
use crate::cache::store::member::Place;
use crate::cache::store::shard::{Garbage, Shard};
use crate::cache::store::slab::ChunkRef;
use crate::ownership::member::MemberId;
use crate::ownership::mistake::Mistake;
use crate::ownership::shard::Place as MarkPlace;
use crate::ownership::stretches::intersection;
use crate::ring::Stretch;

impl StoreCopies {
    /// Whether there is any entry or tombstone in these stretches; where there is none is remembered.
    pub(super) fn has_entry_in(&self, stretches: &[Stretch]) -> bool {
        for (number, stretch) in stretches.iter().enumerate() {
            let mut from = Some(stretch.first);
            while let Some(first) = from {
                let (any, next) = {
                    let shard = self.store.lock_at(first);
                    let (mut found, next) = shard.bucket(Stretch { first, last: stretch.last });
                    (found.next().is_some(), next)
                };
                if any {
                    self.thawed(&stretches[..number]);
                    return true;
                }
                from = next;
            }
        }
        self.thawed(stretches);
        false
    }

    /// Rule 15: copies that were sent to a lost member become tombstones of the same version.
    pub(super) fn make_tombstones(&self, marks: &[MarkPlace<u64>]) {
        for some in marks.chunk_by(|a, b| self.store.shard_of(a.hash) == self.store.shard_of(b.hash)) {
            for batch in some.chunks(BATCH) {
                let mut garbage = Garbage::new();
                let mut shard = self.store.lock_at(batch[0].hash);
                for mark in batch {
                    let hashes = Hashes { route: mark.hash, keyed: mark.key };
                    let drops = shard.member.as_ref().is_some_and(|it| it.view.makes(Mistake::DropCopiesOfCrashed));
                    if let Some(at) = shard.find_marked(hashes) {
                        let freed = if drops {
                            shard.remove(at, hashes, &mut garbage)
                        } else {
                            shard.make_tombstone(at, hashes, &mut garbage)
                        };
                        self.store.release(freed);
                    }
                }
            }
        }
    }

    /// Rule 9: drops the tombstones of this replica's keys in a stretch that is settled.
    pub(super) fn drop_tombstones(&self, settled: Stretch) {
        for stretch in intersection(&self.mine, &[settled]) {
            self.remove_in(stretch, true, |shard, at, _| shard.entry(at).meta().is_tombstone());
        }
    }

    /// Rule 10: drops the copies for `to` through a place.
    pub(super) fn drop_copies_through(&self, to: &MemberId, through: &Place) {
        let stretches = intersection(&self.frozen_for(to), &[Stretch { first: 0, last: through.hash }]);
        for &stretch in &stretches {
            self.remove_in(stretch, false, |shard, at, hashes| {
                hashes.route < through.hash || shard.place(at, hashes).is_some_and(|place| place <= *through)
            });
        }
        // With the place's own hash there may be more.
        if let Some(last) = through.hash.checked_sub(1) {
            self.thawed(&intersection(&stretches, &[Stretch { first: 0, last }]));
        }
    }

    /// Removes what is wanted in a stretch. `tombstones`: only these are wanted, so a shard without any is passed over.
    fn remove_in(&self, stretch: Stretch, tombstones: bool, wanted: impl Fn(&Shard, ChunkRef, Hashes) -> bool) {
        let mut from = Some(stretch.first);
        while let Some(first) = from {
            let mut garbage = Garbage::new();
            let mut shard = self.store.lock_at(first);
            if tombstones && shard.counts.tombstones == 0 {
                from = self.store.shard_end(first).checked_add(1).filter(|next| *next <= stretch.last);
                continue;
            }
            shard.warm_bucket(first);
            let (found, next) = shard.bucket(Stretch { first, last: stretch.last });
            let some: Vec<(Hashes, ChunkRef)> =
                found.filter(|&(hashes, at)| wanted(&shard, at, hashes)).take(BATCH).collect();
            shard.warm_removals(some.iter().map(|(_, at)| *at));
            // By mark: each removal may move chunks.
            for &(hashes, _) in &some {
                if let Some(at) = shard.find_marked(hashes) {
                    self.store.release(shard.drop_copy(at, hashes, &mut garbage));
                }
            }
            if some.len() < BATCH {
                from = next;
            }
        }
    }
}
