//! Carrying out an operation at this replica, if it may: what an owner does for another replica, and what everybody tries
//! again once ownership has moved.

use bytes::Bytes;
use tokio::time::Instant;

use crate::cache::key::AccountId;
use crate::cache::quota::Tenant;
use crate::cache::store::{Mode, Scope, StoreError};
use crate::ownership::shard::Standing;
use crate::rpc::convert::TtlPolicy;
use crate::rpc::failure::Failure;
use crate::server::accounts::Account;
use crate::server::method::Method;
use crate::server::peer::Forward;
use crate::server::service::{self, Operations};
use crate::server::stats;
use crate::server::walk;
use crate::server::wall::Wall;

/// Why an operation was not carried out here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cannot {
    /// It failed, and that is its answer.
    Fail(Failure),
    /// This replica is not the authority for the key, or not yet.
    Elsewhere(Standing),
    /// This replica's allowance is used up: so much is to be asked for on behalf of an account.
    Lease { account: AccountId, keys: u64, bytes: u64 },
}

/// Carries an operation out, whatever replica its caller called; answers its frame.
///
/// # Errors
/// When it may not run here, or fails.
pub fn run(wall: &Wall, forward: &Forward, mode: Mode, now: Instant) -> Result<Bytes, Cannot> {
    let account = forward.payer.as_ref().map(|(id, limits)| Account { id: id.clone(), limits: *limits });
    let payer = account.as_ref().map(|account| wall.accounted.state(account));
    let space: Tenant = match &payer {
        Some(state) if *state.tenant.id() == forward.space => state.tenant.clone(),
        _ if forward.space == *wall.tutorial.id() => wall.tutorial.clone(),
        _ => wall.store.tenant(&forward.space),
    };
    let charge = payer.as_ref().map(|state| &state.tenant);
    let scope = Scope { space: &space, charge, mode };
    let message = forward.message.clone();
    match forward.method {
        Method::PeerDumpPage => walk::dump_page(wall, &space, message),
        Method::PeerClearPage => walk::clear_page(wall, scope, message),
        Method::PeerUsage => Ok(stats::usage(wall, &space)),
        method => {
            let ttl = account.as_ref().map_or(TtlPolicy::NONE, |account| service::ttl_policy(&account.limits));
            let operations = Operations::new(wall, scope, ttl, now);
            service::run(operations, method, message)
        }
    }
}

impl From<Failure> for Cannot {
    fn from(failure: Failure) -> Self {
        Self::Fail(failure)
    }
}

impl From<StoreError> for Cannot {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Elsewhere(standing) => Self::Elsewhere(standing),
            StoreError::NeedsLease { account, keys, bytes } => Self::Lease { account, keys, bytes },
            failed => Self::Fail(failed.into()),
        }
    }
}
