//! What tells a collector: traces and metrics, each if it has an endpoint.

use std::time::Duration;

use opentelemetry_proto::tonic::resource::v1::Resource;

use super::{AppError, settings};
use crate::server::config::Config;
use crate::server::metrics::{self, Pusher};
use crate::server::trace::{self, Exporter, Tracer};
use crate::server::wall::Wall;

/// How long the last spans and figures may take to be sent when a replica ends: a collector that answers takes milliseconds.
const END: Duration = Duration::from_secs(2);

/// Running exporters.
#[derive(Debug)]
pub(super) struct Exporters {
    resource: Resource,
    traces: Option<Exporter>,
    metrics: Option<Pusher>,
}

impl Exporters {
    /// Begins to record and send traces, if they are to go anywhere.
    pub(super) fn start(config: &Config) -> Result<(Option<Tracer>, Self), AppError> {
        let mut exporters = Self { resource: settings::resource(config)?, traces: None, metrics: None };
        let Some(endpoint) = config.telemetry.traces_to() else { return Ok((None, exporters)) };
        let (settings, resource) = (settings::traces(config, endpoint)?, exporters.resource.clone());
        let started = trace::start(settings, resource).map_err(|error| AppError::Collector { error });
        let (tracer, exporter) = started?;
        tracing::info!(endpoint, sampler = config.telemetry.traces_sampler, "traces are sent");
        exporters.traces = Some(exporter);
        Ok((Some(tracer), exporters))
    }

    /// Begins to send metrics, if they are to go anywhere.
    pub(super) fn start_metrics(&mut self, config: &Config, wall: &Wall) -> Result<(), AppError> {
        let Some(endpoint) = config.telemetry.metrics_to() else { return Ok(()) };
        let (settings, resource) = (settings::metrics(config, endpoint)?, self.resource.clone());
        let started = metrics::start(settings, resource, wall.sources());
        self.metrics = Some(started.map_err(|error| AppError::Collector { error })?);
        tracing::info!(endpoint, "metrics are sent");
        Ok(())
    }

    /// Sends what is left, in bounded time.
    pub(super) async fn end(self) {
        let traces = async {
            if let Some(traces) = self.traces {
                traces.end(END).await;
            }
        };
        let metrics = async {
            if let Some(metrics) = self.metrics {
                metrics.end(END).await;
            }
        };
        tokio::join!(traces, metrics);
    }
}
