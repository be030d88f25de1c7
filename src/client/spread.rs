//! Which of the connections to a replica a call takes.
//!
//! Calls that are made together go together: one message of sixteen costs either side a fraction of sixteen messages. So the
//! calls of one turn take one connection, up to its share of all that are under way, and the next turn takes the connection
//! with the fewest. Spread by their keys, the answers of one message would become calls on all connections, and messages
//! shrink until each carries one call.
//!
//! Calls on one key keep their order: while one of them has no answer, the others take its connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Keys are told apart by this many values of their hash. Two that share one also share a connection while both are under way.
const BUCKETS: usize = 1024;

/// Calls that go together however few are under way.
const MIN_TOGETHER: u32 = 16;

/// The connections to one replica, and how busy they are.
#[derive(Debug)]
pub(super) struct Spread {
    /// Calls without an answer, by connection.
    under_way: Box<[AtomicU32]>,
    /// By the hash of their keys: calls without an answer (upper half), and the connection that they took.
    buckets: Box<[AtomicU64]>,
    /// Calls of this turn (upper half), and the connection that they take.
    turn: AtomicU64,
}

/// A call's hold on a connection until its answer has come.
#[derive(Debug)]
pub(super) struct Tie {
    spread: Arc<Spread>,
    bucket: usize,
    number: u32,
}

impl Spread {
    pub(super) fn new(connections: usize) -> Arc<Self> {
        let buckets = if connections > 1 { BUCKETS } else { 0 };
        Arc::new(Self {
            under_way: (0..connections).map(|_| AtomicU32::new(0)).collect(),
            buckets: (0..buckets).map(|_| AtomicU64::new(0)).collect(),
            turn: AtomicU64::new(0),
        })
    }

    /// Chooses for a call on a key of this hash. `None`: there is only the first.
    pub(super) fn tie(self: &Arc<Self>, hash: u64) -> Option<Tie> {
        if self.buckets.is_empty() {
            return None;
        }
        // The upper bits have picked the replica.
        let bucket = usize::try_from(hash % BUCKETS as u64).unwrap_or(0);
        let mut seen = self.buckets[bucket].load(Ordering::Acquire);
        loop {
            let (calls, known) = parts(seen);
            let number = if calls > 0 { known } else { self.next() };
            let tied = whole(calls + 1, number);
            match self.buckets[bucket].compare_exchange_weak(seen, tied, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    self.under_way[number as usize].fetch_add(1, Ordering::Relaxed);
                    return Some(Tie { spread: Arc::clone(self), bucket, number });
                }
                Err(now) => seen = now,
            }
        }
    }

    /// A message was sent on this connection: the next call begins another turn.
    pub(super) fn sent(&self, number: u32) {
        let over = |turn| (parts(turn).1 == number).then(|| whole(u32::MAX, number));
        // Nothing is to be done for another connection's turn.
        let _ = self.turn.fetch_update(Ordering::Relaxed, Ordering::Relaxed, over);
    }

    /// The connection of this turn, or of the next if it has its share.
    fn next(&self) -> u32 {
        let mut seen = self.turn.load(Ordering::Relaxed);
        loop {
            let (calls, number) = parts(seen);
            let goes_on = calls < MIN_TOGETHER || (calls < u32::MAX && self.has_room(number));
            let next = if goes_on { whole(calls + 1, number) } else { whole(1, self.idlest()) };
            match self.turn.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return parts(next).1,
                Err(now) => seen = now,
            }
        }
    }

    /// Whether it has less than its share of all calls under way.
    fn has_room(&self, number: u32) -> bool {
        let all: u32 = self.under_way.iter().map(|calls| calls.load(Ordering::Relaxed)).sum();
        let connections = u32::try_from(self.under_way.len()).unwrap_or(1);
        self.under_way[number as usize].load(Ordering::Relaxed) < all / connections
    }

    fn idlest(&self) -> u32 {
        let numbered = (0..).zip(&self.under_way);
        numbered.min_by_key(|(_, calls)| calls.load(Ordering::Relaxed)).map_or(0, |(number, _)| number)
    }
}

impl Tie {
    /// Which connection.
    pub(super) fn number(&self) -> usize {
        self.number as usize
    }
}

impl Drop for Tie {
    fn drop(&mut self) {
        self.spread.under_way[self.number()].fetch_sub(1, Ordering::Relaxed);
        self.spread.buckets[self.bucket].fetch_sub(whole(1, 0), Ordering::AcqRel);
    }
}

/// The upper half and the lower.
#[expect(clippy::cast_possible_truncation, reason = "each is half of it")]
fn parts(packed: u64) -> (u32, u32) {
    ((packed >> 32) as u32, packed as u32)
}

fn whole(upper: u32, lower: u32) -> u64 {
    u64::from(upper) << 32 | u64::from(lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ties(spread: &Arc<Spread>, hashes: std::ops::Range<u64>) -> Vec<Tie> {
        hashes.filter_map(|hash| spread.tie(hash)).collect()
    }

    fn numbers(ties: &[Tie]) -> Vec<usize> {
        let mut numbers: Vec<usize> = ties.iter().map(Tie::number).collect();
        numbers.dedup();
        numbers
    }

    #[test]
    fn with_one_connection_nothing_is_chosen() {
        assert!(Spread::new(1).tie(7).is_none());
    }

    #[test]
    fn what_is_called_together_goes_together_and_what_comes_after_a_message_elsewhere() {
        let spread = Spread::new(4);
        let first = ties(&spread, 0..10);
        assert_eq!(numbers(&first), [0]);
        spread.sent(3);
        assert_eq!(spread.tie(100).map(|tie| tie.number()), Some(0), "another connection's message changes nothing");
        spread.sent(0);
        let second = ties(&spread, 10..20);
        assert_eq!(numbers(&second), [1]);
        drop(first);
        spread.sent(1);
        assert_eq!(spread.tie(0).map(|tie| tie.number()), Some(0), "the idlest");
    }

    #[test]
    fn many_calls_of_one_turn_are_shared_out_evenly() {
        let spread = Spread::new(4);
        let all = ties(&spread, 0..256);
        for number in 0..4 {
            let share = all.iter().filter(|tie| tie.number() == number).count();
            assert!((48..=80).contains(&share), "connection {number} has {share} of 256");
        }
        for number in 0..4 {
            spread.sent(number);
        }
        // As the answers of one message do.
        let (answered, _waiting): (Vec<Tie>, Vec<Tie>) = all.into_iter().partition(|tie| tie.number() == 2);
        let again = answered.len() as u64;
        drop(answered);
        assert_eq!(numbers(&ties(&spread, 300..300 + again.min(48))), [2], "its callers stay together");
    }

    #[test]
    fn calls_on_one_key_share_a_connection_until_all_are_answered() {
        let spread = Spread::new(4);
        let first = spread.tie(7).unwrap();
        for number in 0..4 {
            spread.sent(number);
        }
        let (other, same) = (spread.tie(8).unwrap(), spread.tie(7).unwrap());
        assert_ne!(other.number(), first.number());
        assert_eq!(same.number(), first.number());
        drop(first);
        assert_eq!(spread.tie(7).map(|tie| tie.number()), Some(same.number()), "one of them has no answer yet");
        drop((other, same));
        assert!(spread.under_way.iter().all(|calls| calls.load(Ordering::Relaxed) == 0));
        assert!(spread.buckets.iter().all(|bucket| parts(bucket.load(Ordering::Relaxed)).0 == 0));
    }
}
