//! The only place of the server that reads clocks for the store.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::cache::version::Now;

/// Makes [`Now`]. Milliseconds count from a moment before the clock was made, so 0 is never "now".
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    #[must_use]
    pub fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// This moment. A wall clock before 1970 counts as 1970: versions then grow by counting alone.
    #[must_use]
    pub fn now(&self) -> Now {
        let monotonic = self.origin.elapsed().as_millis();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        Now {
            monotonic_ms: u64::try_from(monotonic).unwrap_or(u64::MAX).saturating_add(1),
            wall_us: u64::try_from(wall).unwrap_or(u64::MAX),
        }
    }
}
