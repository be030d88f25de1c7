//! The longest time without a success, and when it was.

use std::time::Duration;

use tokio::time::Instant;

/// A time without a success.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    pub length: Duration,
    /// Since the beginning.
    pub at: Duration,
}

/// Looks for the longest.
#[derive(Debug)]
pub struct Gaps {
    from: Instant,
    last: Instant,
    longest: Gap,
}

impl Gaps {
    pub fn new(from: Instant) -> Self {
        Self { from, last: from, longest: Gap::default() }
    }

    pub fn success(&mut self, now: Instant) {
        self.longest = self.longest(now);
        self.last = self.last.max(now);
    }

    /// The longest until now; a success that is awaited counts.
    pub fn longest(&self, now: Instant) -> Gap {
        let length = now.saturating_duration_since(self.last);
        if length > self.longest.length {
            Gap { length, at: self.last.saturating_duration_since(self.from) }
        } else {
            self.longest
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_may_be_the_first_or_the_last() {
        let second = Duration::from_secs(1);
        let from = Instant::now();
        let mut gaps = Gaps::new(from);
        gaps.success(from + 3 * second);
        // Told late by another thread.
        gaps.success(from + 2 * second);
        gaps.success(from + 4 * second);
        assert_eq!(gaps.longest(from + 5 * second), Gap { length: 3 * second, at: Duration::ZERO });
        assert_eq!(gaps.longest(from + 9 * second), Gap { length: 5 * second, at: 4 * second });
    }
}
