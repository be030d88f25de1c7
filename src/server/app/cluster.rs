//! A replica's part in a cluster, put together: the port for peers first, then the thread that drives the hand-off (rule 14).

use std::convert::Infallible;
use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};

use super::{AppError, settings};
use crate::cache::store::Store;
use crate::cluster::file::FileSource;
use crate::kubernetes::{PortNames, Selection, Slices};
use crate::server::accept::{Wire, WireHandle};
use crate::server::clock::Clock;
use crate::server::config::Config;
use crate::server::drain::{self, Trigger};
use crate::server::forward::{Cluster, Owner};
use crate::server::handoff::{Handoff, Idle, Running, Source};
use crate::server::metrics::PeerSources;
use crate::server::peer::{Peers, PeersConfig, Service, ServiceConfig, wire_config};
use crate::server::readiness::Token;
use crate::server::tls::Tls;
use crate::server::wall::Wall;
use crate::server::workers::Workers;

/// How long answers to peers may take to leave after this replica has left.
const PEER_DRAIN: Duration = Duration::from_millis(200);

/// What is made before the service that uses it.
pub(super) struct Prepared {
    listener: TcpListener,
    handoff: Handoff,
    peers: Peers,
    idle: Idle,
    tls: Option<Tls>,
    clock: Clock,
}

/// The running part, until it is ended.
pub(super) struct Members {
    running: Running,
    trigger: Trigger,
    wire: WireHandle,
    store: Arc<Store>,
    pub(super) linger: Duration,
}

impl Prepared {
    /// `listener` is the peer port; at `grpc` clients reach this replica.
    pub(super) fn new(
        config: &Config,
        listener: TcpListener,
        grpc: SocketAddr,
        store: &Arc<Store>,
        clock: &Clock,
    ) -> Result<Self, AppError> {
        let tls = settings::peer_tls(config).map(Tls::load).transpose().map_err(|error| AppError::Tls { error })?;
        let peers =
            Peers::new(PeersConfig { cluster: config.cluster.cluster.clone(), tls: tls.clone(), clock: clock.clone() });
        let (handoff, idle) = Handoff::new(settings::handoff(config, grpc), Arc::clone(store), clock.clone());
        peers.attach(Arc::new(handoff.clone()));
        Ok(Self { listener, handoff, peers, idle, tls, clock: clock.clone() })
    }

    /// What operations need of it.
    pub(super) fn cluster(&self) -> Cluster {
        Cluster::new(self.handoff.clone(), self.peers.clone())
    }

    /// Listens to peers, then takes part. `ready` goes when every member present has cleared this replica once.
    pub(super) fn start(
        self,
        config: &Config,
        workers: &Workers,
        wall: &Arc<Wall>,
        ready: Token,
    ) -> Result<Members, AppError> {
        let (trigger, watch) = drain::channel();
        let service = Service::new(
            ServiceConfig { cluster: config.cluster.cluster.clone(), clock: self.clock },
            Arc::new(self.handoff),
            Arc::new(Owner::new(wall)),
        );
        let wire = Wire::start(workers, self.listener, wire_config(), self.tls.clone(), service.clone(), watch)?;
        let stats = Arc::clone(wire.stats());
        wall.metrics.attach_peers(PeerSources { peers: self.peers.clone(), service, wire: stats, tls: self.tls });
        let source = source(config)?;
        let running = self.idle.start(self.peers, source, workers, ready)?;
        let (store, linger) = (Arc::clone(&wall.store), config.cluster.linger);
        Ok(Members { running, trigger, wire, store, linger })
    }
}

impl Members {
    /// Waits until it cannot go on.
    pub(super) async fn broken(&self) {
        self.running.broken().await;
    }

    /// SIGTERM: from here on others are told that this replica leaves.
    pub(super) async fn leave(&self) {
        self.running.leave().await;
    }

    /// Waits until everything is handed over, and everybody knows; or the deadline.
    pub(super) async fn left_by(&mut self, deadline: Instant) {
        if timeout_at(deadline, self.running.ended()).await.is_err() {
            let entries = self.store.stats().entries;
            self.running.cut_off(entries);
        }
    }

    /// Ends it. Not on a worker.
    pub(super) async fn end(self) {
        self.trigger.drain(PEER_DRAIN).await;
        tracing::debug!(connections = self.wire.connections(), "the peer port is closed");
        let running = self.running;
        // The thread is joined away from this one.
        let _ = tokio::task::spawn_blocking(move || running.stop()).await;
    }
}

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Members").field(&self.running).finish()
    }
}

fn source(config: &Config) -> Result<Source, AppError> {
    let its = &config.cluster;
    if let Some(path) = its.members_file.clone() {
        let make = move || std::future::ready(Ok::<_, Infallible>(FileSource::new(&path)));
        return Ok(Source::new(make, Handle::current()));
    }
    let service = its.members_service.clone().unwrap_or_default();
    let selection = Selection { service, family: settings::family(config), ports: PortNames::default() };
    let namespace = its.members_namespace.clone();
    let make = move || Slices::in_cluster(namespace.as_deref(), selection.clone());
    // Tried once here, so that a replica that is in no cluster ends with a sentence.
    make().map_err(|error| AppError::Members { error })?;
    let make = move || std::future::ready(make());
    Ok(Source::new(make, Handle::current()))
}
