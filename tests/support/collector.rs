//! A collector in the test's own process, on a free port: it takes OTLP over gRPC and keeps what it is told.

#![allow(dead_code, reason = "each test binary uses the part that it needs")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderMap;
use hyper::body::Incoming;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status};
use tower::ServiceExt as _;

use super::fake;

/// A collector that runs until the test ends.
#[derive(Clone)]
pub struct Collector {
    pub address: SocketAddr,
    told: Arc<Mutex<Told>>,
}

#[derive(Default)]
struct Told {
    spans: Vec<Span>,
    metrics: Vec<Metric>,
    headers: Vec<HeaderMap>,
}

/// A span as it came.
#[derive(Clone, Debug)]
pub struct Span {
    /// `service.instance.id`: the replica's uid.
    pub replica: String,
    pub resource: BTreeMap<String, String>,
    pub name: String,
    /// Hex digits, as all ids here.
    pub trace: String,
    pub id: String,
    /// Empty: none.
    pub parent: String,
    pub kind: i32,
    pub attributes: BTreeMap<String, String>,
    pub failed: bool,
    pub began: u64,
    pub ended: u64,
}

impl Collector {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let collector = Self { address: listener.local_addr().unwrap(), told: Arc::default() };
        let serving = collector.clone();
        fake::serve(listener, move |request| serving.clone().answer(request));
        collector
    }

    /// As a flag's value.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every span so far.
    pub fn spans(&self) -> Vec<Span> {
        self.told.lock().spans.clone()
    }

    /// Those of one trace.
    pub fn trace(&self, id: &str) -> Vec<Span> {
        self.spans().into_iter().filter(|span| span.trace == id).collect()
    }

    /// Every metric so far, oldest first.
    pub fn metrics(&self) -> Vec<Metric> {
        self.told.lock().metrics.clone()
    }

    /// The metadata of every message so far.
    pub fn headers(&self) -> Vec<HeaderMap> {
        self.told.lock().headers.clone()
    }

    async fn answer(self, request: http::Request<Incoming>) -> Result<http::Response<tonic::body::Body>, Infallible> {
        self.told.lock().headers.push(request.headers().clone());
        if request.uri().path().contains("MetricsService") {
            let service = MetricsServiceServer::new(self).accept_compressed(CompressionEncoding::Gzip);
            return service.oneshot(request).await;
        }
        TraceServiceServer::new(self).accept_compressed(CompressionEncoding::Gzip).oneshot(request).await
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for of_one in request.into_inner().resource_spans {
            let resource = texts(&of_one.resource.unwrap_or_default().attributes);
            for span in of_one.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                self.told.lock().spans.push(Span {
                    replica: resource.get("service.instance.id").cloned().unwrap_or_default(),
                    resource: resource.clone(),
                    name: span.name,
                    trace: hex(&span.trace_id),
                    id: hex(&span.span_id),
                    parent: hex(&span.parent_span_id),
                    kind: span.kind,
                    attributes: texts(&span.attributes),
                    failed: span.status.is_some_and(|status| status.code == 2),
                    began: span.start_time_unix_nano,
                    ended: span.end_time_unix_nano,
                });
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let all = request.into_inner().resource_metrics.into_iter().flat_map(|of_one| of_one.scope_metrics);
        self.told.lock().metrics.extend(all.flat_map(|scope| scope.metrics));
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

/// Attributes as text.
pub fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(is) => is.to_string(),
        other => panic!("an attribute is {other:?}"),
    };
    let value = |pair: &KeyValue| pair.value.as_ref().and_then(|value| value.value.as_ref()).map(text);
    attributes.iter().map(|pair| (pair.key.clone(), value(pair).unwrap_or_default())).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
