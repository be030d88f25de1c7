//! What tells a collector: traces and metrics, each if it has an endpoint.

use std::time::Duration;

use super::{AppError, settings};
use crate::server::config::Config;
use crate::server::trace::{self, Exporter, Tracer};

/// How long the last spans and figures may take to be sent when a replica ends: a collector that answers takes milliseconds.
const END: Duration = Duration::from_secs(2);

/// Running exporters.
#[derive(Debug, Default)]
pub(super) struct Exporters {
    traces: Option<Exporter>,
}

impl Exporters {
    /// Starts what is configured.
    pub(super) fn start(config: &Config) -> Result<(Option<Tracer>, Self), AppError> {
        let Some(endpoint) = config.telemetry.traces_to() else { return Ok((None, Self::default())) };
        let settings = settings::traces(config, endpoint)?;
        let resource = settings::resource(config)?;
        let started = trace::start(settings, resource).map_err(|error| AppError::Collector { error })?;
        let (tracer, exporter) = started;
        tracing::info!(endpoint, sampler = config.telemetry.traces_sampler, "traces are sent");
        Ok((Some(tracer), Self { traces: Some(exporter) }))
    }

    /// Sends what is left, in bounded time.
    pub(super) async fn end(self) {
        if let Some(traces) = self.traces {
            traces.end(END).await;
        }
    }
}
