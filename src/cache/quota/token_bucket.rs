//! A token bucket without a lock: the generic cell rate algorithm (ITU-T I.371, "virtual scheduling").
//!
//! One atomic holds the *theoretical arrival time*: when the bucket will be full again. A call fits if that is no more than
//! `burst - 1` intervals ahead, and moves it one interval on. There is nothing to refill, so an idle bucket costs nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// Lets `burst` calls through at once and then one per `1 / per_second`.
#[derive(Debug)]
pub struct TokenBucket {
    /// Nanoseconds on the caller's clock.
    arrival_ns: AtomicU64,
    /// Interval in nanoseconds (high half) and burst (low half): one value, so that a change is seen whole.
    rate: AtomicU64,
}

impl TokenBucket {
    /// A full bucket. A rate or burst of 0 counts as 1; the shortest interval is 1 ns.
    #[must_use]
    pub fn new(per_second: u32, burst: u32) -> Self {
        Self { arrival_ns: AtomicU64::new(0), rate: AtomicU64::new(pack(per_second, burst)) }
    }

    /// Takes one token at `now_us`, in microseconds of a monotonic clock, always the same one.
    ///
    /// # Errors
    /// When there is none: how long until there will be one.
    pub fn try_take(&self, now_us: u64) -> Result<(), Duration> {
        let (interval, burst) = unpack(self.rate.load(Ordering::Relaxed));
        let now = now_us.saturating_mul(1000);
        let ahead = interval * (burst - 1);
        let mut arrival = self.arrival_ns.load(Ordering::Relaxed);
        loop {
            let earliest = arrival.saturating_sub(ahead);
            if now < earliest {
                return Err(Duration::from_nanos(earliest - now));
            }
            let next = arrival.max(now).saturating_add(interval);
            match self.arrival_ns.compare_exchange_weak(arrival, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(current) => arrival = current,
            }
        }
    }

    /// Changes the rate; what was taken stays taken.
    pub fn set_rate(&self, per_second: u32, burst: u32) {
        self.rate.store(pack(per_second, burst), Ordering::Relaxed);
    }
}

/// Rounds the interval up: rather a billionth too slow than too fast.
fn pack(per_second: u32, burst: u32) -> u64 {
    let interval = NANOS_PER_SECOND.div_ceil(u64::from(per_second.max(1)));
    interval << 32 | u64::from(burst.max(1))
}

fn unpack(rate: u64) -> (u64, u64) {
    (rate >> 32, rate & u64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_of_150_with_burst_5_is_5_at_once_and_then_one_per_150th_of_a_second() {
        let bucket = TokenBucket::new(150, 5);
        let start = 1_000_000;
        for _ in 0..5 {
            assert_eq!(bucket.try_take(start), Ok(()));
        }
        assert_eq!(bucket.try_take(start), Err(Duration::from_nanos(6_666_667)));
        assert!(bucket.try_take(start + 6_666).is_err());
        assert_eq!(bucket.try_take(start + 6_667), Ok(()));
        let taken = (start + 6_667..start + 1_006_667).step_by(50).filter(|&us| bucket.try_take(us).is_ok()).count();
        assert_eq!(taken, 150 - 1);
    }

    #[test]
    fn waiting_as_long_as_it_says_is_enough() {
        let bucket = TokenBucket::new(3, 1);
        assert_eq!(bucket.try_take(0), Ok(()));
        let wait = bucket.try_take(10).unwrap_err();
        let then = 10 + u64::try_from(wait.as_nanos().div_ceil(1000)).unwrap();
        assert_eq!(bucket.try_take(then), Ok(()));
    }

    #[test]
    fn an_idle_bucket_holds_its_burst_and_no_more() {
        let bucket = TokenBucket::new(10, 2);
        let later = 3_600_000_000;
        let taken = (0..10).filter(|_| bucket.try_take(later).is_ok()).count();
        assert_eq!(taken, 2);
    }

    #[test]
    fn a_new_rate_holds_from_the_next_call() {
        let bucket = TokenBucket::new(1, 1);
        assert_eq!(bucket.try_take(0), Ok(()));
        bucket.set_rate(1000, 2000);
        assert_eq!((0..3000).filter(|_| bucket.try_take(0).is_ok()).count(), 1000);
    }

    #[test]
    fn threads_together_get_the_burst_and_not_one_more() {
        let bucket = TokenBucket::new(1, 1000);
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..4).map(|_| scope.spawn(|| (0..1000).filter(|_| bucket.try_take(5).is_ok()).count())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(taken, 1000);
    }
}
