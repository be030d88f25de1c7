//! What an account uses and may use, and how this replica is doing.

use super::wall::Wall;
use super::wall::registry::Principal;
use crate::rpc::proto::v1;

/// The answer of `Stats`. With one replica, the cluster is the replica.
#[must_use]
pub fn answer(wall: &Wall, principal: &Principal) -> v1::StatsResponse {
    let usage = principal.state.tenant.usage();
    let limits = principal.limits();
    v1::StatsResponse {
        account_id: principal.state.tenant.id().to_string(),
        keys: usage.keys,
        bytes: usage.bytes,
        max_cache_keys: limits.max_keys.unwrap_or(0),
        max_bytes: limits.max_bytes.unwrap_or(0),
        requests_per_second: limits.requests_per_second.map_or(0, u64::from),
        guaranteed_bytes: limits.guaranteed_bytes,
        replica: Some(replica(wall)),
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
