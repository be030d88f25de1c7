//! The closed loop: connections that each keep a number of requests in flight, measured over a window after a warm-up.
//!
//! A measurement is all or nothing. An error, a wrong value, a request without an answer or a caller that got none in the
//! window fails it, and then there is no figure and no ratio.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Builder;

use crate::cpu::CpuClock;
use crate::latency::Latencies;
use crate::value::Values;
use crate::{grpc, text};

/// How long a server may take for its last answers after the window, before the measurement counts as failed.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// How long storing all the values may take.
const FILL_LIMIT: Duration = Duration::from_mins(1);

/// How many connections, and how many requests each keeps in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub connections: usize,
    pub in_flight: usize,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// One key per request.
    Get,
    /// One key per request.
    Store,
    /// `larder.v1.Cache/Pipeline`: one stream per connection, the calls in flight travel in one message.
    Pipeline,
}

/// How a server is spoken to.
#[derive(Clone, Debug)]
pub enum Protocol {
    /// `constant`: every key is answered with the value of index 0.
    Grpc {
        token: String,
        constant: bool,
    },
    Redis,
    Memcached,
}

/// One server to load.
#[derive(Clone, Debug)]
pub struct Target {
    pub address: SocketAddr,
    pub protocol: Protocol,
    pub clock: CpuClock,
}

/// One cell of the table.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    pub verb: Verb,
    pub values: Values,
    pub shape: Shape,
}

/// How long, and from how many threads.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    pub warm_up: Duration,
    pub window: Duration,
    pub client_threads: usize,
}

/// One thread's part of the load: how many of the connections, and at which key it begins.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    pub connections: usize,
    pub seed: usize,
}

/// What was measured in the windows of a round.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub per_second: f64,
    pub per_cpu_second: f64,
    pub p50: Duration,
    pub p99: Duration,
}

/// What was seen in one window.
#[derive(Debug, Default)]
pub struct Window {
    items: u64,
    elapsed: Duration,
    cpu: Duration,
    latencies: Latencies,
}

/// What the callers and the one who holds the watch tell each other.
#[derive(Debug, Default)]
pub struct Meter {
    connected: AtomicUsize,
    recording: AtomicBool,
    stopped: AtomicBool,
    sent: AtomicU64,
    answered: AtomicU64,
}

impl Verb {
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "Get",
            Self::Store => "Store",
            Self::Pipeline => "Pipeline",
        }
    }
}

impl Sample {
    /// The windows of a round taken together.
    pub fn of(windows: &[Window]) -> Self {
        let mut all = Window::default();
        for window in windows {
            all.items += window.items;
            all.elapsed += window.elapsed;
            all.cpu += window.cpu;
            all.latencies.merge(&window.latencies);
        }
        let items = all.items as f64;
        Self {
            per_second: items / all.elapsed.as_secs_f64(),
            per_cpu_second: items / all.cpu.as_secs_f64(),
            p50: all.latencies.percentile(50),
            p99: all.latencies.percentile(99),
        }
    }
}

impl Meter {
    pub fn connected(&self) {
        self.connected.fetch_add(1, Relaxed);
    }

    pub fn stopped(&self) -> bool {
        self.stopped.load(Relaxed)
    }

    /// Called before items are sent. True: this round trip belongs to the window and its latency counts.
    pub fn sending(&self, items: usize) -> bool {
        self.sent.fetch_add(items as u64, Relaxed);
        self.recording.load(Relaxed)
    }

    pub fn answered(&self, items: usize) {
        self.answered.fetch_add(items as u64, Relaxed);
    }
}

/// Stores every value once, so that what is read exists.
pub fn fill(target: &Target, values: Values) -> Result<(), String> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    let filling = async {
        match &target.protocol {
            Protocol::Grpc { token, .. } => grpc::fill(target.address, token, values).await,
            Protocol::Redis | Protocol::Memcached => text::fill(target, values).await,
        }
    };
    runtime.block_on(async {
        tokio::time::timeout(FILL_LIMIT, filling)
            .await
            .unwrap_or_else(|_| Err("storing the values took too long".into()))
    })
}

/// Runs one window.
pub fn measure(target: &Target, job: Job, timing: Timing) -> Result<Window, String> {
    let threads = timing.client_threads.min(job.shape.connections);
    let meters: Vec<Arc<Meter>> = (0..threads).map(|_| Arc::default()).collect();
    let callers: Vec<_> = (0..threads)
        .map(|thread| {
            let (target, meter) = (target.clone(), Arc::clone(&meters[thread]));
            let connections = (thread..job.shape.connections).step_by(threads).count();
            let share = Share { connections, seed: thread * job.values.keys / threads };
            thread::spawn(move || call(&target, job, timing, share, &meter))
        })
        .collect();
    let window = watch(target.clock, job.shape.connections, timing, &meters);
    let mut latencies = Latencies::default();
    for caller in callers {
        let slots = caller.join().map_err(|_| "a load generator thread panicked".to_owned())??;
        if slots.iter().any(Latencies::is_empty) {
            return Err("a caller got no answer within the window".into());
        }
        for slot in &slots {
            latencies.merge(slot);
        }
    }
    let mut window = window?;
    let (sent, answered) = (total(&meters, |meter| &meter.sent), total(&meters, |meter| &meter.answered));
    if sent != answered {
        return Err(format!("{sent} requests were sent and {answered} were answered"));
    }
    window.latencies = latencies;
    Ok(window)
}

/// Holds the watch: waits for the connections, lets them warm up, then takes clock, CPU and count at both ends.
fn watch(clock: CpuClock, connections: usize, timing: Timing, meters: &[Arc<Meter>]) -> Result<Window, String> {
    let stop = || meters.iter().for_each(|meter| meter.stopped.store(true, Relaxed));
    let asked = Instant::now();
    while meters.iter().map(|meter| meter.connected.load(Relaxed)).sum::<usize>() < connections {
        if asked.elapsed() > DRAIN_LIMIT {
            stop();
            return Err(format!("{connections} connections were not made in {} s", DRAIN_LIMIT.as_secs()));
        }
        thread::sleep(Duration::from_millis(1));
    }
    thread::sleep(timing.warm_up);
    let (from, cpu_from, items_from) = (Instant::now(), clock.read(), total(meters, |meter| &meter.answered));
    for meter in meters {
        meter.recording.store(true, Relaxed);
    }
    thread::sleep(timing.window);
    let (elapsed, cpu_to, items_to) = (from.elapsed(), clock.read(), total(meters, |meter| &meter.answered));
    stop();
    let cpu = cpu_to?.saturating_sub(cpu_from?);
    if cpu.is_zero() || items_to == items_from {
        return Err("the server did nothing within the window".into());
    }
    Ok(Window { items: items_to - items_from, elapsed, cpu, latencies: Latencies::default() })
}

fn total(meters: &[Arc<Meter>], field: impl Fn(&Meter) -> &AtomicU64) -> u64 {
    meters.iter().map(|meter| field(meter).load(Relaxed)).sum()
}

/// One thread of the load generator, with its share of the connections.
fn call(target: &Target, job: Job, timing: Timing, share: Share, meter: &Arc<Meter>) -> Result<Vec<Latencies>, String> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    let calls = async {
        match &target.protocol {
            Protocol::Grpc { .. } => grpc::call(target, job, share, meter).await,
            Protocol::Redis | Protocol::Memcached => text::call(target, job, share, meter).await,
        }
    };
    let limit = DRAIN_LIMIT + timing.warm_up + timing.window + DRAIN_LIMIT;
    let answer = runtime.block_on(async { tokio::time::timeout(limit, calls).await });
    answer
        .unwrap_or_else(|_| Err(format!("requests were still unanswered {} s after the window", DRAIN_LIMIT.as_secs())))
}
