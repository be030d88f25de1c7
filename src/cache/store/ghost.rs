//! What eviction remembers of entries that it removed: two bytes each.
//!
//! A table of sets of [`WAYS`] fingerprints. A new one takes the place of the oldest of its set, so together the sets are
//! about a queue of fixed length, without links. Two keys of one set are taken for each other once in 2,000 times, which
//! makes one entry begin in the main queue.

/// Fingerprints of a set: with its position, one cache line.
const WAYS: usize = 31;

/// The least number of fingerprints for each entry of the shard; there are up to twice as many, since sets are a power of
/// two. Measured: more follow a shifting working set better and keep a still one worse, each by half a point when doubled.
const PER_ENTRY: usize = 1;

/// Remembers the keyed hashes of evicted entries.
#[derive(Default)]
pub(super) struct Ghosts {
    /// A power of two of them, or none before the first eviction.
    sets: Vec<Set>,
}

#[derive(Clone, Copy)]
struct Set {
    /// 0: none.
    fingerprints: [u16; WAYS],
    /// Where the next one goes.
    next: u16,
}

impl Ghosts {
    /// Remembers an entry that is evicted from a shard with `entries` entries.
    pub(super) fn remember(&mut self, hash: u64, entries: usize) {
        self.fit(entries);
        let (set, fingerprint) = self.place(hash);
        let set = &mut self.sets[set];
        set.fingerprints[usize::from(set.next)] = fingerprint;
        set.next = if usize::from(set.next) + 1 == WAYS { 0 } else { set.next + 1 };
    }

    /// Whether an entry was evicted a while ago; it is forgotten then.
    pub(super) fn recall(&mut self, hash: u64) -> bool {
        if self.sets.is_empty() {
            return false;
        }
        let (set, fingerprint) = self.place(hash);
        let found = self.sets[set].fingerprints.iter_mut().find(|known| **known == fingerprint);
        found.map(|known| *known = 0).is_some()
    }

    /// Keeps the table in proportion. Growing doubles each set in place of its two, which forgets nothing.
    fn fit(&mut self, entries: usize) {
        let wanted = (entries * PER_ENTRY).div_ceil(WAYS).next_power_of_two();
        if self.sets.is_empty() {
            self.sets = vec![Set { fingerprints: [0; WAYS], next: 0 }; wanted];
        } else if wanted > self.sets.len() {
            self.sets = self.sets.iter().flat_map(|set| [*set, *set]).collect();
        } else if wanted * 4 <= self.sets.len() {
            self.sets = self.sets.chunks_exact(2).map(|pair| pair[0]).collect();
        }
    }

    /// The set by the high bits (so that growing keeps neighbours together), the fingerprint by the low ones.
    #[expect(clippy::cast_possible_truncation, reason = "bits are picked")]
    fn place(&self, hash: u64) -> (usize, u16) {
        let bits = self.sets.len().trailing_zeros();
        let set = if bits == 0 { 0 } else { (hash.rotate_left(7) >> (64 - bits)) as usize };
        (set, (hash as u16).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: u64) -> u64 {
        xxhash_rust::xxh64::xxh64(&number.to_le_bytes(), 0)
    }

    #[test]
    fn the_youngest_evicted_are_recalled_once_and_the_oldest_not() {
        let mut ghosts = Ghosts::default();
        assert!(!ghosts.recall(hash(0)));
        for number in 0..100_000 {
            ghosts.remember(hash(number), 1000);
        }
        let young = (99_000..100_000).filter(|&number| ghosts.recall(hash(number))).count();
        assert!(young > 980, "{young}");
        assert!((99_000..100_000).filter(|&number| ghosts.recall(hash(number))).count() < 20);
        assert!((0..10_000).filter(|&number| ghosts.recall(hash(number))).count() < 100);
    }

    #[test]
    fn growing_forgets_nothing() {
        let mut ghosts = Ghosts::default();
        for number in 0..500 {
            ghosts.remember(hash(number), 1000);
        }
        ghosts.remember(hash(500), 8000);
        ghosts.remember(hash(501), 8000);
        assert!((0..500).filter(|&number| ghosts.recall(hash(number))).count() > 490);
    }
}
