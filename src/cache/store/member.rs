//! The store of a member of a cluster: how its keys are named between replicas, what travels with an entry, and the start.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use xxhash_rust::xxh64::Xxh64;

use super::shard::{Member, Shard};
use super::{Store, shard};
use crate::cache::key::{AccountId, Key};
use crate::cache::quota::{Budget, Tenant};
use crate::cache::route;
use crate::cache::version::Version;
use crate::ownership::member::MemberId;
use crate::ownership::mistake::Mistakes;
use crate::ownership::shard::ShardView;
use crate::ownership::snapshot::Snapshot;
use crate::ownership::view::View;

/// A key in its key space: how the hand-off names it. Ordered by space, then key. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    pub space: AccountId,
    pub key: Arc<str>,
}

/// A key's name and the hash of its route.
pub type Place = crate::ownership::shard::Place<Name>;

/// What travels with an entry beside its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    pub value: Bytes,
    /// In this replica's monotonic milliseconds; on the wire it is the remaining time. `None`: it does not expire.
    pub expires_ms: Option<u64>,
    /// Whose budget it counts against; `None`: nobody's.
    pub payer: Option<AccountId>,
    /// What the payer may use, where it is another than the key space's account: that one's limits come with every call, but
    /// an overwrite by a third account makes an entry grow whose payer may never have called this replica.
    pub budget: Option<Budget>,
    /// Of a counter: the answers that it remembers, oldest first.
    pub requests: Vec<RememberedRequest>,
}

/// The answer that an increment with a request id got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RememberedRequest {
    pub id: Box<str>,
    /// The sum that it made.
    pub value: i64,
    pub version: Version,
    /// Until when it is remembered, as [`Carried::expires_ms`].
    pub until_ms: u64,
}

impl Store {
    /// How other replicas name a key of this store.
    #[must_use]
    pub fn place(&self, space: &Tenant, key: Key<'_>) -> Place {
        let hash = route::route_hash(space.id(), key);
        Place { hash, key: Name { space: space.id().clone(), key: key.as_str().into() } }
    }

    /// From now on this store is a member's: everything is dropped, and every shard gets a view that owns nothing. Also
    /// after a fence.
    pub fn join(&self, me: &MemberId, mistakes: Mistakes) {
        let mut hasher = Xxh64::new(0);
        hasher.update(me.uid.as_str().as_bytes());
        hasher.update(&me.boot.to_be_bytes());
        self.clock.set_replica(hasher.digest());
        let nothing = Arc::new(Snapshot::new(View::default()));
        for shard in &self.shards {
            let view = ShardView::new(me.clone(), Arc::clone(&nothing), mistakes);
            let mut fresh = Shard::new(self.shard_bits, self.hasher.clone());
            fresh.member = Some(Box::new(Member { view, marks: 0, clock: Arc::clone(&self.clock) }));
            let mut shard = shard.0.lock();
            fresh.counts = shard::Counts { entries: 0, tombstones: 0, memory: 0, ..shard.counts };
            let dropped = std::mem::replace(&mut *shard, fresh);
            drop(shard);
            self.release(dropped.counts.memory);
            dropped.give_back_everything();
        }
        // Under the lock under which new ones are made.
        let tenants = self.tenants.lock();
        self.leased.store(true, Ordering::Relaxed);
        tenants.values().for_each(Tenant::void_lease);
    }
}
