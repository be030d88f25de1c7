//! The forwards of one lane that have no answer yet, each in a numbered slot; the number is its id on the wire.

use std::task::Waker;

use super::Forwarded;
use super::error::ForwardError;

/// What a forward comes to.
pub(super) type Outcome = Result<Forwarded, ForwardError>;

/// The slots of one lane.
#[derive(Debug, Default)]
pub(super) struct Slots {
    all: Vec<Slot>,
    free: Vec<u32>,
    /// Slots whose forward has no answer, its caller there or gone.
    under_way: usize,
    /// Those of them whose caller is gone.
    abandoned: usize,
}

#[derive(Debug)]
enum Slot {
    Free,
    /// Sent, or to be sent, in the message of this number.
    Waiting {
        message: u64,
        waker: Option<Waker>,
    },
    /// The same, and nobody waits any more. The id is taken until the answer has come.
    Abandoned {
        message: u64,
    },
    Done(Outcome),
}

impl Slots {
    /// Forwards without an answer.
    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    /// Whether somebody waits for an answer.
    pub(super) fn is_awaited(&self) -> bool {
        self.under_way > self.abandoned
    }

    /// A slot for a forward in the message of this number; `None` if `limit` are under way.
    pub(super) fn take(&mut self, message: u64, limit: usize) -> Option<u32> {
        if self.under_way >= limit {
            return None;
        }
        self.under_way += 1;
        let slot = Slot::Waiting { message, waker: None };
        if let Some(id) = self.free.pop() {
            self.all[id as usize] = slot;
            return Some(id);
        }
        let id = u32::try_from(self.all.len()).ok()?;
        self.all.push(slot);
        Some(id)
    }

    /// An answer came. Answers whom to wake, after the lock.
    ///
    /// # Errors
    /// The outcome itself when nobody waits for it, or it is to no forward at all.
    pub(super) fn complete(&mut self, id: u32, outcome: Outcome) -> Result<Option<Waker>, Outcome> {
        let Some(slot) = self.all.get_mut(id as usize) else { return Err(outcome) };
        match std::mem::replace(slot, Slot::Free) {
            Slot::Waiting { waker, .. } => {
                *slot = Slot::Done(outcome);
                self.under_way -= 1;
                Ok(waker)
            }
            Slot::Abandoned { .. } => {
                self.free.push(id);
                self.under_way -= 1;
                self.abandoned -= 1;
                Err(outcome)
            }
            other => {
                *slot = other;
                Err(outcome)
            }
        }
    }

    /// Everything ends without an answer: by the number of its message it was written or not. Answers whom to wake.
    pub(super) fn end_all(&mut self, outcome: impl Fn(u64) -> ForwardError) -> Vec<Waker> {
        let mut wakers = Vec::new();
        for id in 0..u32::try_from(self.all.len()).unwrap_or(u32::MAX) {
            if let Slot::Waiting { message, .. } | Slot::Abandoned { message } = self.all[id as usize] {
                wakers.extend(self.complete(id, Err(outcome(message))).ok().flatten());
            }
        }
        wakers
    }

    /// The outcome, once; until then remembers whom to wake.
    pub(super) fn poll(&mut self, id: u32, waker: &Waker) -> Option<Outcome> {
        let slot = &mut self.all[id as usize];
        if let Slot::Waiting { waker: known, .. } = slot {
            if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
                *known = Some(waker.clone());
            }
            return None;
        }
        let Slot::Done(outcome) = std::mem::replace(slot, Slot::Free) else { return None };
        self.free.push(id);
        Some(outcome)
    }

    /// Nobody waits any more. Answers the outcome that nobody took.
    pub(super) fn abandon(&mut self, id: u32) -> Option<Outcome> {
        let slot = &mut self.all[id as usize];
        match std::mem::replace(slot, Slot::Free) {
            Slot::Waiting { message, .. } => {
                *slot = Slot::Abandoned { message };
                self.abandoned += 1;
            }
            Slot::Done(outcome) => {
                self.free.push(id);
                return Some(outcome);
            }
            other => *slot = other,
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_not_used_again_before_its_answer_came() {
        let mut slots = Slots::default();
        assert_eq!((slots.take(1, 2), slots.take(1, 2), slots.take(1, 2)), (Some(0), Some(1), None));
        assert_eq!(slots.abandon(0), None);
        assert_eq!(slots.take(1, 2), None, "it may be answered yet");
        assert!(slots.is_awaited());
        assert!(slots.complete(0, Ok(Forwarded::Moved)).is_err(), "nobody waits for it");
        assert_eq!(slots.take(2, 2), Some(0));
        assert!(slots.complete(1, Ok(Forwarded::Moved)).is_ok());
        assert_eq!(slots.take(2, 2), Some(2), "nobody has taken the outcome of 1");
        assert_eq!(slots.poll(1, Waker::noop()), Some(Ok(Forwarded::Moved)));
        assert!(slots.complete(2, Ok(Forwarded::Moved)).is_ok());
        assert_eq!(slots.take(2, 2), Some(1));
    }

    #[test]
    fn answers_that_nobody_asked_for_change_nothing() {
        let mut slots = Slots::default();
        assert!(slots.complete(7, Ok(Forwarded::Moved)).is_err());
        slots.take(1, 9);
        assert!(slots.complete(0, Err(ForwardError::Unknown)).is_ok());
        assert!(slots.complete(0, Ok(Forwarded::Moved)).is_err());
        assert_eq!((slots.poll(0, Waker::noop()), slots.under_way()), (Some(Err(ForwardError::Unknown)), 0));
    }

    #[test]
    fn at_the_end_what_was_written_is_unknown_and_the_rest_is_refused() {
        let mut slots = Slots::default();
        for message in [1, 1, 2] {
            slots.take(message, 9);
        }
        slots.abandon(0);
        slots.end_all(|message| if message <= 1 { ForwardError::Unknown } else { ForwardError::Refused });
        assert_eq!(slots.poll(1, Waker::noop()), Some(Err(ForwardError::Unknown)));
        assert_eq!(slots.poll(2, Waker::noop()), Some(Err(ForwardError::Refused)));
        assert!(!slots.is_awaited());
        assert_eq!((slots.under_way(), slots.take(3, 9).is_some()), (0, true));
    }
}
