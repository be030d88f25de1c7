//! The metrics as Prometheus text (OpenMetrics 1.0).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Registry;
use tonic::Code;

use super::{BUCKETS_US, CODES, MethodMetrics, Metrics, Refusal};
use super::{around, cluster, peers};
use crate::cache::store::{Store, StoreStats};
use crate::server::accounts::Accounts;
use crate::server::handoff::Handoff;
use crate::server::held::Held;
use crate::server::method::Method;
use crate::server::trace::Tracer;
use crate::server::wall::registry::{AccountCounts, Accounted};

/// What `render` reads beside the counters themselves.
pub struct Sources {
    pub metrics: Arc<Metrics>,
    pub store: Arc<Store>,
    pub accounts: Arc<Accounted>,
    pub source: Accounts,
    pub held: Arc<Held>,
    /// None: nothing is recorded.
    pub tracer: Option<Tracer>,
    /// None: this replica is alone.
    pub handoff: Option<Handoff>,
}

/// One moment of a replica, ready to be written.
struct Snapshot {
    metrics: Arc<Metrics>,
    store: StoreStats,
    accounts: Vec<AccountCounts>,
    source: Accounts,
    held_bytes: u64,
    tracer: Option<Tracer>,
    handoff: Option<Handoff>,
}

/// Label pairs of one sample.
pub(super) struct Labels<'a>(pub(super) &'a [(&'static str, &'a str)]);

type NoExemplar<'a> = Option<&'a Exemplar<Vec<(String, String)>, f64>>;

impl Sources {
    /// Everything as OpenMetrics text.
    #[must_use]
    pub fn render(&self) -> String {
        let snapshot = Snapshot {
            metrics: self.metrics.clone(),
            store: self.store.stats(),
            accounts: self.accounts.counts(),
            source: self.source.clone(),
            held_bytes: self.held.bytes(),
            tracer: self.tracer.clone(),
            handoff: self.handoff.clone(),
        };
        let mut registry = Registry::default();
        registry.register_collector(Box::new(snapshot));
        let mut text = String::new();
        // Writing to a `String` cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        text
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").finish_non_exhaustive()
    }
}

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }
}

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.calls(&mut encoder)?;
        self.durations(&mut encoder)?;
        self.method_sums(&mut encoder)?;
        self.carried_out(&mut encoder)?;
        self.refusals(&mut encoder)?;
        self.per_account(&mut encoder)?;
        self.store(&mut encoder)?;
        around::connections(&mut encoder, &self.metrics)?;
        around::certificates(&mut encoder, &self.metrics)?;
        around::accounts(&mut encoder, &self.source)?;
        around::spans(&mut encoder, self.tracer.as_ref())?;
        cluster::encode(&mut encoder, self.handoff.as_ref())?;
        peers::encode(&mut encoder, &self.metrics)?;
        self.process(&mut encoder)
    }
}

impl Snapshot {
    fn calls(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help =
            "Calls that ended, by method and gRPC code; items of batches and pipelines have methods of their own";
        let mut family = encoder.encode_descriptor("larder_calls", help, None, MetricType::Counter)?;
        for method in Method::all() {
            for code in 0..CODES {
                let count = self.sum(method, |cells| cells.codes[code].load(Relaxed));
                if count > 0 {
                    let code = format!("{:?}", Code::from(i32::try_from(code).unwrap_or_default()));
                    counter(&mut family, &[("method", method.traits().name), ("code", &code)], count)?;
                }
            }
        }
        Ok(())
    }

    fn durations(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help =
            "How long calls took in the server, in seconds; for items of a pipeline or batch the mean over a message";
        let mut family =
            encoder.encode_descriptor("larder_call_duration_seconds", help, None, MetricType::Histogram)?;
        for method in Method::all() {
            let bounds = BUCKETS_US.iter().map(|us| seconds(us * 1000)).chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds
                .enumerate()
                .map(|(i, bound)| (bound, self.sum(method, |cells| cells.buckets[i].load(Relaxed))))
                .collect();
            let count = buckets.iter().map(|(_, count)| count).sum();
            if count > 0 {
                let sum = seconds(self.sum(method, |cells| cells.sum_ns.load(Relaxed)));
                family
                    .encode_family(&Labels(&[("method", method.traits().name)]))?
                    .encode_histogram::<Vec<(String, String)>>(sum, count, &buckets, None)?;
            }
        }
        Ok(())
    }

    fn method_sums(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        type Of = fn(&MethodMetrics) -> u64;
        let counters: [(&str, &str, Of); 2] = [
            ("larder_request_bytes", "Bytes of request messages", |cells| cells.bytes_in.load(Relaxed)),
            ("larder_response_bytes", "Bytes of response messages", |cells| cells.bytes_out.load(Relaxed)),
        ];
        for (name, help, of) in counters {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for method in Method::all() {
                let sum = self.sum(method, of);
                if sum > 0 {
                    counter(&mut family, &[("method", method.traits().name)], sum)?;
                }
            }
        }
        let mut family =
            encoder.encode_descriptor("larder_calls_in_progress", "Calls in progress", None, MetricType::Gauge)?;
        for method in Method::all() {
            let now = self.sum(method, |cells| cells.in_progress.load(Relaxed));
            gauge(&mut family, &[("method", method.traits().name)], now)?;
        }
        Ok(())
    }

    fn carried_out(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help =
            "Calls that other replicas forwarded to this one, by method and gRPC code; MOVED: it did not own the key";
        let mut family = encoder.encode_descriptor("larder_calls_carried_out", help, None, MetricType::Counter)?;
        for method in Method::all() {
            for code in (0..17).map(|code| Some(Code::from(code))).chain([None]) {
                let count = self.metrics.carried_out(method, code);
                if count > 0 {
                    let code = code.map_or("MOVED".to_owned(), |code| format!("{code:?}"));
                    counter(&mut family, &[("method", method.traits().name), ("code", &code)], count)?;
                }
            }
        }
        Ok(())
    }

    fn refusals(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Calls that the wall refused before their operation ran, by reason";
        let mut family = encoder.encode_descriptor("larder_calls_refused", help, None, MetricType::Counter)?;
        for (refusal, name) in Refusal::ALL {
            counter(&mut family, &[("reason", name)], self.metrics.refused(refusal))?;
        }
        Ok(())
    }

    fn per_account(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        type Of = fn(&AccountCounts) -> u64;
        let counters: [(&str, &str, Of); 4] = [
            ("larder_account_calls", "Calls of an account, also those that were refused", |a| a.calls),
            ("larder_account_refused", "Calls of an account that its own limits refused", |a| a.refused),
            ("larder_account_request_bytes", "Bytes of an account's request messages", |a| a.bytes_in),
            ("larder_account_response_bytes", "Bytes of the answers to an account", |a| a.bytes_out),
        ];
        for (name, help, of) in counters {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for account in &self.accounts {
                counter(&mut family, &[("account", account.id.as_str())], of(account))?;
            }
        }
        let gauges: [(&str, &str, Of); 3] = [
            ("larder_account_keys", "Keys charged to an account", |a| a.usage.keys),
            ("larder_account_bytes", "Bytes of keys and values charged to an account", |a| a.usage.bytes),
            ("larder_account_memory_bytes", "Memory of the entries charged to an account", |a| a.usage.memory),
        ];
        for (name, help, of) in gauges {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for account in &self.accounts {
                gauge(&mut family, &[("account", account.id.as_str())], of(account))?;
            }
        }
        Ok(())
    }

    fn store(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let s = &self.store;
        for (name, help, value) in [
            ("larder_store_entries", "Entries in memory", s.entries),
            ("larder_store_memory_bytes", "Memory of keys, values and overhead", s.memory_bytes),
            ("larder_store_capacity_bytes", "Memory that entries may take", s.capacity_bytes),
        ] {
            single_gauge(encoder, name, help, value)?;
        }
        for (name, help, value) in [
            ("larder_store_hits", "Reads that found a value", s.hits),
            ("larder_store_misses", "Reads that found none", s.misses),
            ("larder_store_stored", "Values stored", s.stored),
            ("larder_store_evicted", "Entries removed to make room", s.evicted),
            ("larder_store_expired", "Entries removed because their time was over", s.expired),
        ] {
            single_counter(encoder, name, help, value)?;
        }
        Ok(())
    }

    fn process(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let m = &self.metrics;
        let help =
            "Memory of large messages that have not come whole or are not taken; over --max-held, calls are refused";
        single_gauge(encoder, "larder_held_bytes", help, self.held_bytes)?;
        single_gauge(encoder, "larder_uptime_seconds", "Time since the start", m.uptime().as_secs())?;
        let mut info = encoder.encode_descriptor("larder_build", "The running program", None, MetricType::Info)?;
        info.encode_info(&Labels(&[("version", env!("CARGO_PKG_VERSION"))]))
    }

    fn sum(&self, method: Method, of: impl Fn(&MethodMetrics) -> u64) -> u64 {
        self.metrics.workers.iter().map(|worker| of(&worker.methods[method.index()])).sum()
    }
}

pub(super) fn counter(family: &mut MetricEncoder<'_>, labels: &[(&'static str, &str)], value: u64) -> fmt::Result {
    family.encode_family(&Labels(labels))?.encode_counter(&value, None as NoExemplar<'_>)
}

pub(super) fn gauge(family: &mut MetricEncoder<'_>, labels: &[(&'static str, &str)], value: u64) -> fmt::Result {
    family.encode_family(&Labels(labels))?.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX))
}

pub(super) fn single_counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    metric.encode_counter(&value, None as NoExemplar<'_>)
}

pub(super) fn single_gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    metric.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX))
}

pub(super) fn float_counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    metric.encode_counter(&value, None as NoExemplar<'_>)
}

pub(super) fn float_gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> fmt::Result {
    encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
}

fn seconds(ns: u64) -> f64 {
    Duration::from_nanos(ns).as_secs_f64()
}
