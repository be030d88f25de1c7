//! The standard health service (`grpc.health.v1`), and the one handle that says whether the replica serves. It starts as
//! NOT_SERVING: who asks before the replica is ready must not be told otherwise.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use futures::FutureExt as _;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use super::liveness::LIVE;

/// The services that health is told of; the empty name is the whole replica.
const SERVICES: [&str; 3] = ["", "larder.v1.Cache", "rpc.Cache"];

/// Whether the replica serves. Cheap to clone; clones are the same.
#[derive(Clone)]
pub struct Health {
    phase: Arc<AtomicU8>,
    live: Arc<AtomicBool>,
    reporter: HealthReporter,
    service: HealthServer<HealthService>,
}

const STARTING: u8 = 0;
const SERVING: u8 = 1;
const DRAINING: u8 = 2;

impl Default for Health {
    fn default() -> Self {
        #[expect(clippy::disallowed_methods, reason = "this is the place that says NOT_SERVING right after")]
        let reporter = HealthReporter::new();
        let service = HealthServer::new(HealthService::from_health_reporter(reporter.clone()));
        let (phase, live) = (Arc::new(AtomicU8::new(STARTING)), Arc::new(AtomicBool::new(true)));
        let health = Self { phase, live, reporter, service };
        health.report(ServingStatus::NotServing);
        health.report_one(LIVE, ServingStatus::Serving);
        health
    }
}

impl Health {
    /// The replica serves from now on.
    pub fn set_serving(&self) {
        self.phase.store(SERVING, Ordering::Release);
        self.report(ServingStatus::Serving);
    }

    /// The replica shuts down: probes and clients should look elsewhere, calls are still served.
    pub fn set_draining(&self) {
        self.phase.store(DRAINING, Ordering::Release);
        self.report(ServingStatus::NotServing);
    }

    /// Whether the replica can go on at all. Says nothing about whether it serves.
    pub fn set_live(&self, live: bool) {
        if self.live.swap(live, Ordering::AcqRel) != live {
            self.report_one(LIVE, if live { ServingStatus::Serving } else { ServingStatus::NotServing });
        }
    }

    #[must_use]
    pub fn is_live(&self) -> bool {
        self.live.load(Ordering::Acquire)
    }

    /// Whether it has not served yet.
    #[must_use]
    pub fn is_starting(&self) -> bool {
        self.phase.load(Ordering::Acquire) == STARTING
    }

    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.phase.load(Ordering::Acquire) == SERVING
    }

    /// The gRPC service, also for a port of its own.
    #[must_use]
    pub fn service(&self) -> HealthServer<HealthService> {
        self.service.clone()
    }

    fn report(&self, status: ServingStatus) {
        for service in SERVICES {
            self.report_one(service, status);
        }
    }

    fn report_one(&self, service: &str, status: ServingStatus) {
        // The reporter waits only for its lock, which nobody holds across an await: the next try will do.
        while self.reporter.set_service_status(service, status).now_or_never().is_none() {
            std::thread::yield_now();
        }
    }
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Health").field(&self.phase).finish()
    }
}
