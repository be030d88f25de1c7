//! A listener with a tiny HTTP service behind it, and clients that do what clients should not.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use h2::client::SendRequest;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use larder::server::accept::{Ended, Wire, WireConfig, WireHandle, bind};
use larder::server::connection::{Make, Peer};
use larder::server::drain::{self, Trigger};
use larder::server::tls::Tls;
use larder::server::workers::Workers;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

/// No wait of a test takes longer.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes of `/big`'s answer.
pub const BIG: usize = 64 * 1024 * 1024;

/// A running listener.
pub struct Server {
    pub wire: WireHandle,
    pub workers: Workers,
    pub trigger: Trigger,
    pub calls: Arc<AtomicUsize>,
}

/// `/echo` answers the request's body, `/hang` never answers, `/big` answers [`BIG`] bytes, `/peer` says who called.
#[derive(Clone)]
pub struct Paths {
    calls: Arc<AtomicUsize>,
    peer: Option<Arc<Peer>>,
}

pub type Body = BoxBody<Bytes, Infallible>;

impl Server {
    pub fn start(config: WireConfig) -> Self {
        Self::start_with(config, None)
    }

    pub fn start_with(config: WireConfig, tls: Option<Tls>) -> Self {
        let workers = Workers::start(2).unwrap();
        let (trigger, watch) = drain::channel();
        let calls = Arc::new(AtomicUsize::new(0));
        let make = Paths { calls: Arc::clone(&calls), peer: None };
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let wire = Wire::start(&workers, listener, config, tls, make, watch).unwrap();
        Self { wire, workers, trigger, calls }
    }

    pub fn address(&self) -> SocketAddr {
        self.wire.address()
    }

    pub async fn socket(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address()).await.unwrap();
        socket.set_nodelay(true).unwrap();
        socket
    }

    /// Waits, bounded, until so many connections have ended for this reason, and checks that it is no more.
    pub async fn ended(&self, reason: Ended, count: u64) {
        let ended = || self.wire.stats().ended(reason);
        eventually(&format!("{count} {reason:?}"), || ended() >= count).await;
        assert_eq!(ended(), count, "{reason:?}");
    }

    pub async fn client(&self) -> Client {
        Client::over(self.socket().await).await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.workers.stop();
    }
}

impl Make for Paths {
    type Body = Body;
    type Service = Self;

    fn make(&self, peer: &Peer) -> Self {
        Self { peer: Some(Arc::new(peer.clone())), ..self.clone() }
    }
}

impl tower::Service<Request<Incoming>> for Paths {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let peer = self.peer.clone();
        Box::pin(async move {
            let body = match request.uri().path() {
                "/hang" => std::future::pending().await,
                "/big" => {
                    let chunk = Bytes::from(vec![7; 64 * 1024]);
                    let frames = (0..BIG / chunk.len()).map(move |_| Ok(Frame::data(chunk.clone())));
                    StreamBody::new(futures::stream::iter(frames)).boxed()
                }
                "/peer" => {
                    let peer = peer.unwrap();
                    let certificate = peer.client_certificate.as_ref().map(|certificate| certificate.len());
                    Full::new(Bytes::from(format!("{} {} {certificate:?}", peer.address, peer.tls))).boxed()
                }
                _ => match request.into_body().collect().await {
                    Ok(body) => Full::new(body.to_bytes()).boxed(),
                    Err(_) => Full::default().boxed(),
                },
            };
            Ok(Response::new(body))
        })
    }
}

/// A well-behaved HTTP/2 client.
pub struct Client {
    pub requests: SendRequest<Bytes>,
    pub connection: JoinHandle<Result<(), h2::Error>>,
}

impl Client {
    pub async fn over<T: AsyncRead + AsyncWrite + Send + Unpin + 'static>(io: T) -> Result<Self, h2::Error> {
        let (requests, connection) = h2::client::handshake(io).await?;
        Ok(Self { requests, connection: tokio::spawn(connection) })
    }

    /// Calls `/echo`.
    pub async fn echo(&self, body: impl Into<Bytes>) -> Result<Bytes, h2::Error> {
        self.call("/echo", body.into()).await
    }

    pub async fn call(&self, path: &str, body: Bytes) -> Result<Bytes, h2::Error> {
        let mut requests = self.requests.clone().ready().await?;
        let (response, mut sender) = requests.send_request(post(path), false)?;
        send(&mut sender, body).await?;
        let mut stream = response.await?.into_body();
        let mut answer = Vec::new();
        while let Some(chunk) = stream.data().await {
            let chunk = chunk?;
            stream.flow_control().release_capacity(chunk.len())?;
            answer.extend_from_slice(&chunk);
        }
        Ok(answer.into())
    }
}

async fn send(sender: &mut h2::SendStream<Bytes>, mut body: Bytes) -> Result<(), h2::Error> {
    while !body.is_empty() {
        sender.reserve_capacity(body.len());
        let Some(room) = futures::future::poll_fn(|cx| sender.poll_capacity(cx)).await else {
            return Ok(()); // the stream is over; the response says why
        };
        let room = room?.min(body.len());
        sender.send_data(body.split_to(room), false)?;
    }
    sender.send_data(Bytes::new(), true)
}

pub fn post(path: &str) -> Request<()> {
    Request::post(format!("http://larder{path}")).body(()).unwrap()
}

/// Waits, bounded, until `value` holds.
pub async fn eventually(what: &str, mut value: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !value() {
        assert!(Instant::now() < deadline, "not in {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Reads until the other side closes; answers what came.
pub async fn until_closed(socket: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut all = Vec::new();
    // A reset is a close too.
    let _ = timeout(PATIENCE, socket.read_to_end(&mut all)).await.expect("the server closes the connection");
    all
}
