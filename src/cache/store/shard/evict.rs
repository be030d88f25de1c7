//! Which entry goes when memory is needed: S3-FIFO (Yang et al. 2023, "FIFO queues are all you need for cache eviction").
//!
//! New entries come into a small queue. One that was read there goes on to the main queue, the others leave and only their
//! fingerprint is remembered; who comes back while it is known begins in the main queue. There, an entry that was read gets
//! another round for each of up to three reads. So a scan passes through the small queue and pushes nothing else out, and a
//! read only counts: it moves nothing.
//!
//! The shares are measured (`benches/README.md`, ADR 2). Ours differs from the paper: 5 % instead of 10 % for the small
//! queue, one read promotes instead of two, and the memory is of one to two times as many entries as there are, which follows a shifting working set.

use super::{Garbage, Shard};
use crate::cache::quota::Tenant;
use crate::cache::store::entry::{Meta, Queue};
use crate::cache::store::slab::ChunkRef;
use crate::cache::version::Now;

/// Reads that are counted.
pub(in crate::cache::store) const MAX_FREQUENCY: u8 = 3;

/// The small queue's share of memory is one in this many.
const SMALL_SHARE: u64 = 20;

/// Second chances that are given in a row. It bounds the time under the lock; the next entry goes although it was read.
pub(in crate::cache::store) const MAX_SECOND_CHANCES: usize = 128;

/// A search for entries to evict.
pub(in crate::cache::store) struct Evict<'a> {
    /// Whose store needs the room: its own entries are not guarded against itself.
    pub asker: Option<&'a Tenant>,
    /// Not this one: it is being written.
    pub keep: Option<ChunkRef>,
    /// How many entries that may not go are looked at before giving up.
    pub patience: usize,
    /// How many entries that were read are given another round.
    pub second_chances: usize,
    pub now: Now,
}

impl Shard {
    /// Evicts one entry and answers the bytes that came free, or `None` if none was found that may go.
    pub(in crate::cache::store) fn evict_one(&mut self, search: &mut Evict<'_>, garbage: &mut Garbage) -> Option<u64> {
        let mut refused = None;
        loop {
            let at = self.next_candidate(refused)?;
            let meta = Meta::read(&self.slab, at);
            let expired = self.entry(at).is_expired(search.now);
            if meta.frequency() > 0 && search.second_chances > 0 && !expired {
                search.second_chances -= 1;
                let frequency = if meta.queue() == Queue::Small { 0 } else { meta.frequency() - 1 };
                self.recycle(at, meta.with_frequency(frequency));
                continue;
            }
            if search.keep == Some(at) || !self.gains_by_removal(at) || !self.claim(at, search.asker) {
                if search.patience == 0 {
                    return None;
                }
                search.patience -= 1;
                refused = Some(meta.queue());
                self.recycle(at, meta);
                continue;
            }
            let hashes = self.hashes(at);
            if meta.queue() == Queue::Small {
                self.ghosts.remember(hashes.keyed, self.index.len());
            }
            if expired {
                self.counts.expired += 1;
            } else {
                self.counts.evicted += 1;
            }
            return Some(self.vanish_claimed(at, hashes, search.now, garbage));
        }
    }

    /// Entries that eviction may look at.
    pub(in crate::cache::store) fn evictable(&self) -> usize {
        self.queues[Queue::Small as usize].entries() + self.queues[Queue::Main as usize].entries()
    }

    /// Counts a read.
    pub(in crate::cache::store) fn touch_frequency(&mut self, at: ChunkRef) {
        let meta = Meta::read(&self.slab, at);
        if meta.frequency() < MAX_FREQUENCY {
            meta.with_frequency(meta.frequency() + 1).write(&mut self.slab, at);
        }
    }

    /// The tail of the queue that is over its share. After a refusal, that of the other queue: else a guarded one would be
    /// looked at for ever while the other has something that may go.
    fn next_candidate(&self, refused: Option<Queue>) -> Option<ChunkRef> {
        let [small, main, _] = &self.queues;
        let from_small = match refused {
            Some(queue) => queue == Queue::Main,
            None => small.bytes() * SMALL_SHARE >= small.bytes() + main.bytes(),
        };
        if from_small { small.tail().or(main.tail()) } else { main.tail().or(small.tail()) }
    }

    /// Puts an entry to the front of the main queue.
    fn recycle(&mut self, at: ChunkRef, meta: Meta) {
        let charge = self.charge(at);
        self.queues[meta.queue() as usize].remove(&mut self.slab, at, charge);
        meta.with_queue(Queue::Main).write(&mut self.slab, at);
        self.queues[Queue::Main as usize].push_front(&mut self.slab, at, charge);
    }

    /// Takes the entry's memory off its account, unless that is guaranteed against the asker. In one step, so that two
    /// shards together do not take an account below its guarantee either.
    fn claim(&self, at: ChunkRef, asker: Option<&Tenant>) -> bool {
        let entry = self.entry(at);
        let Some(owner) = self.charged(&entry) else { return true };
        if Some(owner) == asker {
            owner.sub_memory(self.charge(at));
            return true;
        }
        owner.try_lose_memory(self.charge(at))
    }
}
