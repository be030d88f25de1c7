//! One connection to one replica: a pipeline for small calls, and the streams of all others.
//!
//! ```text
//! connecting ──> open ──> retiring ──> over        retiring: no new call; what was sent is being answered
//!     └───────────┴──────────┴──────> over         broken, silent, or the replica is lost
//! ```
//!
//! A call is written into the message that goes out next; the lane's one task ([`drive`]) wakes after the callers' tasks had
//! their turn, so what is called in one turn goes out together. No task, timer or box is made for a call: one timer of the
//! lane ends all calls whose deadline passes.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::client::SendRequest;
use http::HeaderValue;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use self::slots::{Outcome, Slots};
use super::operation::{Answer, Context as CallContext, Operation};
use super::spread::Tie;
use crate::rpc::wire::PREFIX_BYTES;

mod answers;
pub(super) mod drive;
mod slots;

/// Calls of one lane that have no answer, sent or waiting; more are turned away, so that a slow replica costs no memory.
pub(super) const MAX_CALLS: usize = 16 * 1024;

/// Bytes of calls that wait to be sent on one lane.
const MAX_QUEUED_BYTES: usize = 16 * 1024 * 1024;

/// Bytes of one message of calls; one call more than fits goes alone.
const MAX_BATCH_BYTES: usize = 256 * 1024;

/// Of the calls that may be in flight, the part that goes into one message: so the next is on its way before all of it is
/// answered.
const BATCH_PART: usize = 4;

/// A way to a replica.
#[derive(Debug)]
pub(super) struct Lane {
    /// Which of its replica's.
    number: u32,
    state: Mutex<State>,
    in_flight: usize,
    /// Of the token that this lane shows.
    pub(super) generation: u64,
    authorization: Option<HeaderValue>,
    ready: watch::Sender<Ready>,
    /// Calls on streams of their own.
    streams: AtomicUsize,
}

/// Whether there is a connection, for calls on streams of their own.
#[derive(Clone, Debug)]
pub(super) enum Ready {
    Connecting,
    Open(SendRequest<Bytes>),
    Over(Lost),
}

/// Whether it takes calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    Retiring,
    /// To be cut.
    Closing,
    Over,
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// There was no connection, so it was not sent.
    Unreachable(Arc<str>),
    /// Surely not carried out: the connection left in good order, or had not written it.
    NotRun,
    /// It may have been carried out.
    Unknown,
    /// Its deadline has passed. It may have been carried out.
    Late,
    /// Too many wait; it was not sent.
    Full,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    slots: Slots,
    batches: VecDeque<Batch>,
    queued_bytes: usize,
    queued_calls: usize,
    /// No deadline is earlier.
    next_due: Option<Instant>,
    /// Number of the last batch that was begun.
    last_batch: u64,
    /// The lane's task.
    task: Option<Waker>,
}

/// A message in the making.
#[derive(Debug)]
struct Batch {
    number: u64,
    message: BytesMut,
    calls: usize,
}

/// What the lane's task is to know of the state.
#[derive(Clone, Copy, Debug)]
struct Look {
    phase: Phase,
    under_way: usize,
    next_due: Option<Instant>,
}

/// Why a call was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// A new lane is needed.
    Ended,
    Full,
}

/// A call on its way.
#[derive(Debug)]
pub(super) struct OnItsWay {
    lane: Arc<Lane>,
    /// `None` once it has ended.
    slot: Option<u32>,
}

/// Counts a call on a stream of its own.
#[derive(Debug)]
pub(super) struct StreamPlace(Arc<Lane>);

impl Lane {
    pub(super) fn new(number: u32, in_flight: usize, generation: u64, authorization: Option<HeaderValue>) -> Arc<Self> {
        let state = State {
            phase: Phase::Open,
            slots: Slots::default(),
            batches: VecDeque::new(),
            queued_bytes: 0,
            queued_calls: 0,
            next_due: None,
            last_batch: 0,
            task: None,
        };
        Arc::new(Self {
            number,
            state: Mutex::new(state),
            in_flight,
            generation,
            authorization,
            ready: watch::Sender::new(Ready::Connecting),
            streams: AtomicUsize::new(0),
        })
    }

    /// Writes a call into the next message. `tie` is held until its answer has come.
    pub(super) fn push(
        self: &Arc<Self>,
        operation: &Operation<'_>,
        context: &CallContext<'_>,
        due: Instant,
        tie: Option<Tie>,
    ) -> Result<OnItsWay, NotTaken> {
        let mut state = self.state.lock();
        let slot = state.reserve(operation.encoded_len(), due, self.in_flight, tie)?;
        state.write(slot, operation, context);
        let task = state.task.take();
        drop(state);
        if let Some(task) = task {
            task.wake();
        }
        Ok(OnItsWay { lane: Arc::clone(self), slot: Some(slot) })
    }

    /// Whether it takes new calls.
    pub(super) fn is_open(&self) -> bool {
        self.state.lock().phase == Phase::Open
    }

    /// A connection for a call on a stream of its own, once there is one.
    pub(super) fn ready(&self) -> watch::Receiver<Ready> {
        self.ready.subscribe()
    }

    /// Counts a call on a stream of its own, for as long as the place lives.
    pub(super) fn enter(self: &Arc<Self>) -> StreamPlace {
        self.streams.fetch_add(1, Ordering::AcqRel);
        self.wake();
        StreamPlace(Arc::clone(self))
    }

    pub(super) fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }

    /// Takes no new call; what was taken is sent and answered.
    pub(super) fn retire(&self) {
        self.advance(Phase::Retiring);
    }

    /// Ends now: the replica is lost.
    pub(super) fn close(&self) {
        self.advance(Phase::Closing);
    }

    fn advance(&self, to: Phase) {
        let mut state = self.state.lock();
        if state.phase == Phase::Open || (state.phase == Phase::Retiring && to == Phase::Closing) {
            state.phase = to;
        }
        drop(state);
        self.wake();
    }

    fn wake(&self) {
        let task = self.state.lock().task.take();
        if let Some(task) = task {
            task.wake();
        }
    }

    fn streams(&self) -> usize {
        self.streams.load(Ordering::Acquire)
    }

    /// The lane's task is to be woken by the next call, and when the phase changes.
    fn register(&self, waker: &Waker) -> Look {
        let mut state = self.state.lock();
        if !state.task.as_ref().is_some_and(|known| known.will_wake(waker)) {
            state.task = Some(waker.clone());
        }
        Look { phase: state.phase, under_way: state.slots.under_way(), next_due: state.next_due }
    }

    /// What is to be sent next, if it may be now.
    fn next_batch(&self) -> Option<(u64, Bytes)> {
        let mut state = self.state.lock();
        let calls = state.batches.front()?.calls;
        let in_flight = state.slots.under_way() - state.queued_calls;
        if in_flight > 0 && in_flight + calls > self.in_flight {
            return None;
        }
        let Batch { number, mut message, calls } = state.batches.pop_front()?;
        state.queued_bytes -= message.len();
        state.queued_calls -= calls;
        drop(state);
        let length = u32::try_from(message.len() - PREFIX_BYTES).unwrap_or(u32::MAX);
        message[1..PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
        Some((number, message.freeze()))
    }

    fn has_batches(&self) -> bool {
        !self.state.lock().batches.is_empty()
    }

    fn last_batch(&self) -> u64 {
        self.state.lock().last_batch
    }

    /// Hands answers to those who wait for them.
    fn deliver(&self, answers: &mut Vec<(u64, Answer)>) {
        let mut wakers = Vec::with_capacity(answers.len());
        let mut state = self.state.lock();
        for (id, answer) in answers.drain(..) {
            let slot = u32::try_from(id - 1).unwrap_or(u32::MAX);
            wakers.extend(state.slots.complete(slot, Ok(answer)));
        }
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Ends the calls whose deadline has passed. Answers the next deadline.
    fn expire(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state.lock();
        let (wakers, earliest) = state.slots.expire(now);
        state.next_due = earliest;
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        earliest
    }

    /// The end of the pipeline. `outcome`: of a call by the number of its message.
    fn end(&self, outcome: impl Fn(u64) -> Outcome, why: Lost) {
        self.ready.send_replace(Ready::Over(why));
        let mut state = self.state.lock();
        state.phase = Phase::Over;
        state.batches.clear();
        (state.queued_bytes, state.queued_calls) = (0, 0);
        let wakers = state.slots.end_all(outcome);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl State {
    /// A slot in a message that has room.
    fn reserve(&mut self, bytes: usize, due: Instant, in_flight: usize, tie: Option<Tie>) -> Result<u32, NotTaken> {
        if self.phase != Phase::Open {
            return Err(NotTaken::Ended);
        }
        if !self.batches.is_empty() && self.queued_bytes + bytes > MAX_QUEUED_BYTES {
            return Err(NotTaken::Full);
        }
        let most = (in_flight / BATCH_PART).max(1);
        let has_room = |batch: &Batch| batch.calls < most && batch.message.len() + bytes <= MAX_BATCH_BYTES;
        let fits = self.batches.back().is_some_and(has_room);
        let number = self.last_batch + u64::from(!fits);
        let slot = self.slots.take(number, due, tie, MAX_CALLS).ok_or(NotTaken::Full)?;
        if !fits {
            self.last_batch = number;
            let mut message = BytesMut::with_capacity(256);
            message.put_bytes(0, PREFIX_BYTES);
            self.queued_bytes += PREFIX_BYTES;
            self.batches.push_back(Batch { number, message, calls: 0 });
        }
        self.next_due = Some(self.next_due.map_or(due, |earliest| earliest.min(due)));
        Ok(slot)
    }

    /// Writes a call into the last message.
    fn write(&mut self, slot: u32, operation: &Operation<'_>, context: &CallContext<'_>) {
        // `reserve` has made room in it.
        let Some(batch) = self.batches.back_mut() else { return };
        let before = batch.message.len();
        operation.encode_call(u64::from(slot) + 1, context, &mut batch.message);
        batch.calls += 1;
        self.queued_calls += 1;
        self.queued_bytes += batch.message.len() - before;
    }
}

impl Future for OnItsWay {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        // Polled to its end once.
        let Some(slot) = self.slot else { return Poll::Pending };
        let polled = self.lane.state.lock().slots.poll(slot, cx.waker());
        let Some(outcome) = polled else { return Poll::Pending };
        self.slot = None;
        Poll::Ready(outcome)
    }
}

impl Drop for OnItsWay {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            self.lane.state.lock().slots.abandon(slot);
        }
    }
}

impl StreamPlace {
    pub(super) fn lane(&self) -> &Arc<Lane> {
        &self.0
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        if self.0.streams.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.wake();
        }
    }
}
