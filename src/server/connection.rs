//! One connection from its accept to its end.
//!
//! ```text
//! accepted ──> TLS ──> preface ──> serving ──> GOAWAY ──> closed
//!     │         │         │           │          │
//!     └─────────┴─────────┴───────────┴──────────┴──> cut: limit, timeout, drain
//! ```
//!
//! hyper speaks HTTP/2; this module adds what it lacks: deadlines before the first stream, a jittered age with a real
//! GOAWAY, an end for idle, silent and stuck clients, and one for a drain. It knows nothing of gRPC.

mod activity;
mod frames;
mod preface;
mod serve;
mod streams;
mod watchdog;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustls_pki_types::CertificateDer;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use self::activity::{Activity, Metered};
use self::frames::Framed;
use self::preface::Preface;
use super::accept::gate::Entering;
use super::accept::{Ended, WireConfig, WireStats};
use super::drain;
use super::tls::Tls;
use super::workers::Seat;
use crate::rpc::coalesce::Coalesce;

/// At an end, who has come and not begun to speak may do so within this time: a client sends its first calls along with the preface,
/// and takes them for lost if nobody answers. Two round trips, and a turn on a busy machine.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// Makes the HTTP service of each connection.
pub trait Make: Clone + Send + Sync + 'static {
    /// The body of its responses.
    type Body: http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static;
    /// Called with every request of the connection. Always ready: `poll_ready` is not asked.
    type Service: tower::Service<
            http::Request<hyper::body::Incoming>,
            Response = http::Response<Self::Body>,
            Error = Infallible,
            Future: Send,
        > + Clone
        + Send
        + 'static;

    /// The service for one connection.
    fn make(&self, peer: &Peer) -> Self::Service;
}

/// Who is at the other end.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The client's address.
    pub address: SocketAddr,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// The leaf certificate (DER) that it showed and that was verified, if any.
    pub client_certificate: Option<CertificateDer<'static>>,
    /// The worker on which all its streams run.
    pub worker: usize,
    /// Begins when the connection says GOAWAY, for its age or because the server drains: what may last for ever should end.
    pub leaving: drain::Watch,
}

/// An accepted connection and what it needs.
pub(super) struct Connection<M> {
    pub(super) socket: std::net::TcpStream,
    pub(super) address: SocketAddr,
    pub(super) seat: Seat,
    pub(super) entering: Entering,
    pub(super) config: Arc<WireConfig>,
    pub(super) tls: Option<Tls>,
    pub(super) make: M,
    pub(super) drain: drain::Watch,
    /// From its accept on.
    pub(super) hold: drain::Hold,
    pub(super) stats: Arc<WireStats>,
}

/// A socket, plain or TLS.
trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

impl<M: Make> Connection<M> {
    /// Serves the connection to its end, on the worker of its seat.
    pub(super) async fn run(self) {
        let stats = Arc::clone(&self.stats);
        let ended = self.live().await;
        stats.count_ended(ended);
    }

    async fn live(self) -> Ended {
        let Self { socket, address, seat, mut entering, config, tls, make, drain, hold, stats } = self;
        let (leave, leaving) = drain::channel();
        let peer = Peer { address, tls: tls.is_some(), client_certificate: None, worker: seat.index(), leaving };
        let activity = Arc::new(Activity::new());
        let entered = tokio::select! {
            biased;
            () = entering.displaced() => return Ended::Displaced,
            entered = enter(socket, peer, &activity, &config, tls.as_ref()) => entered,
            () = overdue(drain.clone()) => return Ended::Drained,
        };
        let (mut io, peer) = match entered {
            Ok(entered) => entered,
            Err(ended) => return ended,
        };
        let Ok(_inside) = entering.inside() else {
            // Best effort: the connection is closed either way.
            let _ = timeout(config.preface_timeout, preface::refuse(&mut io)).await;
            return Ended::Full;
        };
        let service = make.make(&peer);
        serve::serve::<M>(io, service, &config, &activity, (drain, hold, leave), &stats).await
    }
}

/// Waits until an end that has begun waits no longer for those who have not begun to speak.
async fn overdue(mut drain: drain::Watch) {
    drain.started().await;
    tokio::select! {
        () = drain.forced() => {}
        () = sleep(LAST_WORDS) => {}
    }
}

/// TLS and preface.
async fn enter(
    socket: std::net::TcpStream,
    mut peer: Peer,
    activity: &Arc<Activity>,
    config: &WireConfig,
    tls: Option<&Tls>,
) -> Result<(Framed<Box<dyn Io>>, Peer), Ended> {
    let socket = prepare(socket, config).map_err(|_| Ended::Failed)?;
    let io = Coalesce::new(Metered::new(socket, Arc::clone(activity)));
    let mut io: Box<dyn Io> = match tls {
        None => Box::new(io),
        Some(tls) => match timeout(config.handshake_timeout, tls.acceptor().accept(io)).await {
            Err(_) => return Err(Ended::TlsTimeout),
            Ok(Err(_)) => return Err(Ended::TlsFailed),
            Ok(Ok(stream)) => {
                let chain = stream.get_ref().1.peer_certificates();
                peer.client_certificate = chain.and_then(|chain| chain.first()).map(|leaf| leaf.clone().into_owned());
                Box::new(stream)
            }
        },
    };
    match timeout(config.preface_timeout, preface::read(&mut io)).await {
        Err(_) => Err(Ended::PrefaceTimeout),
        Ok(Err(_)) => Err(Ended::Failed),
        Ok(Ok(Preface::Other)) => Err(Ended::NotHttp2),
        Ok(Ok(Preface::Http2)) => Ok((Framed::new(io, preface::HTTP2, Arc::clone(activity)), peer)),
    }
}

/// Makes the accepted socket one of this runtime, and has the kernel find out when its path is dead.
fn prepare(socket: std::net::TcpStream, config: &WireConfig) -> io::Result<TcpStream> {
    socket.set_nonblocking(true)?;
    socket.set_nodelay(true)?;
    watch_path(&SockRef::from(&socket), config.dead_path_timeout)?;
    TcpStream::from_std(socket)
}

/// Has the kernel find out within this time when the path of a connection is dead.
pub(super) fn watch_path(options: &SockRef<'_>, dead_path_timeout: Duration) -> io::Result<()> {
    // Probes go out while nothing is to be sent; the user timeout counts both them and unacknowledged output.
    let probe = (dead_path_timeout / 3).max(Duration::from_secs(1));
    options.set_tcp_keepalive(&TcpKeepalive::new().with_time(probe).with_interval(probe))?;
    #[cfg(target_os = "linux")]
    options.set_tcp_user_timeout(Some(dead_path_timeout))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_kernel_is_told_to_watch_for_a_dead_path() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let config = WireConfig::default();
        let socket = prepare(listener.accept().unwrap().0, &config).unwrap();
        let options = SockRef::from(&socket);
        assert!(options.keepalive().unwrap());
        assert_eq!(options.tcp_user_timeout().unwrap(), Some(config.dead_path_timeout));
        // The first probe and the next leave time within the timeout.
        let (first, next) = (options.tcp_keepalive_time().unwrap(), options.tcp_keepalive_interval().unwrap());
        assert!(first + next < config.dead_path_timeout, "{first:?} {next:?}");
        assert!(socket.nodelay().unwrap());
    }
}
