//! Pages of copies for who owns them now, in the order of places over all shards (PROTOCOL §7).

use super::{BATCH, StoreCopies, frozen};
use crate::cache::store::index::Hashes;
use crate::cache::store::member::{Carried, Name, Place};
use crate::cache::store::room::Room;
use crate::cache::store::shard::Shard;
use crate::cache::store::slab::ChunkRef;
use crate::ownership::copies::{Frozen, Items, Page};
use crate::ownership::member::MemberId;
use crate::ownership::shard::ShardView;
use crate::ring::Stretch;

/// Bytes that an item of a page has beside its key and value, about: names of fields, lengths, version, expiry.
const ITEM_BYTES: usize = 64;

/// A page that is being filled.
struct Filling {
    items: Items<Name, Carried>,
    bytes: usize,
    max_bytes: usize,
}

impl StoreCopies {
    /// Rules 10 and 15: the next copies for `to`, each marked as lent. Looks only where copies for it may be, from the
    /// place on.
    pub(super) fn page_for(&self, to: &MemberId, after: Option<&Place>, max_bytes: usize) -> Page<Name, Carried> {
        let mut page = Filling { items: Vec::new(), bytes: 0, max_bytes };
        let begin = after.map_or(0, |after| after.hash);
        for stretch in self.frozen_for(to).into_iter().filter(|stretch| stretch.last >= begin) {
            let mut from = Some(stretch.first.max(begin));
            while let Some(first) = from {
                let mut room = self.room_for(BATCH as u64 * ShardView::<u64>::LENT_BYTES);
                let mut shard = self.store.lock_at(first);
                let marks = shard.marks();
                let (found, next) = sorted(&shard, Stretch { first, last: stretch.last }, page.last().or(after));
                let some = &found[..found.len().min(BATCH)];
                let full = some.iter().any(|(place, hashes, at)| {
                    let copy = frozen(&shard, *at, self.now);
                    let full = !page.push(place, copy);
                    if let (false, Some(member)) = (full, &mut shard.member) {
                        member.view.lend(&hashes.mark(), to);
                    }
                    full
                });
                room.keep(marks, shard.count_marks());
                if full {
                    return (page.items, false);
                }
                if found.len() <= BATCH {
                    from = next;
                }
            }
        }
        (page.items, true)
    }

    /// Room for marks. If nothing may be evicted they are made without: they are small, and bounded by the copies.
    pub(super) fn room_for(&self, bytes: u64) -> Room<'_> {
        let mut room = Room::none(&self.store.used);
        self.store.make_room_for(&mut room, bytes, self.now);
        room
    }
}

impl Filling {
    fn last(&self) -> Option<&Place> {
        self.items.last().map(|(place, _)| place)
    }

    /// Whether the item still fits; the first one always does.
    fn push(&mut self, place: &Place, copy: Frozen<Carried>) -> bool {
        let request_bytes =
            |carried: &Carried| -> usize { carried.requests.iter().map(|request| request.id.len() + ITEM_BYTES).sum() };
        let carried = copy.value.as_ref().map_or(0, |carried| carried.value.len() + request_bytes(carried));
        let bytes = ITEM_BYTES + place.key.space.as_str().len() + place.key.key.len() + carried;
        if self.bytes.saturating_add(bytes) > self.max_bytes && !self.items.is_empty() {
            return false;
        }
        self.bytes = self.bytes.saturating_add(bytes);
        self.items.push((place.clone(), copy));
        true
    }
}

/// The entries of a stretch's first bucket after a place, in order, and where the next bucket begins.
fn sorted(shard: &Shard, stretch: Stretch, after: Option<&Place>) -> (Vec<(Place, Hashes, ChunkRef)>, Option<u64>) {
    let (found, next) = shard.bucket(stretch);
    let named = found.filter_map(|(hashes, at)| Some((shard.place(at, hashes)?, hashes, at)));
    let mut entries: Vec<_> = named.filter(|(place, ..)| after.is_none_or(|after| place > after)).collect();
    entries.sort_unstable_by(|(a, ..), (b, ..)| a.cmp(b));
    (entries, next)
}
