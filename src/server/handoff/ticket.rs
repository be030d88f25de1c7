//! An operation that waits for the hand-off to say what becomes of it.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};

use parking_lot::Mutex;

use super::inbox::Notes;
use crate::ownership::RequestId;
use crate::ownership::member::MemberId;

/// What becomes of an operation that could not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Ask the shard again: it may run here now.
    Run,
    /// Forward it. If it is turned away, say so ([`Ticket::turned_away`]) and wait for the next verdict.
    Forward(MemberId),
    /// It was forwarded to here: answer that it is not, or no longer, this replica's.
    Moved,
    /// It was forwarded to a member that is lost: whether it was applied is unknown.
    Unknown,
    /// This process started again: UNAVAILABLE. It was not applied under this ticket.
    Fenced,
}

/// One operation's place in the hand-off. Dropping it says that the operation ended.
#[must_use = "dropping it says that the operation ended"]
pub struct Ticket {
    id: RequestId,
    slot: Arc<Slot>,
    notes: Arc<Notes>,
}

/// Where the thread leaves the verdict.
#[derive(Debug, Default)]
pub(super) struct Slot(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    verdict: Option<Verdict>,
    waker: Option<Waker>,
    /// The ticket was dropped.
    is_over: bool,
}

impl Ticket {
    pub(super) fn new(id: RequestId, notes: Arc<Notes>) -> (Self, Arc<Slot>) {
        let slot = Arc::new(Slot::default());
        (Self { id, slot: Arc::clone(&slot), notes }, slot)
    }

    /// Waits for the next verdict. The caller keeps the deadline. Cancel-safe.
    pub async fn verdict(&mut self) -> Verdict {
        poll_fn(|cx| {
            let mut slot = self.slot.0.lock();
            if let Some(verdict) = slot.verdict.take() {
                return Poll::Ready(verdict);
            }
            slot.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// The forward came back as `Moved` or was refused, so it was surely not applied. Its answer's stamp was accepted before.
    pub fn turned_away(&mut self) {
        self.notes.turned_away(self.id);
    }

    /// It was told to run, but its shard would still not have it: to be looked at again.
    pub fn again(&mut self) {
        self.notes.again(self.id);
    }
}

impl Slot {
    pub(super) fn give(&self, verdict: Verdict) {
        let mut slot = self.0.lock();
        slot.verdict = Some(verdict);
        let waker = slot.waker.take();
        drop(slot);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Has the operation ended? If not, its note comes after this was asked.
    pub(super) fn is_over(&self) -> bool {
        self.0.lock().is_over
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        // Before the note: a note overtakes commands, and its ticket must not be taken in when nothing will say any more
        // that it ended.
        self.slot.0.lock().is_over = true;
        self.notes.finished(self.id);
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ticket").field(&self.id).finish()
    }
}
