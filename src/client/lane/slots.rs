//! The calls of one lane that have no answer yet, each in a numbered slot; the number and one is its id on the wire.

use std::task::Waker;

use tokio::time::Instant;

use super::Lost;
use crate::client::operation::Answer;
use crate::client::spread::Tie;

/// What a call comes to.
pub(super) type Outcome = Result<Answer, Lost>;

/// The slots of one lane.
#[derive(Debug, Default)]
pub(super) struct Slots {
    all: Vec<Slot>,
    /// What each call without an answer holds, in the same order.
    ties: Vec<Option<Tie>>,
    free: Vec<u32>,
    /// Slots whose call has no answer, its caller there or gone.
    under_way: usize,
}

#[derive(Debug)]
enum Slot {
    Free,
    /// Sent, or to be sent, in the message of this number.
    Waiting {
        message: u64,
        due: Instant,
        waker: Option<Waker>,
    },
    /// The same, its deadline has passed, and its caller was told to look.
    Late {
        message: u64,
    },
    /// Nobody waits any more. The id is taken until the answer has come.
    Abandoned,
    Done(Outcome),
}

impl Slots {
    /// Calls without an answer.
    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    /// A slot for a call in the message of this number, which holds `tie` until its answer has come; `None` if `limit` are
    /// under way.
    pub(super) fn take(&mut self, message: u64, due: Instant, tie: Option<Tie>, limit: usize) -> Option<u32> {
        if self.under_way >= limit {
            return None;
        }
        let slot = Slot::Waiting { message, due, waker: None };
        let id = match self.free.pop() {
            Some(id) => {
                self.all[id as usize] = slot;
                self.ties[id as usize] = tie;
                id
            }
            None => {
                let id = u32::try_from(self.all.len()).ok()?;
                self.all.push(slot);
                self.ties.push(tie);
                id
            }
        };
        self.under_way += 1;
        Some(id)
    }

    /// An answer came; one to no call at all is dropped. Answers whom to wake, after the lock.
    pub(super) fn complete(&mut self, id: u32, outcome: Outcome) -> Option<Waker> {
        let slot = self.all.get_mut(id as usize)?;
        match std::mem::replace(slot, Slot::Free) {
            Slot::Waiting { waker, .. } => {
                *slot = Slot::Done(outcome);
                self.answered(id);
                waker
            }
            Slot::Late { .. } => {
                *slot = Slot::Done(outcome);
                self.answered(id);
                None
            }
            Slot::Abandoned => {
                self.free.push(id);
                self.answered(id);
                None
            }
            other => {
                *slot = other;
                None
            }
        }
    }

    fn answered(&mut self, id: u32) {
        self.under_way -= 1;
        self.ties[id as usize] = None;
    }

    /// Everything ends without an answer, by the number of its message. Answers whom to wake.
    pub(super) fn end_all(&mut self, outcome: impl Fn(u64) -> Outcome) -> Vec<Waker> {
        let mut wakers = Vec::new();
        for id in 0..u32::try_from(self.all.len()).unwrap_or(u32::MAX) {
            let outcome = match &self.all[id as usize] {
                Slot::Waiting { message, .. } | Slot::Late { message } => outcome(*message),
                Slot::Abandoned => Err(Lost::Unknown),
                Slot::Free | Slot::Done(_) => continue,
            };
            wakers.extend(self.complete(id, outcome));
        }
        wakers
    }

    /// Ends the calls whose deadline has passed. Answers whom to wake, and the earliest deadline of the others.
    pub(super) fn expire(&mut self, now: Instant) -> (Vec<Waker>, Option<Instant>) {
        let (mut wakers, mut earliest) = (Vec::new(), None);
        for slot in &mut self.all {
            let Slot::Waiting { message, due, waker } = slot else { continue };
            if *due <= now {
                wakers.extend(waker.take());
                *slot = Slot::Late { message: *message };
            } else {
                earliest = Some(earliest.map_or(*due, |earliest: Instant| earliest.min(*due)));
            }
        }
        (wakers, earliest)
    }

    /// The outcome, once; until then remembers whom to wake.
    pub(super) fn poll(&mut self, id: u32, waker: &Waker) -> Option<Outcome> {
        let slot = &mut self.all[id as usize];
        match slot {
            Slot::Waiting { waker: known, .. } => {
                if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
                    *known = Some(waker.clone());
                }
                None
            }
            Slot::Late { .. } => {
                *slot = Slot::Abandoned;
                Some(Err(Lost::Late))
            }
            Slot::Free | Slot::Abandoned => None,
            Slot::Done(_) => {
                let Slot::Done(outcome) = std::mem::replace(slot, Slot::Free) else { return None };
                self.free.push(id);
                Some(outcome)
            }
        }
    }

    /// Nobody waits any more.
    pub(super) fn abandon(&mut self, id: u32) {
        let slot = &mut self.all[id as usize];
        match slot {
            Slot::Waiting { .. } | Slot::Late { .. } => *slot = Slot::Abandoned,
            Slot::Done(_) => {
                *slot = Slot::Free;
                self.free.push(id);
            }
            Slot::Free | Slot::Abandoned => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn due() -> Instant {
        Instant::now() + Duration::from_secs(1)
    }

    #[test]
    fn an_id_is_not_used_again_before_its_answer_came() {
        let mut slots = Slots::default();
        let take = |slots: &mut Slots| slots.take(1, due(), None, 2);
        assert_eq!((take(&mut slots), take(&mut slots), take(&mut slots)), (Some(0), Some(1), None));
        slots.abandon(0);
        assert_eq!(take(&mut slots), None, "it may be answered yet");
        slots.complete(0, Ok(Answer::Store(1)));
        assert_eq!(take(&mut slots), Some(0));
        slots.complete(1, Ok(Answer::Store(2)));
        assert_eq!(take(&mut slots), Some(2), "nobody has taken the outcome of 1");
        assert_eq!(slots.poll(1, Waker::noop()), Some(Ok(Answer::Store(2))));
        slots.complete(7, Ok(Answer::Store(2)));
        assert_eq!(slots.under_way(), 2, "an answer to no call changes nothing");
    }

    #[test]
    fn a_call_ends_at_its_deadline_and_keeps_its_id() {
        let mut slots = Slots::default();
        let (now, later) = (Instant::now(), due());
        slots.take(1, now, None, 9);
        slots.take(1, later, None, 9);
        let (_, earliest) = slots.expire(now);
        assert_eq!(earliest, Some(later));
        assert_eq!(slots.poll(0, Waker::noop()), Some(Err(Lost::Late)));
        assert_eq!(slots.poll(1, Waker::noop()), None);
        assert_eq!((slots.under_way(), slots.take(1, later, None, 9)), (2, Some(2)));
        slots.complete(0, Ok(Answer::Store(1)));
        assert_eq!(slots.take(1, later, None, 9), Some(0), "an answer that is too late frees it");
    }

    #[test]
    fn at_the_end_each_call_hears_what_became_of_its_message() {
        let mut slots = Slots::default();
        for message in [1, 1, 2] {
            slots.take(message, due(), None, 9);
        }
        slots.abandon(0);
        slots.end_all(|message| Err(if message <= 1 { Lost::Unknown } else { Lost::NotRun }));
        assert_eq!(slots.poll(1, Waker::noop()), Some(Err(Lost::Unknown)));
        assert_eq!(slots.poll(2, Waker::noop()), Some(Err(Lost::NotRun)));
        assert_eq!((slots.under_way(), slots.take(3, due(), None, 9).is_some()), (0, true));
    }
}
