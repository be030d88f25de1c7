//! Two replicas as the peer service sees them: stubs in place of the hand-off and of what carries operations out.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use larder::cache::key::AccountId;
use larder::cache::store::Name;
use larder::ownership::member::{Endpoint, MemberId, Uid};
use larder::ownership::message::{Answer, Refusal, Request, Stamp};
use larder::ownership::snapshot::Snapshot;
use larder::ownership::view::{Digest, View};
use larder::rpc::failure::Failure;
use larder::server::accept::{Wire, WireConfig, WireHandle};
use larder::server::clock::Clock;
use larder::server::drain;
use larder::server::method::Method;
use larder::server::peer::desk::{Desk, Reply, Waiting};
use larder::server::peer::{CarryOut, Forward, Forwarded, Peers, PeersConfig, Service, ServiceConfig, wire_config};
use larder::server::tls::Tls;
use larder::server::trace::Traced;
use larder::server::workers::Workers;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

pub const DIGEST: Digest = Digest::from_u128(7);

/// The hand-off of one side.
pub struct Stub {
    pub me: Arc<MemberId>,
    /// What becomes of stamps; `None` in `try_accept` first, if `slowly`.
    pub refusal: Mutex<Option<Refusal>>,
    pub slowly: bool,
    /// `accept` ends when there is a permit.
    pub stuck: bool,
    pub accepts: Arc<Semaphore>,
    pub stamps: AtomicUsize,
    /// A `Pull` is answered when there is a permit.
    pub pages: Semaphore,
}

impl Stub {
    pub fn new(uid: &str) -> Self {
        Self {
            me: Arc::new(MemberId::new(uid, 1)),
            refusal: Mutex::default(),
            slowly: false,
            stuck: false,
            accepts: Arc::new(Semaphore::new(0)),
            stamps: AtomicUsize::new(0),
            pages: Semaphore::new(0),
        }
    }

    fn check(&self) -> Result<(), Refusal> {
        self.stamps.fetch_add(1, SeqCst);
        self.refusal.lock().map_or(Ok(()), Err)
    }

    fn say(&self, to: &MemberId) -> Stamp {
        Stamp { from: MemberId::clone(&self.me), to: to.clone(), digest: DIGEST, view: None, clock_us: 9 }
    }
}

impl Desk for Stub {
    fn me(&self) -> Arc<MemberId> {
        Arc::clone(&self.me)
    }

    fn try_accept(&self, _: &Stamp) -> Option<Result<(), Refusal>> {
        (!self.slowly).then(|| self.check())
    }

    fn accept(&self, _: Stamp) -> Waiting<Result<(), Refusal>> {
        let (checked, stuck, accepts) = (self.check(), self.stuck, Arc::clone(&self.accepts));
        Box::pin(async move {
            if stuck {
                accepts.acquire().await.unwrap().forget();
            }
            tokio::task::yield_now().await;
            checked
        })
    }

    fn stamp(&self, to: &MemberId) -> Stamp {
        self.say(to)
    }

    fn answer_stamp(&self, to: &Stamp) -> Stamp {
        self.say(&to.from)
    }

    fn request(&self, stamp: Stamp, request: Request<Name>) -> Waiting<Result<Reply, Refusal>> {
        if let Err(refusal) = self.check() {
            return Box::pin(async move { Err(refusal) });
        }
        let answer = self.say(&stamp.from);
        // The stub outlives its server: leaked once per test.
        let permit = self.pages.try_acquire().ok().map(|permit| permit.forget());
        Box::pin(async move {
            match request {
                Request::Pull { .. } if permit.is_none() => std::future::pending().await,
                Request::Pull { .. } => Ok((answer, Answer::Page { items: Vec::new(), last: true })),
                Request::Claim => Ok((answer, Answer::Cleared { has_copies: true })),
                _ => Ok((answer, Answer::Pong { unreachable: Vec::new() })),
            }
        })
    }
}

/// Carries out by what the message says: `wait` waits for a permit, `panic` panics, `moved` is moved, `missing` is not found,
/// `large N` answers N bytes, `full` is over quota; all else comes back as it is.
pub struct Echo {
    pub seen: Mutex<Vec<Forward>>,
    pub permits: Arc<Semaphore>,
    pub dropped: Arc<AtomicUsize>,
    /// Nothing is written down: for measurements.
    pub forgetful: bool,
}

impl Echo {
    pub fn new() -> Self {
        Self { seen: Mutex::default(), permits: Arc::new(Semaphore::new(0)), dropped: Arc::default(), forgetful: false }
    }
}

pub fn quota() -> Failure {
    Failure::QuotaKeys { account: "team-7".to_owned(), limit: 5 }
}

impl CarryOut for Echo {
    fn try_now(&self, forward: &Forward, _: Instant) -> Option<Forwarded> {
        if self.forgetful {
            return Some(Forwarded::Answer(Ok(forward.message.clone())));
        }
        self.seen.lock().push(forward.clone());
        let text = String::from_utf8_lossy(&forward.message[..forward.message.len().min(20)]).into_owned();
        let mut words = text.split(' ');
        Some(match words.next().unwrap_or_default() {
            "wait" => return None,
            "panic" => panic!("as asked"),
            "moved" => Forwarded::Moved,
            "missing" => Forwarded::Answer(Err(Failure::NotFound)),
            "full" => Forwarded::Answer(Err(quota())),
            "large" => Forwarded::Answer(Ok(vec![b'x'; words.next().unwrap().parse().unwrap()].into())),
            _ => Forwarded::Answer(Ok(forward.message.clone())),
        })
    }

    fn carry_out(&self, forward: Forward) -> Waiting<Forwarded> {
        struct Count(Arc<AtomicUsize>);
        impl Drop for Count {
            fn drop(&mut self) {
                self.0.fetch_add(1, SeqCst);
            }
        }
        let (permits, count) = (Arc::clone(&self.permits), Count(Arc::clone(&self.dropped)));
        Box::pin(async move {
            let _count = count;
            permits.acquire().await.unwrap().forget();
            assert_ne!(&*forward.message, b"wait and panic", "as asked");
            Forwarded::Answer(Ok(forward.message))
        })
    }
}

/// The replica `b`, which is asked.
pub struct Owner {
    /// For whoever measures them.
    pub workers: Workers,
    pub wire: WireHandle,
    pub service: Service,
    pub desk: Arc<Stub>,
    pub echo: Arc<Echo>,
    pub drain: drain::Trigger,
}

impl Owner {
    pub fn start() -> Self {
        Self::start_as("larder", None, Stub::new("b"), Echo::new())
    }

    pub fn start_on(config: WireConfig) -> Self {
        Self::start_with(config, "larder", None, Stub::new("b"), Echo::new())
    }

    pub fn start_as(cluster: &str, tls: Option<Tls>, desk: Stub, echo: Echo) -> Self {
        Self::start_with(wire_config(), cluster, tls, desk, echo)
    }

    fn start_with(limits: WireConfig, cluster: &str, tls: Option<Tls>, desk: Stub, echo: Echo) -> Self {
        let workers = Workers::start(1).unwrap();
        let (drain, watch) = drain::channel();
        let (desk, echo) = (Arc::new(desk), Arc::new(echo));
        let config = ServiceConfig { cluster: cluster.to_owned(), clock: Clock::start() };
        let service = Service::new(config, desk.clone(), echo.clone());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let wire = Wire::start(&workers, listener, limits, tls, service.clone(), watch).unwrap();
        Self { workers, wire, service, desk, echo, drain }
    }

    pub fn address(&self) -> String {
        self.wire.address().to_string()
    }

    pub fn id(&self) -> MemberId {
        MemberId::clone(&self.desk.me)
    }
}

/// The replica `a`, which asks.
pub struct Asker {
    pub peers: Peers,
    pub desk: Arc<Stub>,
}

impl Asker {
    pub fn new() -> Self {
        Self::new_as("larder", None, Stub::new("a"))
    }

    pub fn new_as(cluster: &str, tls: Option<Tls>, desk: Stub) -> Self {
        let desk = Arc::new(desk);
        let peers = Peers::new(PeersConfig { cluster: cluster.to_owned(), tls, clock: Clock::start() });
        peers.attach(desk.clone());
        Self { peers, desk }
    }

    pub async fn call(
        &self,
        address: &str,
        to: &MemberId,
        request: Request<Name>,
    ) -> Result<Reply, larder::server::peer::CallError> {
        self.peers.call(address, self.desk.say(to), request).await
    }
}

pub fn get(message: impl Into<Bytes>) -> Forward {
    Forward {
        method: Method::Get,
        message: message.into(),
        space: AccountId::new("team-7").unwrap(),
        payer: None,
        deadline: None,
        dry_run: false,
        trace: Traced::No,
    }
}

/// A topology in which only these are present.
pub fn topology(members: &[(&MemberId, &str)]) -> Snapshot {
    Snapshot::new(view(members))
}

/// What lists these, and has heard from them.
pub fn view(members: &[(&MemberId, &str)]) -> View {
    let endpoints = members.iter().map(|(id, peer)| Endpoint {
        uid: Uid::new(id.uid.as_str()),
        address: (*peer).into(),
        peer: (*peer).into(),
        serves: true,
    });
    let mut view = View::of_list(1, [("slice".into(), 1, endpoints.collect())]);
    for (id, _) in members {
        view = view.with_boot(id);
    }
    view
}

/// Waits until something is so.
pub async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let waited = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(10), waited).await.is_ok(), "not within 10 s: {what}");
}
