//! Clear and delete by prefix: page by page, with a turn for others after each, and word of the progress.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::body::Produce;
use super::call::Call;
use super::codec::encode;
use super::method::Method;
use super::wall::registry::Principal;
use crate::cache::cursor::Cursor;
use crate::cache::store::StoreError;
use crate::rpc::convert;
use crate::rpc::failure::Failure;
use crate::rpc::proto::v1;

/// Entries removed in one turn: well under a millisecond of work.
const PAGE_ENTRIES: usize = 512;

/// Turns between two words of the progress: often enough to show it, seldom enough to cost nothing.
const TURNS_PER_MESSAGE: u32 = 16;

/// A removal under way. `ClearResponse` and `DeletePrefixResponse` are the same on the wire.
pub struct Clear {
    principal: Arc<Principal>,
    prefix: String,
    after: Option<Cursor>,
    deleted: u64,
    turns: u32,
    ended: bool,
}

impl Clear {
    /// # Errors
    /// When the request is wrong.
    pub fn new(call: &Call, message: Bytes) -> Result<Self, Failure> {
        let prefix = if call.method == Method::DeletePrefix {
            let request: v1::DeletePrefixRequest = convert::decode(message)?;
            convert::delete_prefix_call(&request)?.to_owned()
        } else {
            let v1::ClearRequest {} = convert::decode(message)?;
            String::new()
        };
        Ok(Self { principal: call.principal()?.clone(), prefix, after: None, deleted: 0, turns: 0, ended: false })
    }
}

impl Produce for Clear {
    fn poll_next(&mut self, call: &mut Call, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let wall = &call.connection().wall;
        let scope = self.principal.scope(call.mode());
        let page = wall.store.remove_page(scope, &self.prefix, self.after.as_ref(), PAGE_ENTRIES, wall.clock.now());
        let page = match page {
            Ok(page) => page,
            Err(standing) => return Poll::Ready(Some(Err(StoreError::Elsewhere(standing).into()))),
        };
        self.deleted += page.removed;
        self.ended = page.next.is_none();
        self.after = page.next;
        self.turns += 1;
        if self.ended || self.turns.is_multiple_of(TURNS_PER_MESSAGE) {
            let progress = v1::ClearResponse { deleted: self.deleted, done: self.ended };
            return Poll::Ready(Some(Ok(encode::frame(&progress))));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
