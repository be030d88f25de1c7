//! The client: what programs and the `larder` command use to talk to Larder, without the server's dependencies.
//!
//! Every call has a deadline, which travels with it, and fails with an [`Error`] that says whether a retry may help. One
//! connection to one target, made when first needed and again after a break.
//!
//! Not here: retries (only the caller knows how long an answer is worth waiting for) and routing to a key's owner.
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

mod config;
mod dump;
mod error;
mod values;

pub use config::Config;
pub use dump::{Dump, DumpedEntry};
pub use error::Error;
pub use values::{Condition, Counted, Entry, Health, IncrementOptions, StoreOptions, Touch, Touched};

pub use crate::rpc::channels::{Target, TargetError, Tls};
pub use crate::rpc::token::{Token, TokenError};

/// A client of one target. Cheap to clone; clones share the connection.
#[derive(Clone, Debug)]
pub struct Client {
    cache: CacheClient<Channel>,
    health: HealthClient<Channel>,
    config: Arc<Config>,
    /// Marked as sensitive, so that nothing prints it.
    authorization: Option<MetadataValue<tonic::metadata::Ascii>>,
}

impl Client {
    /// Makes a client. Connects when the first call needs it; must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the TLS options do not work. Whether a server answers shows in the first call.
    pub fn new(config: Config) -> Result<Self, Error> {
        let channel = channels::connect(&config.target, &config.tls)?;
        let authorization = config.token.as_ref().and_then(authorization);
        let cache = CacheClient::new(channel.clone()).max_decoding_message_size(STOCK_MESSAGE_BYTES);
        Ok(Self { cache, health: HealthClient::new(channel), config: Arc::new(config), authorization })
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
            Err(Error::Answer(Failure::NotFound)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Stores a value and answers its version (0 in a dry run). Without a condition it may be repeated.
    ///
    /// # Errors
    /// See [`Error`]; [`Failure::AlreadyExists`], [`Failure::NotFound`] or [`Failure::VersionMismatch`] when the condition fails.
    pub async fn store(&self, key: &str, value: impl Into<Bytes>, options: StoreOptions) -> Result<u64, Error> {
        let idempotent = options.condition == Condition::Always;
        let request = self.request(options.request(key.to_owned(), value.into()));
        Ok(self.call(idempotent, async |mut cache| cache.store(request).await).await?.version)
    }

    /// Removes a key, or only one version of it; answers whether there was a value. Without a version it may be repeated.
    ///
    /// # Errors
    /// See [`Error`]; [`Failure::VersionMismatch`] when the version is another.
    pub async fn delete(&self, key: &str, if_version: Option<u64>) -> Result<bool, Error> {
        let message = v1::DeleteRequest { key: key.to_owned(), if_version: if_version.unwrap_or(0) };
        let request = self.request(message);
        Ok(self.call(if_version.is_none(), async |mut cache| cache.delete(request).await).await?.existed)
    }

    /// Changes how long an entry lives. [`Touch::Overwrite`] may be repeated.
    ///
    /// # Errors
    /// See [`Error`]; [`Failure::NotFound`] when there is none.
    pub async fn touch(&self, key: &str, ttl: Option<Duration>, mode: Touch) -> Result<Touched, Error> {
        let message = v1::TouchRequest { key: key.to_owned(), ttl_ms: values::millis(ttl), mode: mode.number() };
        let request = self.request(message);
        let answer = self.call(mode == Touch::Overwrite, async |mut cache| cache.touch(request).await).await?;
        Ok(answer.into())
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
        let answer = self.call(idempotent, async |mut cache| cache.increment(request).await).await?;
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
        Ok(Dump::new(stream, self.config.target.clone()))
    }

    /// What the account uses and may use, and how the replica that answers is doing.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn stats(&self) -> Result<v1::StatsResponse, Error> {
        let request = self.request(v1::StatsRequest {});
        self.call(true, async |mut cache| cache.stats(request).await).await
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

    fn request<T>(&self, message: T) -> Request<T> {
        self.request_for(message, self.config.timeout)
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
        match tokio::time::timeout(self.config.timeout, call).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(Error::of(&status, &self.config.target, idempotent)),
            Err(_) => Err(Error::Answer(Failure::DeadlineExceeded)),
        }
    }
}

fn authorization(token: &Token) -> Option<MetadataValue<tonic::metadata::Ascii>> {
    let text = Zeroizing::new(format!("Bearer {}", token.expose()));
    let mut value = MetadataValue::try_from(text.as_str()).ok()?;
    value.set_sensitive(true);
    Some(value)
}
