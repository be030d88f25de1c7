//! The fast way of a unary call.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use tokio::time::{Instant, Sleep};

use super::slow::{self, Slow};
use crate::rpc::failure::Failure;
use crate::server::answer::{self, Answered};
use crate::server::body::Body;
use crate::server::call::Call;
use crate::server::codec::Messages;
use crate::server::codec::PREFIX_BYTES;
use crate::server::forward::Cannot;
use crate::server::service;

/// A unary call that was let in and whose message is being read.
pub(super) struct Unary {
    call: Option<Call>,
    messages: Messages,
    /// Made only when the message is not there yet.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Whether the message was not there at once.
    waited: bool,
}

/// What comes of it.
#[expect(clippy::large_enum_variant, reason = "the large one is the common one, and is moved on at once")]
pub(super) enum Outcome {
    Answered(Response<Body>),
    /// It goes on on the slow way.
    Elsewhere(Slow),
}

impl Unary {
    pub(super) fn new(call: Call, messages: Messages) -> Self {
        Self { call: Some(call), messages, deadline: None, waited: false }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        // Polled to its end once, then dropped.
        let Some(call) = &self.call else { return Poll::Pending };
        let message = match self.messages.poll_single(cx, &call.connection().wall.held) {
            Poll::Ready(message) => message,
            Poll::Pending if self.is_late(cx) => Err(Failure::DeadlineExceeded),
            Poll::Pending => {
                self.waited = true;
                return Poll::Pending;
            }
        };
        let Some(mut call) = self.call.take() else { return Poll::Pending };
        let outcome = message.map_err(|failure| (Cannot::Fail(failure), Bytes::new())).and_then(|message| {
            call.bytes_in = (message.len() + PREFIX_BYTES) as u64;
            // A message that came with its headers costs no second look at the clock.
            let now = if self.waited { Instant::now() } else { call.started };
            run(&call, message, now)
        });
        Poll::Ready(match outcome {
            Ok(frame) => Outcome::Answered(answer::success(call, Answered::Frame(frame))),
            Err((Cannot::Fail(failure), _)) => Outcome::Answered(answer::failure(call, &failure)),
            Err((cannot, message)) => Outcome::Elsewhere(slow::elsewhere(call, message, cannot)),
        })
    }

    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(at) = self.call.as_ref().and_then(|call| call.deadline) else { return false };
        let sleep = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        sleep.as_mut().poll(cx).is_ready()
    }
}

/// Carries it out here; if it may not run here, the message is handed back.
fn run(call: &Call, message: Bytes, now: Instant) -> Result<Bytes, (Cannot, Bytes)> {
    let fail = |failure| (Cannot::Fail(failure), Bytes::new());
    call.in_time_at(now).map_err(fail)?;
    let Some(cluster) = &call.connection().wall.cluster else {
        return carry_out(call, message, now).map_err(|cannot| (cannot, Bytes::new()));
    };
    let outcome = carry_out(call, message.clone(), now);
    if let Ok(_) | Err(Cannot::Fail(_)) = &outcome {
        cluster.check_alive(now).map_err(fail)?;
    }
    outcome.map_err(|cannot| (cannot, message))
}

/// A panic ends the call and not the connection's other calls.
fn carry_out(call: &Call, message: Bytes, now: Instant) -> Result<Bytes, Cannot> {
    let wall = &call.connection().wall;
    let run = || call.traced.watch(|| service::unary(wall, call, message, now));
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
        call.panicked();
        Err(Cannot::Fail(Failure::Internal))
    })
}
