//! A dump: the entries of a key space over the whole cluster, page by page, each made when the client can take it. Between two
//! pages no lock and no entry is held, so a slow reader costs one page.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::body::Produce;
use super::call::Call;
use super::drain::Watch;
use super::held::Share;
use super::walk::{DumpStep, Form, Walk};
use crate::rpc::convert;
use crate::rpc::failure::Failure;
use crate::rpc::proto::v1;

/// A dump under way.
pub struct Dump {
    walk: Walk<DumpStep>,
    /// Of the bytes that calls may hold: the page that is being sent.
    share: Share,
}

impl Dump {
    /// # Errors
    /// When the request is wrong.
    pub fn new(call: &Call, message: Bytes, drain: Watch) -> Result<Self, Failure> {
        let request: v1::DumpRequest = convert::decode(message)?;
        let asked = convert::dump_call(&request)?;
        let space = call.principal()?.state.tenant.clone();
        let step = DumpStep { space, prefix: asked.prefix.into(), form: Form::Larder };
        let share = call.connection().wall.held.share();
        Ok(Self { walk: Walk::new(call, step, asked.after, drain), share })
    }

    /// Of the whole key space of the tutorial.
    #[must_use]
    pub fn of_tutorial(call: &Call, drain: Watch) -> Self {
        let wall = &call.connection().wall;
        let step = DumpStep { space: wall.tutorial.clone(), prefix: Arc::from(""), form: Form::Tutorial };
        Self { walk: Walk::new(call, step, None, drain), share: wall.held.share() }
    }
}

impl Produce for Dump {
    fn poll_next(&mut self, _call: &mut Call, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        self.share.clear();
        if self.walk.has_ended() {
            return Poll::Ready(None);
        }
        if self.walk.is_draining() {
            return Poll::Ready(Some(Err(Failure::Draining)));
        }
        let frames = match ready!(self.walk.poll_next(cx)) {
            Some(Ok(frames)) => frames,
            Some(Err(failure)) => return Poll::Ready(Some(Err(failure))),
            None => return Poll::Ready(None),
        };
        if frames.is_empty() {
            if self.walk.has_ended() {
                return Poll::Ready(None);
            }
            // Much was searched and nothing found: others have their turn.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Some(self.share.resize(frames.len()).map(|()| frames)))
    }
}
