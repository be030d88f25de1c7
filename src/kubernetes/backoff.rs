//! How long to leave the API server alone after failures in a row. kube's own backoff adds its jitter on top, and may wait
//! for twice its maximum.

use std::time::Duration;

use rand::RngExt as _;

/// Wait after the first failure at most.
const FIRST: Duration = Duration::from_millis(500);

/// Wait after any failure at most.
pub const MAX_WAIT: Duration = Duration::from_secs(30);

/// The same for a replica that knows nobody yet: it serves nothing before it does.
pub const MAX_WAIT_AT_START: Duration = Duration::from_secs(4);

/// Failures in a row.
#[derive(Debug, Default)]
pub struct Backoff(u32);

impl Backoff {
    /// How long to wait now, `most` at most: twice as long as before, less up to a half by chance, so that the replicas of a cluster do not come
    /// back together.
    pub fn next_wait(&mut self, most: Duration) -> Duration {
        let longest = FIRST.saturating_mul(1 << self.0.min(16)).min(most);
        self.0 = self.0.saturating_add(1);
        longest.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// It works again.
    pub fn reset(&mut self) {
        self.0 = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_30_s_and_vary_by_half() {
        let mut backoff = Backoff::default();
        for longest_ms in [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
            let longest = Duration::from_millis(longest_ms);
            let wait = backoff.next_wait(MAX_WAIT);
            assert!(longest / 2 <= wait && wait <= longest, "{wait:?} of {longest:?}");
        }
        backoff.reset();
        assert!(backoff.next_wait(MAX_WAIT) <= FIRST);
        assert!((0..100).all(|_| backoff.next_wait(MAX_WAIT_AT_START) <= MAX_WAIT_AT_START));
    }
}
