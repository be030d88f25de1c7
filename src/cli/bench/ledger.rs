//! What is known of every key of a run that verifies, and what was found wrong.

use std::fmt::Display;
use std::time::SystemTime;

use parking_lot::Mutex;

use super::counter::{Counted, Counter};
use super::model::{Change, Ended, Key, Seen, Since, Verdict};
use super::value::{self, Stamp};

/// Findings that are told in full; the others are counted.
const MAX_TOLD: usize = 20;

/// Keys that are tried when the one that was picked has a write under way: each has one writer.
const MAX_NEIGHBOURS: u64 = 64;

/// The keys of a run, each with one writer at a time.
#[derive(Debug)]
pub struct Ledger {
    /// Tells the run's values from others'.
    run: u64,
    keys: Box<[Mutex<Key>]>,
    counters: Box<[Mutex<Counter>]>,
    found: Mutex<Found>,
}

/// What was found wrong. `lost` counts keys, once for each loss; `stale`, `corrupt` and `late` count answers.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub lost: u64,
    pub stale: u64,
    pub corrupt: u64,
    /// Writes of which nobody knew, applied after later ones. Larder promises nothing of these.
    pub late: u64,
    /// Keys that could not be read at the end.
    pub unread: u64,
    /// The first of them, in words, and when: to find them in logs.
    pub told: Vec<String>,
}

/// A write under way.
#[derive(Debug)]
pub struct Writing<'a> {
    ledger: &'a Ledger,
    pub key: u64,
    pub number: u64,
    ended: bool,
}

/// An increment under way.
#[derive(Debug)]
pub struct Counting<'a> {
    ledger: &'a Ledger,
    pub key: u64,
    pub number: u64,
    ended: bool,
}

impl Ledger {
    /// `counters`: whether there are any, as many as keys.
    pub fn new(run: u64, keys: u64, counters: bool) -> Self {
        let counters = if counters { keys } else { 0 };
        Self {
            run,
            keys: (0..keys).map(|_| Mutex::default()).collect(),
            counters: (0..counters).map(|_| Mutex::default()).collect(),
            found: Mutex::default(),
        }
    }

    /// Begins a write of a key, or of one near it when it has one under way. None: all of those have.
    pub fn write(&self, key: u64, change: Change) -> Option<Writing<'_>> {
        let begin =
            |key| Some(Writing { ledger: self, key, number: self.key(key).lock().begin(change)?, ended: false });
        self.near(key).find_map(begin)
    }

    /// Begins an increment; as [`Self::write`].
    pub fn count(&self, key: u64) -> Option<Counting<'_>> {
        let begin = |key| Some(Counting { ledger: self, key, number: self.counter(key).lock().begin()?, ended: false });
        self.near(key).find_map(begin)
    }

    /// A read of a key begins.
    pub fn since(&self, key: u64) -> Since {
        self.key(key).lock().since()
    }

    /// It has ended with a value, and its version.
    pub fn saw_value(&self, key: u64, since: Since, value: &[u8], version: u64) {
        match value::decode(value) {
            Ok(Stamp { run, key: whose, number }) if run == self.run && whose == key => {
                self.saw(key, since, Seen::Value { number, version });
            }
            Ok(stamp) => self.find(Verdict::Corrupt, &format_args!("key {key} has the value of {stamp:?}")),
            Err(damage) => {
                let bytes = value.len();
                self.find(Verdict::Corrupt, &format_args!("the value of key {key}, of {bytes} bytes: {damage}"));
            }
        }
    }

    /// It has ended without one, or only with whether there is one.
    pub fn saw(&self, key: u64, since: Since, seen: Seen) {
        let verdict = self.key(key).lock().judge(since, seen);
        self.find(verdict, &format_args!("key {key}: {seen:?}, asked after {since:?} was in force"));
    }

    /// Whether a counter was ever incremented.
    pub fn is_counted(&self, key: u64) -> bool {
        self.counter(key).lock().is_used()
    }

    /// A counter was read while nothing was under way; none: it is absent.
    pub fn saw_count(&self, key: u64, value: Option<&[u8]>) {
        let count = match value {
            None => Some(0),
            Some(value) => std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()),
        };
        match count {
            Some(count) => {
                let mut counter = self.counter(key).lock();
                let before = *counter;
                let verdict = counter.read(count);
                drop(counter);
                self.find(verdict, &format_args!("counter {key} is {count}, which is not in {before:?}"));
            }
            None => self.find(Verdict::Corrupt, &format_args!("counter {key} is no number")),
        }
    }

    /// A key could not be read at the end.
    pub fn unread(&self, key: u64, why: &impl Display) {
        let mut found = self.found.lock();
        found.unread += 1;
        found.tell("unread", &format_args!("key {key}: {why}"));
    }

    pub fn found(&self) -> Found {
        self.found.lock().clone()
    }

    /// Keys with a write of which nobody knows whether it was applied.
    pub fn in_doubt(&self) -> u64 {
        let keys = self.keys.iter().filter(|key| key.lock().doubtful()).count();
        let counters = self.counters.iter().filter(|counter| counter.lock().doubtful()).count();
        (keys + counters) as u64
    }

    fn find(&self, verdict: Verdict, what: &impl Display) {
        if verdict == Verdict::Right {
            return;
        }
        let mut found = self.found.lock();
        let (count, name) = match verdict {
            Verdict::Right => return,
            Verdict::Lost => (&mut found.lost, "lost"),
            Verdict::Stale => (&mut found.stale, "stale"),
            Verdict::Corrupt => (&mut found.corrupt, "corrupt"),
            Verdict::Late => (&mut found.late, "late"),
        };
        *count += 1;
        found.tell(name, what);
    }

    fn near(&self, key: u64) -> impl Iterator<Item = u64> + use<> {
        let keys = self.keys.len().max(1) as u64;
        (0..MAX_NEIGHBOURS.min(keys)).map(move |step| (key + step) % keys)
    }

    fn key(&self, key: u64) -> &Mutex<Key> {
        &self.keys[usize::try_from(key).unwrap_or(usize::MAX)]
    }

    fn counter(&self, key: u64) -> &Mutex<Counter> {
        &self.counters[usize::try_from(key).unwrap_or(usize::MAX)]
    }
}

impl Found {
    /// Whether anything was broken that Larder promises.
    pub fn is_clean(&self) -> bool {
        self.lost + self.stale + self.corrupt + self.unread == 0
    }

    fn tell(&mut self, name: &str, what: &impl Display) {
        if self.told.len() < MAX_TOLD {
            let now = humantime::format_rfc3339_millis(SystemTime::now());
            self.told.push(format!("{now} {name}: {what}"));
        }
    }
}

impl Writing<'_> {
    pub fn value(&self, bytes: usize) -> bytes::Bytes {
        value::encode(Stamp { run: self.ledger.run, key: self.key, number: self.number }, bytes)
    }

    pub fn end(mut self, ended: Ended) {
        self.ended = true;
        self.ledger.key(self.key).lock().end(ended);
    }
}

impl Counting<'_> {
    /// Makes the increment safe to repeat.
    pub fn request_id(&self) -> String {
        format!("{:x}-{:x}-{:x}", self.ledger.run, self.key, self.number)
    }

    pub fn end(mut self, counted: Counted) {
        self.ended = true;
        let verdict = self.ledger.counter(self.key).lock().end(counted);
        self.ledger.find(verdict, &format_args!("counter {}: increment {} came {counted:?}", self.key, self.number));
    }
}

/// A call that is given up, as when the bench ends early, may have been carried out.
impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.ledger.key(self.key).lock().end(Ended::Unknown);
        }
    }
}

impl Drop for Counting<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.ledger.counter(self.key).lock().end(Counted::Unknown);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(ledger: &Ledger, key: u64) -> bytes::Bytes {
        let writing = ledger.write(key, Change::Store).unwrap();
        let value = writing.value(100);
        writing.end(Ended::Acknowledged { version: 1 });
        value
    }

    #[test]
    fn values_are_judged_by_what_they_carry() {
        let ledger = Ledger::new(1, 3, false);
        let value = stored(&ledger, 0);
        ledger.saw_value(0, ledger.since(0), &value, 1);
        assert!(ledger.found().is_clean());
        // Another key's value, another run's, a damaged one.
        stored(&ledger, 1);
        ledger.saw_value(1, ledger.since(1), &value, 1);
        ledger.saw_value(0, ledger.since(0), &stored(&Ledger::new(2, 1, false), 0), 1);
        ledger.saw_value(0, ledger.since(0), &value[..99], 1);
        assert_eq!(ledger.found().corrupt, 3);
        // An older one, and none.
        stored(&ledger, 0);
        ledger.saw_value(0, ledger.since(0), &value, 1);
        ledger.saw(1, ledger.since(1), Seen::Nothing);
        let found = ledger.found();
        assert_eq!((found.corrupt, found.stale, found.lost), (3, 1, 1));
        assert_eq!(found.told.len(), 5);
        assert!(!found.is_clean());
    }

    #[test]
    fn a_key_that_is_being_written_gives_way_to_the_next() {
        let ledger = Ledger::new(1, 3, true);
        let writings: Vec<_> = (0..3).map(|_| ledger.write(2, Change::Store).unwrap()).collect();
        assert_eq!(writings.iter().map(|writing| writing.key).collect::<Vec<_>>(), [2, 0, 1]);
        assert!(ledger.write(0, Change::Delete).is_none());
        drop(writings);
        assert_eq!(ledger.in_doubt(), 3);
        ledger.count(1).unwrap().end(Counted::To(1));
        ledger.saw_count(1, Some(b"1"));
        assert!(ledger.found().is_clean());
        ledger.saw_count(1, None);
        ledger.saw_count(1, Some(b"x"));
        assert_eq!((ledger.found().lost, ledger.found().corrupt), (1, 1));
    }
}
