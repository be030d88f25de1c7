//! What it costs to forward: server CPU of a unary call that answers its own message, at the replica that got it and by way of
//! another. Both replicas are in this process, each with one worker, over loopback; the CPU is that of their workers' threads.
//!
//! `cargo bench --bench forward [-- SECONDS]`

#![expect(clippy::unwrap_used, reason = "a measurement that cannot begin has nothing to say")]
#![expect(clippy::disallowed_methods, reason = "the thread that measures serves nobody")]
#![expect(dead_code, reason = "the pair is the tests', who use all of it")]

#[path = "../tests/peer/pair.rs"]
mod pair;

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use larder::ownership::member::MemberId;
use larder::server::accept::{Wire, WireConfig};
use larder::server::body::Body;
use larder::server::codec::Messages;
use larder::server::connection::{Make, Peer};
use larder::server::held::Held;
use larder::server::peer::{Forwarded, Peers};
use larder::server::workers::Workers;
use larder::server::{answer, drain};
use pair::{Asker, Echo, Owner, Stub};

/// Where a call is carried out.
#[derive(Clone)]
enum Where {
    Here,
    There { peers: Peers, id: Arc<MemberId>, address: Arc<str> },
}

/// A replica that answers each call with its own message.
#[derive(Clone)]
struct Noop {
    owner: Where,
    held: Arc<Held>,
}

impl Make for Noop {
    type Body = Body;
    type Service = Self;

    fn make(&self, _: &Peer) -> Self {
        self.clone()
    }
}

impl tower::Service<Request<Incoming>> for Noop {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let Self { owner, held } = self.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let message = Messages::new(&head.headers, body, 1 << 22).unwrap().single(&held).await.unwrap();
            let message = match owner {
                Where::Here => message,
                Where::There { peers, id, address } => {
                    let Forwarded::Answer(Ok(message)) =
                        peers.forward(&id, &address, &pair::get(message)).await.unwrap()
                    else {
                        panic!("the other echoes")
                    };
                    message
                }
            };
            Ok(answer::response(Body::full(framed(&message), answer::ok_trailers()), None))
        })
    }
}

fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &length[..], message].concat().into()
}

/// CPU nanoseconds of a worker's thread.
fn cpu_ns(workers: &Workers) -> u64 {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    workers.handle(0).spawn(async move {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        sender.send(text.split(' ').next().unwrap().parse::<u64>().unwrap()).unwrap();
    });
    receiver.recv().unwrap()
}

/// Calls over some connections, each with some in flight, until stopped.
fn load(
    address: SocketAddr,
    (connections, in_flight): (usize, usize),
    bytes: usize,
) -> (Arc<AtomicU64>, Arc<AtomicBool>) {
    let (count, stop) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
    let (counted, stopped) = (count.clone(), stop.clone());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let callers = tokio::task::LocalSet::new();
        for _ in 0..connections {
            let (counted, stopped) = (counted.clone(), stopped.clone());
            callers.spawn_local(async move {
                let socket = tokio::net::TcpStream::connect(address).await.unwrap();
                socket.set_nodelay(true).unwrap();
                let (requests, connection) = h2::client::handshake(socket).await.unwrap();
                tokio::task::spawn_local(connection);
                for _ in 0..in_flight {
                    let (requests, counted, stopped) = (requests.clone(), counted.clone(), stopped.clone());
                    tokio::task::spawn_local(async move {
                        let frame = framed(&vec![b'x'; bytes]);
                        while !stopped.load(Relaxed) {
                            call(requests.clone(), &frame).await;
                            counted.fetch_add(1, Relaxed);
                        }
                    });
                }
            });
        }
        runtime.block_on(callers);
    });
    (count, stop)
}

async fn call(requests: h2::client::SendRequest<Bytes>, frame: &Bytes) {
    let request = Request::post("http://larder/larder.v1.Cache/Get").header("content-type", "application/grpc");
    let mut requests = requests.ready().await.unwrap();
    let (response, mut body) = requests.send_request(request.body(()).unwrap(), false).unwrap();
    body.send_data(frame.clone(), true).unwrap();
    let mut answer = response.await.unwrap().into_body();
    let mut length = 0;
    while let Some(data) = answer.data().await {
        let data = data.unwrap();
        length += data.len();
        answer.flow_control().release_capacity(data.len()).unwrap();
    }
    assert_eq!(length, frame.len());
}

/// Server CPU in microseconds per call.
fn measure(owner: Where, others: &[&Workers], shape: (usize, usize), bytes: usize, seconds: f64) -> (f64, f64) {
    let workers = Workers::start(1).unwrap();
    let (_drain, watch) = drain::channel();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let service = Noop { owner, held: Held::new(1 << 30) };
    let wire = Wire::start(&workers, listener, WireConfig::default(), None, service, watch).unwrap();
    let (count, stop) = load(wire.address(), shape, bytes);
    std::thread::sleep(Duration::from_secs_f64(seconds / 4.0));
    let all = || cpu_ns(&workers) + others.iter().map(|workers| cpu_ns(workers)).sum::<u64>();
    let (cpu, calls) = (all(), count.load(Relaxed));
    std::thread::sleep(Duration::from_secs_f64(seconds));
    let (cpu, calls) = (all() - cpu, count.load(Relaxed) - calls);
    stop.store(true, Relaxed);
    std::thread::sleep(Duration::from_millis(100));
    (cpu as f64 / 1000.0 / calls as f64, calls as f64 / seconds)
}

fn main() {
    let seconds = std::env::args().find_map(|text| text.parse().ok()).unwrap_or(2.0);
    let owner = Owner::start_as("larder", None, Stub::new("b"), Echo { forgetful: true, ..Echo::new() });
    let asker = Asker::new();
    println!(
        "{:<22} {:>10} {:>10} {:>6} {:>12} {:>9}",
        "load", "local us", "forw. us", "ratio", "forwarded/s", "a message"
    );
    for (name, shape) in [("4 x 16", (4, 16)), ("16 x 1", (16, 1)), ("1 x 1", (1, 1))] {
        for bytes in [64, 1024, 16_384] {
            let there =
                Where::There { peers: asker.peers.clone(), id: Arc::new(owner.id()), address: owner.address().into() };
            let stats = owner.service.stats();
            let (local, _) = measure(Where::Here, &[], shape, bytes, seconds);
            let before = (stats.forwards.load(Relaxed), stats.messages.load(Relaxed));
            let (forwarded, rate) = measure(there, &[&owner.workers], shape, bytes, seconds);
            let shared =
                (stats.forwards.load(Relaxed) - before.0) as f64 / (stats.messages.load(Relaxed) - before.1) as f64;
            let load = format!("{name}, {bytes} B");
            println!(
                "{load:<22} {local:>10.2} {forwarded:>10.2} {:>6.2} {rate:>12.0} {shared:>9.1}",
                forwarded / local
            );
        }
    }
}
