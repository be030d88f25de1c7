//! The service of the health port: the standard health service and nothing else, for probes that speak plaintext gRPC and have
//! no token (the kubelet's). It runs on a thread of its own, so that busy workers never make a replica look dead.

use std::convert::Infallible;
use std::pin::Pin;

use http::{Request, Response};
use hyper::body::Incoming;
use tonic::body::Body;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::HealthService;

use super::connection::{Make, Peer};
use super::health::Health;

/// Makes the service of each connection of the health port.
#[derive(Clone, Debug)]
pub struct Probes {
    health: HealthServer<HealthService>,
}

/// The service of one connection.
#[derive(Clone, Debug)]
pub struct ProbeService(HealthServer<HealthService>);

impl Probes {
    #[must_use]
    pub fn new(health: &Health) -> Self {
        Self { health: health.service() }
    }
}

impl Make for Probes {
    type Body = Body;
    type Service = ProbeService;

    fn make(&self, _peer: &Peer) -> ProbeService {
        ProbeService(self.health.clone())
    }
}

impl tower::Service<Request<Incoming>> for ProbeService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        // Answers UNIMPLEMENTED for every other path.
        Box::pin(tower::Service::call(&mut self.0, request))
    }
}
