//! Calls that go through many entries, in the order of [`Cursor`], a bucket at a time. No lock is held between two buckets,
//! and none when a call has answered, however slowly its caller reads.

use super::Store;
use super::call::{Page, PageItem, Removed, Scope};
use super::shard::{Garbage, Shard};
use super::slab::ChunkRef;
use crate::cache::cursor::Cursor;
use crate::cache::quota::Tenant;
use crate::cache::version::Now;
use crate::ownership::shard::Standing;

/// Entries, and buckets, that one call looks at before it answers, be it with nothing: some 200 microseconds.
const MAX_LOOKED_AT: usize = 4096;

impl Store {
    /// The next entries of `space` whose key begins with `prefix`, after a place, in the order of [`Cursor`]: at most
    /// `max_bytes` of keys and values, but at least one entry if the page has any.
    ///
    /// At a member, only of the stretch of hashes around the place that are this replica's and settled: `next` is at most
    /// its end, and the page is the last only at the end of all hashes.
    ///
    /// # Errors
    /// When the place is not in such a stretch.
    pub fn page(
        &self,
        space: &Tenant,
        prefix: &str,
        after: Option<&Cursor>,
        max_bytes: usize,
        now: Now,
    ) -> Result<Page, Standing> {
        let mut items: Vec<PageItem> = Vec::new();
        let mut bytes = 0;
        let next = self.walk(after, |shard, from, last| {
            let found = shard.scan(space, prefix.as_bytes(), from, last, now);
            for &(hashes, at) in &found.entries {
                let entry_bytes = usize::try_from(shard.entry(at).quota_bytes()).unwrap_or(usize::MAX);
                if bytes + entry_bytes > max_bytes
                    && let Some(last) = items.last()
                {
                    return (found.looked_at, Next::Stop(last.cursor.clone()));
                }
                bytes += entry_bytes;
                items.push(item(shard, at, hashes.route, now));
            }
            (found.looked_at, Next::Bucket(found.next))
        })?;
        Ok(Page { items, end: next.is_none(), next })
    }

    /// Removes up to `limit` entries of the scope's space whose key begins with `prefix`, after a place; at a member, of the
    /// stretch that [`Self::page`] describes.
    ///
    /// # Errors
    /// As [`Self::page`].
    pub fn remove_page(
        &self,
        scope: Scope<'_>,
        prefix: &str,
        after: Option<&Cursor>,
        limit: usize,
        now: Now,
    ) -> Result<Removed, Standing> {
        let limit = limit.max(1);
        let mut removed = 0;
        let mut garbage = Garbage::new();
        let next = self.walk(after, |shard, from, last| {
            let found = shard.scan(scope.space, prefix.as_bytes(), from, last, now);
            let some = &found.entries[..found.entries.len().min(limit - removed)];
            let last = some
                .last()
                .map(|&(hashes, at)| shard.entry(at).with_key(|key| Cursor::after(hashes.route, &text(key))));
            removed += some.len();
            if !scope.mode.is_dry_run() {
                // By key: each removal may move chunks.
                let keys: Vec<_> =
                    some.iter().map(|&(hashes, at)| (hashes, shard.entry(at).with_key(<[u8]>::to_vec))).collect();
                for (hashes, key) in keys {
                    if let Some(at) = shard.find(scope.space, &key, hashes) {
                        self.release(shard.vanish(at, hashes, now, &mut garbage));
                    }
                }
            }
            match last {
                Some(last) if removed >= limit => (found.looked_at, Next::Stop(last)),
                _ => (found.looked_at, Next::Bucket(found.next)),
            }
        })?;
        Ok(Removed { removed: removed as u64, next })
    }

    /// Calls `visit` for bucket after bucket, with the end of the stretch that may be looked at, until it stops, enough was
    /// looked at, or the end (`None`).
    fn walk(
        &self,
        after: Option<&Cursor>,
        mut visit: impl FnMut(&mut Shard, &Cursor, u64) -> (usize, Next),
    ) -> Result<Option<Cursor>, Standing> {
        let mut from = after.cloned().unwrap_or(Cursor::before_hash(0));
        let mut looked_at = 0;
        loop {
            let mut shard = self.shards[self.shard_of(from.hash())].0.lock();
            let last = match shard.settled_through(from.hash()) {
                Ok(last) => last,
                Err(standing) if looked_at == 0 => return Err(standing),
                Err(_) => return Ok(Some(from)),
            };
            let (more, next) = visit(&mut shard, &from, last);
            drop(shard);
            match next {
                Next::Stop(at) => return Ok(Some(at)),
                Next::Bucket(None) => return Ok(None),
                Next::Bucket(Some(hash)) => from = Cursor::before_hash(hash),
            }
            // A bucket counts too: after a clear, very many may be empty.
            looked_at += more + 1;
            if looked_at >= MAX_LOOKED_AT {
                return Ok(Some(from));
            }
        }
    }
}

/// Where a walk goes on.
enum Next {
    /// In a later call.
    Stop(Cursor),
    /// At this route hash; `None`: nowhere.
    Bucket(Option<u64>),
}

fn item(shard: &Shard, at: ChunkRef, route: u64, now: Now) -> PageItem {
    let entry = shard.entry(at);
    let key = entry.with_key(text);
    PageItem {
        value: entry.value(),
        version: entry.version(),
        remaining_ttl_ms: entry.remaining_ttl_ms(now),
        cursor: Cursor::after(route, &key),
        key,
    }
}

/// Keys are UTF-8 since they were checked.
fn text(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}
