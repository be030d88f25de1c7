//! Flags of traces and metrics by OTLP. Their variables are OpenTelemetry's own, so that a replica is told of a collector as
//! everything beside it is; without an endpoint nothing is recorded and nothing is sent.

use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::Duration;

use clap::{Args, ValueEnum};
use http::{HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;

use super::check::ConfigError;
use super::duration;
use crate::rpc::channels::Target;
use crate::server::otlp::Headers;
use crate::server::trace::Sampler;

/// Traces and metrics by OTLP over gRPC. An empty endpoint is as good as none.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "OpenTelemetry")]
pub struct TelemetryConfig {
    /// Collector that takes traces and metrics over gRPC: http:// or https://, host and port (mostly 4317). Without one, none
    /// are made
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,

    /// The same for traces alone
    #[arg(long, env = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", value_name = "URL")]
    pub otlp_traces_endpoint: Option<String>,

    /// The same for metrics alone
    #[arg(long, env = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", value_name = "URL")]
    pub otlp_metrics_endpoint: Option<String>,

    /// Metadata for the collector, NAME=VALUE,NAME=VALUE, percent-encoded; mostly a secret, so it is never printed
    #[arg(long, env = "OTEL_EXPORTER_OTLP_HEADERS", hide_env_values = true, value_name = "LIST", value_parser = headers, default_value = "", hide_default_value = true)]
    pub otlp_headers: Headers,

    /// CA certificates (PEM) that the collector's certificate is checked against; default: those of the system
    #[arg(long, env = "OTEL_EXPORTER_OTLP_CERTIFICATE", value_name = "FILE")]
    pub otlp_ca: Option<PathBuf>,

    /// How long the collector may take to answer one message; a bare number counts milliseconds, here and below
    #[arg(long, env = "OTEL_EXPORTER_OTLP_TIMEOUT", default_value = "10s", value_name = "TIME", value_parser = milliseconds)]
    pub otlp_timeout: Duration,

    /// Whether messages are compressed
    #[arg(long, env = "OTEL_EXPORTER_OTLP_COMPRESSION", default_value = "none")]
    pub otlp_compression: Compression,

    /// How the collector is spoken to; there is one way
    #[arg(long, env = "OTEL_EXPORTER_OTLP_PROTOCOL", default_value = "grpc")]
    pub otlp_protocol: Protocol,

    /// Whether traces are sent where there is an endpoint
    #[arg(long, env = "OTEL_TRACES_EXPORTER", default_value = "otlp")]
    pub traces_exporter: Signal,

    /// Whether metrics are sent where there is an endpoint; Jaeger, for one, takes none
    #[arg(long, env = "OTEL_METRICS_EXPORTER", default_value = "otlp")]
    pub metrics_exporter: Signal,

    /// Sends neither, whatever else is said
    #[arg(long, env = "OTEL_SDK_DISABLED", default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub otel_disabled: bool,

    /// Which calls are recorded: always_on, always_off, traceidratio, or parentbased_ and one of these, which does as the caller
    /// does where it has a trace
    #[arg(long, env = "OTEL_TRACES_SAMPLER", default_value = "parentbased_always_on", value_name = "NAME")]
    pub traces_sampler: String,

    /// For a sampler by ratio: the part of the traces that is recorded, like 0.01
    #[arg(long, env = "OTEL_TRACES_SAMPLER_ARG", value_name = "RATIO")]
    pub traces_sampler_arg: Option<String>,

    /// What the collector knows this service as
    #[arg(long, env = "OTEL_SERVICE_NAME", default_value = "larder", value_name = "NAME")]
    pub service_name: String,

    /// What else it is told of this replica, KEY=VALUE,KEY=VALUE, percent-encoded; its uid and version it is told anyway
    #[arg(long, env = "OTEL_RESOURCE_ATTRIBUTES", value_name = "LIST")]
    pub resource_attributes: Option<String>,

    /// Spans that may wait to be sent; one more is dropped and counted
    #[arg(long, env = "OTEL_BSP_MAX_QUEUE_SIZE", default_value_t = 2048, value_name = "SPANS")]
    pub span_queue: usize,

    /// Spans of one message
    #[arg(long, env = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", default_value_t = 512, value_name = "SPANS")]
    pub span_batch: usize,

    /// The longest that a span waits for others
    #[arg(long, env = "OTEL_BSP_SCHEDULE_DELAY", default_value = "5s", value_name = "TIME", value_parser = milliseconds)]
    pub span_delay: Duration,

    /// How long one message of spans is tried
    #[arg(long, env = "OTEL_BSP_EXPORT_TIMEOUT", default_value = "30s", value_name = "TIME", value_parser = milliseconds)]
    pub span_timeout: Duration,

    /// How often metrics are sent
    #[arg(long, env = "OTEL_METRIC_EXPORT_INTERVAL", default_value = "1min", value_name = "TIME", value_parser = milliseconds)]
    pub metrics_interval: Duration,

    /// How long one message of metrics is tried
    #[arg(long, env = "OTEL_METRIC_EXPORT_TIMEOUT", default_value = "30s", value_name = "TIME", value_parser = milliseconds)]
    pub metrics_timeout: Duration,
}

/// Whether messages are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Compression {
    None,
    Gzip,
}

/// How a collector is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// OTLP over gRPC.
    Grpc,
}

/// Where a signal goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Signal {
    /// To the endpoint, if there is one.
    Otlp,
    /// Nowhere.
    None,
}

/// Spans that may wait: some 0.5 KiB each.
const MAX_QUEUE: usize = 1_000_000;

/// Spans of one message: gRPC's 4 MiB hold twice as many.
const MAX_BATCH: usize = 4096;

impl TelemetryConfig {
    /// Where traces go, if they are made.
    #[must_use]
    pub fn traces_to(&self) -> Option<&str> {
        self.endpoint(self.traces_exporter, self.otlp_traces_endpoint.as_deref())
    }

    /// Where metrics go, if they are sent.
    #[must_use]
    pub fn metrics_to(&self) -> Option<&str> {
        self.endpoint(self.metrics_exporter, self.otlp_metrics_endpoint.as_deref())
    }

    fn endpoint<'a>(&'a self, signal: Signal, own: Option<&'a str>) -> Option<&'a str> {
        let given = |text: Option<&'a str>| text.filter(|text| !text.is_empty());
        let endpoint = given(own).or_else(|| given(self.otlp_endpoint.as_deref()))?;
        (signal == Signal::Otlp && !self.otel_disabled).then_some(endpoint)
    }

    /// Which calls are recorded.
    ///
    /// # Errors
    /// When there is no such sampler.
    pub fn sampler(&self) -> Result<Sampler, ConfigError> {
        let ratio = self.traces_sampler_arg.as_deref().filter(|ratio| !ratio.is_empty());
        Sampler::new(&self.traces_sampler, ratio)
            .map_err(|error| ConfigError::new(&format!("--traces-sampler and --traces-sampler-arg: {error}")))
    }

    /// What the collector is told of this replica beside its name.
    ///
    /// # Errors
    /// When a pair has no `=`.
    pub fn attributes(&self) -> Result<Vec<(String, String)>, ConfigError> {
        pairs(self.resource_attributes.as_deref().unwrap_or_default())
            .map_err(|problem| ConfigError::new(&format!("--resource-attributes: {problem}")))
    }

    /// Checks what the flags say together.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        for endpoint in [self.traces_to(), self.metrics_to()].into_iter().flatten() {
            check_endpoint(endpoint)?;
        }
        self.sampler()?;
        self.attributes()?;
        let bounds = [(self.span_queue, MAX_QUEUE, "--span-queue"), (self.span_batch, MAX_BATCH, "--span-batch")];
        if let Some((_, most, flag)) = bounds.iter().find(|(value, most, _)| !(1..=*most).contains(value)) {
            return Err(ConfigError::new(&format!("{flag} is not from 1 to {most}; give it a number of spans")));
        }
        if self.span_batch > self.span_queue {
            return Err(ConfigError::new("--span-batch is over --span-queue, so no batch was ever full; give it less"));
        }
        let times = [
            (self.otlp_timeout, "--otlp-timeout"),
            (self.span_delay, "--span-delay"),
            (self.span_timeout, "--span-timeout"),
            (self.metrics_interval, "--metrics-interval"),
            (self.metrics_timeout, "--metrics-timeout"),
        ];
        match times.iter().find(|(time, _)| time.is_zero()) {
            Some((_, flag)) => Err(ConfigError::new(&format!("{flag} is 0; give it at least 1ms"))),
            None => Ok(()),
        }
    }
}

fn check_endpoint(endpoint: &str) -> Result<(), ConfigError> {
    let has_port = endpoint.trim_end_matches('/').rsplit_once(':').is_some_and(|(_, port)| u16::from_str(port).is_ok());
    if has_port && endpoint.contains("://") && endpoint.parse::<Target>().is_ok() {
        return Ok(());
    }
    Err(ConfigError::new(
        "an endpoint for OTLP is no URL with a port and without a path, user or password; write it like http://collector:4317",
    ))
}

/// `NAME=VALUE,NAME=VALUE`. What is wrong is told without the values.
fn headers(text: &str) -> Result<Headers, String> {
    let pairs = pairs(text)?;
    let headers = pairs.into_iter().map(|(name, value)| {
        let value = HeaderValue::from_str(&value).map_err(|_| format!("the value of `{name}` is no header's"))?;
        let name = HeaderName::from_str(&name).map_err(|_| "a name is no header's".to_owned())?;
        Ok((name, value))
    });
    headers.collect::<Result<_, String>>().map(Headers)
}

fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let decoded = |text: &str| percent_decode_str(text.trim()).decode_utf8().map(String::from);
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let pairs = parts.map(|part| {
        let (name, value) = part.split_once('=').filter(|(name, _)| !name.trim().is_empty())?;
        Some((decoded(name).ok()?, decoded(value).ok()?))
    });
    pairs.collect::<Option<_>>().ok_or_else(|| "write NAME=VALUE,NAME=VALUE, percent-encoded".to_owned())
}

/// A duration, or a bare number of milliseconds, as OpenTelemetry has it.
fn milliseconds(text: &str) -> Result<Duration, String> {
    match u64::from_str(text) {
        Ok(number) => Ok(Duration::from_millis(number)),
        Err(_) => duration(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::config::Config;

    fn of(flags: &str) -> Result<TelemetryConfig, String> {
        let flags = ["--accounts", "a"].into_iter().chain(flags.split_whitespace());
        let config = Config::from_flags(flags).map_err(|error| error.to_string())?;
        config.check().map_err(|error| error.to_string())?;
        Ok(config.telemetry)
    }

    #[test]
    fn a_signal_goes_to_its_own_endpoint_or_to_that_of_both() {
        for (flags, traces, metrics) in [
            ("", None, None),
            ("--otlp-endpoint http://a:1", Some("http://a:1"), Some("http://a:1")),
            ("--otlp-endpoint http://a:1 --otlp-traces-endpoint http://b:2", Some("http://b:2"), Some("http://a:1")),
            ("--otlp-metrics-endpoint https://c:3/", None, Some("https://c:3/")),
            ("--otlp-endpoint http://a:1 --metrics-exporter none", Some("http://a:1"), None),
            ("--otlp-endpoint http://a:1 --otel-disabled", None, None),
            ("--otlp-endpoint=", None, None),
        ] {
            let its = of(flags).unwrap();
            assert_eq!((its.traces_to(), its.metrics_to()), (traces, metrics), "{flags}");
        }
    }

    #[test]
    fn what_cannot_work_is_refused_and_no_secret_is_repeated() {
        for (flags, named) in [
            ("--otlp-endpoint collector:4317", "http://collector:4317"),
            ("--otlp-endpoint http://collector", "http://collector:4317"),
            ("--otlp-endpoint http://u:secret@collector:4317", "password"),
            ("--otlp-endpoint http://collector:4317/v1/traces", "path"),
            ("--otlp-protocol http/protobuf", "grpc"),
            ("--otlp-headers secret", "NAME=VALUE"),
            ("--otlp-headers a=%0asecret", "no header"),
            ("--traces-sampler jaeger_remote", "parentbased_traceidratio"),
            ("--traces-sampler traceidratio --traces-sampler-arg 2", "ratio"),
            ("--resource-attributes x", "--resource-attributes"),
            ("--span-batch 4000", "--span-queue"),
            ("--span-queue 0", "--span-queue"),
            ("--span-delay 0", "--span-delay"),
        ] {
            let said = of(flags).expect_err(flags);
            assert!(said.contains(named), "{flags}: {said}");
        }
    }

    #[test]
    fn headers_are_percent_decoded_and_never_printed() {
        let its = of("--otlp-headers api-key=se%20cret,x-other=1 --span-delay 250").unwrap();
        assert_eq!(its.otlp_headers.0[0].1, "se cret");
        assert_eq!((its.otlp_headers.0.len(), its.span_delay), (2, Duration::from_millis(250)));
        let printed = format!("{its:?}");
        assert!(printed.contains("api-key") && !printed.contains("cret"), "{printed}");
    }
}
