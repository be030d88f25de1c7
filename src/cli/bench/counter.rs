//! What a counter may answer that is only ever incremented by 1, by one writer.
//!
//! An increment whose answer was lost may be applied or not, so the count is known as a range. An answer makes it narrow again,
//! but for increments that are still in doubt.

use super::model::Verdict;

/// What is known of a counter.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counter {
    low: i64,
    high: i64,
    busy: bool,
    /// Number of the last increment that was begun.
    begun: u64,
}

/// How an increment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Applied; the count after it.
    To(i64),
    Refused,
    Unknown,
}

impl Counter {
    /// Begins an increment; answers its number. None while another is under way: there is one writer.
    pub fn begin(&mut self) -> Option<u64> {
        if self.busy {
            return None;
        }
        self.busy = true;
        self.begun += 1;
        Some(self.begun)
    }

    /// The increment has ended.
    pub fn end(&mut self, counted: Counted) -> Verdict {
        self.busy = false;
        match counted {
            Counted::Refused => Verdict::Right,
            Counted::Unknown => {
                self.high += 1;
                Verdict::Right
            }
            Counted::To(count) => {
                (self.low, self.high) = (self.low + 1, self.high + 1);
                self.narrow(count)
            }
        }
    }

    /// The counter was read while nothing was under way.
    pub fn read(&mut self, count: i64) -> Verdict {
        self.narrow(count)
    }

    /// Whether it was ever incremented: one that was not may be absent.
    pub fn is_used(&self) -> bool {
        self.begun > 0
    }

    pub fn doubtful(&self) -> bool {
        self.low != self.high
    }

    fn narrow(&mut self, count: i64) -> Verdict {
        let verdict = match count {
            _ if count < self.low => Verdict::Lost,
            _ if count > self.high => Verdict::Corrupt,
            _ => Verdict::Right,
        };
        // What was not applied until now may be, later. Said once, a wrong count is what is there.
        (self.low, self.high) = if verdict == Verdict::Right { (count, self.high) } else { (count, count) };
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::Counted::{Refused, To, Unknown};
    use super::Verdict::{Corrupt, Lost, Right};
    use super::*;

    #[test]
    fn an_increment_counts_once_and_one_in_doubt_at_most_once() {
        let table: &[(&str, &[(Counted, Verdict)])] = &[
            ("one after the other", &[(To(1), Right), (To(2), Right)]),
            ("a refused one does not count", &[(Refused, Right), (To(1), Right)]),
            ("one in doubt that was not applied", &[(Unknown, Right), (To(1), Right), (To(2), Right)]),
            ("one in doubt that was", &[(Unknown, Right), (To(2), Right), (To(3), Right)]),
            ("one in doubt that was, later", &[(Unknown, Right), (To(1), Right), (To(3), Right)]),
            ("but not twice", &[(Unknown, Right), (To(3), Corrupt)]),
            ("one counted twice", &[(To(1), Right), (To(3), Corrupt), (To(4), Right)]),
            ("one lost", &[(To(1), Right), (To(2), Right), (To(2), Lost), (To(3), Right)]),
            ("all lost", &[(To(1), Right), (To(1), Lost)]),
        ];
        for (name, steps) in table {
            let mut counter = Counter::default();
            for (counted, verdict) in *steps {
                counter.begin().unwrap();
                assert_eq!(counter.end(*counted), *verdict, "{name}: {counted:?}");
            }
        }
    }

    #[test]
    fn the_last_look_counts_too() {
        let mut counter = Counter::default();
        counter.begin().unwrap();
        assert_eq!(counter.begin(), None);
        counter.end(Unknown);
        assert_eq!(counter.read(0), Right);
        assert_eq!(counter.read(1), Right);
        assert_eq!(counter.read(0), Lost);
        assert_eq!(counter.read(2), Corrupt);
    }
}
