//! OTLP over gRPC: what the exporters of traces and of metrics share. Who the collector is told it hears from, the way to it,
//! and what is done when it does not answer.
//!
//! Both exporters run on the control thread, one message at a time. Nothing here ever makes a call wait.

mod trouble;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use tokio::time::{Instant, timeout};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

pub use self::trouble::Trouble;
use crate::rpc::channels::{self, ChannelError, Target, Tls};

/// Where one signal goes.
#[derive(Clone, Debug)]
pub struct OtlpConfig {
    pub target: Target,
    /// PEM file of the authorities that its certificate may come from; `None`: the system's.
    pub ca: Option<PathBuf>,
    pub headers: Headers,
    /// For one attempt.
    pub timeout: Duration,
    pub gzip: bool,
}

/// Metadata for every message: mostly a secret, so it is never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(HeaderName, HeaderValue)>);

/// Why a message was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undelivered {
    #[error("it did not answer in time")]
    Late,
    #[error("{code:?}{cause}")]
    Status { code: Code, cause: String },
}

/// The way to a collector.
pub type Way = InterceptedService<Channel, Headers>;

/// The first wait before a message is sent again; doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Prepares the way; connects when the first message is sent.
///
/// # Errors
/// When the CA cannot be used.
pub fn way(config: &OtlpConfig) -> Result<Way, ChannelError> {
    let tls = Tls { ca: config.ca.clone(), ..Tls::default() };
    let channel = channels::connect(&config.target, &tls)?;
    Ok(InterceptedService::new(channel, config.headers.clone()))
}

/// Sends a message until it is taken, refused for good, or `within` is over; each attempt takes at most `each`.
///
/// # Errors
/// What came of the last attempt.
pub async fn deliver<T, F>(within: Duration, each: Duration, mut attempt: impl FnMut() -> F) -> Result<T, Undelivered>
where
    F: Future<Output = Result<T, Status>>,
{
    let give_up = Instant::now() + within;
    let mut pause = FIRST_PAUSE;
    loop {
        let left = give_up.saturating_duration_since(Instant::now());
        let said = match timeout(each.min(left), attempt()).await {
            Ok(said) => said.map_err(|status| Undelivered::of(&status)),
            Err(_) => Err(Undelivered::Late),
        };
        match said {
            Err(failed) if failed.is_temporary() && Instant::now() + pause < give_up => {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            said => return said,
        }
    }
}

/// Whom the spans and metrics are from.
#[must_use]
pub fn resource(attributes: &[(String, String)]) -> Resource {
    let attributes = attributes.iter().map(|(key, value)| attribute(key, Value::StringValue(value.clone())));
    Resource { attributes: attributes.collect(), ..Resource::default() }
}

/// What made them.
#[must_use]
pub fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "larder".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

#[must_use]
pub fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

impl Undelivered {
    /// The collector's own message is left out: it may repeat the metadata, and with it a secret.
    fn of(status: &Status) -> Self {
        let cause = std::error::Error::source(status).map(channels::causes);
        Self::Status { code: status.code(), cause: cause.map(|cause| format!(": {cause}")).unwrap_or_default() }
    }

    /// Whether OTLP says that the message is to be sent again. RESOURCE_EXHAUSTED is so only with a time, which nobody waits
    /// for here.
    fn is_temporary(&self) -> bool {
        match self {
            Self::Late => true,
            Self::Status { code, .. } => matches!(
                code,
                Code::Cancelled
                    | Code::DeadlineExceeded
                    | Code::Aborted
                    | Code::OutOfRange
                    | Code::Unavailable
                    | Code::DataLoss
            ),
        }
    }
}

impl Headers {
    /// As they may be printed.
    #[must_use]
    pub fn redacted(&self) -> String {
        let names: Vec<String> = self.0.iter().map(|(name, _)| format!("{name}=(redacted)")).collect();
        names.join(",")
    }
}

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata: &mut http::HeaderMap = request.metadata_mut().as_mut();
        for (name, value) in &self.0 {
            metadata.insert(name.clone(), value.clone());
        }
        Ok(request)
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}
