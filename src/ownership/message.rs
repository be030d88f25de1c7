//! What replicas say to each other (PROTOCOL §3), as values; how they are written on the wire is the peer service's business.
//!
//! `Forward` is not here: its operation is none of the hand-off's business. It travels under a [`Stamp`] like all others.

use std::sync::Arc;

use super::copies::{Found, Items, WrittenPage};
use super::member::MemberId;
use super::shard::Place;
use super::view::{Digest, View};
use crate::cache::key::AccountId;

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
    /// To an account's home: room for keys and bytes.
    Lease(LeaseRequest),
    /// Of an account's home, to all: "what do you have of this account?"
    Count(CountAsk),
    /// Of an account's home: an ask that it could not answer can be answered now.
    AskAgain(AccountId),
}

/// What a replica asks an account's home for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRequest {
    pub account: AccountId,
    /// Needed at once.
    pub keys: u64,
    pub bytes: u64,
    /// Wanted by others who wait at the sender, besides.
    pub more_keys: u64,
    pub more_bytes: u64,
    pub max_keys: Option<u64>,
    pub max_bytes: Option<u64>,
    /// Takes nothing.
    pub dry_run: bool,
    /// The ask is older than this round of counting ([`LeaseReply::Wait`]).
    pub before_round: Option<u64>,
}

/// What the home says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseReply {
    /// Yours from now on, unless you were counted in a later round already.
    Granted { round: u64, keys: u64, bytes: u64 },
    /// A dry run would fit.
    Fits,
    /// It does not fit: when this round of counting began, so much was used, exactly.
    Full { round: u64, keys: u64, bytes: u64 },
    /// Not known yet. `before_round`: a round from this one on began after the ask.
    Wait { before_round: u64 },
}

/// An account's home counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountAsk {
    pub account: AccountId,
    /// Grows with every round of this process.
    pub round: u64,
    /// Reclaim what is due, and give up for good what comes free, until the next grant.
    pub close: bool,
}

/// What a replica has of an account. Whatever of its lease is not used is given back by this answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// All entries here, copies for others too, and what operations that were just let run are about to create.
    pub used_keys: u64,
    pub used_bytes: u64,
    /// What was here when the view changed, and was leased since and not called in. Negative where what was removed here
    /// had been counted elsewhere.
    pub bound_keys: i64,
    pub bound_bytes: i64,
    /// Every arc here is settled, and there is no copy for anybody.
    pub settled: bool,
    /// Nothing can be created here without asking, not even in place of what is removed.
    pub closed: bool,
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
    /// A `Page` that is to be sent. Nobody gets one: it comes as a `Page`.
    Written(WrittenPage),
    DoneOk,
    /// Our views differ: no effect. The stamp has mine.
    Stale,
    Pong {
        unreachable: Vec<Unreachable>,
    },
    Leased(LeaseReply),
    Counted(Counted),
    /// To an `AskAgain`.
    Noted,
}

impl<K, V> Answer<K, V> {
    /// Is this of the kind that answers such a request? A ping is answered under any view.
    #[must_use]
    pub fn is_to<Key>(&self, request: &Request<Key>) -> bool {
        match self {
            Self::Cleared { .. } => matches!(request, Request::Claim),
            Self::Copies(_) => matches!(request, Request::Fetch(_)),
            Self::Page { .. } | Self::Written(_) => matches!(request, Request::Pull { .. }),
            Self::DoneOk => matches!(request, Request::Done { .. }),
            Self::Stale => !matches!(request, Request::Ping),
            Self::Pong { .. } => matches!(request, Request::Ping),
            Self::Leased(_) => matches!(request, Request::Lease(_)),
            Self::Counted(_) => matches!(request, Request::Count(_)),
            Self::Noted => matches!(request, Request::AskAgain(_)),
        }
    }
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
    /// It listens before it has a list (rule 14). To the sender it is no refusal: nothing is known of who started, and when.
    #[error("this process does not know the members yet; ask again")]
    Starting,
}
