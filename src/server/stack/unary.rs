//! The fast way of a unary call.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use tokio::time::{Instant, Sleep};

use crate::rpc::failure::Failure;
use crate::server::answer;
use crate::server::body::Body;
use crate::server::call::Call;
use crate::server::codec::Messages;
use crate::server::codec::PREFIX_BYTES;
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

impl Unary {
    pub(super) fn new(call: Call, messages: Messages) -> Self {
        Self { call: Some(call), messages, deadline: None, waited: false }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Response<Body>> {
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
        let outcome = message.and_then(|message| {
            call.bytes_in = (message.len() + PREFIX_BYTES) as u64;
            // A message that came with its headers costs no second look at the clock.
            let now = if self.waited { Instant::now() } else { call.started };
            run(&call, message, now)
        });
        Poll::Ready(match outcome {
            Ok(frame) => answer::success(call, frame),
            Err(failure) => answer::failure(call, &failure),
        })
    }

    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(at) = self.call.as_ref().and_then(|call| call.deadline) else { return false };
        let sleep = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        sleep.as_mut().poll(cx).is_ready()
    }
}

/// A panic ends the call and not the connection's other calls.
fn run(call: &Call, message: Bytes, now: Instant) -> Result<Bytes, Failure> {
    call.in_time_at(now)?;
    let wall = &call.connection().wall;
    catch_unwind(AssertUnwindSafe(|| service::unary(wall, call, message, now))).unwrap_or_else(|_| {
        tracing::error!(method = call.method.traits().name, "a handler panicked");
        Err(Failure::Internal)
    })
}
