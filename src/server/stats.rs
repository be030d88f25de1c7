//! What an account uses and may use over the cluster, and how this replica is doing.

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use prost::Message as _;
use tokio::time::{Instant, timeout_at};

use super::call::Call;
use super::forward::{Cluster, Forward, Sent};
use super::method::Method;
use super::wall::Wall;
use crate::cache::key::AccountId;
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
    };
    if let Some(cluster) = &wall.cluster {
        ask_others(cluster, call, principal.state.tenant.id(), &mut answer).await;
    }
    Ok(answer)
}

/// Adds what the other members hold.
async fn ask_others(cluster: &Cluster, call: &Call, account: &AccountId, answer: &mut v1::StatsResponse) {
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
    let (topology, me) = (cluster.handoff.topology(), cluster.handoff.me());
    let others: Vec<&Present> = topology.present().filter(|member| member.id.uid != me.uid).collect();
    let asked = others.iter().map(|member| timeout_at(due, cluster.send(&member.id, &forward)));
    for (member, sent) in others.iter().zip(join_all(asked).await) {
        let usage = match sent {
            Ok(Sent::Answer(Ok(message))) => convert::decode::<peer::UsageResponse>(message).ok(),
            _ => None,
        };
        match usage {
            Some(usage) => {
                answer.keys += usage.keys;
                answer.bytes += usage.bytes;
            }
            None => answer.missing_replicas.push(member.endpoint.address.to_string()),
        }
    }
}

fn replica(wall: &Wall) -> v1::ReplicaStats {
    let stats = wall.store.stats();
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
    }
}
