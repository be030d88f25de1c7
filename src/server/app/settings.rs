//! From flags to the settings of each part. No decisions: names and units.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::resource::v1::Resource;

use super::AppError;
use crate::cache::store::StoreConfig;
use crate::cluster::Family;
use crate::ownership::member::Uid;
use crate::server::accept::WireConfig;
use crate::server::accounts::remote::{Policy, RemoteConfig, RemoteService};
use crate::server::admin::Pages;
use crate::server::config::{AccountsConfig, AccountsService, ClientAuth, Compression, Config};
use crate::server::handoff::{HandoffConfig, page};
use crate::server::health::Health;
use crate::server::memory::{Kernel, Source};
use crate::server::metrics::PushConfig;
use crate::server::otlp::{self, OtlpConfig};
use crate::server::readiness::Readiness;
use crate::server::tls::{ClientCertificates, TlsConfig};
use crate::server::trace::TracesConfig;
use crate::server::wall::{Wall, WallConfig};

/// Shards per worker: enough that two threads seldom meet at one lock.
const SHARDS_PER_WORKER: usize = 16;

/// Messages under way may take one part in this many of the entries' memory: half of what a container's limit leaves beside
/// the entries.
const HELD_PART: u64 = 8;

/// But at least so much, a few of the largest messages, and at most so much: hundreds of them.
const MIN_HELD_BYTES: u64 = 32 * 1024 * 1024;
const MAX_HELD_BYTES: u64 = 1024 * 1024 * 1024;

/// Bytes of the largest page of a hand-off: so many that the message matters little, and so few that a replica of 256 MiB has room
/// for those that are under way. A page is written and read in one go; while keys are touched pages are smaller.
const PAGE_BYTES: usize = 256 * 1024;

/// What a service is called that nobody has named.
const DEFAULT_SERVICE: &str = "larder";

/// Longer than any process lives, and far from where adding it to a moment overflows.
const FOR_EVER: Duration = Duration::from_hours(100 * 365 * 24);

/// Bytes for entries: as configured, or as the kernel says.
pub(super) fn capacity(config: &Config, kernel: &Kernel) -> Option<u64> {
    if let Some(capacity) = config.memory.capacity {
        return Some(capacity.as_u64());
    }
    let capacity = kernel.capacity()?;
    match capacity.source {
        Source::Container(limit) => tracing::info!(limit, "the entries may take 75 % of the container's memory limit"),
        Source::Machine(memory) => {
            tracing::info!(
                memory,
                "there is no memory limit, so the entries may take 25 % of the machine; see --capacity"
            );
        }
    }
    Some(capacity.bytes)
}

pub(super) fn store(capacity_bytes: u64, workers: usize) -> StoreConfig {
    StoreConfig { capacity_bytes, shards: (workers * SHARDS_PER_WORKER).next_power_of_two(), replica: rand::random() }
}

pub(super) fn wall(config: &Config, workers: usize, capacity_bytes: u64) -> WallConfig {
    let calls = &config.calls;
    let share = (capacity_bytes / HELD_PART).clamp(MIN_HELD_BYTES, MAX_HELD_BYTES);
    WallConfig {
        requests_per_second: (calls.requests_per_second > 0).then_some(calls.requests_per_second),
        burst: calls.burst,
        max_calls_per_worker: (calls.max_in_progress.div_ceil(workers)) as u64,
        max_metadata_bytes: usize::try_from(calls.max_metadata.as_u64()).unwrap_or(usize::MAX),
        max_held_bytes: calls.max_held.map_or(share, |held| held.as_u64()),
        max_unary_time: calls.max_deadline,
        max_ttl_ms: config.max_ttl_ms(),
        tutorial_api: config.accounts.tutorial_api,
        ..WallConfig::default()
    }
}

pub(super) fn wire(config: &Config) -> WireConfig {
    let its = &config.connections;
    WireConfig {
        max_connections: its.max_connections,
        max_handshaking: its.max_handshaking,
        max_streams: its.max_streams,
        handshake_timeout: its.handshake_timeout,
        preface_timeout: its.preface_timeout,
        header_timeout: its.header_timeout,
        idle_timeout: or_for_ever(its.idle_timeout),
        connection_age: or_for_ever(its.connection_age),
        connection_age_grace: its.connection_age_grace,
        keepalive_interval: its.keepalive_interval,
        silence_timeout: its.silence_timeout,
        dead_path_timeout: its.dead_path_timeout,
        stall_timeout: its.stall_timeout,
        ..WireConfig::default()
    }
}

pub(super) fn tls(config: &Config) -> Option<TlsConfig> {
    let (certificate, key) = (config.tls.cert.clone()?, config.tls.key.clone()?);
    let clients = match (&config.tls.client_ca, config.tls.client_auth) {
        (None, _) => ClientCertificates::Ignored,
        (Some(ca), ClientAuth::Optional) => ClientCertificates::Optional(ca.clone()),
        (Some(ca), ClientAuth::Required) => ClientCertificates::Required(ca.clone()),
    };
    Some(TlsConfig { certificate, key, clients, reload_interval: config.tls.reload })
}

pub(super) fn remote(config: &AccountsConfig, url: &str) -> RemoteConfig {
    RemoteConfig {
        url: url.to_owned(),
        service: match config.service {
            AccountsService::Auto => RemoteService::Auto,
            AccountsService::Larder => RemoteService::Larder,
            AccountsService::Tutorial => RemoteService::Tutorial,
        },
        ca: config.ca.clone(),
        policy: Policy {
            ttl: config.ttl,
            negative_ttl: config.negative_ttl,
            max_stale: config.max_stale,
            ..Policy::default()
        },
        timeout: config.timeout,
    }
}

pub(super) fn peer_tls(config: &Config) -> Option<TlsConfig> {
    let its = &config.cluster;
    let (certificate, key, ca) = (its.peer_tls_cert.clone()?, its.peer_tls_key.clone()?, its.peer_tls_ca.clone()?);
    let clients = ClientCertificates::Peers { ca, name: its.peer_tls_name.clone() };
    Some(TlsConfig { certificate, key, clients, reload_interval: config.tls.reload })
}

/// `listens`: where clients reach this replica.
pub(super) fn handoff(config: &Config, listens: SocketAddr) -> HandoffConfig {
    let its = &config.cluster;
    HandoffConfig {
        uid: Uid::new(its.uid.as_deref().unwrap_or_default()),
        address: place(config, listens).to_string().into(),
        linger: its.linger,
        rate: its.handoff_rate.as_u64(),
        page_bytes: PAGE_BYTES,
    }
}

/// This replica's place on the ring.
fn place(config: &Config, listens: SocketAddr) -> SocketAddr {
    match config.cluster.advertise {
        None => listens,
        Some(place) if place.port() == 0 => SocketAddr::new(place.ip(), listens.port()),
        Some(place) => place,
    }
}

/// That of the replica's own place on the ring.
pub(super) fn family(config: &Config) -> Family {
    config.cluster.address_family.unwrap_or_else(|| Family::of(config.cluster.advertise.unwrap_or(config.listen).ip()))
}

/// Whom a collector hears from.
pub(super) fn resource(config: &Config) -> Result<Resource, AppError> {
    let its = &config.telemetry;
    let uid = config.cluster.uid.clone().unwrap_or_else(|| format!("{:016x}", rand::random::<u64>()));
    let mut attributes = vec![
        (
            "service.name".to_owned(),
            Some(&its.service_name).filter(|name| !name.is_empty()).map_or(DEFAULT_SERVICE, |name| name).to_owned(),
        ),
        ("service.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id".to_owned(), uid),
    ];
    for (key, value) in its.attributes()? {
        match attributes.iter_mut().find(|(known, _)| *known == key) {
            // The name has a setting of its own, which wins where it is given.
            Some((name, _)) if name == "service.name" && its.service_name != DEFAULT_SERVICE => {}
            Some(known) => known.1 = value,
            None => attributes.push((key, value)),
        }
    }
    Ok(otlp::resource(&attributes))
}

/// How a collector at an endpoint is told something.
pub(super) fn otlp(config: &Config, endpoint: &str) -> Result<OtlpConfig, AppError> {
    let its = &config.telemetry;
    Ok(OtlpConfig {
        target: endpoint.parse()?,
        ca: its.otlp_ca.clone().filter(|path| !path.as_os_str().is_empty()),
        headers: its.otlp_headers.clone(),
        timeout: its.otlp_timeout,
        gzip: its.otlp_compression == Compression::Gzip,
    })
}

pub(super) fn traces(config: &Config, endpoint: &str) -> Result<TracesConfig, AppError> {
    let its = &config.telemetry;
    Ok(TracesConfig {
        otlp: otlp(config, endpoint)?,
        sampler: its.sampler()?,
        queue: its.span_queue,
        batch: its.span_batch,
        delay: its.span_delay,
        within: its.span_timeout,
    })
}

pub(super) fn metrics(config: &Config, endpoint: &str) -> Result<PushConfig, AppError> {
    let its = &config.telemetry;
    Ok(PushConfig { otlp: otlp(config, endpoint)?, interval: its.metrics_interval, within: its.metrics_timeout })
}

/// 0 in the configuration means: never.
fn or_for_ever(time: Duration) -> Duration {
    if time.is_zero() { FOR_EVER } else { time }
}

pub(super) fn pages(readiness: &Readiness, health: &Health, wall: &Wall) -> Pages {
    let health = health.clone();
    let sources = wall.sources();
    let handoff = sources.handoff.clone();
    Pages {
        readiness: readiness.clone(),
        draining: Arc::new(move || !health.is_starting() && !health.is_serving()),
        metrics: Arc::new(move || sources.render()),
        members: Arc::new(move || page::text(handoff.as_ref())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_of_the_flags_are_those_of_the_parts() {
        let config = Config::from_flags(["--accounts", "a"]).unwrap();
        assert_eq!(wire(&config), WireConfig::default());
        assert_eq!(remote(&config.accounts, "").policy, Policy::default());
    }

    #[test]
    fn the_place_on_the_ring_has_the_port_of_the_listener_unless_it_says_its_own() {
        let listens: SocketAddr = "0.0.0.0:7070".parse().unwrap();
        for (advertised, place) in [
            ("10.0.0.1", "10.0.0.1:7070"),
            ("10.0.0.1:1", "10.0.0.1:1"),
            ("fd00::1", "[fd00::1]:7070"),
            ("[fd00::1]:1", "[fd00::1]:1"),
        ] {
            let flags = ["--accounts", "a", "--members-service", "s", "--uid", "u", "--advertise", advertised];
            let config = Config::from_flags(flags).unwrap();
            assert_eq!(config.check().map_err(|error| error.to_string()), Ok(()));
            assert_eq!(super::place(&config, listens).to_string(), place);
        }
    }
}
