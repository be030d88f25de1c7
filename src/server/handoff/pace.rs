//! How fast keys are taken over: a token bucket of bytes, filled at the configured rate times the share of their time that the
//! workers were idle lately. So a hand-off takes what requests leave, and a quarter of the rate in any case: one that does not
//! get on holds up the leaver that waits for it. A quarter it is too while operations wait for keys that move: idle workers
//! do not tell of a machine that is busy.
//!
//! What it bounds is whole pages: the next is not asked for while the bucket is empty. Memory is bounded by a page per source.

use std::time::Duration;

use tokio::runtime::Handle;

/// Least share of the rate, however busy the workers are.
const MIN_SHARE: f64 = 0.25;

/// The bucket holds what this much time brings: about what passes between two looks at the workers.
const BURST: Duration = Duration::from_millis(100);

/// While keys are touched, pages are so many times smaller than the largest.
const SMALL_PAGES: usize = 4;

/// Of the largest pages, so many are asked for at a time; of smaller ones more.
const MAX_LARGE_PAGES: usize = 16;

/// Bytes of the pages that are asked for: small while somebody waits for a key, as whoever sends or reads one does nothing
/// else meanwhile, and growing while nobody does, as each has the price of two messages.
#[derive(Debug)]
pub(super) struct PageSize {
    most: usize,
    bytes: usize,
}

/// The pace at which pages are asked for.
#[derive(Debug)]
pub(super) struct Pace {
    /// Bytes per second; none: no bound.
    rate: Option<f64>,
    /// Of the rate, what requests leave.
    share: f64,
    /// An operation waited for a key since the last look at the workers.
    touched: bool,
    /// Bytes; below zero when the last page was more than there was.
    tokens: f64,
    filled_us: u64,
}

/// How busy the workers are.
#[derive(Debug)]
pub(super) struct Load {
    workers: Vec<(Handle, Duration)>,
    looked_us: u64,
}

impl Pace {
    pub(super) fn new(bytes_per_second: u64) -> Self {
        let rate = (bytes_per_second > 0).then_some(bytes_per_second as f64);
        Self { rate, share: 1.0, touched: false, tokens: 0.0, filled_us: 0 }
    }

    /// What requests leave: the idle share of the busiest worker's time.
    pub(super) fn yield_to(&mut self, idle: f64, now_us: u64) {
        self.fill(now_us);
        self.share = if std::mem::take(&mut self.touched) { MIN_SHARE } else { idle.clamp(MIN_SHARE, 1.0) };
    }

    /// An operation waits for a key: the least share, until the look at the workers after the next.
    pub(super) fn touched(&mut self, now_us: u64) {
        if !self.touched {
            self.touched = true;
            self.share = MIN_SHARE;
            // What the bucket holds beyond that share is gone.
            self.fill(now_us);
        }
    }

    /// Bytes came.
    pub(super) fn took(&mut self, bytes: usize, now_us: u64) {
        self.fill(now_us);
        self.tokens -= bytes as f64;
    }

    /// How long no page may be asked for; none: one may.
    pub(super) fn wait(&mut self, now_us: u64) -> Option<Duration> {
        self.fill(now_us);
        let rate = self.rate? * self.share;
        (self.tokens < 0.0).then(|| Duration::from_secs_f64(-self.tokens / rate))
    }

    fn fill(&mut self, now_us: u64) {
        let Some(rate) = self.rate else { return };
        let passed = Duration::from_micros(now_us.saturating_sub(self.filled_us));
        self.filled_us = now_us;
        let most = rate * self.share * BURST.as_secs_f64();
        self.tokens =
            if self.rate.is_some() { (self.tokens + passed.as_secs_f64() * rate * self.share).min(most) } else { 0.0 };
    }
}

impl PageSize {
    pub(super) fn new(most: usize) -> Self {
        Self { most, bytes: 0 }
    }

    /// A key was touched.
    pub(super) fn shrink(&mut self) {
        self.bytes = 0;
    }

    /// A page came from one of so many sources: the size of the next.
    pub(super) fn grow(&mut self, sources: usize) -> usize {
        let least = (self.most / SMALL_PAGES).max(1);
        let most = (self.most.saturating_mul(MAX_LARGE_PAGES) / sources.max(MAX_LARGE_PAGES)).max(least);
        self.bytes = self.bytes.saturating_mul(2).clamp(least, most);
        self.bytes
    }
}

impl Load {
    pub(super) fn new(workers: impl IntoIterator<Item = Handle>) -> Self {
        let workers = workers.into_iter().map(|handle| (handle, Duration::ZERO)).collect();
        Self { workers, looked_us: 0 }
    }

    /// The share of its time that the busiest worker was idle since the last look: 0 to 1.
    pub(super) fn idle(&mut self, now_us: u64) -> f64 {
        let passed = Duration::from_micros(now_us.saturating_sub(self.looked_us)).as_secs_f64();
        self.looked_us = now_us;
        let mut busiest = 0.0_f64;
        for (handle, before) in &mut self.workers {
            let busy = handle.metrics().worker_total_busy_duration(0);
            busiest = busiest.max(busy.saturating_sub(*before).as_secs_f64() / passed.max(f64::EPSILON));
            *before = busy;
        }
        (1.0 - busiest).clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;
    const S: u64 = 1_000_000;

    /// Bytes that pass in a second, by pages of a MiB.
    fn passed_in_a_second(pace: &mut Pace) -> usize {
        let (mut now, mut bytes) = (10 * S, 0);
        while now < 11 * S {
            if let Some(wait) = pace.wait(now) {
                now += u64::try_from(wait.as_micros()).unwrap() + 1;
            } else {
                pace.took(MIB, now);
                bytes += MIB;
            }
        }
        bytes
    }

    #[test]
    fn it_is_the_rate_while_the_workers_are_idle_and_less_when_they_are_not() {
        for (idle, part) in [(1.0, 1.0), (0.5, 0.5), (0.0, MIN_SHARE)] {
            let mut pace = Pace::new(100 * MIB as u64);
            pace.yield_to(idle, 10 * S);
            let mib = passed_in_a_second(&mut pace) as f64 / MIB as f64;
            // And what the bucket held at the start.
            assert!(mib >= 100.0 * part && mib <= 100.0 * part + 12.0, "{idle}: {mib} MiB");
        }
    }

    #[test]
    fn it_is_the_least_share_while_operations_wait_for_keys_though_the_workers_are_idle() {
        let mut pace = Pace::new(100 * MIB as u64);
        pace.yield_to(1.0, 10 * S);
        pace.touched(10 * S);
        pace.yield_to(1.0, 10 * S);
        let mib = passed_in_a_second(&mut pace) as f64 / MIB as f64;
        assert!((25.0..=29.0).contains(&mib), "{mib} MiB");
        pace.yield_to(1.0, 11 * S);
        assert!(passed_in_a_second(&mut pace) as f64 / MIB as f64 > 97.0, "nobody waits any more");
    }

    #[test]
    fn pages_are_small_after_a_touch_and_grow_while_there_is_none() {
        let mut size = PageSize::new(1600);
        let grown: Vec<usize> = (0..6).map(|_| size.grow(3)).collect();
        assert_eq!(grown, [400, 800, 1600, 1600, 1600, 1600]);
        size.shrink();
        assert_eq!([size.grow(3), size.grow(3)], [400, 800]);
    }

    #[test]
    fn pages_of_many_sources_are_no_larger_together_than_those_of_few() {
        let largest = |sources| {
            let mut size = PageSize::new(1600);
            (0..20).map(|_| size.grow(sources)).max().unwrap()
        };
        assert_eq!([1, 16, 32, 256, 1000].map(largest), [1600, 1600, 800, 400, 400]);
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        let mut pace = Pace::new(0);
        pace.took(usize::MAX / 2, S);
        assert_eq!(pace.wait(S), None);
    }
}
