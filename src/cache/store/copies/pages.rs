//! Pages of copies for who owns them now, in the order of places over all shards (PROTOCOL §7).

use std::sync::atomic::Ordering;

use super::{BATCH, StoreCopies, frozen};
use crate::cache::store::index::Hashes;
use crate::cache::store::member::{Carried, Name, Place};
use crate::cache::store::room::{MAX_ATTEMPTS, Room};
use crate::cache::store::shard::Shard;
use crate::cache::store::slab::ChunkRef;
use crate::cache::version::Now;
use crate::ownership::copies::{Items, Page};
use crate::ownership::member::MemberId;
use crate::ownership::shard::ShardView;
use crate::ring::Stretch;

/// Bytes that an item of a page has beside its key and value, at most about: ids of accounts, lengths, version, expiry.
const ITEM_BYTES: usize = 128;

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
                let full = some.iter().any(|&(hashes, at)| {
                    let full = !page.push(&shard, hashes, at, self.now);
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
        for _ in 0..MAX_ATTEMPTS {
            let capacity = self.store.capacity.load(Ordering::Relaxed);
            if room.grow_to(bytes, capacity) || !self.evict(None, bytes) {
                break;
            }
        }
        room
    }
}

impl Filling {
    fn last(&self) -> Option<&Place> {
        self.items.last().map(|(place, _)| place)
    }

    /// Whether the item still fits; the first one always does.
    fn push(&mut self, shard: &Shard, hashes: Hashes, at: ChunkRef, now: Now) -> bool {
        let entry = shard.entry(at);
        let requests = entry.outside().and_then(|outside| outside.requests.as_ref());
        let requests = requests.map_or(0, |requests| usize::try_from(requests.charge()).unwrap_or(usize::MAX));
        let quota_bytes = usize::try_from(entry.quota_bytes()).unwrap_or(usize::MAX);
        let bytes = quota_bytes.saturating_add(requests).saturating_add(ITEM_BYTES);
        if self.bytes.saturating_add(bytes) > self.max_bytes && !self.items.is_empty() {
            return false;
        }
        self.bytes = self.bytes.saturating_add(bytes);
        self.items.extend(shard.place(at, hashes).map(|place| (place, frozen(shard, at, now))));
        true
    }
}

/// The entries of a stretch's first bucket after a place, in order, and where the next bucket begins.
fn sorted(shard: &Shard, stretch: Stretch, after: Option<&Place>) -> (Vec<(Hashes, ChunkRef)>, Option<u64>) {
    shard.warm_bucket(stretch.first);
    let (found, next) = shard.bucket(stretch);
    let is_after = |&(hashes, at): &(Hashes, ChunkRef)| match after {
        Some(after) if after.hash == hashes.route => shard.place(at, hashes).as_ref() > Some(after),
        Some(after) => after.hash < hashes.route,
        None => true,
    };
    let mut entries: Vec<_> = found.filter(is_after).collect();
    entries.sort_unstable_by_key(|(hashes, _)| hashes.route);
    // By name where route hashes are equal, which happens to honest keys about never.
    for same in entries.chunk_by_mut(|(a, _), (b, _)| a.route == b.route).filter(|same| same.len() > 1) {
        same.sort_by_cached_key(|&(hashes, at)| shard.place(at, hashes));
    }
    (entries, next)
}
