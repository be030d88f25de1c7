//! One worker's stream of forwards to one member, over a connection of its own.
//!
//! ```text
//! connecting ──> open ──> retiring ──> over        retiring: no new forward; what was sent is being answered
//!     └───────────┴──────────┴──────> over         broken, or the member is lost
//! ```
//!
//! A forward is written into the message that goes out next; the lane's one task ([`drive`]) wakes after the worker's other
//! tasks had their turn, so what is forwarded in one turn goes out together. No task and no box is made for a forward.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use self::answer::{large_bytes, outcome_of};
use super::error::ForwardError;
use super::outgoing::Outgoing;
use super::slots::{Outcome, Slots};
use super::told::Told;
use super::{Forward, Forwarded, operation};
use crate::ownership::member::MemberId;
use crate::rpc::proto::peer::v1::ForwardedAnswer;

mod answer;
mod call;
pub(super) mod drive;

/// Forwards of one worker to one member that have no answer; more are turned away, so that a slow member costs no memory.
pub const MAX_FORWARDS: usize = 4096;

/// Bytes of forwards that wait to be sent, of one worker to one member.
pub const MAX_QUEUED_BYTES: usize = 16 * 1024 * 1024;

/// Bytes of one message of forwards; one forward more than fits goes alone.
pub const MAX_BATCH_BYTES: usize = 1024 * 1024;

/// Bytes of large answers that came and were not taken by their callers, of one worker from one member. Only reads have
/// large answers, so one that has no place can be dropped.
pub const MAX_UNTAKEN_BYTES: usize = 64 * 1024 * 1024;

/// A lane without forwards for this long ends.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The first wait after a connection failed; doubles up to [`MAX_RETRY`]. Until then forwards are turned away at once.
const MIN_RETRY: Duration = Duration::from_millis(50);
const MAX_RETRY: Duration = Duration::from_secs(1);

/// Bytes of a forward beside its message, about.
const CALL_OVERHEAD_BYTES: usize = 64;

/// A worker's way to a member.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) to: MemberId,
    /// Of the peer port.
    pub(super) address: Box<str>,
    /// Connections that failed before this one, in a row.
    failures: u32,
    state: Mutex<State>,
}

/// Whether it takes forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    Retiring,
    /// To be cut.
    Closing,
    /// No connection came about, or it ended. `retry_at`: not to be tried before.
    Over {
        retry_at: Option<Instant>,
    },
}

/// What goes on in a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// Somebody forwards, or waits.
    Used,
    /// Everything is answered.
    Idle,
    /// Everybody who waited is gone, and the answers have not come.
    Unanswered,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    slots: Slots,
    batches: VecDeque<Batch>,
    queued_bytes: usize,
    untaken_bytes: usize,
    told: Told,
    /// Number of the last batch that was begun.
    last_batch: u64,
    /// The lane's task.
    task: Option<Waker>,
}

/// A message in the making.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) number: u64,
    pub(super) message: Outgoing,
    pub(super) calls: usize,
    pub(super) began: Instant,
}

/// Why a forward was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// A new lane is needed.
    Ended,
    Refused,
    Full,
}

/// A forward on its way.
#[derive(Debug)]
pub(super) struct OnItsWay {
    lane: Arc<Lane>,
    /// `None` once it has ended.
    slot: Option<u32>,
}

impl Lane {
    pub(super) fn new(to: MemberId, address: &str, failures: u32) -> Arc<Self> {
        let state = State {
            phase: Phase::Open,
            slots: Slots::default(),
            batches: VecDeque::new(),
            queued_bytes: 0,
            untaken_bytes: 0,
            told: Told::default(),
            last_batch: 0,
            task: None,
        };
        Arc::new(Self { to, address: address.into(), failures, state: Mutex::new(state) })
    }

    /// Writes a forward into the next message.
    pub(super) fn push(self: &Arc<Self>, forward: &Forward) -> Result<OnItsWay, NotTaken> {
        let Some(operation) = operation::of(forward.method) else {
            debug_assert!(false, "{:?} cannot be forwarded", forward.method);
            return Err(NotTaken::Refused);
        };
        let remaining_us = match forward.deadline {
            None => 0,
            Some(at) => match at.saturating_duration_since(Instant::now()).as_micros() {
                0 => return Err(NotTaken::Refused),
                left => u64::try_from(left).unwrap_or(u64::MAX),
            },
        };
        let mut state = self.state.lock();
        let slot = state.reserve(CALL_OVERHEAD_BYTES + forward.message.len())?;
        state.write(slot, operation, forward, remaining_us);
        let task = state.task.take();
        drop(state);
        if let Some(task) = task {
            task.wake();
        }
        Ok(OnItsWay { lane: Arc::clone(self), slot: Some(slot) })
    }

    pub(super) fn phase(&self) -> Phase {
        self.state.lock().phase
    }

    /// Takes no new forward; what was taken is sent and answered.
    pub(super) fn retire(&self) {
        self.advance(Phase::Retiring);
    }

    /// Ends now: the member is lost.
    pub(super) fn close(&self) {
        self.advance(Phase::Closing);
    }

    /// How often connections failed in a row, this one included.
    pub(super) fn failures(&self) -> u32 {
        match self.phase() {
            Phase::Over { retry_at: Some(_) } => self.failures + 1,
            _ => 0,
        }
    }

    fn advance(&self, to: Phase) {
        let mut state = self.state.lock();
        if state.phase == Phase::Open || (state.phase == Phase::Retiring && to == Phase::Closing) {
            state.phase = to;
        }
        let task = state.task.take();
        drop(state);
        if let Some(task) = task {
            task.wake();
        }
    }

    /// The lane's task is to be woken by the next forward, and when the phase changes.
    fn register(&self, waker: &Waker) -> Phase {
        let mut state = self.state.lock();
        if !state.task.as_ref().is_some_and(|known| known.will_wake(waker)) {
            state.task = Some(waker.clone());
        }
        state.phase
    }

    /// What is to be sent next.
    fn next_batch(&self) -> Option<Batch> {
        let mut state = self.state.lock();
        let batch = state.batches.pop_front()?;
        state.queued_bytes -= batch.message.len();
        Some(batch)
    }

    /// How much it is used, if nothing was forwarded since the batch of this number; and the number of the last one.
    fn use_since(&self, batch: u64) -> (Use, u64) {
        let state = self.state.lock();
        let is_used = state.last_batch != batch || state.slots.is_awaited();
        let its = match state.slots.under_way() {
            _ if is_used => Use::Used,
            0 => Use::Idle,
            _ => Use::Unanswered,
        };
        (its, state.last_batch)
    }

    /// Hands answers to those who wait for them. `accepted`: the stamp that came with them.
    fn deliver(&self, answers: Vec<ForwardedAnswer>, accepted: bool) {
        let mut wakers = Vec::with_capacity(answers.len());
        let mut state = self.state.lock();
        for ForwardedAnswer { id, outcome } in answers {
            let mut outcome = outcome_of(outcome, accepted);
            let large = large_bytes(&outcome);
            if state.untaken_bytes + large > MAX_UNTAKEN_BYTES {
                outcome = Err(ForwardError::Full);
            } else {
                state.untaken_bytes += large;
            }
            match state.slots.complete(id, outcome) {
                Ok(waker) => wakers.extend(waker),
                Err(untaken) => state.untaken_bytes -= large_bytes(&untaken),
            }
        }
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The end. `outcome`: of a forward by the number of its batch. `failed`: the connection did not come about.
    fn end(&self, outcome: impl Fn(u64) -> ForwardError, failed: bool) {
        let mut state = self.state.lock();
        let wait = MIN_RETRY * 2_u32.saturating_pow(self.failures.min(8));
        // Between half of the wait and all of it, so that those who lost a member together do not come back together.
        let wait = wait.min(MAX_RETRY).mul_f64(0.5 + rand::random::<f64>() / 2.0);
        state.phase = Phase::Over { retry_at: failed.then(|| Instant::now() + wait) };
        state.batches.clear();
        state.queued_bytes = 0;
        let wakers = state.slots.end_all(outcome);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl State {
    /// A slot in a batch that has room.
    fn reserve(&mut self, bytes: usize) -> Result<u32, NotTaken> {
        match self.phase {
            Phase::Open if self.told.is_full() => {
                self.phase = Phase::Retiring;
                return Err(NotTaken::Ended);
            }
            Phase::Open => {}
            Phase::Over { retry_at: Some(at) } if Instant::now() < at => return Err(NotTaken::Refused),
            Phase::Retiring | Phase::Closing | Phase::Over { .. } => return Err(NotTaken::Ended),
        }
        if !self.batches.is_empty() && self.queued_bytes + bytes > MAX_QUEUED_BYTES {
            return Err(NotTaken::Full);
        }
        let fits = self.batches.back().is_some_and(|batch| batch.message.len() + bytes <= MAX_BATCH_BYTES);
        let number = self.last_batch + u64::from(!fits);
        let slot = self.slots.take(number, MAX_FORWARDS).ok_or(NotTaken::Full)?;
        if !fits {
            self.last_batch = number;
            self.batches.push_back(Batch { number, message: Outgoing::default(), calls: 0, began: Instant::now() });
        }
        Ok(slot)
    }

    fn taken(&mut self, outcome: &Outcome) {
        self.untaken_bytes -= large_bytes(outcome);
    }
}

impl Future for OnItsWay {
    type Output = Result<Forwarded, ForwardError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // Polled to its end once.
        let Some(slot) = self.slot else { return Poll::Pending };
        let mut state = self.lane.state.lock();
        let Some(outcome) = state.slots.poll(slot, cx.waker()) else { return Poll::Pending };
        state.taken(&outcome);
        drop(state);
        self.slot = None;
        Poll::Ready(outcome)
    }
}

impl Drop for OnItsWay {
    fn drop(&mut self) {
        let Some(slot) = self.slot else { return };
        let mut state = self.lane.state.lock();
        let untaken = state.slots.abandon(slot);
        if let Some(outcome) = &untaken {
            state.taken(outcome);
        }
        drop(state);
        drop(untaken);
    }
}
