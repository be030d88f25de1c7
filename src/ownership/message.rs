//! What replicas say to each other (PROTOCOL §3), as values; how they are written on the wire is the peer service's business.
//!
//! `Forward` is not here: its operation is none of the hand-off's business. It travels under a [`Stamp`] like all others.

use std::sync::Arc;

use super::copies::{Found, Items};
use super::member::MemberId;
use super::shard::Place;
use super::view::{Digest, View};

/// Keys of one `Fetch` at most.
pub const MAX_FETCH_KEYS: usize = 1024;

/// What every message between replicas carries.
#[derive(Clone, Debug)]
pub struct Stamp {
    pub from: MemberId,
    /// The receiver as the sender knows it; boot 0 if it never heard from it.
    pub to: MemberId,
    /// Of the sender's view.
    pub digest: Digest,
    /// The view itself, when the receiver does not have it.
    pub view: Option<Arc<View>>,
    /// The sender's hybrid logical clock, in microseconds (rule 19).
    pub clock_us: u64,
}

/// Names a request and its answer. Never used twice by one process.
pub type CallId = u64;

#[derive(Clone, Debug)]
pub enum Request<K> {
    /// Rule 5: "are you no authority for anything that this view gives me?"
    Claim,
    /// Rule 7: the copies of these keys; at most [`MAX_FETCH_KEYS`].
    Fetch(Vec<Place<K>>),
    /// Rule 9: the next copies for me, after a place.
    Pull { after: Option<Place<K>>, max_bytes: usize },
    /// Rule 9: all that you sent up to here is stored.
    Done { through: Place<K> },
    /// PROTOCOL §8: "are you there?"
    Ping,
}

#[derive(Clone, Debug)]
pub enum Answer<K, V> {
    Cleared {
        has_copies: bool,
    },
    Copies(Found<K, V>),
    Page {
        items: Items<K, V>,
        last: bool,
    },
    DoneOk,
    /// Our views differ: no effect. The stamp has mine.
    Stale,
    Pong {
        unreachable: Vec<Unreachable>,
    },
}

/// A member that the sender of a `Pong` cannot reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreachable {
    pub id: MemberId,
    /// Its connection was refused; else it is silent for too long.
    pub refused: bool,
}

/// Why a message is not taken. To its sender the first is a refused connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the message is for another process at this address (rule 18)")]
    NotMe,
    #[error("the sender's clock is over an hour ahead; set the clocks of the machines (rule 19)")]
    ClockAhead,
    #[error("this process ended its part in the cluster")]
    Over,
}
