//! Accounts from a gRPC service, asked on a caller's behalf and remembered.
//!
//! A caller waits only if nothing usable is known of his token. Then he joins the question that is under way for it, or
//! becomes the one whose deadline, trace and dry run the question carries; it goes on when he goes away. While the service
//! cannot be asked, old answers serve for [`Policy::max_stale`], and it is tried again ever more rarely.
//! It is believed at once when it says that a token is unknown.
//!
//! What an attacker with wrong tokens can do: have each asked once per [`Policy::negative_ttl`], at most [`MAX_QUESTIONS`]
//! at once. He pushes no right token out of the memory ([`cache`](super::cache)), nor the questions that renew answers.
//!
//! Everything runs on one runtime, on which the channel lives; callers on other runtimes wait for its answer.

mod ask;
mod flight;
mod log;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};
use tonic::transport::Channel;

use self::ask::{Ask, AskError, GrpcAsk};
use self::flight::{Boarding, Desk, Looked};
use self::log::AskLog;
use super::book::check_size;
pub use super::cache::Policy;
use super::cache::{AnswerCache, Verdict};
use super::hash::Digest;
use super::{Asking, Grant};
use crate::rpc::channels::{self, ChannelError, Target, TargetError, Tls};
use crate::rpc::failure::Failure;

/// How to ask an Accounts service.
#[derive(Clone, Debug)]
pub struct RemoteConfig {
    /// `http://host:port` or `https://host:port`.
    pub url: String,
    pub service: RemoteService,
    /// PEM file of the authorities that its certificate may come from; `None`: the system's.
    pub ca: Option<PathBuf>,
    pub policy: Policy,
    /// The longest time for one question; callers without a deadline wait that long.
    pub timeout: Duration,
}

/// Which API the service has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RemoteService {
    /// `larder.v1.Accounts`; where that is UNIMPLEMENTED, `rpc.Accounts`. The first that answers stays.
    #[default]
    Auto,
    Larder,
    Tutorial,
}

/// Why an Accounts service cannot even be configured.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    #[error("the Accounts service cannot be asked: {0}")]
    Url(TargetError),
    #[error("the Accounts service cannot be asked: {0}")]
    Channel(ChannelError),
}

/// Accounts from a gRPC service. Cheap to clone; all clones share one memory.
#[derive(Clone)]
pub struct Remote(Arc<Inner>);

/// How the service and its memory are doing, for metrics. Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RemoteStats {
    /// Questions asked, and how they ended.
    pub known: u64,
    pub unknown: u64,
    pub failed: u64,
    /// Calls that an old answer served while the service could not be asked.
    pub stale: u64,
    /// Calls turned away because too many questions were under way.
    pub refused: u64,
    /// Tokens that are remembered, and questions under way, now.
    pub remembered: u64,
    pub asking: u64,
}

struct Inner {
    ask: Box<dyn Ask>,
    home: Handle,
    policy: Policy,
    timeout: Duration,
    desk: Mutex<Desk>,
    generation: AtomicU64,
    counters: Counters,
    log: AskLog,
}

#[derive(Debug, Default)]
struct Counters {
    known: AtomicU64,
    unknown: AtomicU64,
    failed: AtomicU64,
    stale: AtomicU64,
    refused: AtomicU64,
}

/// Questions under way for callers who wait, each about another token.
pub const MAX_QUESTIONS: usize = 256;

/// Questions under way, on top of these, to renew answers.
pub const MAX_RENEWALS: usize = 64;

/// Tokens of each kind (known, other) that are remembered: some 12 MiB when both are full.
pub const DEFAULT_MAX_TOKENS: usize = 32_768;

/// The longest time for one question.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a caller for whom there is an old answer waits for a new one.
const PATIENCE: Duration = Duration::from_millis(250);

impl Default for Policy {
    fn default() -> Self {
        Self {
            ttl: Duration::from_mins(1),
            negative_ttl: Duration::from_secs(5),
            max_stale: Duration::from_hours(1),
            max_tokens: DEFAULT_MAX_TOKENS,
        }
    }
}

impl Remote {
    /// Prepares to ask; connects when first asked. `home` is the runtime on which questions run.
    ///
    /// # Errors
    /// When the URL or the CA cannot be used.
    pub fn new(config: &RemoteConfig, home: &Handle) -> Result<Self, RemoteError> {
        let channel = connect(config, home)?;
        Ok(Self::asking(Box::new(GrpcAsk::new(channel, config.service)), config.policy, config.timeout, home))
    }

    fn asking(ask: Box<dyn Ask>, policy: Policy, timeout: Duration, home: &Handle) -> Self {
        Self(Arc::new(Inner {
            ask,
            home: home.clone(),
            policy,
            timeout,
            desk: Mutex::new(Desk::new(AnswerCache::new(policy))),
            generation: AtomicU64::new(0),
            counters: Counters::default(),
            log: AskLog::default(),
        }))
    }

    /// What a token grants, if that can be said without waiting.
    #[must_use]
    pub fn cached(&self, token: &str) -> Option<Result<Grant, Failure>> {
        if let Err(failure) = check_size(token) {
            return Some(Err(failure));
        }
        let now = Instant::now();
        let digest = Digest::of(token);
        let (looked, renewal) = self.0.desk.lock().look(digest, now, self.0.timeout);
        if let Some(renewal) = renewal {
            renewal.start(&self.0, token, &Asking::default());
        }
        match looked {
            Looked::Answer(answer) => Some(answer),
            Looked::Stale(grant) => Some(Ok(self.stale(grant))),
            Looked::Ask { .. } => None,
        }
    }

    /// What a token grants.
    ///
    /// # Errors
    /// When it is empty or unknown, when the service cannot be asked, and when the deadline passes meanwhile.
    pub async fn grant(&self, token: &str, asking: &Asking) -> Result<Grant, Failure> {
        check_size(token)?;
        let digest = Digest::of(token);
        let give_up = asking.deadline.unwrap_or_else(|| Instant::now() + self.0.timeout);
        loop {
            let (boarding, departure) = self.0.desk.lock().board(digest, Instant::now(), give_up, self.0.timeout);
            if let Some(departure) = departure {
                departure.start(&self.0, token, asking);
            }
            let (flight, stale) = match boarding {
                Boarding::Answer(answer) => return answer,
                Boarding::Stale(grant) => return Ok(self.stale(grant)),
                Boarding::Late => return Err(late(asking)),
                Boarding::Full => {
                    self.0.counters.refused.fetch_add(1, Ordering::Relaxed);
                    return Err(Failure::AccountsUnavailable);
                }
                Boarding::Wait { flight, stale } => (flight, stale),
            };
            let until = if stale.is_some() { flight.patience(Instant::now(), give_up) } else { give_up };
            match (timeout_at(until, flight.landed()).await, stale) {
                (Ok(Some(Ok(Verdict::Unknown))), _) => return Err(Failure::TokenUnknown),
                (Ok(Some(Ok(Verdict::Known { account, read_only }))), _) => {
                    let now = Instant::now();
                    return Ok(self.0.policy.grant(account, read_only, now, now));
                }
                (_, Some(grant)) => return Ok(self.stale(grant)),
                (Err(_), None) => return Err(late(asking)),
                // The deadline that passed may be that of another caller. If it is our own, the desk says so.
                (Ok(Some(Err(AskError::Deadline))), None) => {}
                (Ok(_), None) => return Err(Failure::AccountsUnavailable),
            }
        }
    }

    /// Grows when an answer contradicts an earlier one.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    #[must_use]
    pub fn stats(&self) -> RemoteStats {
        let (remembered, asking) = self.0.desk.lock().sizes();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { known, unknown, failed, stale, refused } = &self.0.counters;
        RemoteStats {
            known: count(known),
            unknown: count(unknown),
            failed: count(failed),
            stale: count(stale),
            refused: count(refused),
            remembered: remembered as u64,
            asking: asking as u64,
        }
    }

    fn stale(&self, grant: Grant) -> Grant {
        self.0.counters.stale.fetch_add(1, Ordering::Relaxed);
        grant
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("policy", &self.0.policy).field("stats", &self.stats()).finish_non_exhaustive()
    }
}

fn late(asking: &Asking) -> Failure {
    if asking.deadline.is_some() { Failure::DeadlineExceeded } else { Failure::AccountsUnavailable }
}

/// The channel belongs to the runtime on which it is made.
fn connect(config: &RemoteConfig, home: &Handle) -> Result<Channel, RemoteError> {
    let target: Target = config.url.parse().map_err(RemoteError::Url)?;
    let tls = Tls { ca: config.ca.clone(), ..Tls::default() };
    let _entered = home.enter();
    channels::connect(&target, &tls).map_err(RemoteError::Channel)
}

#[cfg(test)]
mod tests;
