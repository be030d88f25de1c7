//! What a client is made with.

use std::time::Duration;

use crate::rpc::channels::{Target, Tls};
use crate::rpc::token::Token;

/// Where to connect to, as whom, and how long to wait. Prints no secret.
#[derive(Clone, Debug)]
pub struct Config {
    /// The server.
    pub target: Target,
    /// The account's token; `None`: send none (health needs none).
    pub token: Option<Token>,
    /// TLS options; the default for an `https://` target trusts the system's authorities.
    pub tls: Tls,
    /// How long a call may take, connecting included.
    pub timeout: Duration,
    /// How long a dump may take from its beginning to its end; it can be resumed.
    pub stream_timeout: Duration,
    /// Ask what would happen: every check is made, nothing is changed.
    pub dry_run: bool,
}

impl Config {
    /// How long a call may take unless told otherwise: a cache that does not answer within a second is no cache.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);

    /// How long a dump may take unless told otherwise: 1 GiB at 300 KiB/s.
    pub const DEFAULT_STREAM_TIMEOUT: Duration = Duration::from_hours(1);

    /// The defaults for a target.
    #[must_use]
    pub fn new(target: Target) -> Self {
        Self {
            target,
            token: None,
            tls: Tls::default(),
            timeout: Self::DEFAULT_TIMEOUT,
            stream_timeout: Self::DEFAULT_STREAM_TIMEOUT,
            dry_run: false,
        }
    }
}
