//! Leases and counts of quotas.

use super::Malformed;
use super::copies::account_of;
use crate::ownership::message::{Counted, LeaseReply, LeaseRequest};
use crate::rpc::proto::peer::v1::exchange_request as ask;
use crate::rpc::proto::peer::v1::exchange_response::{self as reply, leased::Reply};

pub(super) fn lease_to(lease: &LeaseRequest) -> ask::Lease {
    ask::Lease {
        account: lease.account.to_string(),
        keys: lease.keys,
        bytes: lease.bytes,
        more_keys: lease.more_keys,
        more_bytes: lease.more_bytes,
        max_keys: lease.max_keys,
        max_bytes: lease.max_bytes,
        dry_run: lease.dry_run,
        before_round: lease.before_round,
    }
}

pub(super) fn lease_of(lease: ask::Lease) -> Result<LeaseRequest, Malformed> {
    Ok(LeaseRequest {
        account: account_of(&lease.account)?,
        keys: lease.keys,
        bytes: lease.bytes,
        more_keys: lease.more_keys,
        more_bytes: lease.more_bytes,
        max_keys: lease.max_keys,
        max_bytes: lease.max_bytes,
        dry_run: lease.dry_run,
        before_round: lease.before_round,
    })
}

pub(super) fn leased_to(leased: LeaseReply) -> reply::Leased {
    let reply = match leased {
        LeaseReply::Granted { round, keys, bytes } => Reply::Granted(reply::Amount { round, keys, bytes }),
        LeaseReply::Fits => Reply::Fits(reply::Fits {}),
        LeaseReply::Full { round, keys, bytes } => Reply::Full(reply::Amount { round, keys, bytes }),
        LeaseReply::Wait { before_round } => Reply::Wait(reply::Wait { before_round }),
    };
    reply::Leased { reply: Some(reply) }
}

pub(super) fn leased_of(leased: reply::Leased) -> Result<LeaseReply, Malformed> {
    Ok(match leased.reply.ok_or(Malformed("a lease that this release does not know"))? {
        Reply::Granted(reply::Amount { round, keys, bytes }) => LeaseReply::Granted { round, keys, bytes },
        Reply::Fits(_) => LeaseReply::Fits,
        Reply::Full(reply::Amount { round, keys, bytes }) => LeaseReply::Full { round, keys, bytes },
        Reply::Wait(reply::Wait { before_round }) => LeaseReply::Wait { before_round },
    })
}

pub(super) fn counted_to(counted: Counted) -> reply::Counted {
    let Counted { used_keys, used_bytes, bound_keys, bound_bytes, settled, closed } = counted;
    reply::Counted { used_keys, used_bytes, bound_keys, bound_bytes, settled, closed }
}

pub(super) fn counted_of(counted: reply::Counted) -> Counted {
    let reply::Counted { used_keys, used_bytes, bound_keys, bound_bytes, settled, closed } = counted;
    Counted { used_keys, used_bytes, bound_keys, bound_bytes, settled, closed }
}
