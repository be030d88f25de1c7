//! Finds chunks by key: extendible hashing (Fagin et al. 1979) over small hash tables.
//!
//! A directory, indexed by the leading bits of the *route* hash, names buckets; a bucket is a small table that is probed by
//! the *keyed* hash. A bucket that is full splits in two by the next bit of the route hash. So growth never rehashes more
//! than one bucket, and buckets in directory order are the entries in route order, which a dump and a hand-off need.
//!
//! The route hash is public: someone may choose keys that all share its leading bits. Then the directory stops growing
//! ([`MAX_SLOTS_PER_BUCKETFUL`]) and the bucket becomes one large table, as fast as any, because it is probed by the other hash.

use hashbrown::HashTable;

use super::slab::ChunkRef;

/// Entries of a bucket before it splits: 7/8 of a table of 512. A split, done under the lock, takes some 20 microseconds.
const MAX_BUCKET_ENTRIES: usize = 448;

/// The directory may double while it has fewer slots than this for each bucketful of entries; honest hashes need 2 to 8.
const MAX_SLOTS_PER_BUCKETFUL: usize = 16;

/// Both hashes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hashes {
    /// Of the route, XXH64: places the key on the ring, in a shard and in a bucket.
    pub route: u64,
    /// With the store's own random key: finds it in the bucket.
    pub keyed: u64,
}

pub(super) struct Index {
    /// Leading bits of the route hash that chose the shard.
    shard_bits: u32,
    /// Leading bits after those that index the directory.
    bits: u32,
    directory: Vec<u32>,
    buckets: Vec<Bucket>,
    entries: usize,
}

struct Bucket {
    table: HashTable<u32>,
    /// Leading bits that all entries of the bucket share, after the shard's.
    bits: u32,
}

impl Index {
    pub(super) fn new(shard_bits: u32) -> Self {
        let bucket = Bucket { table: HashTable::new(), bits: 0 };
        Self { shard_bits, bits: 0, directory: vec![0], buckets: vec![bucket], entries: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.entries
    }

    pub(super) fn find(&self, hashes: Hashes, mut is_it: impl FnMut(ChunkRef) -> bool) -> Option<ChunkRef> {
        let table = &self.buckets[self.bucket(hashes.route)].table;
        table.find(hashes.keyed, |&raw| is_it(ChunkRef::from_raw(raw))).map(|&raw| ChunkRef::from_raw(raw))
    }

    /// Adds a chunk that is not in it. `hashes_of` is asked for those of other chunks when a bucket grows or splits; `warm`
    /// reads anything from a chunk.
    pub(super) fn insert(
        &mut self,
        at: ChunkRef,
        hashes: Hashes,
        hashes_of: impl Fn(ChunkRef) -> Hashes,
        warm: impl Fn(ChunkRef) -> u64,
    ) {
        while self.is_full(hashes.route) && self.split(hashes.route, &hashes_of, &warm) {}
        let bucket = self.bucket(hashes.route);
        let keyed = |raw: &u32| hashes_of(ChunkRef::from_raw(*raw)).keyed;
        self.buckets[bucket].table.insert_unique(hashes.keyed, at.raw(), keyed);
        self.entries += 1;
    }

    pub(super) fn remove(&mut self, at: ChunkRef, hashes: Hashes, hashes_of: impl Fn(ChunkRef) -> Hashes) {
        let bucket = self.bucket(hashes.route);
        let table = &mut self.buckets[bucket].table;
        let found = table.find_entry(hashes.keyed, |&raw| raw == at.raw());
        debug_assert!(found.is_ok(), "an entry is missing in the index");
        if let Ok(found) = found {
            found.remove();
            self.entries -= 1;
        }
        if table.len() * 8 < table.capacity() {
            table.shrink_to(table.len() * 2, |raw| hashes_of(ChunkRef::from_raw(*raw)).keyed);
        }
        if self.entries == 0 {
            *self = Self::new(self.shard_bits);
        }
    }

    /// A chunk lies elsewhere now.
    pub(super) fn replace(&mut self, from: ChunkRef, to: ChunkRef, hashes: Hashes) {
        let bucket = self.bucket(hashes.route);
        let found = self.buckets[bucket].table.find_mut(hashes.keyed, |&raw| raw == from.raw());
        debug_assert!(found.is_some(), "a moved entry is missing in the index");
        if let Some(raw) = found {
            *raw = to.raw();
        }
    }

    /// All chunks of the bucket of a route hash, in no order, and the greatest route hash that belongs to it.
    pub(super) fn bucket_of(&self, route: u64) -> (impl Iterator<Item = ChunkRef>, u64) {
        let bucket = &self.buckets[self.bucket(route)];
        let free = 64 - self.shard_bits - bucket.bits;
        let last = route | u64::MAX.checked_shr(64 - free).unwrap_or(0);
        (bucket.table.iter().map(|&raw| ChunkRef::from_raw(raw)), last)
    }

    /// All chunks, in no order.
    pub(super) fn chunks(&self) -> impl Iterator<Item = ChunkRef> {
        self.buckets.iter().flat_map(|bucket| bucket.table.iter().map(|&raw| ChunkRef::from_raw(raw)))
    }

    #[cfg(test)]
    pub(super) fn directory_slots(&self) -> usize {
        self.directory.len()
    }

    #[expect(clippy::cast_possible_truncation, reason = "less than 48 bits, of which a directory has few")]
    fn slot(&self, route: u64) -> usize {
        let rest = route << self.shard_bits;
        rest.checked_shr(64 - self.bits).unwrap_or(0) as usize
    }

    fn bucket(&self, route: u64) -> usize {
        self.directory[self.slot(route)] as usize
    }

    fn is_full(&self, route: u64) -> bool {
        self.buckets[self.bucket(route)].table.len() >= MAX_BUCKET_ENTRIES
    }

    /// Splits the bucket of a route hash; `false` if it may not.
    fn split(&mut self, route: u64, hashes_of: &impl Fn(ChunkRef) -> Hashes, warm: &impl Fn(ChunkRef) -> u64) -> bool {
        let old = self.bucket(route);
        let bits = self.buckets[old].bits;
        if bits == self.bits && !self.double() {
            return false;
        }
        let bit = 63 - self.shard_bits - bits;
        let new = self.buckets.len();
        let entries = std::mem::take(&mut self.buckets[old].table);
        // Reads from all entries first, in a loop so short that the processor waits for many of them at a time: they are
        // cold, and hashing one after the other would wait for each.
        std::hint::black_box(entries.iter().fold(0, |sum, &raw| sum ^ warm(ChunkRef::from_raw(raw))));
        // Each half has room for what will come, so that no table grows, which would hash its entries again.
        let half = || HashTable::with_capacity(MAX_BUCKET_ENTRIES);
        let mut halves = [half(), half()];
        for raw in entries {
            let hashes = hashes_of(ChunkRef::from_raw(raw));
            let keyed = |raw: &u32| hashes_of(ChunkRef::from_raw(*raw)).keyed;
            halves[(hashes.route >> bit & 1) as usize].insert_unique(hashes.keyed, raw, keyed);
        }
        let [low, high] = halves;
        self.buckets[old] = Bucket { table: low, bits: bits + 1 };
        self.buckets.push(Bucket { table: high, bits: bits + 1 });
        let width = 1_usize << (self.bits - bits);
        let first = self.slot(route) / width * width;
        #[expect(clippy::cast_possible_truncation, reason = "less than the 2^32 entries of a shard")]
        self.directory[first + width / 2..first + width].fill(new as u32);
        true
    }

    fn double(&mut self) -> bool {
        let allowed = (self.entries / MAX_BUCKET_ENTRIES + 1) * MAX_SLOTS_PER_BUCKETFUL;
        if self.directory.len() * 2 > allowed || self.bits + self.shard_bits >= 48 {
            return false;
        }
        self.directory = self.directory.iter().flat_map(|&bucket| [bucket, bucket]).collect();
        self.bits += 1;
        true
    }
}
