//! A histogram of latencies with buckets of 1.6 % width: small enough to stay in the cache of the load generator.

use std::time::Duration;

/// Buckets per power of two.
const STEPS: u64 = 64;

/// Powers of two above [`STEPS`] microseconds: up to 67 s.
const POWERS: u64 = 20;

#[derive(Clone, Debug)]
pub struct Latencies {
    buckets: Vec<u32>,
    count: u64,
}

impl Latencies {
    pub fn record(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let bucket = bucket_of(micros).min(self.buckets.len() - 1);
        self.buckets[bucket] += 1;
        self.count += 1;
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn merge(&mut self, other: &Self) {
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(mine, theirs)| *mine += theirs);
        self.count += other.count;
    }

    /// The lower bound of the bucket that holds the percentile.
    pub fn percentile(&self, percent: u64) -> Duration {
        let rank = self.count * percent / 100;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += u64::from(*count);
            if seen > rank {
                return Duration::from_micros(floor_of(bucket as u64));
            }
        }
        Duration::ZERO
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self { buckets: vec![0; usize::try_from(STEPS * (POWERS + 1)).unwrap_or_default()], count: 0 }
    }
}

fn bucket_of(micros: u64) -> usize {
    let power = (micros / STEPS).checked_ilog2().map_or(0, |log| u64::from(log) + 1);
    let bucket = if power == 0 { micros } else { power * STEPS + (micros >> (power - 1)) - STEPS };
    usize::try_from(bucket).unwrap_or(usize::MAX)
}

fn floor_of(bucket: u64) -> u64 {
    let (power, step) = (bucket / STEPS, bucket % STEPS);
    if power == 0 { step } else { (STEPS + step) << (power - 1) }
}
