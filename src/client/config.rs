//! What a client is made with.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::observe::Observer;
use super::retry::Retries;
use crate::cache::limits::MAX_PIPELINE_CALLS;
use crate::rpc::channels::{Target, Tls};
use crate::rpc::token::Token;

/// Where to begin, as whom, and how calls behave. Prints no secret.
#[derive(Clone, Debug)]
pub struct Config {
    /// Replicas to begin with, tried in turn. A name with several addresses stands for all of them. One is enough if it is
    /// there when the client begins and whenever all members that it knows are gone.
    pub seeds: Vec<Target>,
    /// Which replica a call goes to.
    pub routing: Routing,
    /// The account's token; `None`: send none (health needs none).
    pub token: Option<Token>,
    /// A file that holds the token; wins over `token`. Read again when it changes, looked at once a second at most.
    pub token_file: Option<PathBuf>,
    /// TLS options; the default for an `https://` target trusts the system's authorities. They hold for members too, which
    /// must show a certificate for the same name as the seed.
    pub tls: Tls,
    /// How long a call may take in all: connecting, waiting for its turn, and retries.
    pub timeout: Duration,
    /// How long a dump may take from its beginning to its end; it can be resumed.
    pub stream_timeout: Duration,
    /// How much is done again after a failure.
    pub retries: Retries,
    /// After how long a read without an answer is sent to another replica too, within the budget of the retries; the first
    /// answer counts. `None`: never. About the 99th percentile of a read is a good choice.
    pub hedge: Option<Duration>,
    /// Connections to each member, at least 1; each is served by one worker there. Calls that are made together share one, and so
    /// do calls on one key that are under way together.
    pub connections: usize,
    /// Calls on one connection that are sent and have no answer, 1 to [`Self::MAX_IN_FLIGHT`]; more wait for their turn.
    pub in_flight: usize,
    /// Send each call on a stream of its own, as stock clients do, in place of sharing a pipeline. For comparison.
    pub unary: bool,
    /// Ask what would happen: every check is made, nothing is changed.
    pub dry_run: bool,
    /// Who is told of each call; without one, calls cost nothing for it.
    pub observer: Option<Arc<dyn Observer>>,
}

/// Which replica a call goes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Routing {
    /// The one that owns the key; one of the seeds while the members are not known, or cannot be reached from here.
    #[default]
    Owners,
    /// One of the seeds, always: it forwards what is not its own. For clients that must not connect to anything else.
    Seeds,
}

impl Config {
    /// How long a call may take unless told otherwise: a cache that does not answer within a second is no cache.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);

    /// How long a dump may take unless told otherwise: 1 GiB at 300 KiB/s.
    pub const DEFAULT_STREAM_TIMEOUT: Duration = Duration::from_hours(1);

    /// Calls in flight on a connection unless told otherwise.
    pub const DEFAULT_IN_FLIGHT: usize = 512;

    /// Calls in flight on a connection at most: a replica reads no further beyond.
    pub const MAX_IN_FLIGHT: usize = MAX_PIPELINE_CALLS;

    /// The defaults, to begin at one target.
    #[must_use]
    pub fn new(seed: Target) -> Self {
        Self::with_seeds([seed])
    }

    /// The defaults, to begin at any of several targets.
    #[must_use]
    pub fn with_seeds(seeds: impl IntoIterator<Item = Target>) -> Self {
        Self {
            seeds: seeds.into_iter().collect(),
            routing: Routing::default(),
            token: None,
            token_file: None,
            tls: Tls::default(),
            timeout: Self::DEFAULT_TIMEOUT,
            stream_timeout: Self::DEFAULT_STREAM_TIMEOUT,
            retries: Retries::default(),
            hedge: None,
            connections: 1,
            in_flight: Self::DEFAULT_IN_FLIGHT,
            unary: false,
            dry_run: false,
            observer: None,
        }
    }
}
