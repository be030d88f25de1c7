//! What an account uses and may use over the cluster, and how this replica is doing.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use prost::Message as _;
use tokio::time::{Instant, timeout_at};

use super::call::Call;
use super::codec::encode;
use super::forward::{Cluster, Forward, Sent};
use super::handoff::page::share;
use super::method::Method;
use super::topology;
use super::wall::Wall;
use crate::cache::key::AccountId;
use crate::cache::quota::Tenant;
use crate::ownership::snapshot::Present;
use crate::rpc::convert;
use crate::rpc::failure::Failure;
use crate::rpc::proto::peer::v1 as peer;
use crate::rpc::proto::v1;

/// How long the others may take to say what they hold. Who takes longer is named as missing.
const ASK_TIME: Duration = Duration::from_secs(1);

/// The answer of `Stats`.
///
/// # Errors
/// When the request is wrong.
pub async fn answer(call: &Call, message: Bytes) -> Result<v1::StatsResponse, Failure> {
    let v1::StatsRequest {} = convert::decode(message)?;
    let wall = &call.connection().wall;
    let principal = call.principal()?;
    let usage = principal.state.tenant.usage();
    let limits = principal.limits();
    let mut answer = v1::StatsResponse {
        account_id: principal.state.tenant.id().to_string(),
        keys: usage.keys,
        bytes: usage.bytes,
        max_cache_keys: limits.max_keys.unwrap_or(0),
        max_bytes: limits.max_bytes.unwrap_or(0),
        requests_per_second: limits.requests_per_second.map_or(0, u64::from),
        guaranteed_bytes: limits.guaranteed_bytes,
        replica: Some(replica(wall)),
        missing_replicas: Vec::new(),
        members: Vec::new(),
    };
    let mut me = v1::MemberStats {
        member: Some(v1::Member { in_ring: true, ..v1::Member::default() }),
        share: 1.0,
        keys: usage.keys,
        bytes: usage.bytes,
        replica: answer.replica.clone(),
    };
    match &wall.cluster {
        Some(cluster) => ask_others(cluster, call, principal.state.tenant.id(), me, &mut answer).await,
        None => {
            me.member.get_or_insert_default().set_state(v1::MemberState::Serving);
            answer.members.push(me);
        }
    }
    Ok(answer)
}

/// What an account has here, for another replica, and how this one is doing; answers its frame.
#[must_use]
pub fn usage(wall: &Wall, account: &Tenant) -> Bytes {
    let usage = account.usage();
    encode::frame(&peer::UsageResponse { keys: usage.keys, bytes: usage.bytes, replica: Some(replica(wall)) })
}

/// Adds what the other members hold, and who they are.
async fn ask_others(
    cluster: &Cluster,
    call: &Call,
    account: &AccountId,
    me: v1::MemberStats,
    answer: &mut v1::StatsResponse,
) {
    let due = Instant::now() + ASK_TIME;
    let due = call.deadline.map_or(due, |deadline| deadline.min(due));
    let forward = Forward {
        method: Method::PeerUsage,
        message: peer::UsageRequest {}.encode_to_vec().into(),
        space: account.clone(),
        payer: None,
        deadline: Some(due),
        dry_run: false,
        trace: call.traced.clone(),
    };
    let (topology, my_id) = (cluster.handoff.topology(), cluster.handoff.me());
    let (mine, others): (Vec<&Present>, Vec<&Present>) =
        topology.present().partition(|member| member.id.uid == my_id.uid);
    let told = |member: &Present| v1::MemberStats {
        member: Some(topology::member(&topology, &member.endpoint)),
        share: share(&topology, &member.id),
        ..v1::MemberStats::default()
    };
    // One that is not listed, or not yet, owns nothing.
    let listed = mine.first().map_or_else(v1::MemberStats::default, |member| told(member));
    answer.members.push(v1::MemberStats { member: listed.member, share: listed.share, ..me });
    let asked = others.iter().map(|member| timeout_at(due, cluster.send(&member.id, &forward)));
    for (member, sent) in others.iter().zip(join_all(asked).await) {
        let usage = match sent {
            Ok(Sent::Answer(Ok(message))) => convert::decode::<peer::UsageResponse>(message).ok(),
            _ => None,
        };
        let mut its = told(member);
        match usage {
            Some(peer::UsageResponse { keys, bytes, replica }) => {
                (its.keys, its.bytes, its.replica) = (keys, bytes, replica);
                answer.keys += keys;
                answer.bytes += bytes;
            }
            None => answer.missing_replicas.push(member.endpoint.address.to_string()),
        }
        answer.members.push(its);
    }
}

fn replica(wall: &Wall) -> v1::ReplicaStats {
    let stats = wall.store.stats();
    let status = wall.cluster.as_ref().and_then(|cluster| cluster.handoff.status());
    v1::ReplicaStats {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime_ms: u64::try_from(wall.metrics.uptime().as_millis()).unwrap_or(u64::MAX),
        entries: stats.entries,
        memory_bytes: stats.memory_bytes,
        capacity_bytes: stats.capacity_bytes,
        hits: stats.hits,
        misses: stats.misses,
        evicted: stats.evicted,
        expired: stats.expired,
        connections: wall.metrics.connections(),
        calls: wall.metrics.ended(),
        handing_off: status.as_ref().is_some_and(|status| !status.settled),
        arcs_gaining: status.as_ref().map_or(0, |status| status.gaining as u64),
        arcs_held: status.as_ref().map_or(0, |status| status.held as u64),
    }
}
