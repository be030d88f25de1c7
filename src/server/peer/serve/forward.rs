//! A stream of operations that another replica forwards: carried out as they are read, where nothing has to be waited for;
//! answered in any order, those of one turn in one message. It is a body, driven by the HTTP/2 stream's own task: when the
//! other does not read, nothing more is read of it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use std::vec;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::stream::{FuturesUnordered, StreamExt as _};
use http::{Request, Response};
use http_body::Frame;
use hyper::body::Incoming;
use prost::Message as _;
use tokio::time::Instant;

use self::answer::{Answers, Outcome};
use super::{Answering, Body, Inner, MAX_FORWARD_BYTES, failed, ok_trailers, response};
use crate::ownership::message::{Refusal, Stamp};
use crate::rpc::failure::Failure;
use crate::rpc::peer::{hello_to, refusal_to, stamp_of, stamp_to};
use crate::rpc::proto::peer::v1::{self as pb, ForwardRequest, ForwardResponse, ForwardedCall};
use crate::rpc::trace::Trace;
use crate::server::codec::Messages;
use crate::server::connection::Peer;
use crate::server::peer::desk::Waiting;
use crate::server::peer::told::Known;
use crate::server::peer::{Forward, Forwarded, operation};

mod answer;

/// Operations of one stream that wait here, for a key to be resolved for instance; more are turned away.
pub const MAX_WAITING: usize = 4096;

/// Bytes of their messages.
pub const MAX_WAITING_BYTES: usize = 32 * 1024 * 1024;

/// Bytes of answers from which they are sent although more could be carried out: a message has this and one answer at most,
/// and no more than that is held for another that reads slowly.
const MAX_ANSWERS_BYTES: usize = 64 * 1024;

/// Bytes handed to HTTP/2 at once: it buffers what it is handed whatever the other reads.
const PIECE_BYTES: usize = 64 * 1024;

/// A stream of forwards.
pub(super) struct Stream {
    inner: Arc<Inner>,
    from: SocketAddr,
    messages: Messages<Incoming>,
    /// Nothing more comes.
    ended: bool,
    known: Known,
    /// Of the last message that was accepted.
    stamp: Option<Stamp>,
    accepting: Option<Accepting>,
    /// Calls of the last message that are to be carried out, and since when its oldest waits.
    calls: (vec::IntoIter<ForwardedCall>, Instant),
    waiting: FuturesUnordered<Pin<Box<dyn Future<Output = Waited> + Send>>>,
    waiting_bytes: usize,
    answers: Answers,
    greeted: Greeted,
    /// The connection says GOAWAY.
    leaving: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    pieces: VecDeque<Bytes>,
    done: bool,
}

/// A message whose stamp is being looked at.
struct Accepting {
    accepted: Waiting<Result<(), Refusal>>,
    stamp: Stamp,
    calls: Vec<ForwardedCall>,
    /// When the oldest of its calls was forwarded, by this replica's clock, but for the way.
    since: Instant,
}

/// An operation that had to wait.
struct Waited {
    id: u32,
    outcome: Outcome,
    bytes: usize,
}

/// How far the conversation is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Greeted {
    Not,
    /// The answer to the greeting goes out with the next message.
    Heard,
    Both,
}

/// Begins a stream.
pub(super) fn answer(inner: Arc<Inner>, peer: &Peer, request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let messages = match Messages::new(&head.headers, body, MAX_FORWARD_BYTES) {
        Ok(messages) => messages,
        Err(failure) => return failed(&failure),
    };
    let mut leaving = peer.leaving.clone();
    let leaving: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move { _ = leaving.started().await });
    inner.stats.streams.fetch_add(1, Relaxed);
    response(Answering::Stream(Box::new(Stream {
        inner,
        from: peer.address,
        messages,
        ended: false,
        known: Known::default(),
        stamp: None,
        accepting: None,
        calls: (Vec::new().into_iter(), Instant::now()),
        waiting: FuturesUnordered::new(),
        waiting_bytes: 0,
        answers: Answers::default(),
        greeted: Greeted::Not,
        leaving: Some(leaving),
        pieces: VecDeque::new(),
        done: false,
    })))
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.inner.stats.streams.fetch_sub(1, Relaxed);
    }
}

impl Stream {
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        if self.pieces.is_empty() {
            if self.done {
                return Poll::Ready(None);
            }
            match ready!(self.poll_message(cx)) {
                Some(pieces) => self.pieces = pieces,
                None => {
                    self.done = true;
                    return Poll::Ready(Some(Frame::trailers(ok_trailers())));
                }
            }
        }
        let piece = self.pieces.front_mut().map(|piece| piece.split_to(piece.len().min(PIECE_BYTES)));
        if self.pieces.front().is_some_and(Bytes::is_empty) {
            self.pieces.pop_front();
        }
        Poll::Ready(piece.map(Frame::data))
    }

    /// The next message to the other; `None` when everything is answered and nothing more comes.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<VecDeque<Bytes>>> {
        let mut leaving = false;
        if let Some(left) = &mut self.leaving
            && left.as_mut().poll(cx).is_ready()
        {
            self.leaving = None;
            leaving = true;
        }
        let refused = self.read(cx);
        while self.answers.len() < MAX_ANSWERS_BYTES
            && let Poll::Ready(Some(Waited { id, outcome, bytes })) = self.waiting.poll_next_unpin(cx)
        {
            self.waiting_bytes -= bytes;
            self.answers.put(id, &outcome);
        }
        if let Some(refused) = refused {
            self.ended = true;
            self.waiting.clear();
            return Poll::Ready(Some(self.message(leaving, Some(refused))));
        }
        if leaving || self.greeted == Greeted::Heard || !self.answers.is_empty() {
            return Poll::Ready(Some(self.message(leaving, None)));
        }
        if self.ended && self.accepting.is_none() && self.waiting.is_empty() {
            Poll::Ready(None)
        } else {
            Poll::Pending
        }
    }

    /// What has been answered, as a message.
    fn message(&mut self, leaving: bool, refused: Option<pb::Refusal>) -> VecDeque<Bytes> {
        let hello = (self.greeted == Greeted::Heard).then(|| hello_to(&self.inner.config.cluster));
        self.greeted = Greeted::Both;
        let stamp = self.stamp.as_ref().map(|to| stamp_to(&self.inner.desk.answer_stamp(to)));
        let refused = refused.map_or(0, Into::into);
        self.answers.finish(&ForwardResponse { hello, stamp, leaving, refused, answers: Vec::new() })
    }

    /// Reads what has come, and carries out what can be at once. Answers why the stream is refused, if it is.
    fn read(&mut self, cx: &mut Context<'_>) -> Option<pb::Refusal> {
        let mut now = None;
        while !self.ended && self.answers.len() < MAX_ANSWERS_BYTES {
            let (calls, since) = &mut self.calls;
            let since = *since;
            if let Some(call) = calls.next() {
                let now = *now.get_or_insert_with(Instant::now);
                self.carry_out(call, now, since);
                continue;
            }
            if let Some(accepting) = &mut self.accepting {
                let Poll::Ready(accepted) = accepting.accepted.as_mut().poll(cx) else { return None };
                if let Some(Accepting { stamp, calls, since, .. }) = self.accepting.take() {
                    self.take(accepted, stamp, calls, since);
                }
                continue;
            }
            match self.messages.poll_next(cx, &self.inner.held) {
                Poll::Pending => return None,
                Poll::Ready(None) => self.ended = true,
                // It broke off: there is nobody to tell.
                Poll::Ready(Some(Err(_))) => {
                    self.ended = true;
                    self.waiting.clear();
                }
                Poll::Ready(Some(Ok(message))) => {
                    if let Err(refusal) = self.begin(message) {
                        return Some(refusal);
                    }
                }
            }
        }
        None
    }

    /// A message came.
    fn begin(&mut self, message: Bytes) -> Result<(), pb::Refusal> {
        let malformed = || {
            self.inner.stats.malformed.fetch_add(1, Relaxed);
            pb::Refusal::Malformed
        };
        let Ok(message) = ForwardRequest::decode(message) else { return Err(malformed()) };
        if self.greeted == Greeted::Not {
            self.inner.greet(message.hello.as_ref(), self.from).map_err(|_| pb::Refusal::OtherCluster)?;
            self.greeted = Greeted::Heard;
        }
        for account in message.accounts {
            self.known.learn(account).ok_or_else(malformed)?;
        }
        if message.calls.is_empty() {
            return Ok(());
        }
        let Ok(stamp) = stamp_of(message.stamp) else { return Err(malformed()) };
        self.inner.stats.messages.fetch_add(1, Relaxed);
        self.inner.stats.forwards.fetch_add(message.calls.len() as u64, Relaxed);
        let now = Instant::now();
        let since = now.checked_sub(Duration::from_micros(message.waited_us)).unwrap_or(now);
        match self.inner.desk.try_accept(&stamp) {
            Some(accepted) => self.take(accepted, stamp, message.calls, since),
            None => {
                let accepted = self.inner.desk.accept(stamp.clone());
                self.accepting = Some(Accepting { accepted, stamp, calls: message.calls, since });
            }
        }
        Ok(())
    }

    /// The calls of a message whose stamp was looked at.
    fn take(&mut self, accepted: Result<(), Refusal>, stamp: Stamp, calls: Vec<ForwardedCall>, since: Instant) {
        self.stamp = Some(stamp);
        if let Err(refusal) = accepted {
            self.inner.stats.refused.fetch_add(1, Relaxed);
            let outcome = Outcome::Refused(refusal_to(refusal));
            for call in calls {
                self.answers.put(call.id, &outcome);
            }
            return;
        }
        self.calls = (calls.into_iter(), since);
    }

    /// Carries out a call, and answers it or lets it wait.
    fn carry_out(&mut self, call: ForwardedCall, now: Instant, since: Instant) {
        let id = call.id;
        if let Some(outcome) = self.attempt(call, now, since) {
            self.answers.put(id, &outcome);
        }
    }

    /// `None` if it has to wait.
    fn attempt(&mut self, call: ForwardedCall, now: Instant, since: Instant) -> Option<Outcome> {
        let (id, bytes) = (call.id, call.message.len());
        let mut forward = match self.forward(call, since) {
            Ok(forward) => forward,
            Err(failure) => return Some(Outcome::Done(Forwarded::Answer(Err(failure)))),
        };
        if forward.deadline.is_some_and(|deadline| deadline <= now) {
            self.inner.stats.late.fetch_add(1, Relaxed);
            return Some(Outcome::Done(Forwarded::Answer(Err(Failure::DeadlineExceeded))));
        }
        let carry_out = &self.inner.carry_out;
        carry_out.take_up(&mut forward);
        match catch_unwind(AssertUnwindSafe(|| carry_out.try_now(&forward, now))) {
            Ok(None) => {}
            Ok(Some(done)) => return Some(Outcome::Done(done)),
            Err(_) => return Some(panicked(&forward)),
        }
        if self.waiting.len() >= MAX_WAITING || self.waiting_bytes + bytes > MAX_WAITING_BYTES {
            self.inner.stats.overloaded.fetch_add(1, Relaxed);
            return Some(Outcome::Refused(pb::Refusal::Overloaded));
        }
        let (method, trace_id, span_id) = (forward.method, forward.trace.trace_id(), forward.trace.span_id());
        let waiting = AssertUnwindSafe(carry_out.carry_out(forward)).catch_unwind();
        self.waiting_bytes += bytes;
        self.waiting.push(Box::pin(async move {
            let outcome = waiting.await.map_or_else(
                |_| {
                    tracing::error!(method = method.traits().name, trace_id, span_id, "a forwarded operation panicked");
                    Outcome::Done(Forwarded::Answer(Err(Failure::Internal)))
                },
                Outcome::Done,
            );
            Waited { id, outcome, bytes }
        }));
        None
    }

    /// The operation that a call names.
    fn forward(&self, call: ForwardedCall, since: Instant) -> Result<Forward, Failure> {
        let malformed = |problem: &str| Failure::Malformed(problem.to_owned());
        let unknown = || Failure::UnknownMethod(format!("that replicas forward as {}", call.operation));
        let method = operation::method(call.operation).ok_or_else(unknown)?;
        let (space, _) = self.known.get(call.space).ok_or_else(|| malformed("a key space that nobody told"))?;
        let payer = match call.payer {
            0 => None,
            number => Some(self.known.get(number).ok_or_else(|| malformed("a payer that nobody told"))?.clone()),
        };
        let left = (call.remaining_us > 0).then(|| Duration::from_micros(call.remaining_us));
        let trace = call.trace.and_then(|trace| Trace::of_texts(&trace.traceparent, &trace.tracestate));
        Ok(Forward {
            method,
            message: call.message,
            space: space.clone(),
            payer,
            deadline: left.and_then(|left| since.checked_add(left)),
            dry_run: call.dry_run,
            trace: trace.into(),
        })
    }
}

fn panicked(forward: &Forward) -> Outcome {
    let (trace_id, span_id) = (forward.trace.trace_id(), forward.trace.span_id());
    tracing::error!(method = forward.method.traits().name, trace_id, span_id, "a forwarded operation panicked");
    Outcome::Done(Forwarded::Answer(Err(Failure::Internal)))
}
