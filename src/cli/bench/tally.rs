//! What a thread counts. Threads share nothing while calls are made; what they counted is added up when somebody looks.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::mix::Operation;

/// The longest latency that is told apart, in microseconds; longer ones count as this.
const MAX_LATENCY_US: u64 = 600_000_000;

/// Significant digits of latencies.
const DIGITS: u8 = 3;

/// Kinds of errors that are told apart; others are counted together.
const MAX_KINDS: usize = 64;

/// Latencies in microseconds.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

/// Counts of a thread, or of all.
#[derive(Clone, Debug)]
pub struct Tally {
    /// By operation: how long calls took that succeeded.
    pub latencies: [Latencies; Operation::ALL.len()],
    /// By operation: calls that failed.
    pub failed: [u64; Operation::ALL.len()],
    /// Calls that were begun within the time that counts.
    pub begun: u64,
    /// Gets that found a value, and gets that did not.
    pub hits: u64,
    pub misses: u64,
    /// Bytes of values that were stored and read.
    pub bytes: u64,
    /// Failures by kind.
    pub errors: BTreeMap<String, u64>,
    /// Since the last look: calls that succeeded, and those that did not.
    pub recent: Latencies,
    pub recent_failed: u64,
}

/// A call that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub operation: Operation,
    pub took: Duration,
    /// Of the value.
    pub bytes: usize,
    /// Of a get: whether there was a value.
    pub hit: Option<bool>,
}

impl Latencies {
    /// In microseconds.
    pub fn quantile(&self, quantile: f64) -> u64 {
        self.0.value_at_quantile(quantile)
    }

    pub fn max(&self) -> u64 {
        self.0.max()
    }

    pub fn mean(&self) -> f64 {
        self.0.mean()
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    pub fn add(&mut self, other: &Self) {
        // All have the same bounds, so they always fit.
        let _ = self.0.add(&other.0);
    }

    pub fn clear(&mut self) {
        self.0.reset();
    }

    pub fn record(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1));
    }
}

impl Default for Latencies {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, MAX_LATENCY_US, DIGITS);
        Self(histogram.expect("1 to 10 minutes with 3 digits is what HDR histograms are for"))
    }
}

impl Tally {
    pub fn succeeded(&mut self, call: Call) {
        self.latencies[call.operation.index()].record(call.took);
        self.recent.record(call.took);
        self.bytes += call.bytes as u64;
        match call.hit {
            Some(true) => self.hits += 1,
            Some(false) => self.misses += 1,
            None => {}
        }
    }

    pub fn failed(&mut self, operation: Operation, kind: &str) {
        self.failed[operation.index()] += 1;
        self.recent_failed += 1;
        let known = self.errors.len() < MAX_KINDS || self.errors.contains_key(kind);
        *self.errors.entry(if known { kind } else { "others" }.to_owned()).or_default() += 1;
    }

    pub fn add(&mut self, other: &Self) {
        for (mine, its) in self.latencies.iter_mut().zip(&other.latencies) {
            mine.add(its);
        }
        for (mine, its) in self.failed.iter_mut().zip(&other.failed) {
            *mine += its;
        }
        for (kind, count) in &other.errors {
            *self.errors.entry(kind.clone()).or_default() += count;
        }
        self.begun += other.begun;
        self.hits += other.hits;
        self.misses += other.misses;
        self.bytes += other.bytes;
    }

    /// Of all operations.
    pub fn all(&self) -> Latencies {
        let mut all = Latencies::default();
        self.latencies.iter().for_each(|its| all.add(its));
        all
    }

    pub fn succeeded_calls(&self) -> u64 {
        self.latencies.iter().map(Latencies::count).sum()
    }

    pub fn failed_calls(&self) -> u64 {
        self.failed.iter().sum()
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            latencies: std::array::from_fn(|_| Latencies::default()),
            failed: [0; Operation::ALL.len()],
            begun: 0,
            hits: 0,
            misses: 0,
            bytes: 0,
            errors: BTreeMap::new(),
            recent: Latencies::default(),
            recent_failed: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(operation: Operation, ms: u64, hit: Option<bool>) -> Call {
        Call { operation, took: Duration::from_millis(ms), bytes: 10, hit }
    }

    #[test]
    fn tallies_of_threads_add_up() {
        let (mut one, mut other) = (Tally::default(), Tally::default());
        (1..=99).for_each(|ms| one.succeeded(call(Operation::Get, ms, Some(ms % 3 == 0))));
        other.succeeded(call(Operation::Store, 100, None));
        other.failed(Operation::Get, "DEADLINE_EXCEEDED");
        one.add(&other);
        let all = one.all();
        assert_eq!((all.count(), one.succeeded_calls(), one.failed_calls()), (100, 100, 1));
        assert_eq!((one.hits, one.misses, one.bytes), (33, 66, 1000));
        assert_eq!(all.quantile(0.5) / 100, 500);
        assert_eq!(all.max() / 100, 1000);
        assert_eq!(one.errors.get("DEADLINE_EXCEEDED"), Some(&1));
    }

    #[test]
    fn kinds_of_errors_are_bounded() {
        let mut tally = Tally::default();
        (0..1000).for_each(|kind| tally.failed(Operation::Get, &kind.to_string()));
        assert_eq!(tally.errors.len(), MAX_KINDS + 1);
        assert_eq!(tally.errors["others"], 1000 - MAX_KINDS as u64);
    }
}
