//! Metrics for a collector, by OTLP: the same families as on `/metrics`, read every so often. Sums are since the start of the
//! process.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tonic::codec::CompressionEncoding;

use super::Sources;
use super::family::{Family, Kind, Labels, Sample, Value};
use crate::rpc::channels::ChannelError;
use crate::server::otlp::{self, OtlpConfig, Trouble, Way};

/// How metrics are sent.
#[derive(Clone, Debug)]
pub struct PushConfig {
    pub otlp: OtlpConfig,
    pub interval: Duration,
    /// How long one message is tried.
    pub within: Duration,
}

/// What sends metrics. On the runtime on which it was started.
#[derive(Debug)]
pub struct Pusher {
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

struct Pushing {
    config: PushConfig,
    client: MetricsServiceClient<Way>,
    resource: Resource,
    sources: Sources,
    trouble: Trouble,
}

/// When a family was read, and since when its sums count; in nanoseconds since 1970.
#[derive(Clone, Copy, Debug)]
struct Span {
    began: u64,
    now: u64,
}

/// Begins to send. In a runtime, which must go on running.
///
/// # Errors
/// When the collector's CA cannot be used. Whether it answers shows later.
pub fn start(config: PushConfig, resource: Resource, sources: Sources) -> Result<Pusher, ChannelError> {
    let mut client = MetricsServiceClient::new(otlp::way(&config.otlp)?);
    if config.otlp.gzip {
        client = client.send_compressed(CompressionEncoding::Gzip);
    }
    let pushing = Pushing { config, client, resource, sources, trouble: Trouble::new("metrics") };
    let (end, ended) = oneshot::channel();
    Ok(Pusher { end, task: tokio::spawn(pushing.run(ended)) })
}

impl Pusher {
    /// Sends the last values, for so long at most.
    pub async fn end(self, within: Duration) {
        let Self { end, mut task } = self;
        // It listens until it is told.
        let _ = end.send(());
        if timeout(within, &mut task).await.is_err() {
            task.abort();
        }
    }
}

impl Pushing {
    async fn run(mut self, mut ended: oneshot::Receiver<()>) {
        let mut ticks = interval(self.config.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first comes at once, when there is nothing to tell.
        ticks.tick().await;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = &mut ended => return self.send().await,
            }
            tokio::select! {
                () = self.send() => {}
                _ = &mut ended => return self.send().await,
            }
        }
    }

    async fn send(&mut self) {
        let request = self.request();
        let client = &self.client;
        let sent = otlp::deliver(self.config.within, self.config.otlp.timeout, || {
            let (mut client, request) = (client.clone(), request.clone());
            async move { client.export(request).await }
        });
        match sent.await {
            Ok(_) => self.trouble.delivered(),
            Err(error) => self.trouble.failed(&error),
        }
    }

    fn request(&self) -> ExportMetricsServiceRequest {
        let now = SystemTime::now();
        let began = now.checked_sub(self.sources.metrics.uptime()).unwrap_or(UNIX_EPOCH);
        let span = Span { began: nanos(began), now: nanos(now) };
        let metrics = self.sources.families().0.iter().map(|family| encode(family, span)).collect();
        let of_this = ResourceMetrics {
            resource: Some(self.resource.clone()),
            scope_metrics: vec![ScopeMetrics { scope: Some(otlp::scope()), metrics, ..ScopeMetrics::default() }],
            ..ResourceMetrics::default()
        };
        ExportMetricsServiceRequest { resource_metrics: vec![of_this] }
    }
}

fn encode(family: &Family, span: Span) -> Metric {
    let cumulative = AggregationTemporality::Cumulative.into();
    let numbers = || family.samples.iter().filter_map(|sample| number(sample, span)).collect();
    let data = match family.kind {
        Kind::Counter => {
            Data::Sum(Sum { data_points: numbers(), aggregation_temporality: cumulative, is_monotonic: true })
        }
        Kind::Gauge | Kind::Info => Data::Gauge(Gauge { data_points: numbers() }),
        Kind::Histogram => {
            let data_points = family.samples.iter().filter_map(|sample| histogram(sample, span)).collect();
            Data::Histogram(Histogram { data_points, aggregation_temporality: cumulative })
        }
    };
    Metric {
        name: family.name.to_owned(),
        description: family.help.to_owned(),
        unit: unit(family.name).to_owned(),
        data: Some(data),
        ..Metric::default()
    }
}

fn number(sample: &Sample, span: Span) -> Option<NumberDataPoint> {
    let value = match sample.value {
        Value::Whole(value) => Number::AsInt(i64::try_from(value).unwrap_or(i64::MAX)),
        Value::Real(value) => Number::AsDouble(value),
        Value::Histogram { .. } => return None,
    };
    Some(NumberDataPoint {
        attributes: attributes(&sample.labels),
        start_time_unix_nano: span.began,
        time_unix_nano: span.now,
        value: Some(value),
        ..NumberDataPoint::default()
    })
}

fn histogram(sample: &Sample, span: Span) -> Option<HistogramDataPoint> {
    let Value::Histogram { sum, buckets } = &sample.value else { return None };
    Some(HistogramDataPoint {
        attributes: attributes(&sample.labels),
        start_time_unix_nano: span.began,
        time_unix_nano: span.now,
        count: buckets.iter().map(|(_, count)| count).sum(),
        sum: Some(*sum),
        bucket_counts: buckets.iter().map(|(_, count)| *count).collect(),
        explicit_bounds: buckets.iter().map(|(bound, _)| *bound).filter(|bound| bound.is_finite()).collect(),
        ..HistogramDataPoint::default()
    })
}

fn attributes(labels: &Labels) -> Vec<KeyValue> {
    labels.iter().map(|(name, value)| otlp::attribute(name, Any::StringValue(value.clone()))).collect()
}

/// By UCUM; the names end in their unit, as Prometheus has it.
fn unit(name: &str) -> &'static str {
    if name.ends_with("_seconds") {
        "s"
    } else if name.ends_with("_bytes") {
        "By"
    } else {
        ""
    }
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
