//! What the thread and its callers share.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::watch;

use super::Topology;
use super::alive::Alive;
use super::figures::{Figures, Status};
use super::inbox::Inbox;
use crate::cache::version::HybridClock;
use crate::ownership::member::MemberId;
use crate::ownership::message::Stamp;
use crate::ownership::view::View;
use crate::server::clock::Clock;

pub(super) struct Shared {
    pub(super) topology: ArcSwap<Topology>,
    pub(super) changes: watch::Sender<Arc<Topology>>,
    pub(super) alive: Alive,
    pub(super) clock: Clock,
    /// The replica's hybrid logical clock, kept over fences.
    pub(super) versions: Arc<HybridClock>,
    pub(super) inbox: Inbox,
    pub(super) figures: Arc<Figures>,
    /// How it stood at the last tick; none before the first list.
    pub(super) status: ArcSwapOption<Status>,
}

impl Shared {
    pub(super) fn stamp(&self, topology: &Topology, to: &MemberId, view: Option<&Arc<View>>) -> Stamp {
        Stamp {
            from: (*topology.me).clone(),
            to: to.clone(),
            digest: topology.snapshot.digest(),
            view: view.map(Arc::clone),
            clock_us: self.versions.latest_us(),
        }
    }

    /// Microseconds of the server's clock.
    pub(super) fn now_us(&self) -> u64 {
        self.clock.us_at(Instant::now())
    }

    /// After every shard has the view.
    pub(super) fn publish(&self, topology: Topology) {
        let topology = Arc::new(topology);
        self.topology.store(Arc::clone(&topology));
        self.changes.send_replace(topology);
    }
}
