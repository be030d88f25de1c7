//! Spans go to the collector in batches: when one is full, or its time has come. While the collector does not take one, the
//! next wait in their queue, and what finds no room there is dropped; no call waits for any of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::codec::CompressionEncoding;

use super::names;
use super::queue::{Counts, Finished, Queue};
use super::{Sampler, Tracer, Value};
use crate::rpc::channels::ChannelError;
use crate::server::otlp::{self, OtlpConfig, Trouble, Way};

/// What is recorded, and how it is sent.
#[derive(Clone, Debug)]
pub struct TracesConfig {
    pub otlp: OtlpConfig,
    pub sampler: Sampler,
    /// Spans that may wait.
    pub queue: usize,
    /// Spans of one message.
    pub batch: usize,
    /// The longest that a span waits for its batch to be full.
    pub delay: Duration,
    /// How long one batch is tried.
    pub within: Duration,
}

/// What sends spans. On the runtime on which it was started.
#[derive(Debug)]
pub struct Exporter {
    queue: Arc<Queue>,
    task: JoinHandle<()>,
}

struct Exporting {
    config: TracesConfig,
    client: TraceServiceClient<Way>,
    resource: Resource,
    queue: Arc<Queue>,
    trouble: Trouble,
}

/// OTLP's flag that says that it is known whether the parent is in another process, and the one that says that it is.
const KNOWS_IF_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// Begins to record and to send. In a runtime, which must go on running.
///
/// # Errors
/// When the collector's CA cannot be used. Whether it answers shows later.
pub fn start(config: TracesConfig, resource: Resource) -> Result<(Tracer, Exporter), ChannelError> {
    let queue = Arc::new(Queue::new(config.queue, config.batch));
    let tracer = Tracer { sampler: config.sampler, queue: Arc::clone(&queue) };
    let mut client = TraceServiceClient::new(otlp::way(&config.otlp)?);
    if config.otlp.gzip {
        client = client.send_compressed(CompressionEncoding::Gzip);
    }
    let exporting = Exporting { config, client, resource, queue: Arc::clone(&queue), trouble: Trouble::new("traces") };
    let task = tokio::spawn(exporting.run());
    Ok((tracer, Exporter { queue, task }))
}

impl Tracer {
    /// What became of spans, for metrics.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.queue.counts
    }
}

impl Exporter {
    /// Sends what waits, for so long at most.
    pub async fn end(self, within: Duration) {
        let Self { queue, mut task } = self;
        queue.close();
        if timeout(within, &mut task).await.is_err() {
            task.abort();
            // What it has in hand is lost with it.
            let _ = task.await;
        }
        queue.give_up();
    }
}

impl Exporting {
    async fn run(mut self) {
        loop {
            if !self.queue.has_enough() && !self.queue.is_closed() {
                // Either way there may be something now.
                let _ = timeout(self.config.delay, self.queue.enough.notified()).await;
            }
            let batch = self.queue.take();
            if !batch.is_empty() {
                self.send(&batch).await;
            } else if self.queue.is_closed() {
                return;
            }
        }
    }

    async fn send(&mut self, batch: &[Finished]) {
        let its = Batch { size: batch.len() as u64, queue: &self.queue };
        let request = self.request(batch);
        let (within, each) = (self.config.within, self.config.otlp.timeout);
        let client = &self.client;
        let sent = otlp::deliver(within, each, || {
            let (mut client, request) = (client.clone(), request.clone());
            async move { client.export(request).await }
        })
        .await;
        match sent {
            Ok(answer) => {
                let rejected = answer.into_inner().partial_success.map_or(0, |partial| partial.rejected_spans);
                its.over(u64::try_from(rejected).unwrap_or(0));
                self.trouble.delivered();
            }
            Err(error) => {
                its.over(u64::MAX);
                self.trouble.failed(&error);
            }
        }
    }

    fn request(&self, batch: &[Finished]) -> ExportTraceServiceRequest {
        let spans = ScopeSpans {
            scope: Some(otlp::scope()),
            spans: batch.iter().map(encode).collect(),
            schema_url: names::SCHEMA_URL.to_owned(),
        };
        let of_this = ResourceSpans {
            resource: Some(self.resource.clone()),
            scope_spans: vec![spans],
            schema_url: names::SCHEMA_URL.to_owned(),
        };
        ExportTraceServiceRequest { resource_spans: vec![of_this] }
    }
}

/// Spans in hand; dropped before it is over, they are lost.
struct Batch<'a> {
    size: u64,
    queue: &'a Queue,
}

impl Batch<'_> {
    fn over(mut self, rejected: u64) {
        let failed = rejected.min(self.size);
        self.queue.counts.exported.fetch_add(self.size - failed, Ordering::Relaxed);
        self.queue.counts.failed.fetch_add(failed, Ordering::Relaxed);
        self.size = 0;
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.queue.counts.failed.fetch_add(self.size, Ordering::Relaxed);
    }
}

fn encode(span: &Finished) -> Span {
    let began = span.began.duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let remote = span.parent.is_some_and(|(_, remote)| remote);
    let fault = StatusCode::Error as i32;
    Span {
        trace_id: span.place.trace_id.to_vec(),
        span_id: span.place.span_id.to_vec(),
        trace_state: span.place.tracestate().to_owned(),
        parent_span_id: span.parent.map(|(id, _)| id.to_vec()).unwrap_or_default(),
        flags: u32::from(span.place.flags) | KNOWS_IF_REMOTE | if remote { IS_REMOTE } else { 0 },
        name: span.name.to_owned(),
        kind: span.kind as i32,
        start_time_unix_nano: nanos(began),
        end_time_unix_nano: nanos(began + span.took),
        attributes: span.attributes.iter().map(|(key, value)| otlp::attribute(key, any(value))).collect(),
        status: span.failed.then(|| Status { code: fault, ..Status::default() }),
        ..Span::default()
    }
}

fn any(value: &Value) -> Any {
    match value {
        Value::Word(word) => Any::StringValue((*word).to_owned()),
        Value::Text(text) => Any::StringValue(text.clone()),
        Value::Number(number) => Any::IntValue(*number),
        Value::Is(is) => Any::BoolValue(*is),
    }
}
