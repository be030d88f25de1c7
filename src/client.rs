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

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use zeroize::Zeroizing;

use crate::cache::limits::STOCK_MESSAGE_BYTES;
use crate::rpc::channels;
use crate::rpc::failure::Failure;
use crate::rpc::metadata::{AUTHORIZATION, DRY_RUN, GRPC_TIMEOUT, timeout_value};
use crate::rpc::proto::v1;
use crate::rpc::proto::v1::cache_client::CacheClient;
use crate::rpc::proto::v1::topology_client::TopologyClient;

mod config;
mod dump;
mod error;
mod retry;
mod topology;
mod values;

pub use config::{Config, Routing};
pub use dump::{Dump, DumpedEntry};
pub use error::{Error, ErrorKind, Sent};
pub use retry::Retries;
pub use topology::{Member, MemberState, Topology};
pub use values::{Condition, Counted, Entry, Health, IncrementOptions, StoreOptions, Touch, Touched};

pub use crate::rpc::channels::{Target, TargetError, Tls};
pub use crate::rpc::token::{Token, TokenError};

/// A client of a cluster. Cheap to clone; clones share the connections.
#[derive(Clone, Debug)]
pub struct Client {
    cache: CacheClient<Channel>,
    health: HealthClient<Channel>,
    topology: TopologyClient<Channel>,
    target: Target,
    config: Arc<Config>,
    options: CallOptions,
    /// Marked as sensitive, so that nothing prints it.
    authorization: Option<MetadataValue<tonic::metadata::Ascii>>,
}

/// What is different for some calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct CallOptions {
    timeout: Option<Duration>,
    idempotent: Option<bool>,
}

impl Client {
    /// Makes a client. Connects when the first call needs it; must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the TLS options do not work. Whether a server answers shows in the first call.
    pub fn new(config: Config) -> Result<Self, Error> {
        let target = config.seeds.first().cloned().unwrap_or_default();
        let channel = channels::connect(&target, &config.tls)?;
        let authorization = match &config.token_file {
            Some(path) => authorization(&token_of(path)?),
            None => config.token.as_ref().and_then(authorization),
        };
        let cache = CacheClient::new(channel.clone()).max_decoding_message_size(STOCK_MESSAGE_BYTES);
        let topology = TopologyClient::new(channel.clone());
        let (health, config, options) = (HealthClient::new(channel), Arc::new(config), CallOptions::default());
        Ok(Self { cache, health, topology, target, config, options, authorization })
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

    /// The replicas, as the client knows them; asks for them if it does not yet.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn topology(&self) -> Result<Arc<Topology>, Error> {
        let mut topology = self.topology.clone();
        let request = self.request_for(v1::WatchRequest {}, self.config.stream_timeout);
        let mut stream = self.settle(true, async move { topology.watch(request).await }).await?;
        let said = self.settle(true, async { stream.message().await.map(Response::new) }).await?;
        let said = said.ok_or(Failure::Draining)?;
        let no_account = |_| Failure::Malformed("the account id of the topology is none".to_owned());
        Ok(Arc::new(Topology::of(said).map_err(no_account)?))
    }

    /// What it was made with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Reads a value; `None` when the key has none.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        let request = self.request(v1::GetRequest { key: key.to_owned() });
        match self.call(true, async |mut cache| cache.get(request).await).await {
            Ok(answer) => Ok(Some(answer.into())),
            Err(error) if error.failure() == Some(&Failure::NotFound) => Ok(None),
            Err(error) => Err(error.on(key)),
        }
    }

    /// Reads many values, each as [`Self::get`] does; the results are in the order of the keys.
    pub async fn get_many<K: AsRef<str>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Vec<Result<Option<Entry>, Error>> {
        let mut results = Vec::new();
        for key in keys {
            results.push(self.get(key.as_ref()).await);
        }
        results
    }

    /// Stores a value and answers its version (0 in a dry run). Without a condition it may be repeated.
    ///
    /// # Errors
    /// See [`Error`]; [`Failure::AlreadyExists`], [`Failure::NotFound`] or [`Failure::VersionMismatch`] when the condition fails.
    pub async fn store(&self, key: &str, value: impl Into<Bytes>, options: StoreOptions) -> Result<u64, Error> {
        let idempotent = options.condition == Condition::Always;
        let request = self.request(options.request(key.to_owned(), value.into()));
        let stored = self.call(idempotent, async |mut cache| cache.store(request).await).await;
        Ok(stored.map_err(|error| error.on(key))?.version)
    }

    /// Stores many values, each as [`Self::store`] does; the results are in the order of the entries.
    pub async fn store_many<K: AsRef<str>, V: Into<Bytes>>(
        &self,
        entries: impl IntoIterator<Item = (K, V)>,
        options: StoreOptions,
    ) -> Vec<Result<u64, Error>> {
        let mut results = Vec::new();
        for (key, value) in entries {
            results.push(self.store(key.as_ref(), value, options).await);
        }
        results
    }

    /// Removes a key, or only one version of it; answers whether there was a value. Without a version it may be repeated.
    ///
    /// # Errors
    /// See [`Error`]; [`Failure::VersionMismatch`] when the version is another.
    pub async fn delete(&self, key: &str, if_version: Option<u64>) -> Result<bool, Error> {
        let message = v1::DeleteRequest { key: key.to_owned(), if_version: if_version.unwrap_or(0) };
        let request = self.request(message);
        let deleted = self.call(if_version.is_none(), async |mut cache| cache.delete(request).await).await;
        Ok(deleted.map_err(|error| error.on(key))?.existed)
    }

    /// Changes how long an entry lives. [`Touch::Overwrite`] may be repeated.
    ///
    /// # Errors
    /// See [`Error`]; [`Failure::NotFound`] when there is none.
    pub async fn touch(&self, key: &str, ttl: Option<Duration>, mode: Touch) -> Result<Touched, Error> {
        let message = v1::TouchRequest { key: key.to_owned(), ttl_ms: values::millis(ttl), mode: mode.number() };
        let request = self.request(message);
        let touched = self.call(mode == Touch::Overwrite, async |mut cache| cache.touch(request).await).await;
        Ok(touched.map_err(|error| error.on(key))?.into())
    }

    /// Adds to a counter, created at 0 if absent. With a request id it may be repeated.
    ///
    /// # Errors
    /// See [`Error`]; [`Failure::NotACounter`], [`Failure::CounterOverflow`].
    pub async fn increment(&self, key: &str, delta: i64, options: IncrementOptions) -> Result<Counted, Error> {
        let idempotent = !options.request_id.is_empty();
        let message = v1::IncrementRequest {
            key: key.to_owned(),
            delta,
            request_id: options.request_id,
            ttl_ms: values::millis(options.ttl),
        };
        let request = self.request(message);
        let counted = self.call(idempotent, async |mut cache| cache.increment(request).await).await;
        let answer = counted.map_err(|error| error.on(key))?;
        Ok(Counted { value: answer.value, version: answer.version })
    }

    /// Streams the account's entries whose keys begin with `prefix`, from right after `cursor` (empty: from the beginning).
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn dump(&self, prefix: &str, cursor: Bytes) -> Result<Dump, Error> {
        let message = v1::DumpRequest { prefix: prefix.to_owned(), cursor };
        let request = self.request_for(message, self.config.stream_timeout);
        let stream = self.call(true, async |mut cache| cache.dump(request).await).await?;
        Ok(Dump::new(stream, self.target.clone()))
    }

    /// What the account uses and may use, and how the replica that answers is doing.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn stats(&self) -> Result<v1::StatsResponse, Error> {
        let request = self.request(v1::StatsRequest {});
        self.call(true, async |mut cache| cache.stats(request).await).await
    }

    /// The same, asked of one replica, named by the address of its member.
    ///
    /// # Errors
    /// See [`Error`]; [`ErrorKind::Unreachable`] when it is none or cannot be reached from here.
    pub async fn stats_of(&self, address: &str) -> Result<v1::StatsResponse, Error> {
        let unreachable = |problem: String| ErrorKind::Unreachable { target: self.target.clone(), problem };
        let target: Target = address.parse().map_err(|error: TargetError| unreachable(error.to_string()))?;
        let channel = channels::connect(&target, &self.config.tls)?;
        let mut cache = CacheClient::new(channel);
        let request = self.request(v1::StatsRequest {});
        self.settle(true, async move { cache.stats(request).await }).await
    }

    /// Whether the server serves; needs no token.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn health(&self) -> Result<Health, Error> {
        let request = self.request(HealthCheckRequest { service: String::new() });
        let mut health = self.health.clone();
        let answer = self.settle(true, async move { health.check(request).await }).await?;
        Ok(match answer.status() {
            ServingStatus::Serving => Health::Serving,
            ServingStatus::NotServing => Health::NotServing,
            ServingStatus::Unknown | ServingStatus::ServiceUnknown => Health::Unknown,
        })
    }

    fn timeout(&self) -> Duration {
        self.options.timeout.unwrap_or(self.config.timeout)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        self.request_for(message, self.timeout())
    }

    fn request_for<T>(&self, message: T, timeout: Duration) -> Request<T> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        if let Ok(value) = MetadataValue::try_from(timeout_value(timeout).as_bytes()) {
            metadata.insert(GRPC_TIMEOUT, value);
        }
        if let Some(authorization) = &self.authorization {
            metadata.insert(AUTHORIZATION, authorization.clone());
        }
        if self.config.dry_run {
            metadata.insert(DRY_RUN, MetadataValue::from_static("1"));
        }
        request
    }

    async fn call<T>(
        &self,
        idempotent: bool,
        call: impl AsyncFnOnce(CacheClient<Channel>) -> Result<Response<T>, Status>,
    ) -> Result<T, Error> {
        self.settle(idempotent, call(self.cache.clone())).await
    }

    /// Waits for an answer until the deadline: tonic's own timer ends with the answer's headers.
    async fn settle<T>(
        &self,
        idempotent: bool,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Error> {
        let idempotent = self.options.idempotent.unwrap_or(idempotent);
        match tokio::time::timeout(self.timeout(), call).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(Error::of(&status, &self.target, idempotent)),
            Err(_) => Err(Error::from(Failure::DeadlineExceeded).idempotent(idempotent)),
        }
    }
}

fn token_of(path: &Path) -> Result<Token, Error> {
    let failed = |problem: String| ErrorKind::TokenFile { path: path.to_owned(), problem };
    let text = std::fs::read_to_string(path).map(Zeroizing::new).map_err(|error| failed(error.to_string()))?;
    Ok(Token::new(text.trim()).map_err(|error| failed(error.to_string()))?)
}

fn authorization(token: &Token) -> Option<MetadataValue<tonic::metadata::Ascii>> {
    let text = Zeroizing::new(format!("Bearer {}", token.expose()));
    let mut value = MetadataValue::try_from(text.as_str()).ok()?;
    value.set_sensitive(true);
    Some(value)
}
