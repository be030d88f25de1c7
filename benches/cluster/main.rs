//! What it costs to be one of several: a Get of another replica's key against one of one's own, the first touch of a key that
//! has not been pulled yet, and how long arcs that change hands are nobody's.
//!
//! Replicas are processes of the release binary on the loopback; server CPU is that of all of them together. See
//! benches/README.md.

#![allow(dead_code, reason = "what is shared with the bench `speed` does more there")]
#![expect(clippy::cast_precision_loss, reason = "figures are rounded to three digits anyway")]
#![expect(clippy::disallowed_methods, reason = "whoever holds the watch sleeps on a thread of its own")]
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

mod callers;
#[path = "../speed/cpu.rs"]
mod cpu;
mod foreground;
#[path = "../speed/grpc.rs"]
mod grpc;
mod handoff;
#[path = "../speed/latency.rs"]
mod latency;
#[path = "../speed/load.rs"]
mod load;
mod replicas;
#[path = "../speed/text.rs"]
mod text;
#[path = "../speed/value.rs"]
mod value;

use std::time::Duration;

use callers::{Load, get_all};
use clap::Parser;
use replicas::Replicas;
use value::Values;

/// How many times the server CPU of a local Get a forwarded one may cost.
const MAX_COST: f64 = 2.2;

/// p99 of the first touch of a key that has not been pulled, on an idle cluster.
const MAX_FIRST_TOUCH: Duration = Duration::from_millis(1);

/// From a view change to all arcs HELD, with five replicas.
const MAX_GAIN: Duration = Duration::from_millis(50);

/// Replicas of the view changes.
const MANY: usize = 5;

/// Measures what a cluster costs; see benches/README.md.
#[derive(Debug, Parser)]
#[command(name = "cargo bench --bench cluster --")]
struct Options {
    /// Given by `cargo bench`; without it nothing is measured.
    #[arg(long, hide = true)]
    bench: bool,
    /// Pairs of windows, local and forwarded.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Milliseconds of each window.
    #[arg(long, default_value_t = 1000)]
    window_ms: u64,
    /// Only these parts: cost, touch, gain, handoff, foreground.
    #[arg(long, value_delimiter = ',', default_values_t = ["cost", "touch", "gain", "handoff", "foreground"].map(str::to_owned))]
    parts: Vec<String>,
    /// Another build of larder than the one of this run.
    #[arg(long, value_name = "PROGRAM", default_value = env!("CARGO_BIN_EXE_larder"), hide_default_value = true)]
    larder: String,
    /// Of the part handoff: only values of so many bytes.
    #[arg(long, value_name = "BYTES")]
    bytes: Option<usize>,
    /// Of the part foreground: bytes per second that are taken over at most.
    #[arg(long, value_name = "BYTES")]
    handoff_rate: Option<String>,
    /// Judge, but exit 0 when a limit is missed.
    #[arg(long)]
    report_only: bool,
}

fn main() -> Result<(), String> {
    let options = Options::parse();
    if !options.bench {
        return Ok(());
    }
    let mut met = true;
    for part in &options.parts {
        met &= match part.as_str() {
            "cost" => cost(&options)?,
            "touch" => touch(&options)?,
            "gain" => gain(&options)?,
            "handoff" => handoff::speed(&options)?,
            "foreground" => foreground::latency(&options)?,
            other => return Err(format!("there is no part {other}; give cost, touch, gain, handoff or foreground")),
        };
    }
    if met || options.report_only { Ok(()) } else { Err("a limit was missed".into()) }
}

/// Server CPU of a forwarded Get against a local one, pair by pair.
fn cost(options: &Options) -> Result<bool, String> {
    let mut met = true;
    println!("\nGet, 4 connections x 16 in flight, three replicas; server CPU of all three\n");
    println!(
        "| value | local us | forwarded us | ratio | local p50 | forwarded p50 | limit |\n|--:|--:|--:|--:|--:|--:|---|"
    );
    for bytes in [64, 1024] {
        let values = Values { keys: 10_000, bytes };
        let replicas = Replicas::start(&options.larder, 3, &[])?;
        replicas.fill(values)?;
        let entry = replicas.names().next().ok_or("there is no replica")?.to_owned();
        let (own, others) = replicas.split(values, &entry);
        let load = |keys: &[usize]| Load {
            address: replicas.address(&entry),
            token: replicas.token().to_owned(),
            values,
            keys: keys.to_vec(),
            window: Duration::from_millis(options.window_ms),
        };
        let (own, others) = (load(&own), load(&others));
        let mut pairs = Vec::new();
        for _ in 0..options.rounds {
            pairs.push((own.run(&replicas)?, others.run(&replicas)?));
        }
        let local = median(pairs.iter().map(|(local, _)| local.cpu_us));
        let forwarded = median(pairs.iter().map(|(_, forwarded)| forwarded.cpu_us));
        let ratio = median(pairs.iter().map(|(local, forwarded)| forwarded.cpu_us / local.cpu_us));
        let p50 = |of: fn(&(callers::Seen, callers::Seen)) -> Duration| {
            median(pairs.iter().map(|pair| of(pair).as_secs_f64() * 1e6))
        };
        let (near, far) = (p50(|pair| pair.0.latencies.percentile(50)), p50(|pair| pair.1.latencies.percentile(50)));
        let verdict = judge(ratio <= MAX_COST, &mut met);
        println!(
            "| {bytes} B | {local:.2} | {forwarded:.2} | x{ratio:.2} | {near:.0} us | {far:.0} us | x{MAX_COST}: {verdict} |"
        );
    }
    Ok(met)
}

/// The first touch, at its new owner, of keys that are still elsewhere.
fn touch(options: &Options) -> Result<bool, String> {
    let values = Values { keys: 40_000, bytes: 1024 };
    // So slow that nearly all keys are still elsewhere while they are touched.
    let mut replicas = Replicas::start(&options.larder, 2, &["--handoff-rate", "4MiB"])?;
    replicas.fill(values)?;
    let joined = replicas.join()?;
    let before = replicas.metric(&joined, "larder_handoff_fetches_total")?;
    let (mut own, _) = replicas.split(values, &joined);
    // Pages come in the order of hashes: from the other end, so that touches come first.
    own.sort_by_key(|index| std::cmp::Reverse(Replicas::hash(values, *index)));
    own.truncate(3000);
    let latencies = get_all(replicas.address(&joined), replicas.token(), values, &own)?;
    let fetched = replicas.metric(&joined, "larder_handoff_fetches_total")? - before;
    let again = get_all(replicas.address(&joined), replicas.token(), values, &own)?;
    let (p50, p99) = (latencies.percentile(50), latencies.percentile(99));
    let mut met = true;
    let verdict = judge(p99 <= MAX_FIRST_TOUCH && fetched >= own.len() as f64 * 0.95, &mut met);
    println!(
        "\nFirst touch of {} keys of 1 KiB at their new owner, one after the other; {fetched:.0} fetches, one per key and replica that may have it: \
         p50 {p50:?}, p99 {p99:?} (at most {MAX_FIRST_TOUCH:?}: {verdict}); again, now that they are there: p50 {:?}, p99 {:?}",
        own.len(),
        again.percentile(50),
        again.percentile(99)
    );
    Ok(met)
}

/// From a view change until every gained arc is HELD, at each replica that gains.
fn gain(options: &Options) -> Result<bool, String> {
    let values = Values { keys: 10_000, bytes: 64 };
    let mut replicas = Replicas::start(&options.larder, MANY - 1, &[])?;
    replicas.fill(values)?;
    let mut gains = Vec::new();
    for _ in 0..options.rounds {
        let joined = replicas.join()?;
        gains.push(replicas.mean_gain(&joined)?);
        let before: Vec<(String, f64, f64)> = replicas.gains()?;
        replicas.leave(&joined)?;
        for (name, seconds, count) in before.into_iter().filter(|(name, ..)| *name != joined) {
            let (after_seconds, after_count) = replicas.gain_of(&name)?;
            if after_count > count {
                gains.push((after_seconds - seconds) / (after_count - count));
            }
        }
    }
    gains.sort_by(f64::total_cmp);
    let (middle, longest) = (gains[gains.len() / 2], gains[gains.len() - 1]);
    let mut met = true;
    let verdict = judge(longest <= MAX_GAIN.as_secs_f64(), &mut met);
    println!(
        "\nView change to all arcs HELD, {MANY} replicas, {} changes at one replica each: median {:.2} ms, longest {:.2} ms \
         (at most {MAX_GAIN:?}: {verdict})",
        gains.len(),
        middle * 1e3,
        longest * 1e3
    );
    Ok(met)
}

fn judge(holds: bool, met: &mut bool) -> &'static str {
    *met &= holds;
    if holds { "pass" } else { "FAIL" }
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}
