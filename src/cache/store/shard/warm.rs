//! Reads ahead, in loops so short that the processor waits for many reads at a time. What a hand-off touches is cold, entry by
//! entry in another place of the memory, and work on one entry after the other would wait for each read by itself.

use std::hint::black_box;

use super::Shard;
use crate::cache::store::entry::{self, Chain, Links};
use crate::cache::store::slab::{ChunkRef, Slab};

impl Shard {
    /// All entries of the bucket of a route hash.
    pub(in crate::cache::store) fn warm_bucket(&self, route: u64) {
        let (chunks, _) = self.index.bucket_of(route);
        black_box(chunks.fold(0, |sum, at| sum ^ entry::warm(&self.slab, at)));
    }

    /// What removing these chunks reads and writes: their neighbours in the queues, the chunks that will take their places, these
    /// ones' neighbours, and where the index has them.
    pub(in crate::cache::store) fn warm_removals(&self, chunks: impl Iterator<Item = ChunkRef> + Clone) {
        let slab = &self.slab;
        let movers: Vec<ChunkRef> = slab.movers(chunks.clone()).collect();
        black_box(movers.iter().fold(0, |sum, &at| sum ^ entry::warm(slab, at)));
        black_box(chunks.chain(movers.iter().copied()).fold(0, |sum, at| sum ^ warm_neighbours(slab, at)));
        black_box(movers.iter().filter(|&&at| self.index.find(self.hashes(at), |found| found == at).is_some()).count());
    }
}

fn warm_neighbours(slab: &Slab, at: ChunkRef) -> u64 {
    let Links { prev, next } = Links::read(slab, at, Chain::Queue);
    let word = |at: ChunkRef| if at.is_nil() { 0 } else { Links::read(slab, at, Chain::Queue).next.raw().into() };
    word(prev) ^ word(next)
}
