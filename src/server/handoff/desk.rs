//! What the peer service asks of the hand-off.

use std::sync::Arc;

use super::Handoff;
use crate::cache::store::Name;
use crate::ownership::member::MemberId;
use crate::ownership::message::{Refusal, Request, Stamp};
use crate::server::peer::desk::{Desk, Reply, Waiting};

impl Desk for Handoff {
    fn me(&self) -> Arc<MemberId> {
        Self::me(self)
    }

    fn try_accept(&self, stamp: &Stamp) -> Option<Result<(), Refusal>> {
        Self::try_accept(self, stamp)
    }

    fn accept(&self, stamp: Stamp) -> Waiting<Result<(), Refusal>> {
        let handoff = self.clone();
        Box::pin(async move { Self::accept(&handoff, stamp).await })
    }

    fn stamp(&self, to: &MemberId) -> Stamp {
        Self::stamp(self, to)
    }

    fn answer_stamp(&self, to: &Stamp) -> Stamp {
        Self::answer_stamp(self, to)
    }

    fn request(&self, stamp: Stamp, request: Request<Name>) -> Waiting<Result<Reply, Refusal>> {
        let handoff = self.clone();
        Box::pin(async move { Self::request(&handoff, stamp, request).await })
    }
}
