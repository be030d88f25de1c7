//! Entries of one bucket in the order of a dump.

use super::Shard;
use crate::cache::cursor::Cursor;
use crate::cache::quota::Tenant;
use crate::cache::store::index::Hashes;
use crate::cache::store::slab::ChunkRef;
use crate::cache::version::Now;

/// Entries of one bucket, in order. Good until something is removed.
pub(in crate::cache::store) struct Found {
    pub entries: Vec<(Hashes, ChunkRef)>,
    /// The first route hash that was not looked at; `None` at the end of all hashes.
    pub next: Option<u64>,
    /// Entries that were looked at.
    pub looked_at: usize,
}

impl Shard {
    /// The entries of `space` whose keys begin with `prefix`, in the bucket where `from` is and after it, through the route
    /// hash `last`.
    pub(in crate::cache::store) fn scan(
        &self,
        space: &Tenant,
        prefix: &[u8],
        from: &Cursor,
        last: u64,
        now: Now,
    ) -> Found {
        let (chunks, end) = self.index.bucket_of(from.hash());
        let last = last.min(end);
        let mut looked_at = 0;
        let mut entries: Vec<(Hashes, ChunkRef)> = chunks
            .inspect(|_| looked_at += 1)
            .filter(|&at| {
                let entry = self.entry(at);
                let meta = entry.meta();
                meta.space_slot() == space.slot()
                    && !meta.is_tombstone()
                    && entry.key_starts_with(prefix)
                    && !entry.is_expired(now)
            })
            .map(|at| (self.hashes(at), at))
            .filter(|&(hashes, at)| {
                let after_key = || self.entry(at).with_key(|key| key > from.key().as_bytes());
                hashes.route <= last && (hashes.route > from.hash() || (hashes.route == from.hash() && after_key()))
            })
            .collect();
        entries.sort_unstable_by_key(|(hashes, _)| hashes.route);
        self.sort_equal_hashes(&mut entries);
        Found { entries, next: last.checked_add(1), looked_at }
    }

    /// Orders by key where route hashes are equal, which happens to honest keys about never.
    fn sort_equal_hashes(&self, entries: &mut [(Hashes, ChunkRef)]) {
        for same in entries.chunk_by_mut(|(a, _), (b, _)| a.route == b.route) {
            if same.len() > 1 {
                same.sort_by_cached_key(|&(_, at)| self.entry(at).with_key(<[u8]>::to_vec));
            }
        }
    }
}
