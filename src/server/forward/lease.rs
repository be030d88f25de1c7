//! Room in an account's quota, asked of the account's home while an operation waits.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use super::{Cluster, Forward};
use crate::cache::key::AccountId;
use crate::cache::store::Mode;
use crate::ownership::LeaseAsk;
use crate::rpc::failure::Failure;
use crate::server::call::mode;
use crate::server::trace::{Kind, names};
use crate::server::wall::Wall;

/// Of an operation's time the part, and the most, that is left for word that its quota was not known in time: so that its
/// caller, here or at another replica, hears this and not silence.
const ANSWER_PART: u32 = 8;
const MAX_ANSWER_TIME: Duration = Duration::from_millis(50);

/// What one operation has asked for.
pub(super) struct Leases {
    mode: Mode,
    /// So many keys and bytes were refused, and why.
    refused: Option<(u64, u64, Failure)>,
}

impl Leases {
    /// Nothing yet.
    pub(super) fn new(forward: &Forward) -> Self {
        Self { mode: mode(forward.dry_run), refused: None }
    }

    /// How the operation is to be tried.
    pub(super) fn mode(&self) -> Mode {
        self.mode
    }

    /// Asks for so many keys and bytes more for an account; then the operation is to be tried again.
    ///
    /// # Errors
    /// When the account has no more room, or nobody knows until the deadline.
    pub(super) async fn ask(
        &mut self,
        wall: &Wall,
        cluster: &Cluster,
        forward: &Forward,
        (account, keys, bytes): (AccountId, u64, u64),
    ) -> Result<(), Failure> {
        if let Some((refused_keys, refused_bytes, refused)) = self.refused.take()
            && keys >= refused_keys
            && bytes >= refused_bytes
        {
            return Err(refused);
        }
        // The payer of an entry that is overwritten may be another than the caller's account.
        let budget = wall.store.tenant(&account).budget();
        let (max_keys, max_bytes) = (budget.max_keys, budget.max_bytes);
        let ask = LeaseAsk { account, keys, bytes, max_keys, max_bytes, dry_run: forward.dry_run };
        let now = Instant::now();
        let until = forward.deadline.map(|deadline| deadline - answer_time(deadline.saturating_duration_since(now)));
        let waiting = forward.trace.child(Kind::Internal, names::LEASE);
        let leased = cluster.handoff.lease(ask, until).await;
        if let Some(span) = waiting.span() {
            span.end_without_code();
        }
        let counts = &cluster.handoff.figures().leases;
        let count = match &leased {
            Ok(()) => &counts.granted,
            Err(Failure::QuotaKeys { .. } | Failure::QuotaBytes { .. }) => &counts.refused,
            Err(_) => &counts.failed,
        };
        count.fetch_add(1, Relaxed);
        match leased {
            Ok(()) if forward.dry_run => self.mode = Mode::DryRunThatFits,
            Ok(()) => {}
            // The key may have come into being meanwhile, or have grown; then it needs less.
            Err(full @ (Failure::QuotaKeys { .. } | Failure::QuotaBytes { .. })) => {
                self.refused = Some((keys, bytes, full));
            }
            Err(failure) => return Err(failure),
        }
        Ok(())
    }
}

fn answer_time(left: Duration) -> Duration {
    (left / ANSWER_PART).min(MAX_ANSWER_TIME)
}
