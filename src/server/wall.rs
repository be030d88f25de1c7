//! The outer wall: what every call passes before its operation runs. It is a value and not a stack of layers, because an item
//! of a batch or a pipeline is a call too and passes the same checks (docs/adr/0001-the-wall-is-a-value.md).
//!
//! The steps, outermost first, each with why it stands where it stands:
//! 1. trace, metrics, access log: outermost, so that they also see what the others refuse ([`Call`]);
//! 2. metadata size: before anything reads the metadata;
//! 3. serving: a replica that starts has nothing to say, not even how fast one may ask;
//! 4. server rate: before the method is told from nonsense and before the token is looked at, since guessing costs us a hash;
//! 5. load shedding: a bound on calls in progress, before work is begun that others would wait for;
//! 6. deadline and dry run: parsing, cheaper than a token, and a call without time left must not spend a token;
//! 7. authentication: says whose rate and rights hold;
//! 8. rights: a read-only token changes nothing, whatever the message says;
//! 9. account rate: last, for it needs the account; still before the message is read, so that a refused call costs its
//!    headers only.

pub mod authenticate;
pub mod registry;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::Code;

use self::authenticate::Remembered;
use self::registry::{Accounted, Principal};
use super::accounts::Accounts;
use super::call::Call;
use super::clock::Clock;
use super::forward::Cluster;
use super::health::Health;
use super::held::Held;
use super::method::{Access, Kind, Method};
use super::metrics::{Metrics, Sources, WorkerMetrics};
use super::topology::Watchers;
use super::trace::{Outcome, Span, Traced, Tracer, names};
use crate::cache::key::{AccountId, TUTORIAL_ACCOUNT};
use crate::cache::limits::{MAX_TTL_MS, STOCK_MESSAGE_BYTES};
use crate::cache::quota::{Tenant, TokenBucket};
use crate::cache::store::Store;
use crate::rpc::failure::Failure;
use crate::rpc::metadata;
use crate::rpc::token::Token;
use crate::rpc::trace::Trace;

/// The wall's limits; what an operator may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WallConfig {
    /// Calls per second that the replica takes from all callers together; `None`: no limit.
    pub requests_per_second: Option<u32>,
    /// Calls that may come at once on top of it.
    pub burst: u32,
    /// Calls in progress on one worker, streams included, beyond which more are refused; calls without a token, beyond half.
    pub max_calls_per_worker: u64,
    /// Bytes of a call's metadata: names, values and 32 for each, as HTTP/2 counts.
    pub max_metadata_bytes: usize,
    /// Bytes of one request message, after decompression.
    pub max_message_bytes: usize,
    /// Bytes that calls may hold together: of requests that have not come whole, and of answers that are not taken.
    pub max_held_bytes: u64,
    /// How long a unary call may take that says nothing; also what a longer `grpc-timeout` of a unary call is cut to.
    /// Streams have the deadline of their caller only, but a request that is one message must be there within this time.
    pub max_unary_time: Duration,
    /// The longest time to live that any account may ask for, in milliseconds.
    pub max_ttl_ms: u64,
    /// Whether the tutorial's API is served.
    pub tutorial_api: bool,
}

/// What the service is made of; the composition root fills it in.
pub struct Parts {
    /// The other replicas; none: this one is alone, and everything is its.
    pub cluster: Option<Cluster>,
    pub store: Arc<Store>,
    pub accounts: Accounts,
    pub config: WallConfig,
    pub clock: Clock,
    pub health: Health,
    pub metrics: Arc<Metrics>,
    /// None: nothing is recorded.
    pub tracer: Option<Tracer>,
}

/// The wall of a replica, shared by all its connections.
pub struct Wall {
    /// None: this replica is alone.
    pub cluster: Option<Cluster>,
    pub store: Arc<Store>,
    pub accounts: Accounts,
    pub config: WallConfig,
    pub clock: Clock,
    pub health: Health,
    pub metrics: Arc<Metrics>,
    /// None: nothing is recorded.
    pub tracer: Option<Tracer>,
    pub accounted: Arc<Accounted>,
    pub held: Arc<Held>,
    pub watchers: Watchers,
    /// The tutorial's key space.
    pub tutorial: Tenant,
    bucket: Option<TokenBucket>,
    /// The generation of accounts whose limits were applied last.
    applied: Mutex<Option<u64>>,
}

/// One connection's side of the wall.
pub struct Connection {
    pub wall: Arc<Wall>,
    pub peer: SocketAddr,
    pub worker: Arc<WorkerMetrics>,
    remembered: Mutex<Option<Remembered>>,
}

/// What is left to do after the headers were checked.
#[derive(Debug)]
pub enum Admission {
    /// Nothing: read the message.
    In,
    /// The accounts must be asked, which takes a while.
    Ask(Token),
    /// The message must say the token.
    InMessage,
}

/// How long a caller of an overloaded replica should stay away: about what the calls in progress take.
const OVERLOAD_RETRY: Duration = Duration::from_millis(100);

/// What HTTP/2 adds for each header field (RFC 9113 §6.5.2).
const FIELD_OVERHEAD_BYTES: usize = 32;

impl Default for WallConfig {
    fn default() -> Self {
        Self {
            requests_per_second: None,
            burst: 0,
            max_calls_per_worker: 4096,
            max_metadata_bytes: 16 * 1024,
            max_message_bytes: STOCK_MESSAGE_BYTES,
            max_held_bytes: 256 * 1024 * 1024,
            max_unary_time: Duration::from_secs(30),
            max_ttl_ms: MAX_TTL_MS,
            tutorial_api: false,
        }
    }
}

impl Wall {
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { cluster, store, accounts, config, clock, health, metrics, tracer } = parts;
        // "tutorial" is a valid id by its spelling, so this cannot fail.
        #[expect(clippy::expect_used, reason = "a constant that a test checks")]
        let id = AccountId::new(TUTORIAL_ACCOUNT).expect("the tutorial's account has a valid id");
        let wall = Self {
            cluster,
            tutorial: store.tenant(&id),
            accounted: Arc::new(Accounted::new(store.clone())),
            held: Held::new(config.max_held_bytes),
            watchers: Watchers::default(),
            bucket: config.requests_per_second.map(|rate| TokenBucket::new(rate, config.burst)),
            applied: Mutex::new(None),
            store,
            accounts,
            config,
            clock,
            health,
            metrics,
            tracer,
        };
        wall.apply_accounts();
        Arc::new(wall)
    }

    /// Takes over budgets and rates when the accounts have changed. Called by the first call that notices, and by whoever
    /// reloads them, so that a guarantee holds although its account is silent.
    pub fn apply_accounts(&self) {
        let generation = self.accounts.generation();
        let mut applied = self.applied.lock();
        if *applied != Some(generation) {
            let accounts = self.accounts.all();
            self.accounted.apply(&accounts);
            // A remote service names only those that are asked about.
            if matches!(self.accounts, Accounts::Embedded(_)) {
                self.accounted.retire_others(&accounts);
            }
            *applied = Some(generation);
        }
    }

    /// What an answer says of the members; nothing where there are no others.
    #[must_use]
    pub fn hint(&self) -> Option<HeaderValue> {
        self.cluster.as_ref().map(|cluster| cluster.handoff.hint())
    }

    /// What the metrics are rendered from.
    #[must_use]
    pub fn sources(&self) -> Sources {
        let handoff = self.cluster.as_ref().map(|cluster| cluster.handoff.clone());
        let (metrics, store, accounts) = (self.metrics.clone(), self.store.clone(), self.accounted.clone());
        let (source, held, tracer) = (self.accounts.clone(), self.held.clone(), self.tracer.clone());
        Sources { metrics, store, accounts, source, held, tracer, handoff }
    }

    /// A connection's side of the wall.
    #[must_use]
    pub fn connection(self: &Arc<Self>, peer: SocketAddr, worker: usize) -> Arc<Connection> {
        let worker = self.metrics.worker(worker).clone();
        Arc::new(Connection { wall: self.clone(), peer, worker, remembered: Mutex::new(None) })
    }

    /// Takes one call from the server's rate.
    ///
    /// # Errors
    /// [`Failure::ServerRate`].
    pub fn take(&self, now_us: u64) -> Result<(), Failure> {
        let Some(bucket) = &self.bucket else { return Ok(()) };
        let limit = self.config.requests_per_second.unwrap_or_default();
        bucket.try_take(now_us).map_err(|retry_after| Failure::ServerRate { limit, retry_after })
    }

    /// The wall for an item of a batch or a pipeline: both rates. The rest holds for the enclosing call, or is the item's own
    /// affair (rights, deadline, dry run).
    ///
    /// # Errors
    /// [`Failure::ServerRate`], [`Failure::AccountRate`].
    pub fn take_item(&self, principal: &Principal, now_us: u64) -> Result<(), Failure> {
        self.take(now_us)?;
        principal.state.take(now_us)
    }

    /// Ends the span of a call, or of an item in one, as its caller sees it.
    pub fn end_span(&self, span: &Span, method: Method, code: Code) {
        if let Some(cluster) = &self.cluster {
            span.note(names::TOPOLOGY, cluster.digest());
            if method.has_key()
                && !span.was_forwarded()
                && let Some(me) = cluster.address()
            {
                span.note(names::OWNER, me);
            }
        }
        if let Some(outcome) = Outcome::of_read(method, code) {
            span.outcome_unless_known(outcome);
        }
        span.end(code);
    }

    fn has(&self, method: Method) -> bool {
        method != Method::Unknown && (self.config.tutorial_api || !method.is_tutorial())
    }
}

impl Connection {
    /// Passes a call's headers through the wall. The call is begun in any case, so that a refusal is counted and logged.
    pub fn admit(self: &Arc<Self>, path: &str, headers: &HeaderMap) -> (Call, Result<Admission, Failure>) {
        let method = Method::of(path);
        let method = if self.wall.has(method) { method } else { Method::Unknown };
        let mut call = Call::begin(self.clone(), method);
        let admission = self.check(&mut call, path, headers);
        (call, admission)
    }

    fn check(&self, call: &mut Call, path: &str, headers: &HeaderMap) -> Result<Admission, Failure> {
        let wall = &*self.wall;
        let traits = call.method.traits();
        let seen = Seen::of(headers);
        if traits.access != Access::Probe {
            call.traced = self.trace(&seen, traits.name, headers);
        }
        if seen.bytes > wall.config.max_metadata_bytes {
            return Err(Failure::MetadataTooLarge { limit: wall.config.max_metadata_bytes });
        }
        if traits.access != Access::Probe {
            if wall.health.is_starting() {
                return Err(Failure::Starting);
            }
            if wall.bucket.is_some() {
                wall.take(wall.clock.us_at(call.started.into_std()))?;
            }
            self.shed(traits.access == Access::Open)?;
        }
        if call.method == Method::Unknown {
            return Err(Failure::UnknownMethod(path.chars().take(MAX_PATH_CHARS).collect()));
        }
        call.deadline = deadline(headers, traits.kind, call.started, wall.config.max_unary_time)?;
        if seen.dry_run {
            call.dry_run = metadata::dry_run(headers)?;
        }
        match traits.access {
            Access::Open | Access::Probe => Ok(Admission::In),
            Access::Read | Access::Write => {
                let admission = self.authenticate(call, headers)?;
                if matches!(admission, Admission::InMessage) {
                    self.shed(true)?;
                }
                Ok(admission)
            }
        }
    }

    /// A call's place in its trace; its span begins here, so that it also tells what the wall refuses.
    fn trace(&self, seen: &Seen, name: &'static str, headers: &HeaderMap) -> Traced {
        let parent = if seen.trace { Trace::of(headers) } else { None };
        match &self.wall.tracer {
            None => parent.into(),
            Some(tracer) => tracer.server(name, parent),
        }
    }

    /// Refuses a call that is one too many. Callers who have shown no token may take half of the places: they could hold them
    /// all at no cost, while their messages do not come.
    fn shed(&self, anonymous: bool) -> Result<(), Failure> {
        let most = self.wall.config.max_calls_per_worker;
        let bound = if anonymous { most.div_ceil(2) } else { most };
        if self.worker.in_progress.load(Ordering::Relaxed) > bound {
            return Err(Failure::Overloaded { retry_after: OVERLOAD_RETRY });
        }
        Ok(())
    }

    /// Rights and the account's rate: what is left once the caller is known.
    ///
    /// # Errors
    /// [`Failure::TokenReadOnly`], [`Failure::AccountRate`].
    pub fn enter(&self, call: &mut Call, principal: Arc<Principal>) -> Result<(), Failure> {
        let admitted = if principal.grant.read_only && call.method.traits().access == Access::Write {
            Err(Failure::TokenReadOnly)
        } else {
            principal.state.take(self.wall.clock.us_at(call.started.into_std()))
        };
        call.principal = Some(principal);
        admitted
    }
}

/// Characters of an unknown path that the answer repeats.
const MAX_PATH_CHARS: usize = 200;

/// What one look over all metadata tells: most calls have no dry run and no trace, so nobody need search for them.
#[derive(Default)]
struct Seen {
    bytes: usize,
    dry_run: bool,
    trace: bool,
}

impl Seen {
    fn of(headers: &HeaderMap) -> Self {
        let mut seen = Self::default();
        for (name, value) in headers {
            let name = name.as_str();
            seen.bytes += name.len() + value.len() + FIELD_OVERHEAD_BYTES;
            seen.dry_run |= name == metadata::DRY_RUN;
            seen.trace |= name == metadata::TRACEPARENT;
        }
        seen
    }
}

/// When a call must have ended.
fn deadline(
    headers: &HeaderMap,
    kind: Kind,
    started: Instant,
    max_unary_time: Duration,
) -> Result<Option<Instant>, Failure> {
    let asked = metadata::timeout(headers)?;
    if asked.is_some_and(|timeout| timeout.is_zero()) {
        return Err(Failure::DeadlineExceeded);
    }
    let timeout = match kind {
        Kind::Unary => Some(asked.map_or(max_unary_time, |asked| asked.min(max_unary_time))),
        Kind::Streaming | Kind::Bidirectional => asked,
    };
    Ok(timeout.map(|timeout| started + timeout))
}

impl fmt::Debug for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wall").field("config", &self.config).finish_non_exhaustive()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("peer", &self.peer).finish_non_exhaustive()
    }
}
