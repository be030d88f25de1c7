//! Clear and delete by prefix, over the whole cluster: page by page, with a turn for others after each, and word of the
//! progress.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::body::Produce;
use super::call::Call;
use super::codec::encode;
use super::drain::Watch;
use super::method::Method;
use super::walk::{ClearStep, Walk};
use crate::rpc::convert;
use crate::rpc::failure::Failure;
use crate::rpc::proto::v1;

/// Turns between two words of the progress: often enough to show it, seldom enough to cost nothing.
const TURNS_PER_MESSAGE: u32 = 16;

/// A removal under way. `ClearResponse` and `DeletePrefixResponse` are the same on the wire.
pub struct Clear {
    walk: Walk<ClearStep>,
    deleted: u64,
    turns: u32,
}

impl Clear {
    /// # Errors
    /// When the request is wrong.
    pub fn new(call: &Call, message: Bytes, drain: Watch) -> Result<Self, Failure> {
        let prefix: Arc<str> = if call.method == Method::DeletePrefix {
            let request: v1::DeletePrefixRequest = convert::decode(message)?;
            convert::delete_prefix_call(&request)?.into()
        } else {
            let v1::ClearRequest {} = convert::decode(message)?;
            "".into()
        };
        let step = ClearStep { space: call.principal()?.state.tenant.clone(), prefix, mode: call.mode() };
        Ok(Self { walk: Walk::new(call, step, None, drain), deleted: 0, turns: 0 })
    }
}

impl Produce for Clear {
    fn poll_next(&mut self, _call: &mut Call, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        match ready!(self.walk.poll_next(cx)) {
            Some(Ok(removed)) => self.deleted += removed,
            Some(Err(failure)) => return Poll::Ready(Some(Err(failure))),
            None => return Poll::Ready(None),
        }
        self.turns += 1;
        let done = self.walk.has_ended();
        if done || self.turns.is_multiple_of(TURNS_PER_MESSAGE) {
            let progress = v1::ClearResponse { deleted: self.deleted, done };
            return Poll::Ready(Some(Ok(encode::frame(&progress))));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
