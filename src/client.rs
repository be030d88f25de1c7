//! The client: what programs and the `larder` command use to talk to Larder, without the server's dependencies.
//!
//! A [`Client`] is made from seeds ([`Config`]), asks one of them who the replicas are, and sends each call to the one that
//! owns its key. Every call has a deadline, which travels with it, is retried where that is safe and worth it ([`Retries`]),
//! and fails with an [`Error`] that says what happened.
//!
//! ```no_run
//! use std::time::Duration;
//! use larder::client::{Client, Config, StoreOptions};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config { token: Some("my-token".parse()?), ..Config::new("127.0.0.1:7070".parse()?) };
//! let client = Client::new(config)?;
//! let options = StoreOptions { ttl: Some(Duration::from_secs(600)), ..StoreOptions::default() };
//! client.store("greeting", "hello", options).await?;
//! let entry = client.get("greeting").await?.expect("it was stored just now");
//! assert_eq!(entry.value, "hello");
//! # Ok(())
//! # }
//! ```

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tokio::time::{Instant, timeout_at};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use self::operation::{Answer, Operation};
use self::place::Place;
use self::shared::{Known, Shared};
use self::stream::{Asked, Ended, ask_one};
use self::values::millis;
use self::watch::{ask_once, frame};
use crate::rpc::failure::Failure;
use crate::rpc::proto::v1;

mod attempt;
mod config;
mod dial;
mod dump;
mod error;
mod lane;
mod many;
mod observe;
mod operation;
mod place;
mod retry;
mod shared;
mod spread;
mod stream;
mod token;
mod topology;
mod values;
mod watch;

pub use config::{Config, Routing};
pub use dump::{Dump, DumpedEntry};
pub use error::{Error, ErrorKind, Sent};
pub use observe::{Counters, EndedCall, Observer, TraceContext};
pub use retry::Retries;
pub use topology::{Member, MemberState, Topology};
pub use values::{Condition, Counted, Entry, Health, IncrementOptions, StoreOptions, Touch, Touched};

pub use crate::rpc::channels::{Target, TargetError, Tls};
pub use crate::rpc::token::{Token, TokenError};

const STATS: &str = "/larder.v1.Cache/Stats";
const HEALTH: &str = "/grpc.health.v1.Health/Check";

/// A client of a cluster. Cheap to clone; clones share the connections.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
    options: CallOptions,
}

/// What is different for some calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct CallOptions {
    timeout: Option<Duration>,
    idempotent: Option<bool>,
}

impl Client {
    /// Makes a client. Connects when the first call needs it.
    ///
    /// # Errors
    /// When there are no seeds, or the TLS options or the token file do not work. Whether a server answers shows in the first
    /// call.
    pub fn new(config: Config) -> Result<Self, Error> {
        Ok(Self { shared: Shared::new(config)?, options: CallOptions::default() })
    }

    /// The same client, whose calls may take so long.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # async fn example(client: larder::client::Client) -> Result<(), larder::client::Error> {
    /// let patient = client.with_timeout(Duration::from_secs(5));
    /// patient.get("greeting").await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        let mut client = self.clone();
        client.options.timeout = Some(timeout);
        client
    }

    /// The same client, whose calls all may run twice (`true`) or must not (`false`), whatever they are. A call that must not
    /// is retried only if it surely was not carried out. For instance, a plain store must not if another writer's later value
    /// must not be overwritten by the repetition.
    #[must_use]
    pub fn with_idempotence(&self, idempotent: bool) -> Self {
        let mut client = self.clone();
        client.options.idempotent = Some(idempotent);
        client
    }

    /// What it was made with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// The replicas, as the client knows them; asks for them if it does not yet.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn topology(&self) -> Result<Arc<Topology>, Error> {
        let due = Instant::now() + self.timeout();
        let late = || Error::from(Failure::DeadlineExceeded);
        if self.config().routing == Routing::Seeds {
            let place = self.shared.any(None);
            let asked = timeout_at(due, ask_once(&place)).await.map_err(|_| late())?;
            return asked.map(Arc::new).map_err(|ended| Error::of(ended, &place.target, true));
        }
        self.shared.ensure_watched();
        let mut known = self.shared.known.subscribe();
        let known = timeout_at(due, known.wait_for(|known| !matches!(known, Known::Nothing))).await;
        match known.map(|known| known.map(|known| known.clone())) {
            Ok(Ok(Known::Topology(topology))) => Ok(topology),
            Ok(Ok(Known::Failed(ended, target))) => Err(Error::of(ended, &target, true)),
            _ => Err(late()),
        }
    }

    /// Waits until the members are known, and connections to those that own keys are made or found not to come about. Calls
    /// do not need it: until then they go by the seeds. For measurements.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn ready(&self) -> Result<(), Error> {
        let due = Instant::now() + self.timeout();
        self.topology().await?;
        for owner in &self.shared.routes().owners {
            for number in 0..self.shared.wires.connections {
                let _ = timeout_at(due, attempt::connected(owner, number)).await;
            }
        }
        Ok(())
    }

    /// Reads a value; `None` when the key has none.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        match self.operate(&Operation::Get { key }).await? {
            Answer::Get(entry) => Ok(Some(entry)),
            Answer::Failed(Failure::NotFound) => Ok(None),
            other => Err(strange(&other, key)),
        }
    }

    /// Reads many values, each as [`Self::get`] does; the results are in the order of the keys.
    pub async fn get_many<K: AsRef<str>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Vec<Result<Option<Entry>, Error>> {
        many::all(keys.into_iter().map(|key| async move { self.get(key.as_ref()).await })).await
    }

    /// Stores a value and answers its version (0 in a dry run). Without a condition it may be repeated.
    ///
    /// # Errors
    /// See [`Error`]; [`Failure::AlreadyExists`], [`Failure::NotFound`] or [`Failure::VersionMismatch`] when the condition fails.
    pub async fn store(&self, key: &str, value: impl Into<Bytes>, options: StoreOptions) -> Result<u64, Error> {
        let (value, condition) = (value.into(), options.condition);
        match self.operate(&Operation::Store { key, value: &value, ttl_ms: millis(options.ttl), condition }).await? {
            Answer::Store(version) => Ok(version),
            other => Err(strange(&other, key)),
        }
    }

    /// Stores many values, each as [`Self::store`] does; the results are in the order of the entries.
    pub async fn store_many<K: AsRef<str>, V: Into<Bytes>>(
        &self,
        entries: impl IntoIterator<Item = (K, V)>,
        options: StoreOptions,
    ) -> Vec<Result<u64, Error>> {
        let store = |(key, value): (K, V)| async move { self.store(key.as_ref(), value, options).await };
        many::all(entries.into_iter().map(store)).await
    }

    /// Removes a key, or only one version of it; answers whether there was a value. Without a version it may be repeated.
    ///
    /// # Errors
    /// See [`Error`]; [`Failure::VersionMismatch`] when the version is another.
    pub async fn delete(&self, key: &str, if_version: Option<u64>) -> Result<bool, Error> {
        match self.operate(&Operation::Delete { key, if_version: if_version.unwrap_or(0) }).await? {
            Answer::Delete(existed) => Ok(existed),
            other => Err(strange(&other, key)),
        }
    }

    /// Changes how long an entry lives. [`Touch::Overwrite`] may be repeated.
    ///
    /// # Errors
    /// See [`Error`]; [`Failure::NotFound`] when there is none.
    pub async fn touch(&self, key: &str, ttl: Option<Duration>, mode: Touch) -> Result<Touched, Error> {
        match self.operate(&Operation::Touch { key, ttl_ms: millis(ttl), mode }).await? {
            Answer::Touch(touched) => Ok(touched),
            other => Err(strange(&other, key)),
        }
    }

    /// Adds to a counter, created at 0 if absent. With a request id it may be repeated.
    ///
    /// # Errors
    /// See [`Error`]; [`Failure::NotACounter`], [`Failure::CounterOverflow`].
    pub async fn increment(&self, key: &str, delta: i64, options: IncrementOptions) -> Result<Counted, Error> {
        let IncrementOptions { request_id, ttl } = &options;
        match self.operate(&Operation::Increment { key, delta, request_id, ttl_ms: millis(*ttl) }).await? {
            Answer::Increment(counted) => Ok(counted),
            other => Err(strange(&other, key)),
        }
    }

    /// Streams the account's entries over the whole cluster whose keys begin with `prefix`, from right after `cursor` (empty:
    /// from the beginning). Goes on by itself when the replica that it reads from ends.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn dump(&self, prefix: &str, cursor: Bytes) -> Result<Dump, Error> {
        self.shared.begin(Instant::now());
        Dump::begin(&self.shared, prefix, cursor, self.timeout()).await
    }

    /// What the account uses and may use, and how the replica that answers is doing.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn stats(&self) -> Result<v1::StatsResponse, Error> {
        self.ask(STATS, &v1::StatsRequest {}, None).await
    }

    /// The same, asked of one replica, named by the address of its member.
    ///
    /// # Errors
    /// See [`Error`]; [`ErrorKind::Unreachable`] when it cannot be reached from here.
    pub async fn stats_of(&self, address: &str) -> Result<v1::StatsResponse, Error> {
        let place = self.shared.at(address)?;
        self.ask(STATS, &v1::StatsRequest {}, Some(place)).await
    }

    /// Whether a server serves, one of the seeds; needs no token.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn health(&self) -> Result<Health, Error> {
        let request = HealthCheckRequest { service: String::new() };
        let seeds = &self.shared.seeds;
        let seed = Arc::clone(seeds.iter().find(|seed| seed.is_up()).unwrap_or(&seeds[0]));
        let answer: HealthCheckResponse = self.ask(HEALTH, &request, Some(seed)).await?;
        Ok(match answer.status() {
            ServingStatus::Serving => Health::Serving,
            ServingStatus::NotServing => Health::NotServing,
            ServingStatus::Unknown | ServingStatus::ServiceUnknown => Health::Unknown,
        })
    }

    fn timeout(&self) -> Duration {
        self.options.timeout.unwrap_or(self.config().timeout)
    }

    /// Asks something that is on no key, and changes nothing. `at`: of whom; else of anybody.
    async fn ask<T: Message + Default>(
        &self,
        path: &'static str,
        message: &impl Message,
        at: Option<Arc<Place>>,
    ) -> Result<T, Error> {
        let (began, method) = (Instant::now(), path.trim_start_matches('/'));
        let observer = self.config().observer.as_deref();
        let trace = observer.and_then(|observer| observer.begin(method));
        let asked = Asked {
            path,
            frame: frame(message),
            due: Some(began + self.timeout()),
            dry_run: self.config().dry_run,
            trace: trace.clone(),
        };
        let (outcome, attempts) = self.ask_until(&asked, began + self.timeout(), at).await;
        if let Some(observer) = observer {
            let (duration, trace, error) = (began.elapsed(), trace.as_ref(), outcome.as_ref().err());
            let code = error.map_or(tonic::Code::Ok, Error::code);
            observer.end(&EndedCall { method, code, duration, attempts, trace, error });
        }
        outcome
    }

    async fn ask_until<T: Message + Default>(
        &self,
        asked: &Asked,
        due: Instant,
        at: Option<Arc<Place>>,
    ) -> (Result<T, Error>, u32) {
        self.shared.begin(Instant::now());
        let (mut attempt, mut avoid) = (1, None);
        loop {
            let place = at.clone().unwrap_or_else(|| self.shared.any(avoid.as_ref()));
            let ended = match ask_one(&place, 0, asked).await {
                Ok(answer) => match T::decode(answer) {
                    Ok(answer) => return (Ok(answer), attempt),
                    Err(problem) => Ended::Failed(Failure::Malformed(problem.to_string())),
                },
                Err(ended) => ended,
            };
            let error = Error::of(ended, &place.target, true).after(attempt);
            let Some(wait) = self.wait_after(&error, attempt, due) else { return (Err(error), attempt) };
            tokio::time::sleep(wait).await;
            (attempt, avoid) = (attempt + 1, Some(place));
        }
    }
}

/// An answer to another question.
fn strange(answer: &Answer, key: &str) -> Error {
    match answer {
        Answer::Failed(failure) => Error::from(failure.clone()).on(key),
        _ => Error::from(Failure::Malformed("the answer is to another question".to_owned())).on(key),
    }
}
