//! What replicas say to each other: the peer service, and its clients.
//!
//! Two ways, both of `larder.peer.v1.Peer`. *Exchange* carries the hand-off's messages, one at a time, between hand-off
//! threads; what is said is [`crate::ownership`]'s business. *Forward* carries clients' operations from the worker that has
//! them to their owner, over a stream of that worker's own; whatever is forwarded in one turn of the worker goes out as one
//! message, and no task is made for any of it.
//!
//! Not here: who owns a key (`handoff`), how an operation is carried out (`forward`), and what a failed forward means to its
//! client.

mod client;
pub mod desk;
mod dial;
mod error;
pub mod lane;
pub mod links;
mod operation;
mod outgoing;
mod received;
pub(super) mod seldom;
pub mod serve;
mod slots;
pub mod stats;
mod told;

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use tokio::time::Instant;

pub use self::client::{Peers, PeersConfig};
pub use self::desk::Desk;
pub use self::error::{CallError, ForwardError};
pub use self::serve::{MAX_CONNECTIONS, Service, ServiceConfig, wire_config};
use super::accounts::Limits;
use super::method::Method;
use super::trace::Traced;
use crate::cache::key::AccountId;
use crate::rpc::failure::Failure;

/// An operation of a client, on its way to the key's owner.
#[derive(Clone, Debug)]
pub struct Forward {
    /// A unary method, or one of the internal ones that walk hashes.
    pub method: Method,
    /// The request as its client encoded it.
    pub message: Bytes,
    /// Whose key space.
    pub space: AccountId,
    /// Who pays for what is stored, and its limits; `None`: nobody.
    pub payer: Option<(AccountId, Limits)>,
    /// When it must have ended. Travels as what is left of it.
    pub deadline: Option<Instant>,
    pub dry_run: bool,
    pub trace: Traced,
}

/// What became of a forwarded operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forwarded {
    /// The unary answer message, encoded for the client, or why the operation failed.
    Answer(Result<Bytes, Failure>),
    /// The key is not the receiver's, and nothing was done. Its stamp was accepted: the view here may be another now.
    Moved,
}

/// Carries out what other replicas forward.
pub trait CarryOut: Send + Sync + 'static {
    /// Before anything else: if its caller records the operation, so may this replica.
    fn take_up(&self, _forward: &mut Forward) {}

    /// At once, if nothing has to be waited for. Called on a worker, for every forward that comes.
    fn try_now(&self, forward: &Forward, now: Instant) -> Option<Forwarded>;

    /// When it cannot be done at once. Dropped when its caller is gone.
    fn carry_out(&self, forward: Forward) -> Pin<Box<dyn Future<Output = Forwarded> + Send>>;
}
