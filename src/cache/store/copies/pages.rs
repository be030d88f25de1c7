//! Pages of copies for who owns them now, in the order of places over all shards (PROTOCOL §7).

use std::sync::atomic::Ordering;

use super::{LentValue, Pieces, StoreCopies, frozen};
use crate::cache::store::index::Hashes;
use crate::cache::store::member::{Carried, Name, Place};
use crate::cache::store::room::{MAX_ATTEMPTS, Room};
use crate::cache::store::shard::Shard;
use crate::cache::store::slab::ChunkRef;
use crate::ownership::copies::{Page, WrittenPage};
use crate::ownership::member::MemberId;
use crate::ownership::shard::ShardView;
use crate::ring::Stretch;

/// Bytes that an item of a page has beside its key and value, at most about: ids of accounts, lengths, version, expiry.
const ITEM_BYTES: usize = 128;

/// Entries that are lent before a shard's lock is let go: all of a bucket, which is named and sorted once. Some 150 microseconds
/// of work.
const MAX_LENT: usize = 512;

/// How full a page is.
struct Filling {
    items: usize,
    bytes: usize,
    max_bytes: usize,
}

impl StoreCopies {
    pub(super) fn page_for(&self, to: &MemberId, after: Option<&Place>, max_bytes: usize) -> Page<Name, Carried> {
        let mut items = Vec::new();
        let last = self.lend_some(to, after, max_bytes, |shard, hashes, at| {
            items.extend(shard.place(at, hashes).map(|place| (place, frozen(shard, at, self.now))));
        });
        (items, last)
    }

    /// The same as it goes over the wire. `None`: nobody said how that looks.
    pub(super) fn written_page_for(
        &mut self,
        to: &MemberId,
        after: Option<&Place>,
        max_bytes: usize,
    ) -> Option<WrittenPage> {
        let write = self.write?;
        let mut pieces = std::mem::take(&mut self.pieces);
        pieces.reserve(max_bytes);
        let (mut entries, mut bytes) = (0, 0);
        let last = self.lend_some(to, after, max_bytes, |shard, _, at| {
            shard.with_lent(at, self.now, |lent| {
                entries += 1;
                bytes += lent.key.len() + lent.value.as_ref().map_or(0, LentValue::len);
                write(lent, self.now, &mut pieces);
            });
        });
        let page = WrittenPage { pieces: pieces.finish(), entries, bytes, last };
        // The buffer is used again, once the page has been sent.
        self.pieces = if last { Pieces::default() } else { pieces };
        Some(page)
    }

    /// Rules 10 and 15: marks the next copies for `to` as lent, about `max_bytes` of them, and calls `add` with each. Looks
    /// only where copies for it may be, from the place on. Answers whether these were the last.
    fn lend_some(
        &self,
        to: &MemberId,
        after: Option<&Place>,
        max_bytes: usize,
        mut add: impl FnMut(&Shard, Hashes, ChunkRef),
    ) -> bool {
        let mut page = Filling { items: 0, bytes: 0, max_bytes };
        let begin = after.map_or(0, |after| after.hash);
        let mut after = after.cloned();
        for stretch in self.frozen_for(to).into_iter().filter(|stretch| stretch.last >= begin) {
            let mut from = Some(stretch.first.max(begin));
            while let Some(first) = from {
                let mut room = self.room_for(MAX_LENT as u64 * ShardView::<u64>::LENT_BYTES);
                let mut shard = self.store.lock_at(first);
                let marks = shard.marks();
                let (found, next) = sorted(&shard, Stretch { first, last: stretch.last }, after.as_ref());
                let some = &found[..found.len().min(MAX_LENT)];
                let full = some.iter().any(|&(hashes, at)| {
                    let full = !page.takes(&shard, at);
                    if !full {
                        add(&shard, hashes, at);
                        if let Some(member) = &mut shard.member {
                            member.view.lend(&hashes.mark(), to);
                        }
                    }
                    full
                });
                room.keep(marks, shard.count_marks());
                if full {
                    return false;
                }
                if found.len() <= MAX_LENT {
                    from = next;
                } else if let Some(&(hashes, at)) = some.last() {
                    after = shard.place(at, hashes);
                }
            }
        }
        true
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
    /// Whether the item still fits; the first one always does.
    fn takes(&mut self, shard: &Shard, at: ChunkRef) -> bool {
        let entry = shard.entry(at);
        let requests = entry.outside().and_then(|outside| outside.requests.as_ref());
        let requests = requests.map_or(0, |requests| usize::try_from(requests.charge()).unwrap_or(usize::MAX));
        let quota_bytes = usize::try_from(entry.quota_bytes()).unwrap_or(usize::MAX);
        let bytes = self.bytes.saturating_add(quota_bytes).saturating_add(requests).saturating_add(ITEM_BYTES);
        if bytes > self.max_bytes && self.items > 0 {
            return false;
        }
        self.bytes = bytes;
        self.items += 1;
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
