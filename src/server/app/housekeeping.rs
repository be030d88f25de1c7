//! What a replica does by itself, on the control thread, a little at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::Addresses;
use crate::cache::store::Store;
use crate::server::clock::Clock;
use crate::server::health::Health;
use crate::server::memory::Kernel;
use crate::server::readiness::Readiness;
use crate::server::wall::Wall;

/// How often expired entries are reclaimed. Reads never see them anyway; this gives their memory back.
const EXPIRE_EVERY: Duration = Duration::from_millis(100);

/// Entries reclaimed at a time; between two such steps the control thread does other things.
const EXPIRE_STEP: usize = 10_000;

/// How often the container's limit is read: limits are raised and lowered while containers run.
const CAPACITY_EVERY: Duration = Duration::from_secs(10);

/// How often changed limits are taken over although no call comes: a guarantee holds for silent accounts too.
const ACCOUNTS_EVERY: Duration = Duration::from_secs(1);

/// Lets calls in once nothing is missing any more.
pub(super) async fn serve_when_ready(readiness: Readiness, health: Health, addresses: Addresses, capacity_bytes: u64) {
    readiness.ready().await;
    if health.is_starting() {
        health.set_serving();
        let Addresses { grpc, health, admin, .. } = addresses;
        tracing::info!(%grpc, %health, %admin, capacity_bytes, "serving");
    }
}

/// Begins all of it; `follow`: the capacity is the container's.
pub(super) fn start(tasks: &mut JoinSet<()>, wall: &Arc<Wall>, follow: bool) {
    let (store, clock) = (&wall.store, &wall.clock);
    tasks.spawn(expire(Arc::clone(store), clock.clone()));
    tasks.spawn(apply_accounts(Arc::clone(wall)));
    if follow {
        tasks.spawn(follow_capacity(Kernel::default(), Arc::clone(store), clock.clone()));
    }
}

/// Reclaims expired entries, for ever.
async fn expire(store: Arc<Store>, clock: Clock) {
    let mut ticks = ticks(EXPIRE_EVERY);
    loop {
        ticks.tick().await;
        while store.expire_due(clock.now(), EXPIRE_STEP) == EXPIRE_STEP {
            tokio::task::yield_now().await;
        }
    }
}

/// Takes over the limits of accounts that changed, for ever.
async fn apply_accounts(wall: Arc<Wall>) {
    let mut ticks = ticks(ACCOUNTS_EVERY);
    loop {
        ticks.tick().await;
        wall.apply_accounts();
    }
}

/// Follows the container's memory limit, for ever.
async fn follow_capacity(kernel: Kernel, store: Arc<Store>, clock: Clock) {
    let mut ticks = ticks(CAPACITY_EVERY);
    loop {
        ticks.tick().await;
        let Some(capacity) = kernel.capacity() else { continue };
        let before = store.stats().capacity_bytes;
        if before != capacity.bytes {
            tracing::info!(before, capacity_bytes = capacity.bytes, source = ?capacity.source, "the memory limit changed");
            // Evicting gigabytes takes seconds, and signals must be heard meanwhile.
            let (store, now) = (Arc::clone(&store), clock.now());
            let _ = tokio::task::spawn_blocking(move || store.set_capacity(capacity.bytes, now)).await;
        }
    }
}

fn ticks(every: Duration) -> tokio::time::Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::store::StoreConfig;

    const MIB: u64 = 1024 * 1024;

    #[tokio::test(start_paused = true)]
    async fn the_capacity_follows_the_containers_limit_both_ways() {
        let root = tempfile::tempdir().unwrap();
        let limit = root.path().join("sys/fs/cgroup/memory.max");
        std::fs::create_dir_all(limit.parent().unwrap()).unwrap();
        let store = Arc::new(Store::new(StoreConfig { capacity_bytes: 16 * MIB, shards: 1, replica: 0 }));
        let kernel = Kernel::below(root.path());
        let follower = tokio::spawn(follow_capacity(kernel, Arc::clone(&store), Clock::start()));
        for mib in [64, 256, 32] {
            std::fs::write(&limit, format!("{}\n", mib * MIB)).unwrap();
            // Time is paused: the runtime moves it to the follower's next look at once.
            tokio::time::sleep(CAPACITY_EVERY * 2).await;
            assert_eq!(store.stats().capacity_bytes, mib * MIB / 100 * 75);
        }
        std::fs::remove_file(&limit).unwrap();
        tokio::time::sleep(CAPACITY_EVERY * 2).await;
        assert_eq!(store.stats().capacity_bytes, 32 * MIB / 100 * 75, "a limit that cannot be read changes nothing");
        follower.abort();
    }
}
