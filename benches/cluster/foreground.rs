//! What those notice who ask while keys move: Gets in an open loop, at half of what the replicas can do, while one joins, while
//! one leaves, and while nothing happens.
//!
//! Callers ask any of the replicas that stay, whatever the key, and a latency counts from the moment that its call was due.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::callers::{check, message};
use crate::grpc::{connect, request_to, unary};
use crate::latency::Latencies;
use crate::replicas::Replicas;
use crate::value::Values;
use crate::{Options, judge, median};

/// What is stored.
const VALUES: Values = Values { keys: 300_000, bytes: 1024 };

/// Replicas that stay; one more joins and leaves.
const STAY: usize = 3;

/// Connections to each.
const CONNECTIONS: usize = 2;

/// The capacity is looked for in such steps, calls per second, each for a while: the last at which the p99 is below this.
const CAPACITY_STEP: f64 = 5_000.0;
const CAPACITY_WINDOW: Duration = Duration::from_secs(1);
const CAPACITY_P99: Duration = Duration::from_millis(5);

/// Calls are begun together that are due in such a time.
const PACE: Duration = Duration::from_micros(250);

/// How long a baseline is looked at.
const BASELINE_WINDOW: Duration = Duration::from_secs(2);

/// p99 against that of its baseline, in the median of the pairs; below the second it is met whatever the ratio.
const MAX_RATIO: f64 = 3.0;
const SMALL: Duration = Duration::from_millis(5);

/// Gets at given times.
struct OpenLoop {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Latencies>>,
    thread: JoinHandle<Result<(), String>>,
}

/// Connections to all who are asked.
type Asked = Vec<(SendRequest<Bytes>, Request<()>)>;

/// Prints a table, and judges its medians.
pub fn latency(options: &Options) -> Result<bool, String> {
    let rate: Vec<&str> = options.handoff_rate.iter().flat_map(|rate| ["--handoff-rate", rate]).collect();
    let mut replicas = Replicas::start(&options.larder, STAY, &rate)?;
    replicas.fill(VALUES)?;
    let addresses: Vec<SocketAddr> = replicas.names().map(|name| replicas.address(name)).collect();
    let capacity = capacity(&addresses, replicas.token())?;
    let load = OpenLoop::start(addresses, replicas.token().to_owned(), capacity / 2.0);
    println!(
        "\nGet of 1 KiB at {:.0} calls/s, half of {capacity:.0}, while a fourth replica joins and leaves\n",
        capacity / 2.0
    );
    println!(
        "| | baseline p50 | p99 | joining p50 | p99 | MB in s | leaving p50 | p99 | MB in s |\n|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    );
    let (mut joins, mut leaves) = (Vec::new(), Vec::new());
    for round in 1..=options.rounds {
        let name = replicas.start_one()?;
        load.take();
        std::thread::sleep(BASELINE_WINDOW);
        let before = load.take();
        let began = Instant::now();
        replicas.serve(&name)?;
        replicas.settle()?;
        let (joining, joined_in) = (load.take(), began.elapsed());
        let came = replicas.metric(&name, "larder_handoff_bytes_in_total")? / 1e6;
        std::thread::sleep(BASELINE_WINDOW / 4);
        load.take();
        let began = Instant::now();
        replicas.leave(&name)?;
        let (leaving, left_in) = (load.take(), began.elapsed());
        let (p50, p99) = (|of: &Latencies| of.percentile(50), |of: &Latencies| of.percentile(99));
        println!(
            "| {round} | {:?} | {:?} | {:?} | {:?} | {came:.0} in {:.1} | {:?} | {:?} | {came:.0} in {:.1} |",
            p50(&before),
            p99(&before),
            p50(&joining),
            p99(&joining),
            joined_in.as_secs_f64(),
            p50(&leaving),
            p99(&leaving),
            left_in.as_secs_f64()
        );
        joins.push((p99(&joining), p99(&before)));
        leaves.push((p99(&leaving), p99(&before)));
    }
    load.end()?;
    let mut met = true;
    for (what, pairs) in [("joining", joins), ("leaving", leaves)] {
        let ratio = median(pairs.iter().map(|(with, without)| with.as_secs_f64() / without.as_secs_f64()));
        let p99 = Duration::from_secs_f64(median(pairs.iter().map(|(with, _)| with.as_secs_f64())));
        let verdict = judge(ratio <= MAX_RATIO || p99 < SMALL, &mut met);
        println!("{what}: p99 {p99:?}, x{ratio:.2} of its baseline (at most x{MAX_RATIO}, or {SMALL:?}: {verdict})");
    }
    Ok(met)
}

/// Calls per second that are answered in good time.
fn capacity(addresses: &[SocketAddr], token: &str) -> Result<f64, String> {
    let mut capacity = CAPACITY_STEP;
    loop {
        let rate = capacity + CAPACITY_STEP;
        let load = OpenLoop::start(addresses.to_vec(), token.to_owned(), rate);
        std::thread::sleep(CAPACITY_WINDOW / 4);
        load.take();
        std::thread::sleep(CAPACITY_WINDOW);
        let seen = load.take();
        load.end()?;
        if seen.percentile(99) > CAPACITY_P99 {
            return Ok(capacity);
        }
        capacity = rate;
    }
}

async fn asked(addresses: &[SocketAddr], token: &str) -> Result<Asked, String> {
    let mut asked = Vec::new();
    for address in addresses.iter().flat_map(|address| std::iter::repeat_n(address, CONNECTIONS)) {
        asked.push((connect(*address).await?, request_to(*address, "/larder.v1.Cache/Get", token)?));
    }
    Ok(asked)
}

fn runtime() -> Result<Runtime, String> {
    Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())
}

impl OpenLoop {
    fn start(addresses: Vec<SocketAddr>, token: String, per_second: f64) -> Self {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Latencies::default())));
        let (stopped, latencies) = (Arc::clone(&stop), Arc::clone(&seen));
        let thread = std::thread::spawn(move || {
            runtime()?.block_on(Self::run(&addresses, &token, per_second, &stopped, &latencies))
        });
        Self { stop, seen, thread }
    }

    async fn run(
        addresses: &[SocketAddr],
        token: &str,
        per_second: f64,
        stop: &AtomicBool,
        seen: &Arc<Mutex<Latencies>>,
    ) -> Result<(), String> {
        let asked = asked(addresses, token).await?;
        let (mut calls, mut begun, mut index) = (JoinSet::new(), 0_u64, 0);
        let (ticks, mut dues) = mpsc::unbounded_channel();
        let began = Instant::now();
        // Timers of the runtime are a millisecond late.
        std::thread::spawn(move || {
            for due in (1..).map(|number| began + PACE * number) {
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                if ticks.send(due).is_err() {
                    return;
                }
            }
        });
        while !stop.load(Relaxed) {
            // Also when it comes late, which counts.
            let due = dues.recv().await.ok_or("the pace ended")?;
            while (begun as f64) < (due - began).as_secs_f64() * per_second {
                let (connection, request) = asked[usize::try_from(begun).unwrap_or(0) % asked.len()].clone();
                let seen = Arc::clone(seen);
                calls.spawn(async move {
                    let answer = unary(&connection, &request, message(VALUES, index)).await?;
                    seen.lock().record(due.elapsed());
                    check(VALUES, index, answer)
                });
                begun += 1;
                index = VALUES.next(index);
            }
            while let Some(call) = calls.try_join_next() {
                call.map_err(|error| error.to_string())??;
            }
        }
        Ok(())
    }

    /// What was seen since the last time.
    fn take(&self) -> Latencies {
        std::mem::take(&mut *self.seen.lock())
    }

    fn end(self) -> Result<(), String> {
        self.stop.store(true, Relaxed);
        self.thread.join().map_err(|_| "the load panicked")?
    }
}
