//! What happened to connections, as plain counters that metrics read.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why a connection ended, or was not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By the client, or after a GOAWAY with everything answered.
    Normally,
    /// At the accept: the connection limit.
    Full,
    /// While handshaking: the oldest of too many.
    Displaced,
    /// TLS failed: not TLS, no common version, no acceptable certificate.
    TlsFailed,
    /// TLS took too long.
    TlsTimeout,
    /// What came is not HTTP/2.
    NotHttp2,
    /// The preface took too long.
    PrefaceTimeout,
    /// A header block or control frame took too long.
    SlowHeaders,
    /// Nothing was heard of the client.
    Silent,
    /// The client took no output.
    Stalled,
    /// After the GOAWAY for idleness or age, by force.
    Grace,
    /// The drain's deadline.
    Drained,
    /// Broken by the client's protocol errors or the network's.
    Failed,
}

impl Ended {
    /// All reasons, in the order of their declaration.
    pub const ALL: [Self; 13] = [
        Self::Normally,
        Self::Full,
        Self::Displaced,
        Self::TlsFailed,
        Self::TlsTimeout,
        Self::NotHttp2,
        Self::PrefaceTimeout,
        Self::SlowHeaders,
        Self::Silent,
        Self::Stalled,
        Self::Grace,
        Self::Drained,
        Self::Failed,
    ];

    /// The label of a metric.
    pub fn name(self) -> &'static str {
        match self {
            Self::Normally => "normally",
            Self::Full => "full",
            Self::Displaced => "displaced",
            Self::TlsFailed => "tls_failed",
            Self::TlsTimeout => "tls_timeout",
            Self::NotHttp2 => "not_http2",
            Self::PrefaceTimeout => "preface_timeout",
            Self::SlowHeaders => "slow_headers",
            Self::Silent => "silent",
            Self::Stalled => "stalled",
            Self::Grace => "grace",
            Self::Drained => "drained",
            Self::Failed => "failed",
        }
    }
}

/// The counters of one listener. All only grow, except the two gauges.
#[derive(Debug, Default)]
pub struct WireStats {
    accepted: AtomicU64,
    accept_errors: AtomicU64,
    open: AtomicU64,
    handshaking: AtomicU64,
    goaways_for_age: AtomicU64,
    goaways_for_idleness: AtomicU64,
    ended: [AtomicU64; Ended::ALL.len()],
}

impl WireStats {
    /// Connections accepted from the listener.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Accepts that failed, such as for lack of file descriptors.
    pub fn accept_errors(&self) -> u64 {
        self.accept_errors.load(Ordering::Relaxed)
    }

    /// Gauge: connections through TLS and preface.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Gauge: connections not yet through TLS and preface.
    pub fn handshaking(&self) -> u64 {
        self.handshaking.load(Ordering::Relaxed)
    }

    /// GOAWAYs sent because of age.
    pub fn goaways_for_age(&self) -> u64 {
        self.goaways_for_age.load(Ordering::Relaxed)
    }

    /// GOAWAYs sent because of idleness.
    pub fn goaways_for_idleness(&self) -> u64 {
        self.goaways_for_idleness.load(Ordering::Relaxed)
    }

    /// Connections that ended for a reason.
    pub fn ended(&self, reason: Ended) -> u64 {
        self.ended[reason as usize].load(Ordering::Relaxed)
    }

    pub(in crate::server) fn count_accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub(in crate::server) fn count_accept_error(&self) {
        self.accept_errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(in crate::server) fn count_ended(&self, reason: Ended) {
        self.ended[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(in crate::server) fn count_goaway_for_age(&self) {
        self.goaways_for_age.fetch_add(1, Ordering::Relaxed);
    }

    pub(in crate::server) fn count_goaway_for_idleness(&self) {
        self.goaways_for_idleness.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set_gauges(&self, open: usize, handshaking: usize) {
        self.open.store(open as u64, Ordering::Relaxed);
        self.handshaking.store(handshaking as u64, Ordering::Relaxed);
    }
}
