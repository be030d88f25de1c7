//! What the peer service asks of whoever drives the hand-off. `handoff` implements it; tests have a stub.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::cache::store::{Carried, Name};
use crate::ownership::member::MemberId;
use crate::ownership::message::{Answer, Refusal, Request, Stamp};

/// An answer of the hand-off and what it carries.
pub type Reply = (Stamp, Answer<Name, Carried>);

/// Something to wait for.
pub type Waiting<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// This replica's part in the cluster, as seen from the wire.
pub trait Desk: Send + Sync + 'static {
    /// Which process this is.
    fn me(&self) -> Arc<MemberId>;

    /// Takes a stamp at once if that needs nobody: an equal view, for this process, from a sane clock.
    fn try_accept(&self, stamp: &Stamp) -> Option<Result<(), Refusal>>;

    /// Takes a stamp (rules 2, 18 and 19).
    fn accept(&self, stamp: Stamp) -> Waiting<Result<(), Refusal>>;

    /// What a forward to this member carries.
    fn stamp(&self, to: &MemberId) -> Stamp;

    /// What the answers to a message with this stamp carry.
    fn answer_stamp(&self, to: &Stamp) -> Stamp;

    /// A peer asks.
    fn request(&self, stamp: Stamp, request: Request<Name>) -> Waiting<Result<Reply, Refusal>>;
}
