//! Quotas of the whole cluster: an account's *home* leases room to the replicas that create its keys.
//!
//! Not here: the lease itself, which the store takes from under an account's lock (`cache::quota`), and the limits, which
//! travel with every ask.

use super::Replica;
use super::copies::Copies;
use super::message::{CountAsk, Counted, LeaseReply, LeaseRequest};
use super::{Answer, Output};
use crate::cache::key::AccountId;
use crate::cache::version::Now;

/// The adapter's name for an ask. Never used twice by one process.
pub type LeaseId = u64;

/// A store said [`NeedsLease`](crate::cache::store::StoreError::NeedsLease): what is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseAsk {
    pub account: AccountId,
    /// What is missing: keys, and bytes of keys and values.
    pub keys: u64,
    pub bytes: u64,
    /// The account's limits; none: unlimited.
    pub max_keys: Option<u64>,
    pub max_bytes: Option<u64>,
    /// Only asks whether it would fit.
    pub dry_run: bool,
}

/// How an ask ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseVerdict {
    /// Try the operation again: there is room here now, or the view changed and the key may be another's. It may have to ask
    /// once more. Of a dry run: it would fit.
    Granted,
    OverKeys {
        limit: u64,
    },
    OverBytes {
        limit: u64,
    },
}

impl<S: Copies> Replica<S> {
    /// An operation has no room left in its account's lease. Ends in [`Output::Lease`], now or later; while the answer hangs
    /// on what is in flight, not at all: the caller's deadline ends it ([`Self::lease_over`]).
    pub fn lease(&mut self, id: LeaseId, _ask: LeaseAsk, _now: Now) {
        self.outputs.push(Output::Lease { id, verdict: LeaseVerdict::Granted });
    }

    /// The caller waits no longer.
    pub fn lease_over(&mut self, _id: LeaseId) {}

    /// A replica asks this one, the account's home.
    pub(super) fn serve_lease(&mut self, request: &LeaseRequest) -> Answer<S::Key, S::Value> {
        Answer::Leased(LeaseReply::Granted { round: 0, keys: request.keys, bytes: request.bytes })
    }

    /// The home counts.
    pub(super) fn serve_count(&mut self, _: &CountAsk) -> Answer<S::Key, S::Value> {
        Answer::Counted(Counted::default())
    }
}
