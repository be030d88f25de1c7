//! The bodies of answers. One type for all, so that the common answer (one message, one set of trailers) costs no allocation
//! of its own and no dynamic call.
//!
//! A stream makes its messages when the client can take them, so a slow reader costs one chunk and not the data. Its deadline
//! holds although nobody reads: HTTP/2 does not ask a stream for data that it cannot send, so a watcher of its own ends it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tonic::Code;

use super::answer;
use super::call::Call;
use super::method::Method;
use crate::rpc::failure::Failure;

/// Bytes handed to HTTP/2 at once. It buffers what it is handed whatever the client's window is, so this bounds what a client
/// that does not read makes a stream hold beyond its current chunk.
const PIECE_BYTES: usize = 64 * 1024;

/// The body of an answer.
pub struct Body(Inner);

enum Inner {
    Empty,
    Full {
        frame: Option<Bytes>,
        trailers: Option<HeaderMap>,
    },
    Stream(Box<Outgoing>),
    /// A service of another crate; its streams end at their deadline, or when the replica drains.
    Foreign {
        body: tonic::body::Body,
        method: Method,
        ends: Pin<Box<dyn Future<Output = Failure> + Send>>,
        ended: bool,
    },
}

/// Makes the messages of a stream.
pub trait Produce: Send {
    /// The next frames, prefix included; `None` at the end. Asked only when the client can take more.
    fn poll_next(&mut self, call: &mut Call, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>>;
}

/// A stream that is being sent.
struct Outgoing {
    sending: Arc<Mutex<Sending>>,
    done: bool,
    watcher: Option<AbortHandle>,
}

/// What the stream and the watcher of its deadline share.
struct Sending {
    state: State,
    /// Made and not handed over.
    rest: Bytes,
}

enum State {
    Running(Running),
    /// The deadline passed.
    Late(Method),
    Done,
}

struct Running {
    call: Call,
    producer: Box<dyn Produce>,
    waker: Option<Waker>,
}

impl Body {
    #[must_use]
    pub fn empty() -> Self {
        Self(Inner::Empty)
    }

    /// One message.
    #[must_use]
    pub fn full(frame: Bytes, trailers: HeaderMap) -> Self {
        Self(Inner::Full { frame: Some(frame), trailers: Some(trailers) })
    }

    /// A stream of messages. Must be called on a runtime if the call has a deadline.
    #[must_use]
    pub fn stream(call: Call, producer: Box<dyn Produce>) -> Self {
        let deadline = call.deadline;
        let state = State::Running(Running { call, producer, waker: None });
        let sending = Arc::new(Mutex::new(Sending { state, rest: Bytes::new() }));
        let watcher = deadline.map(|deadline| {
            let sending = sending.clone();
            let watch = async move {
                tokio::time::sleep_until(deadline).await;
                sending.lock().end_late();
            };
            tokio::spawn(watch).abort_handle()
        });
        Self(Inner::Stream(Box::new(Outgoing { sending, done: false, watcher })))
    }

    #[must_use]
    pub fn foreign(
        body: tonic::body::Body,
        method: Method,
        ends: Pin<Box<dyn Future<Output = Failure> + Send>>,
    ) -> Self {
        Self(Inner::Foreign { body, method, ends, ended: false })
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut self.0 {
            Inner::Empty | Inner::Foreign { ended: true, .. } => Poll::Ready(None),
            Inner::Full { frame, trailers } => {
                let data = frame.take().map(Frame::data);
                Poll::Ready(data.or_else(|| trailers.take().map(Frame::trailers)).map(Ok))
            }
            Inner::Stream(outgoing) => outgoing.poll_frame(cx).map(|frame| frame.map(Ok)),
            Inner::Foreign { body, method, ends, ended } => {
                // First what it has to say: that the replica drains, for instance.
                if let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) {
                    return Poll::Ready(frame);
                }
                let why = ready!(ends.as_mut().poll(cx));
                *ended = true;
                Poll::Ready(Some(Ok(Frame::trailers(answer::trailers(*method, &why)))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Empty => true,
            Inner::Full { frame, trailers } => frame.is_none() && trailers.is_none(),
            Inner::Stream(outgoing) => outgoing.done,
            Inner::Foreign { body, ended, .. } => *ended || body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        // Unknown, or hyper would add a `content-length` that no gRPC client needs.
        SizeHint::default()
    }
}

impl Outgoing {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        if self.done {
            return Poll::Ready(None);
        }
        let mut sending = self.sending.lock();
        let Sending { state, rest } = &mut *sending;
        if rest.is_empty() {
            match ready!(state.poll_next(cx)) {
                Ok(frames) => *rest = frames,
                Err(trailers) => {
                    self.done = true;
                    return Poll::Ready(Some(Frame::trailers(trailers)));
                }
            }
        }
        let piece = rest.split_to(rest.len().min(PIECE_BYTES));
        Poll::Ready(Some(Frame::data(piece)))
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if let Some(watcher) = &self.watcher {
            watcher.abort();
        }
        // The watcher may hold the rest a little longer; the call ends now.
        *self.sending.lock() = Sending { state: State::Done, rest: Bytes::new() };
    }
}

impl State {
    /// More frames, never empty, or the trailers.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, HeaderMap>> {
        let running = match self {
            Self::Running(running) => running,
            Self::Late(method) => return Poll::Ready(Err(answer::trailers(*method, &Failure::DeadlineExceeded))),
            Self::Done => return Poll::Ready(Err(answer::ok_trailers())),
        };
        let outcome = match ready!(running.poll_next(cx)) {
            Some(Ok(frames)) => return Poll::Ready(Ok(frames)),
            Some(Err(failure)) => Err(failure),
            None => Ok(()),
        };
        let Self::Running(Running { call, .. }) = std::mem::replace(self, Self::Done) else {
            return Poll::Ready(Err(answer::ok_trailers()));
        };
        let trailers = match &outcome {
            Ok(()) => answer::ok_trailers(),
            Err(failure) => answer::trailers(call.method, failure),
        };
        call.finish(outcome.map_or_else(|failure| failure.code(), |()| Code::Ok));
        Poll::Ready(Err(trailers))
    }
}

impl Sending {
    /// Ends the call, and lets go what nobody read.
    fn end_late(&mut self) {
        let State::Running(running) = &self.state else { return };
        let late = State::Late(running.call.method);
        let State::Running(Running { call, waker, .. }) = std::mem::replace(&mut self.state, late) else { return };
        self.rest = Bytes::new();
        call.finish(Code::DeadlineExceeded);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Running {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        if let Err(late) = self.call.in_time() {
            return Poll::Ready(Some(Err(late)));
        }
        loop {
            let Self { call, producer, .. } = self;
            // After a panic the producer is dropped and not asked again.
            let polled = catch_unwind(AssertUnwindSafe(|| producer.poll_next(call, cx)));
            return match polled {
                Ok(Poll::Ready(Some(Ok(frames)))) if frames.is_empty() => continue,
                Ok(Poll::Ready(Some(Ok(frames)))) => {
                    self.call.bytes_out += frames.len() as u64;
                    Poll::Ready(Some(Ok(frames)))
                }
                Ok(Poll::Pending) => {
                    self.park(cx);
                    Poll::Pending
                }
                Ok(ready) => ready,
                Err(_) => {
                    self.call.panicked();
                    Poll::Ready(Some(Err(Failure::Internal)))
                }
            };
        }
    }

    /// Remembers whom the watcher must wake.
    fn park(&mut self, cx: &Context<'_>) {
        if self.call.deadline.is_some() && !self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
    }
}

#[cfg(test)]
mod tests;
