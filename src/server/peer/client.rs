//! The other replicas, as this one reaches them.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;

use super::desk::{Desk, Reply};
use super::dial::DialError;
use super::error::{CallError, ForwardError};
use super::lane::{Lane, NotTaken, OnItsWay, Phase, drive};
use super::links::Links;
use super::seldom::Seldom;
use super::stats::PeersStats;
use super::{Forward, Forwarded};
use crate::cache::store::Name;
use crate::ownership::member::MemberId;
use crate::ownership::message::{Request, Stamp};
use crate::ownership::snapshot::Snapshot;
use crate::rpc::peer::Stranger;
use crate::rpc::proto::peer::v1::Refusal;
use crate::server::clock::Clock;
use crate::server::held::Held;
use crate::server::tls::Tls;

/// What this replica's connections to the others need.
#[derive(Clone, Debug)]
pub struct PeersConfig {
    /// The cluster's name; others of another are strangers.
    pub cluster: String,
    /// `None`: plain text.
    pub tls: Option<Tls>,
    /// What times to live are told by.
    pub clock: Clock,
}

/// The other replicas, as this one reaches them. Cheap to clone.
#[derive(Clone)]
pub struct Peers(Arc<Shared>);

pub(super) struct Shared {
    /// Tells apart several replicas in one process.
    id: u64,
    pub(super) config: PeersConfig,
    pub(super) desk: OnceLock<Arc<dyn Desk>>,
    pub(super) stats: PeersStats,
    pub(super) held: Arc<Held>,
    seldom: Seldom,
    /// The lanes of all workers, to close them. One per worker and member, and a few that end.
    lanes: Mutex<Vec<Weak<Lane>>>,
    links: Links,
}

type Lanes = HashMap<MemberId, Arc<Lane>, foldhash::fast::RandomState>;

thread_local! {
    /// This worker's lanes, by whose they are: one, but for tests with several replicas in a process. A worker is a thread with one runtime, so a lane's task and its forwards never cross cores.
    static LANES: RefCell<Vec<(u64, Lanes)>> = const { RefCell::new(Vec::new()) };
}

impl Peers {
    /// Nobody is reached before [`Self::attach`].
    #[must_use]
    pub fn new(config: PeersConfig) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(Arc::new(Shared {
            id: NEXT.fetch_add(1, Relaxed),
            config,
            desk: OnceLock::new(),
            stats: PeersStats::default(),
            held: drive::held(),
            seldom: Seldom::default(),
            lanes: Mutex::default(),
            links: Links::default(),
        }))
    }

    /// Whose stamps forwards carry, and who takes those of their answers. Once, before the first forward.
    pub fn attach(&self, desk: Arc<dyn Desk>) {
        let first = self.0.desk.set(desk).is_ok();
        debug_assert!(first, "a replica has one desk");
    }

    /// Counters for metrics.
    #[must_use]
    pub fn stats(&self) -> &PeersStats {
        &self.0.stats
    }

    /// Closes the connections to whoever is not present any more, or is under another address: forwards under way end with
    /// [`ForwardError::Unknown`]. Who left in good order still answers what it was sent, and so does a process whose boot was
    /// not known yet. To be called with each topology.
    pub fn keep_only(&self, topology: &Snapshot) {
        let lanes: Vec<Arc<Lane>> = self.0.lanes.lock().iter().filter_map(Weak::upgrade).collect();
        for lane in lanes {
            let member = topology.present_as(&lane.to.uid).filter(|_| topology.is_present(&lane.to));
            match member {
                Some(member) if *member.endpoint.peer != *lane.address => lane.close(),
                Some(member) if member.id != lane.to => lane.retire(),
                Some(_) => {}
                None if topology.view().has_left(&lane.to) => lane.retire(),
                None => lane.close(),
            }
        }
        let addresses: HashSet<&str> = topology.present().map(|member| &*member.endpoint.peer).collect();
        self.0.links.keep_only(|address| addresses.contains(address));
    }

    /// Says one message of the hand-off. `address` is that of the peer port. On the hand-off's runtime: its connections live
    /// there. Ends by itself; dropping it takes the message back if it can still be.
    ///
    /// # Errors
    /// When there is no answer. The caller repeats what may be repeated.
    pub async fn call(&self, address: &str, stamp: Stamp, request: Request<Name>) -> Result<Reply, CallError> {
        self.0.stats.calls.fetch_add(1, Relaxed);
        let answered = self.0.links.call(&self.0, address, stamp, request).await;
        if answered.is_err() {
            self.0.stats.calls_lost.fetch_add(1, Relaxed);
        }
        answered
    }

    /// Forwards one operation, together with all others of this worker to that member in this turn. On a worker.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn forward(&self, to: &MemberId, address: &str, forward: &Forward) -> Result<Forwarded, ForwardError> {
        let sent = self.send(to, address, forward);
        sent?.await
    }

    fn send(&self, to: &MemberId, address: &str, forward: &Forward) -> Result<OnItsWay, ForwardError> {
        let pushed = LANES.with_borrow_mut(|all| {
            let lanes = self.mine(all);
            if let Some(lane) = lanes.get(to).filter(|lane| *lane.address == *address) {
                match lane.push(forward) {
                    Err(NotTaken::Ended) => {}
                    pushed => return pushed,
                }
            }
            self.open(lanes, to, address).push(forward)
        });
        pushed.map_err(|why| match why {
            NotTaken::Ended | NotTaken::Refused => ForwardError::Refused,
            NotTaken::Full => {
                self.0.stats.full.fetch_add(1, Relaxed);
                ForwardError::Full
            }
        })
    }

    fn mine<'a>(&self, all: &'a mut Vec<(u64, Lanes)>) -> &'a mut Lanes {
        let at = all.iter().position(|(id, _)| *id == self.0.id).unwrap_or_else(|| {
            all.push((self.0.id, Lanes::default()));
            all.len() - 1
        });
        &mut all[at].1
    }

    /// A new lane in place of the one that ended, if there was one.
    fn open(&self, lanes: &mut Lanes, to: &MemberId, address: &str) -> Arc<Lane> {
        let before = lanes.remove(to);
        if let Some(before) = &before {
            before.retire();
        }
        let failures = before.filter(|before| *before.address == *address).map_or(0, |before| before.failures());
        lanes.retain(|_, lane| !matches!(lane.phase(), Phase::Over { .. }));
        let lane = Lane::new(to.clone(), address, failures);
        lanes.insert(to.clone(), Arc::clone(&lane));
        let mut all = self.0.lanes.lock();
        all.retain(|lane| lane.strong_count() > 0);
        all.push(Arc::downgrade(&lane));
        drop(all);
        tokio::spawn(drive::run(Arc::clone(&lane), Arc::clone(&self.0)));
        lane
    }
}

impl Shared {
    /// A connection did not come about. While a member starts, that nobody listens yet is as it should be.
    pub(super) fn cannot_reach(&self, to: &MemberId, address: &str, error: &DialError) {
        self.stats.not_connected.fetch_add(1, Relaxed);
        let starts = to.boot == 0 && matches!(error, DialError::Refused);
        if starts {
            tracing::debug!(%to, address, "a replica does not listen yet");
        } else if self.seldom.may_say("not connected", address) {
            tracing::warn!(%to, address, %error, "cannot reach a replica");
        }
    }

    /// The other said so.
    pub(super) fn turned_down(&self, to: &MemberId, address: &str, refusal: i32) {
        self.stats.turned_down.fetch_add(1, Relaxed);
        let reason = Refusal::try_from(refusal).unwrap_or_default();
        let text = reason.as_str_name();
        match reason {
            // As others come and go.
            Refusal::Starting | Refusal::Over => tracing::debug!(%to, address, text, "a replica takes nothing now"),
            Refusal::OtherCluster if self.seldom.may_say("other cluster", address) => {
                let cluster = &self.config.cluster;
                tracing::error!(%to, address, cluster, "a replica says that it belongs to another cluster");
            }
            Refusal::OtherCluster => {}
            _ if self.seldom.may_say("turned down", address) => {
                tracing::warn!(%to, address, reason = text, "a replica turned down what was said to it");
            }
            _ => {}
        }
    }

    /// The other is not one of this cluster.
    pub(super) fn stranger(&self, to: &MemberId, address: &str, stranger: &Stranger) {
        self.stats.turned_down.fetch_add(1, Relaxed);
        if self.seldom.may_say("other cluster", address) {
            let cluster = &self.config.cluster;
            tracing::error!(%to, address, cluster, error = %stranger, "a member is none of this cluster");
        }
    }
}
