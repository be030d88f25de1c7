//! What came of a run, and what is asked of it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use larder::client::Error;

/// What a run may be short of its plan.
const SHORTFALL: f64 = 0.05;

/// Failures and stale answers that are shown.
const SHOWN: usize = 10;

#[derive(Default)]
pub struct Report {
    pub planned: u64,
    pub done: u64,
    /// When each call failed, and why.
    pub failed: Vec<(Duration, String)>,
    /// The keys that were missing, and when they were first found so.
    pub lost: BTreeMap<usize, Duration>,
    pub stale: Vec<(Duration, String)>,
    /// Keys of which a store may take effect at any time.
    pub retired: usize,
    /// Tries that failed and were repeated, by what was said.
    pub retried: BTreeMap<String, u64>,
    took: Vec<Duration>,
    lasted: Duration,
}

impl Report {
    /// What was done before does not count.
    pub(super) fn begins(&mut self) {
        assert!(
            self.failed.is_empty() && self.lost.is_empty() && self.stale.is_empty(),
            "before anything moved: {self}"
        );
    }

    pub(super) fn took(&mut self, time: Duration) {
        self.done += 1;
        self.took.push(time);
    }

    pub(super) fn retried(&mut self, error: &Error) {
        *self.retried.entry(error.to_string()).or_default() += 1;
    }

    pub(super) fn ended(&mut self, after: Duration) {
        self.lasted = after;
        self.took.sort_unstable();
    }

    /// The run did what was planned.
    #[track_caller]
    pub fn is_no_void(&self) -> &Self {
        eprintln!("{self}");
        let least = self.planned as f64 * (1.0 - SHORTFALL);
        assert!(self.done as f64 >= least, "the run is void: {} calls of {}", self.done, self.planned);
        self
    }

    #[track_caller]
    pub fn lost_nothing(&self) -> &Self {
        assert!(self.lost.is_empty(), "lost {}: {self}", self.lost.len());
        self
    }

    #[track_caller]
    pub fn read_nothing_stale(&self) -> &Self {
        assert!(self.stale.is_empty(), "stale: {self}");
        self
    }

    /// As [`Self::read_nothing_stale`], from a moment on.
    #[track_caller]
    pub fn read_nothing_stale_after(&self, moment: Duration) -> &Self {
        assert!(self.stale.iter().all(|(at, _)| *at < moment), "stale after {moment:?}: {self}");
        self
    }

    #[track_caller]
    pub fn failed_nothing(&self) -> &Self {
        assert!(self.failed.is_empty(), "failed {}: {self}", self.failed.len());
        self
    }

    /// No call took longer than it might.
    #[track_caller]
    pub fn kept_deadlines(&self, most: Duration) -> &Self {
        let slowest = self.took.last().copied().unwrap_or_default();
        assert!(slowest <= most, "a call took {slowest:?}: {self}");
        self
    }

    /// From the first failure to the last.
    pub fn window(&self) -> Duration {
        let moments = || self.failed.iter().map(|(at, _)| *at);
        moments().max().unwrap_or_default().saturating_sub(moments().min().unwrap_or_default())
    }

    fn quantile(&self, percent: usize) -> Duration {
        self.took.get(self.took.len() * percent / 100).copied().unwrap_or_default()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} calls of {} in {:?}: {} failed (within {:?}), {} lost, {} stale, {} keys retired; p50 {:?}, p99 {:?}, slowest {:?}",
            self.done,
            self.planned,
            self.lasted,
            self.failed.len(),
            self.window(),
            self.lost.len(),
            self.stale.len(),
            self.retired,
            self.quantile(50),
            self.quantile(99),
            self.took.last().copied().unwrap_or_default(),
        )?;
        for (what, count) in &self.retried {
            writeln!(f, "  retried {count} times: {what}")?;
        }
        for (at, what) in self.failed.iter().take(SHOWN) {
            writeln!(f, "  failed at {at:?}: {what}")?;
        }
        for (at, what) in self.stale.iter().take(SHOWN) {
            writeln!(f, "  stale at {at:?}: {what}")?;
        }
        for (key, at) in self.lost.iter().take(SHOWN) {
            writeln!(f, "  lost at {at:?}: load/{key}")?;
        }
        Ok(())
    }
}
