//! The peer service: what other replicas ask of this one.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame};
use hyper::body::Incoming;

use self::forward::Stream;
use super::CarryOut;
use super::desk::Desk;
use super::seldom::Seldom;
use super::stats::ServiceStats;
use crate::rpc::failure::Failure;
use crate::rpc::metadata::GRPC_STATUS;
use crate::rpc::peer::{Stranger, hello_of};
use crate::rpc::proto::peer::v1::Hello;
use crate::rpc::status;
use crate::server::accept::WireConfig;
use crate::server::clock::Clock;
use crate::server::connection::{Make, Peer};
use crate::server::held::Held;

mod exchange;
mod forward;

pub use forward::{MAX_WAITING, MAX_WAITING_BYTES};

pub(super) const EXCHANGE_PATH: &str = "/larder.peer.v1.Peer/Exchange";
pub(super) const FORWARD_PATH: &str = "/larder.peer.v1.Peer/Forward";

/// Bytes of one message of forwards: a batch, and one forward of the largest size more.
pub const MAX_FORWARD_BYTES: usize = 8 * 1024 * 1024;

/// Messages of the hand-off in progress; more are turned away.
pub const MAX_EXCHANGES: usize = 1024;

/// Bytes of messages that have not come whole, of all peers.
const MAX_HELD_BYTES: u64 = 256 * 1024 * 1024;

/// Connections of peers: a few of each hand-off thread and one of each worker of 1,000 replicas on 4 cores would be 8,000; those
/// of a cluster of 100 fit. Each idle one costs 33 KiB.
pub const MAX_CONNECTIONS: usize = 4096;

/// Bytes that a peer may send ahead on a stream: a batch, so that large values do not wait for a round trip each 256 KiB.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;

/// The same on a connection, which has one stream of weight.
const CONNECTION_WINDOW_BYTES: u32 = 2 * 1024 * 1024;

/// What the service needs to know.
#[derive(Clone, Debug)]
pub struct ServiceConfig {
    /// The cluster's name; replicas of another are refused.
    pub cluster: String,
    /// What times to live are told by.
    pub clock: Clock,
}

/// Makes the service of each connection. Cheap to clone.
#[derive(Clone)]
pub struct Service(Arc<Inner>);

pub(super) struct Inner {
    config: ServiceConfig,
    desk: Arc<dyn Desk>,
    carry_out: Arc<dyn CarryOut>,
    stats: ServiceStats,
    held: Arc<Held>,
    exchanges: AtomicUsize,
    seldom: Seldom,
}

/// The service of one connection.
#[derive(Clone)]
pub struct ForPeer {
    inner: Arc<Inner>,
    peer: Peer,
}

/// The body of an answer.
pub struct Body(Answering);

enum Answering {
    One { frame: VecDeque<Bytes>, trailers: Option<HeaderMap> },
    Stream(Box<Stream>),
}

/// The limits of a peer port's wire.
#[must_use]
pub fn wire_config() -> WireConfig {
    WireConfig {
        max_connections: MAX_CONNECTIONS,
        stream_window_bytes: STREAM_WINDOW_BYTES,
        connection_window_bytes: CONNECTION_WINDOW_BYTES,
        ..WireConfig::default()
    }
}

impl Service {
    #[must_use]
    pub fn new(config: ServiceConfig, desk: Arc<dyn Desk>, carry_out: Arc<dyn CarryOut>) -> Self {
        Self(Arc::new(Inner {
            config,
            desk,
            carry_out,
            stats: ServiceStats::default(),
            held: Held::new(MAX_HELD_BYTES),
            exchanges: AtomicUsize::new(0),
            seldom: Seldom::default(),
        }))
    }

    /// Counters for metrics.
    #[must_use]
    pub fn stats(&self) -> &ServiceStats {
        &self.0.stats
    }
}

impl Make for Service {
    type Body = Body;
    type Service = ForPeer;

    fn make(&self, peer: &Peer) -> ForPeer {
        ForPeer { inner: Arc::clone(&self.0), peer: peer.clone() }
    }
}

impl tower::Service<Request<Incoming>> for ForPeer {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let Self { inner, peer } = self.clone();
        Box::pin(async move {
            Ok(match request.uri().path() {
                EXCHANGE_PATH => exchange::answer(&inner, peer.address, request).await,
                FORWARD_PATH => forward::answer(inner, &peer, request),
                other => failed(&Failure::UnknownMethod(other.chars().take(64).collect())),
            })
        })
    }
}

impl Inner {
    /// Whether the other is of this cluster.
    fn greet(&self, hello: Option<&Hello>, from: SocketAddr) -> Result<(), Stranger> {
        let Err(stranger) = hello_of(hello, &self.config.cluster) else { return Ok(()) };
        self.stats.strangers.fetch_add(1, Relaxed);
        let address = from.ip().to_string();
        if self.seldom.may_say("stranger", &address) {
            let cluster = &self.config.cluster;
            tracing::error!(address, cluster, error = %stranger, "refused a peer that is none of this cluster");
        }
        Err(stranger)
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut self.0 {
            Answering::One { frame, trailers } => {
                let data = frame.pop_front().map(Frame::data);
                Poll::Ready(data.or_else(|| trailers.take().map(Frame::trailers)).map(Ok))
            }
            Answering::Stream(stream) => stream.poll_frame(cx).map(|frame| frame.map(Ok)),
        }
    }
}

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

fn response(answering: Answering) -> Response<Body> {
    let mut response = Response::new(Body(answering));
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

fn failed(failure: &Failure) -> Response<Body> {
    let mut response = response(Answering::One { frame: VecDeque::new(), trailers: None });
    response.headers_mut().extend(status::to_trailers(failure));
    response
}

fn ok_trailers() -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static(GRPC_STATUS), HeaderValue::from_static("0"))])
}
