//! Time and versions. Nothing here reads a clock: `Now` is passed in.
//!
//! A version is a hybrid logical clock (Kulkarni et al. 2014, "Logical Physical Clocks"): 52 bits of microseconds since the
//! Unix epoch, pushed forward past every clock heard of, and 12 bits that tell the replicas that made it apart. So the
//! versions of a key grow across owners, also after a delete, and a wall clock that jumps back changes nothing.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bits of a version that belong to the replica.
const REPLICA_BITS: u32 = 12;

/// A moment, by both clocks: expiry runs on the monotonic one, versions on the wall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since some moment before this process started; never goes back.
    pub monotonic_ms: u64,
    /// Microseconds since the Unix epoch.
    pub wall_us: u64,
}

/// Which write an entry is from. Opaque to clients; of two versions of one key the greater is the later. 0 is no version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u64);

/// Makes versions. Shared by all shards of a replica.
#[derive(Debug)]
pub struct HybridClock {
    /// The clock part of the last version made or heard of, in microseconds.
    last_us: AtomicU64,
    replica: AtomicU64,
}

impl Version {
    /// What stands for "no version": a missing key, a dry run.
    pub const NONE: Self = Self(0);

    #[must_use]
    pub const fn from_u64(number: u64) -> Self {
        Self(number)
    }

    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The clock part, in microseconds since the Unix epoch.
    #[must_use]
    pub const fn clock_us(self) -> u64 {
        self.0 >> REPLICA_BITS
    }
}

impl HybridClock {
    /// `replica` tells replicas apart; only its low 12 bits count.
    #[must_use]
    pub fn new(replica: u64) -> Self {
        let clock = Self { last_us: AtomicU64::new(0), replica: AtomicU64::new(0) };
        clock.set_replica(replica);
        clock
    }

    /// From now on versions are another replica's: this process goes on as a new member. Only the low 12 bits count.
    pub fn set_replica(&self, replica: u64) {
        self.replica.store(replica & ((1 << REPLICA_BITS) - 1), Ordering::Relaxed);
    }

    /// A version greater than every one made or observed before.
    pub fn next(&self, now: Now) -> Version {
        let mut last = self.last_us.load(Ordering::Relaxed);
        loop {
            let next = now.wall_us.max(last + 1);
            match self.last_us.compare_exchange_weak(last, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Version(next << REPLICA_BITS | self.replica.load(Ordering::Relaxed)),
                Err(current) => last = current,
            }
        }
    }

    /// What to tell others: the clock part of the last version made or heard of, in microseconds.
    pub fn latest_us(&self) -> u64 {
        self.last_us.load(Ordering::Acquire)
    }

    /// Pushes the clock past one that was heard of, in microseconds.
    pub fn observe_us(&self, clock_us: u64) {
        self.last_us.fetch_max(clock_us, Ordering::AcqRel);
    }

    /// Pushes the clock past a version heard of.
    pub fn observe(&self, version: Version) {
        self.last_us.fetch_max(version.clock_us(), Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(wall_us: u64) -> Now {
        Now { monotonic_ms: 0, wall_us }
    }

    #[test]
    fn versions_grow_although_the_wall_clock_jumps_back() {
        let clock = HybridClock::new(7);
        let first = clock.next(at(1_000_000));
        let second = clock.next(at(10));
        assert!(second > first);
        assert_eq!(second.clock_us(), 1_000_001);
    }

    #[test]
    fn a_version_heard_of_is_passed() {
        let clock = HybridClock::new(1);
        let theirs = HybridClock::new(4095).next(at(5_000));
        clock.observe(theirs);
        assert!(clock.next(at(10)) > theirs);
    }
}
