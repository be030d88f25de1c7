//! Where `now` comes from: the one place of the server that reads clocks for the store. Floor 0 is handed the result.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::cache::version::Now;

/// The clock that entries live by. Cheap to clone; clones tell the same time.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    /// The system's clocks, read once: when the clock was made, and microseconds since the Unix epoch then. Later moments
    /// are told by the monotonic clock alone, so that a call reads one clock, and a wall clock that is set does not matter.
    System { origin: Instant, wall_us: u64 },
    /// Microseconds that somebody sets: for simulations.
    Manual(Arc<AtomicU64>),
}

/// Where the manual clock's wall begins, in microseconds since the Unix epoch: 2026-01-01, so that versions look real.
const MANUAL_EPOCH_US: u64 = 1_767_225_600_000_000;

/// Milliseconds that the monotonic clock shows when it is made: 0 is never "now".
const FIRST_MS: u64 = 1;

impl Clock {
    /// The system's clock. A wall clock before 1970 counts as 1970: versions then grow by counting alone.
    #[must_use]
    pub fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(Source::System { origin: Instant::now(), wall_us: micros(since_epoch) })
    }

    /// A clock that stands at `us` microseconds, and moves when the counter is changed.
    #[must_use]
    pub fn manual(us: Arc<AtomicU64>) -> Self {
        Self(Source::Manual(us))
    }

    #[must_use]
    pub fn now(&self) -> Now {
        self.at(Instant::now())
    }

    /// A moment that was read before: what several parts of a call need is read once. A manual clock knows only now.
    #[must_use]
    pub fn at(&self, moment: Instant) -> Now {
        match &self.0 {
            Source::System { wall_us, .. } => {
                let us = self.us_at(moment);
                Now { monotonic_ms: us / 1000 + FIRST_MS, wall_us: wall_us.saturating_add(us) }
            }
            Source::Manual(us) => {
                let us = us.load(Ordering::Acquire);
                Now { monotonic_ms: us / 1000, wall_us: MANUAL_EPOCH_US + us }
            }
        }
    }

    /// The same in microseconds since some moment before the clock was made; never goes back. What token buckets count in.
    #[must_use]
    pub fn us_at(&self, moment: Instant) -> u64 {
        match &self.0 {
            Source::System { origin, .. } => micros(moment.saturating_duration_since(*origin)),
            Source::Manual(us) => us.load(Ordering::Acquire),
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_it_is_set() {
        let us = Arc::new(AtomicU64::new(5_000));
        let clock = Clock::manual(us.clone());
        assert_eq!((clock.now().monotonic_ms, clock.us_at(Instant::now())), (5, 5_000));
        us.store(7_000, Ordering::Release);
        assert_eq!((clock.now().monotonic_ms, clock.us_at(Instant::now())), (7, 7_000));
    }
}
