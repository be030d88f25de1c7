//! The fast way of a unary call.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use tokio::time::Sleep;

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
}

impl Unary {
    pub(super) fn new(call: Call, messages: Messages) -> Self {
        Self { call: Some(call), messages, deadline: None }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Response<Body>> {
        let message = match self.messages.poll_single(cx) {
            Poll::Ready(message) => message,
            Poll::Pending if self.is_late(cx) => Err(Failure::DeadlineExceeded),
            Poll::Pending => return Poll::Pending,
        };
        // Polled to its end once, then dropped.
        let Some(mut call) = self.call.take() else { return Poll::Pending };
        let outcome = message.and_then(|message| {
            call.bytes_in = (message.len() + PREFIX_BYTES) as u64;
            run(&call, message)
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
fn run(call: &Call, message: Bytes) -> Result<Bytes, Failure> {
    call.in_time()?;
    let wall = &call.connection().wall;
    catch_unwind(AssertUnwindSafe(|| service::unary(wall, call, message))).unwrap_or_else(|_| {
        tracing::error!(method = call.method.traits().name, "a handler panicked");
        Err(Failure::Internal)
    })
}
