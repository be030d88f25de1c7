//! The metrics as they are now, and as Prometheus text (OpenMetrics 1.0).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

use prometheus_client::registry::Registry;
use tonic::Code;

use super::family::{Families, Family, Kind, Value};
use super::{BUCKETS_US, CODES, MethodMetrics, Metrics, Refusal};
use super::{around, cluster, peers, process};
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

/// One moment of a replica.
struct Moment<'a> {
    its: &'a Sources,
    metrics: &'a Metrics,
    store: StoreStats,
    accounts: Vec<AccountCounts>,
}

impl Sources {
    /// Everything as OpenMetrics text.
    #[must_use]
    pub fn render(&self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self.families()));
        let mut text = String::new();
        // Writing to a `String` cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        text
    }

    /// Everything as it is now.
    #[must_use]
    pub fn families(&self) -> Families {
        let (store, accounts) = (self.store.stats(), self.accounts.counts());
        let moment = Moment { its: self, metrics: &self.metrics, store, accounts };
        let mut families = Families::default();
        moment.calls(&mut families);
        moment.durations(&mut families);
        moment.method_sums(&mut families);
        moment.carried_out(&mut families);
        moment.refusals(&mut families);
        moment.per_account(&mut families);
        moment.store(&mut families);
        around::connections(&mut families, &self.metrics);
        around::certificates(&mut families, &self.metrics);
        around::accounts(&mut families, &self.source);
        around::spans(&mut families, self.tracer.as_ref());
        cluster::encode(&mut families, self.handoff.as_ref());
        peers::encode(&mut families, &self.metrics);
        moment.process(&mut families);
        families
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}

impl Moment<'_> {
    fn calls(&self, families: &mut Families) {
        let help =
            "Calls that ended, by method and gRPC code; items of batches and pipelines have methods of their own";
        let family = families.add("larder_calls", help, Kind::Counter);
        for method in Method::all() {
            for code in 0..CODES {
                let count = self.sum(method, |cells| cells.codes[code].load(Relaxed));
                if count > 0 {
                    let code = format!("{:?}", Code::from(i32::try_from(code).unwrap_or_default()));
                    counter(family, &[("method", method.traits().name), ("code", &code)], count);
                }
            }
        }
    }

    fn durations(&self, families: &mut Families) {
        let help =
            "How long calls took in the server, in seconds; for items of a pipeline or batch the mean over a message";
        let family = families.add("larder_call_duration_seconds", help, Kind::Histogram);
        for method in Method::all() {
            let bounds = BUCKETS_US.iter().map(|us| seconds(us * 1000)).chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds
                .enumerate()
                .map(|(i, bound)| (bound, self.sum(method, |cells| cells.buckets[i].load(Relaxed))))
                .collect();
            if buckets.iter().any(|(_, count)| *count > 0) {
                let sum = seconds(self.sum(method, |cells| cells.sum_ns.load(Relaxed)));
                family.push(&[("method", method.traits().name)], Value::Histogram { sum, buckets });
            }
        }
    }

    fn method_sums(&self, families: &mut Families) {
        type Of = fn(&MethodMetrics) -> u64;
        let counters: [(&str, &str, Of); 2] = [
            ("larder_request_bytes", "Bytes of request messages", |cells| cells.bytes_in.load(Relaxed)),
            ("larder_response_bytes", "Bytes of response messages", |cells| cells.bytes_out.load(Relaxed)),
        ];
        for (name, help, of) in counters {
            let family = families.add(name, help, Kind::Counter);
            for method in Method::all() {
                let sum = self.sum(method, of);
                if sum > 0 {
                    counter(family, &[("method", method.traits().name)], sum);
                }
            }
        }
        let family = families.add("larder_calls_in_progress", "Calls in progress", Kind::Gauge);
        for method in Method::all() {
            let now = self.sum(method, |cells| cells.in_progress.load(Relaxed));
            gauge(family, &[("method", method.traits().name)], now);
        }
    }

    fn carried_out(&self, families: &mut Families) {
        let help =
            "Calls that other replicas forwarded to this one, by method and gRPC code; MOVED: it did not own the key";
        let family = families.add("larder_calls_carried_out", help, Kind::Counter);
        for method in Method::all() {
            for code in (0..17).map(|code| Some(Code::from(code))).chain([None]) {
                let count = self.metrics.carried_out(method, code);
                if count > 0 {
                    let code = code.map_or("MOVED".to_owned(), |code| format!("{code:?}"));
                    counter(family, &[("method", method.traits().name), ("code", &code)], count);
                }
            }
        }
    }

    fn refusals(&self, families: &mut Families) {
        let help = "Calls that the wall refused before their operation ran, by reason";
        let family = families.add("larder_calls_refused", help, Kind::Counter);
        for (refusal, name) in Refusal::ALL {
            counter(family, &[("reason", name)], self.metrics.refused(refusal));
        }
    }

    fn per_account(&self, families: &mut Families) {
        type Of = fn(&AccountCounts) -> u64;
        let counters: [(&str, &str, Of); 4] = [
            ("larder_account_calls", "Calls of an account, also those that were refused", |a| a.calls),
            ("larder_account_refused", "Calls of an account that its own limits refused", |a| a.refused),
            ("larder_account_request_bytes", "Bytes of an account's request messages", |a| a.bytes_in),
            ("larder_account_response_bytes", "Bytes of the answers to an account", |a| a.bytes_out),
        ];
        for (name, help, of) in counters {
            let family = families.add(name, help, Kind::Counter);
            for account in &self.accounts {
                counter(family, &[("account", account.id.as_str())], of(account));
            }
        }
        let gauges: [(&str, &str, Of); 5] = [
            ("larder_account_keys", "Keys charged to an account", |a| a.usage.keys),
            ("larder_account_bytes", "Bytes of keys and values charged to an account", |a| a.usage.bytes),
            ("larder_account_max_keys", "Keys that an account may have in the whole cluster; 0: no limit", |a| {
                a.budget.max_keys.unwrap_or(0)
            }),
            ("larder_account_max_bytes", "Bytes that an account may have in the whole cluster; 0: no limit", |a| {
                a.budget.max_bytes.unwrap_or(0)
            }),
            ("larder_account_memory_bytes", "Memory of the entries charged to an account", |a| a.usage.memory),
        ];
        for (name, help, of) in gauges {
            let family = families.add(name, help, Kind::Gauge);
            for account in &self.accounts {
                gauge(family, &[("account", account.id.as_str())], of(account));
            }
        }
    }

    fn store(&self, families: &mut Families) {
        let s = &self.store;
        for (name, help, value) in [
            ("larder_store_entries", "Entries in memory", s.entries),
            ("larder_store_memory_bytes", "Memory of keys, values and overhead", s.memory_bytes),
            ("larder_store_capacity_bytes", "Memory that entries may take", s.capacity_bytes),
        ] {
            single_gauge(families, name, help, value);
        }
        for (name, help, value) in [
            ("larder_store_hits", "Reads that found a value", s.hits),
            ("larder_store_misses", "Reads that found none", s.misses),
            ("larder_store_stored", "Values stored", s.stored),
            ("larder_store_evicted", "Entries removed to make room", s.evicted),
            ("larder_store_expired", "Entries removed because their time was over", s.expired),
        ] {
            single_counter(families, name, help, value);
        }
    }

    fn process(&self, families: &mut Families) {
        let help =
            "Memory of large messages that have not come whole or are not taken; over --max-held, calls are refused";
        single_gauge(families, "larder_held_bytes", help, self.its.held.bytes());
        let uptime = self.metrics.uptime();
        single_gauge(families, "larder_uptime_seconds", "Time since the start", uptime.as_secs());
        let info = families.add("larder_build", "The running program", Kind::Info);
        info.push(&[("version", env!("CARGO_PKG_VERSION"))], Value::Whole(1));
        let now = SystemTime::now();
        process::encode(families, now.checked_sub(uptime).unwrap_or(now));
    }

    fn sum(&self, method: Method, of: impl Fn(&MethodMetrics) -> u64) -> u64 {
        self.metrics.workers.iter().map(|worker| of(&worker.methods[method.index()])).sum()
    }
}

pub(super) fn counter(family: &mut Family, labels: &[(&'static str, &str)], value: u64) {
    family.push(labels, Value::Whole(value));
}

pub(super) fn gauge(family: &mut Family, labels: &[(&'static str, &str)], value: u64) {
    family.push(labels, Value::Whole(value));
}

pub(super) fn single_counter(families: &mut Families, name: &'static str, help: &'static str, value: u64) {
    families.single(name, help, Kind::Counter, Value::Whole(value));
}

pub(super) fn single_gauge(families: &mut Families, name: &'static str, help: &'static str, value: u64) {
    families.single(name, help, Kind::Gauge, Value::Whole(value));
}

pub(super) fn float_counter(families: &mut Families, name: &'static str, help: &'static str, value: f64) {
    families.single(name, help, Kind::Counter, Value::Real(value));
}

pub(super) fn float_gauge(families: &mut Families, name: &'static str, help: &'static str, value: f64) {
    families.single(name, help, Kind::Gauge, Value::Real(value));
}

fn seconds(ns: u64) -> f64 {
    Duration::from_nanos(ns).as_secs_f64()
}
