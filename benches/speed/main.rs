//! The speed of Larder beside its peers: `cargo bench --bench speed -- [options]`. What is measured, how, and what the
//! numbers mean: `benches/README.md`. It exits 1 when a criterion is missed or a measurement failed.

#![expect(clippy::cast_precision_loss, reason = "figures are rounded to three digits anyway")]
#![expect(clippy::disallowed_methods, reason = "whoever holds the watch sleeps on a thread of its own")]

mod collector;
mod cpu;
mod grpc;
mod larder;
mod latency;
mod load;
mod noop;
mod options;
mod peers;
mod report;
mod text;
mod value;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::collector::Collecting;
use crate::cpu::Pinning;
use crate::larder::Larder;
use crate::load::{Job, Sample, Shape, Timing, Verb, Window};
use crate::options::{Mode, Options};
use crate::peers::{Peer, Running};
use crate::report::{Criterion, Row};
use crate::value::Values;

/// The allocator that `larder` is built with, for the no-op peers too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a replica may take to serve after it was started.
const COLD_START_MS: f64 = 100.0;

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(Mode::Serve { runtime, threads, bytes }) = options.mode {
        return exit(noop::serve(runtime, threads, Values { keys: 1, bytes }).map_err(|error| error.to_string()));
    }
    if let Some(Mode::Collect) = options.mode {
        return exit(collector::serve().map_err(|error| error.to_string()));
    }
    if !options.bench {
        println!("nothing is measured without --bench; run `cargo bench --bench speed`");
        return ExitCode::SUCCESS;
    }
    exit(run(&options))
}

fn exit(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("speed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    let pinning = if options.no_pin { None } else { Pinning::new(options.threads) };
    if let Some(pinning) = &pinning {
        pinning.apply_to_self()?;
    }
    print_head(options, pinning.as_ref());
    let jobs = jobs(options)?;
    let larder = Larder::new(&options.larder)?;
    let collector = if options.telemetry { Some(Collecting::start()?) } else { None };
    let running = start(options, &larder, collector.as_ref(), pinning.as_ref())?;
    let cells = measure(options, &jobs, &running)?;
    for (job, rows) in &cells {
        report::print_cell(*job, rows);
    }
    println!();
    let mut missed = 0;
    for (job, rows) in &cells {
        for criterion in criteria(*job, options.telemetry) {
            missed += usize::from(!report::judge(*job, rows, criterion));
        }
    }
    if takes_part(options, Peer::Larder) && options.starts > 0 {
        missed += usize::from(!cold_start(options, &larder)?);
    }
    if missed > 0 && !options.report_only { Err(format!("{missed} criteria are missed")) } else { Ok(()) }
}

/// Larder's promises: within 85 % of gRPC itself, and twice what tonic does by default where many answers share a socket.
fn criteria(job: Job, telemetry: bool) -> Vec<Criterion> {
    if telemetry {
        return vec![
            Criterion { of: Peer::Traced, against: Peer::Larder, at_least: 0.90 },
            Criterion { of: Peer::Measured, against: Peer::Larder, at_least: 0.97 },
            Criterion { of: Peer::Larder, against: Peer::Before, at_least: 0.98 },
        ];
    }
    let mut criteria = Vec::new();
    if job.verb == Verb::Get {
        criteria.push(Criterion { of: Peer::Larder, against: Peer::Bare, at_least: 0.85 });
        if job.values.bytes == 1_024 && job.shape == (Shape { connections: 4, in_flight: 16 }) {
            criteria.push(Criterion { of: Peer::Larder, against: Peer::Default, at_least: 2.0 });
        }
    }
    criteria
}

fn print_head(options: &Options, pinning: Option<&Pinning>) {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!(
        "{} rounds of {} windows of {} ms after {} ms; {} worker threads per server, {} client threads; {} keys of each size",
        options.rounds,
        options.windows,
        options.window_ms,
        options.warm_up_ms,
        options.threads,
        options.client_threads,
        options.keys
    );
    match pinning {
        Some(pinning) => println!("servers on core {}, load generator on {}", pinning.servers, pinning.generator),
        None => println!("not pinned to cores"),
    }
    println!("load average at the start: {}", load.trim());
}

fn jobs(options: &Options) -> Result<Vec<Job>, String> {
    let mut jobs = Vec::new();
    for verb in &options.verbs {
        let verb = [Verb::Get, Verb::Store, Verb::Pipeline]
            .into_iter()
            .find(|known| known.name().eq_ignore_ascii_case(verb))
            .ok_or_else(|| format!("--verbs {verb}: get, store or pipeline"))?;
        for bytes in &options.bytes {
            for shape in &options.shapes {
                let numbers = shape.split_once('x').and_then(|(c, w)| Some((c.parse().ok()?, w.parse().ok()?)));
                let (connections, in_flight) = numbers.ok_or_else(|| format!("--shapes {shape}: such as 4x16"))?;
                let values = Values { keys: options.keys, bytes: *bytes };
                jobs.push(Job { verb, values, shape: Shape { connections, in_flight } });
            }
        }
    }
    Ok(jobs)
}

/// Every server that takes part, each filled: one per size for the no-op peers, one for all sizes of the others.
fn start(
    options: &Options,
    larder: &Larder,
    collector: Option<&Collecting>,
    pinning: Option<&Pinning>,
) -> Result<Vec<(Running, Option<usize>)>, String> {
    let mut running = Vec::new();
    for peer in Peer::ALL {
        if !takes_part(options, peer) {
            continue;
        }
        if let (false, Some((program, package))) = (peer.installed(), peer.foreign()) {
            println!("without {}: {program} is not installed (Debian package {package})", peer.name());
            continue;
        }
        let sizes = options.bytes.iter().map(|bytes| Values { keys: options.keys, bytes: *bytes });
        if peer.constant() {
            for values in sizes {
                running.push((Running::noop(peer, options.threads, values, pinning)?, Some(values.bytes)));
            }
            continue;
        }
        let server = match peer {
            Peer::Redis | Peer::Memcached => Running::foreign(peer, options.threads, pinning)?,
            Peer::Before => larder.start_build(peer, options.before.as_deref(), &[], options.threads, pinning)?.0,
            Peer::Larder => larder.start(options.threads, pinning)?.0,
            _ => {
                let flags = collector.map(|collector| collector.flags(peer)).unwrap_or_default();
                larder.start_build(peer, None, &flags, options.threads, pinning)?.0
            }
        };
        for values in sizes {
            load::fill(&server.target, values).map_err(|error| format!("{}: {error}", peer.name()))?;
        }
        running.push((server, None));
    }
    if running.is_empty() { Err("there is no server to measure; see --only".into()) } else { Ok(running) }
}

fn takes_part(options: &Options, peer: Peer) -> bool {
    if options.telemetry {
        return match peer {
            Peer::Before => options.before.is_some(),
            _ => peer == Peer::Larder || peer.variant(),
        };
    }
    if peer.variant() {
        return false;
    }
    options.only.is_empty() || options.only.iter().any(|name| peer.name().starts_with(name.as_str()))
}

/// One round of one cell: the servers take turns, window by window, so that what disturbs one disturbs its neighbours.
fn round_of(windows: usize, job: Job, servers: &[&Running], timing: Timing) -> Result<Vec<Sample>, String> {
    let mut seen: Vec<Vec<Window>> = servers.iter().map(|_| Vec::new()).collect();
    for _ in 0..windows {
        for (server, seen) in servers.iter().zip(&mut seen) {
            let window = load::measure(&server.target, job, timing).map_err(|error| {
                let (peer, verb) = (server.peer.name(), job.verb.name());
                format!("{peer} {verb} {} B: {error}; no ratio is given", job.values.bytes)
            })?;
            seen.push(window);
        }
    }
    Ok(seen.iter().map(|windows| Sample::of(windows)).collect())
}

/// From before the process is there to health SERVING, several times; whether the median keeps the promise.
fn cold_start(options: &Options, larder: &Larder) -> Result<bool, String> {
    let mut starts = Vec::new();
    for _ in 0..options.starts {
        let (running, took) = larder.start(options.threads, None)?;
        drop(running);
        starts.push(took.as_secs_f64() * 1e3);
    }
    starts.sort_by(f64::total_cmp);
    let (median, worst) = (report::median(&starts), starts[starts.len() - 1]);
    let met = median <= COLD_START_MS;
    println!(
        "{}  cold start to SERVING: median {median:.1} ms, worst {worst:.1} ms of {} (at most {COLD_START_MS:.0} ms)",
        if met { "pass" } else { "FAIL" },
        options.starts
    );
    Ok(met)
}

/// Interleaves: in each round, each cell, one server after the other.
fn measure(
    options: &Options,
    jobs: &[Job],
    running: &[(Running, Option<usize>)],
) -> Result<Vec<(Job, Vec<Row>)>, String> {
    let timing = Timing {
        warm_up: Duration::from_millis(options.warm_up_ms),
        window: Duration::from_millis(options.window_ms),
        client_threads: options.client_threads,
    };
    let measured = |job: &Job, server: &Running, bytes: Option<usize>| {
        bytes.is_none_or(|bytes| bytes == job.values.bytes)
            && (job.verb == Verb::Get || server.peer.foreign().is_none())
    };
    let mut cells: Vec<(Job, Vec<Row>)> = Vec::new();
    for job in jobs {
        let servers = running.iter().filter(|(server, bytes)| measured(job, server, *bytes));
        cells.push((*job, servers.map(|(server, _)| Row { peer: server.peer, samples: Vec::new() }).collect()));
    }
    for round in 1..=options.rounds {
        eprintln!("round {round} of {}", options.rounds);
        for (job, rows) in &mut cells {
            let servers = running.iter().filter(|(server, bytes)| measured(job, server, *bytes));
            let servers: Vec<&Running> = servers.map(|(server, _)| server).collect();
            let samples = round_of(options.windows, *job, &servers, timing)?;
            rows.iter_mut().zip(samples).for_each(|(row, sample)| row.samples.push(sample));
        }
    }
    Ok(cells)
}
