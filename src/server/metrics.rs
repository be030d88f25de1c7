//! What is counted. Each worker counts in memory of its own, with no label look-up and no lock, so that a call pays a few
//! uncontended additions; `render` adds the workers up when somebody asks. Names follow Prometheus, durations are in seconds.
//!
//! Labels are bounded: methods are a table, codes are gRPC's 17, accounts are those of the wall's registry.

mod around;
mod cluster;
mod family;
mod peers;
mod process;
mod push;
mod render;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::rpc::failure::Failure;
use crate::server::accept::WireStats;
use crate::server::forward::Forwarded;
use crate::server::method::{Access, Method};
use crate::server::tls::Tls;

pub use peers::PeerSources;
pub use push::{PushConfig, Pusher, start};
pub use render::Sources;

/// Every counter of a replica. Shared by all its parts.
#[derive(Debug)]
pub struct Metrics {
    workers: Box<[Arc<WorkerMetrics>]>,
    started: Instant,
    /// What was carried out for other replicas, by method and code; the last: it was not this replica's.
    carried_out: [[AtomicU64; CODES + 1]; Method::COUNT],
    /// The wire's own counters, once it runs.
    wire: OnceLock<Arc<WireStats>>,
    /// The listener's certificates, if it has any.
    tls: OnceLock<Tls>,
    /// Once other replicas can call.
    peers: OnceLock<PeerSources>,
}

/// What one worker counts.
#[derive(Debug)]
pub struct WorkerMetrics {
    methods: [MethodMetrics; Method::COUNT],
    refused: [AtomicU64; Refusal::COUNT],
    /// Calls in progress on this worker, but for probes; the wall's bound is on it.
    pub in_progress: AtomicU64,
}

/// What is counted of a method.
#[derive(Debug)]
struct MethodMetrics {
    codes: [AtomicU64; CODES],
    buckets: [AtomicU64; BUCKETS_US.len() + 1],
    sum_ns: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    in_progress: AtomicU64,
}

/// Why the wall refused a call before its operation ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Refusal {
    Metadata,
    ServerRate,
    Overload,
    Token,
    AccountRate,
    ReadOnly,
    Deadline,
    NotServing,
    Message,
}

/// gRPC's codes, 0 to 16.
pub const CODES: usize = 17;

/// Upper bounds of the histogram's buckets in microseconds: 10 us to 10 s.
const BUCKETS_US: [u64; 19] = [
    10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000,
    2_000_000, 5_000_000, 10_000_000,
];

impl Metrics {
    /// Counters for so many workers, at least one.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            workers: (0..workers.max(1)).map(|_| Arc::new(WorkerMetrics::new())).collect(),
            started: Instant::now(),
            carried_out: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))),
            wire: OnceLock::new(),
            tls: OnceLock::new(),
            peers: OnceLock::new(),
        }
    }

    /// Takes up the counters of the wire, which starts after everything that it serves. The first call counts.
    pub fn attach(&self, wire: Arc<WireStats>, tls: Option<Tls>) {
        // A second wire would be a mistake of the composition root, and harmless.
        let _ = self.wire.set(wire);
        if let Some(tls) = tls {
            let _ = self.tls.set(tls);
        }
    }

    /// Takes up the counters of the connections between replicas. The first call counts.
    pub fn attach_peers(&self, peers: PeerSources) {
        let _ = self.peers.set(peers);
    }

    /// Connections that are open; 0 before the wire runs.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.wire.get().map_or(0, |wire| wire.open())
    }

    /// The counters of a worker; numbers past the last share one.
    #[must_use]
    pub fn worker(&self, number: usize) -> &Arc<WorkerMetrics> {
        &self.workers[number % self.workers.len()]
    }

    /// Since when the replica counts.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Calls of a method that ended with a code, over all workers.
    #[must_use]
    pub fn calls(&self, method: Method, code: tonic::Code) -> u64 {
        self.sum(|worker| &worker.methods[method.index()].codes[code as usize])
    }

    /// Calls that ended, of all methods but probes, over all workers; items of batches and pipelines are calls.
    #[must_use]
    pub fn ended(&self) -> u64 {
        let methods = Method::all().filter(|method| method.traits().access != Access::Probe);
        methods
            .map(|method| {
                (0..CODES).map(|code| self.sum(|worker| &worker.methods[method.index()].codes[code])).sum::<u64>()
            })
            .sum()
    }

    /// Calls of a method that are in progress, over all workers.
    #[must_use]
    pub fn in_progress(&self, method: Method) -> u64 {
        self.sum(|worker| &worker.methods[method.index()].in_progress)
    }

    /// Calls refused by the wall for a reason, over all workers.
    #[must_use]
    pub fn refused(&self, refusal: Refusal) -> u64 {
        self.sum(|worker| &worker.refused[refusal as usize])
    }

    /// An operation that another replica forwarded is over.
    pub fn carry_out(&self, method: Method, forwarded: &Forwarded) {
        let code = match forwarded {
            Forwarded::Answer(Ok(_)) => tonic::Code::Ok as usize,
            Forwarded::Answer(Err(failure)) => failure.code() as usize,
            Forwarded::Moved => CODES,
        };
        self.carried_out[method.index()][code].fetch_add(1, Ordering::Relaxed);
    }

    /// Operations that were carried out for other replicas and ended with a code; none: they were not this replica's.
    #[must_use]
    pub fn carried_out(&self, method: Method, code: Option<tonic::Code>) -> u64 {
        self.carried_out[method.index()][code.map_or(CODES, |code| code as usize)].load(Ordering::Relaxed)
    }

    fn sum(&self, of: impl Fn(&WorkerMetrics) -> &AtomicU64) -> u64 {
        self.workers.iter().map(|worker| of(worker).load(Ordering::Relaxed)).sum()
    }
}

impl WorkerMetrics {
    fn new() -> Self {
        Self {
            methods: std::array::from_fn(|_| MethodMetrics::new()),
            refused: std::array::from_fn(|_| AtomicU64::new(0)),
            in_progress: AtomicU64::new(0),
        }
    }

    /// A call begins.
    pub fn begin(&self, method: Method) {
        if method.traits().access != Access::Probe {
            self.in_progress.fetch_add(1, Ordering::Relaxed);
        }
        self.methods[method.index()].in_progress.fetch_add(1, Ordering::Relaxed);
    }

    /// A call that began has ended.
    pub fn end(&self, method: Method, code: tonic::Code, took: Duration, bytes_in: u64, bytes_out: u64) {
        if method.traits().access != Access::Probe {
            self.in_progress.fetch_sub(1, Ordering::Relaxed);
        }
        self.methods[method.index()].in_progress.fetch_sub(1, Ordering::Relaxed);
        self.count(method, code, 1, took, bytes_in, bytes_out);
    }

    /// Counts `calls` calls that took `each` and have `bytes_in` and `bytes_out` together.
    pub fn count(&self, method: Method, code: tonic::Code, calls: u64, each: Duration, bytes_in: u64, bytes_out: u64) {
        let cells = &self.methods[method.index()];
        cells.codes[code as usize].fetch_add(calls, Ordering::Relaxed);
        let ns = u64::try_from(each.as_nanos()).unwrap_or(u64::MAX);
        // From the front: nearly every call is in the first buckets.
        let bucket = BUCKETS_US.iter().position(|bound| ns <= bound * 1000).unwrap_or(BUCKETS_US.len());
        cells.buckets[bucket].fetch_add(calls, Ordering::Relaxed);
        cells.sum_ns.fetch_add(ns.saturating_mul(calls), Ordering::Relaxed);
        cells.bytes_in.fetch_add(bytes_in, Ordering::Relaxed);
        cells.bytes_out.fetch_add(bytes_out, Ordering::Relaxed);
    }

    /// The wall refused a call.
    pub fn refuse(&self, refusal: Refusal) {
        self.refused[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }
}

impl MethodMetrics {
    fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            codes: std::array::from_fn(|_| zero()),
            buckets: std::array::from_fn(|_| zero()),
            sum_ns: zero(),
            bytes_in: zero(),
            bytes_out: zero(),
            in_progress: zero(),
        }
    }
}

impl Refusal {
    const COUNT: usize = Self::Message as usize + 1;
    const ALL: [(Self, &'static str); Self::COUNT] = [
        (Self::Metadata, "metadata"),
        (Self::ServerRate, "server_rate"),
        (Self::Overload, "overload"),
        (Self::Token, "token"),
        (Self::AccountRate, "account_rate"),
        (Self::ReadOnly, "read_only"),
        (Self::Deadline, "deadline"),
        (Self::NotServing, "not_serving"),
        (Self::Message, "message"),
    ];

    /// Which refusal a failure is, if the wall made it.
    #[must_use]
    pub fn of(failure: &Failure) -> Option<Self> {
        Some(match failure {
            Failure::MetadataTooLarge { .. } | Failure::Metadata { .. } | Failure::Encoding(_) => Self::Metadata,
            Failure::ServerRate { .. } => Self::ServerRate,
            Failure::Overloaded { .. } => Self::Overload,
            Failure::TokenMissing | Failure::TokenUnknown | Failure::AccountsUnavailable => Self::Token,
            Failure::AccountRate { .. } => Self::AccountRate,
            Failure::TokenReadOnly => Self::ReadOnly,
            Failure::DeadlineExceeded => Self::Deadline,
            Failure::Starting | Failure::Draining => Self::NotServing,
            Failure::MessageTooLarge { .. } | Failure::Malformed(_) => Self::Message,
            _ => return None,
        })
    }
}
