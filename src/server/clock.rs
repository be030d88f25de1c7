//! Where `now` comes from: the one place of the server that reads clocks for the store. Floor 0 is handed the result.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::cache::version::Now;

/// The clock that entries live by. Cheap to clone; clones tell the same time.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    /// The system's clocks; the instant is when the clock was made.
    System(Instant),
    /// Microseconds that somebody sets: for simulations.
    Manual(Arc<AtomicU64>),
}

/// Where the manual clock's wall begins, in microseconds since the Unix epoch: 2026-01-01, so that versions look real.
const MANUAL_EPOCH_US: u64 = 1_767_225_600_000_000;

impl Clock {
    #[must_use]
    pub fn start() -> Self {
        Self(Source::System(Instant::now()))
    }

    /// A clock that stands at `us` microseconds, and moves when the counter is changed.
    #[must_use]
    pub fn manual(us: Arc<AtomicU64>) -> Self {
        Self(Source::Manual(us))
    }

    #[must_use]
    pub fn now(&self) -> Now {
        match &self.0 {
            Source::System(origin) => Now {
                monotonic_ms: u64::try_from(origin.elapsed().as_millis()).unwrap_or(u64::MAX),
                // A wall clock before 1970 is 0: versions are pushed past it by the hybrid clock anyway.
                wall_us: SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX)),
            },
            Source::Manual(us) => {
                let us = us.load(Ordering::Acquire);
                Now { monotonic_ms: us / 1000, wall_us: MANUAL_EPOCH_US + us }
            }
        }
    }

    /// Microseconds since some moment before the clock was made; never goes back. What the token buckets count in.
    #[must_use]
    pub fn monotonic_us(&self) -> u64 {
        match &self.0 {
            Source::System(origin) => u64::try_from(origin.elapsed().as_micros()).unwrap_or(u64::MAX),
            Source::Manual(us) => us.load(Ordering::Acquire),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_it_is_set() {
        let us = Arc::new(AtomicU64::new(5_000));
        let clock = Clock::manual(us.clone());
        assert_eq!((clock.now().monotonic_ms, clock.monotonic_us()), (5, 5_000));
        us.store(7_000, Ordering::Release);
        assert_eq!((clock.now().monotonic_ms, clock.monotonic_us()), (7, 7_000));
    }
}
