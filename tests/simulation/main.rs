//! The hand-off's state machines, N of them, on a simulated network in virtual time, with clients writing all the while.
//! See `README.md` beside this file. Not a libtest harness, so that a seed can be given:
//!
//! `cargo test --features simulation --test simulation -- --seed 7 [--rough | --torn] [--trace] [--mistake NoTombstone]`

mod clients;
mod dump;
mod invariants;
mod many;
mod mistakes;
mod monitor;
mod network;
mod plan;
mod pods;
mod quotas;
mod random;
mod store;
mod world;

use std::collections::BTreeMap;
use std::num::NonZero;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use larder::ownership::mistake::Mistakes;

use world::{Figures, Kind, World};

const USAGE: &str = "usage: simulation [--seed N | --seeds N [--from N]] [--rough | --torn] [--jobs N] [--trace] \
     [--mistake NAME | --mistakes | --many [--members N]...]";

/// Seeds of each kind when nothing else is asked for: what CI runs.
const CI_SEEDS: u64 = 200;

/// Members of the clusters of which CI sees what a change costs.
const CI_SIZES: [usize; 5] = [3, 10, 30, 100, 300];

/// As above, when the table is asked for.
const SIZES: [usize; 6] = [3, 10, 30, 100, 300, 1000];

#[derive(Default)]
struct Options {
    from: u64,
    seeds: Option<u64>,
    kind: Option<Kind>,
    trace: bool,
    mistake: Option<String>,
    mistakes: bool,
    many: bool,
    /// Of clusters for `--many`.
    members: Vec<usize>,
    jobs: Option<usize>,
}

impl Options {
    /// A trace is told by one thread.
    fn jobs(&self) -> usize {
        let cores = || thread::available_parallelism().map_or(1, NonZero::get);
        if self.trace { 1 } else { self.jobs.unwrap_or_else(cores) }
    }
}

fn options() -> Option<Options> {
    let mut options = Options::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seed" => (options.from, options.seeds) = (arguments.next()?.parse().ok()?, Some(1)),
            "--seeds" => options.seeds = Some(arguments.next()?.parse().ok()?),
            "--from" => options.from = arguments.next()?.parse().ok()?,
            "--rough" => options.kind = Some(Kind::Rough),
            "--torn" => options.kind = Some(Kind::Torn),
            "--jobs" => options.jobs = Some(arguments.next()?.parse().ok()?),
            "--trace" => options.trace = true,
            "--mistake" => options.mistake = Some(arguments.next()?),
            "--mistakes" => options.mistakes = true,
            "--many" => options.many = true,
            "--members" => options.members.push(arguments.next()?.parse().ok().filter(|members| *members >= 2)?),
            // What cargo passes on to every test program.
            "--nocapture" | "-q" | "--quiet" | "--test-threads=1" => {}
            _ => return None,
        }
    }
    Some(options)
}

fn main() -> ExitCode {
    let Some(options) = options() else {
        eprintln!("{USAGE}");
        return ExitCode::from(64);
    };
    if options.mistakes {
        return mistakes::catch_all(options.jobs());
    }
    if options.many {
        let sizes = if options.members.is_empty() { &SIZES[..] } else { &options.members };
        return many::table(sizes, options.jobs());
    }
    let mistake = options.mistake.as_deref().map(mistakes::by_name);
    if mistake == Some(None) {
        eprintln!("there is no such mistake; see tests/simulation/README.md");
        return ExitCode::from(64);
    }
    let mistakes = mistake.flatten().map(Mistakes::only).unwrap_or_default();
    let kinds = match (options.kind, options.seeds) {
        (Some(kind), _) => vec![kind],
        (None, Some(_)) => vec![Kind::Calm],
        (None, None) => vec![Kind::Calm, Kind::Rough, Kind::Torn],
    };
    for kind in kinds {
        if !run(&options, kind, mistakes) {
            return ExitCode::FAILURE;
        }
    }
    if options.seeds.is_none() {
        return many::table(&CI_SIZES, options.jobs());
    }
    ExitCode::SUCCESS
}

/// Runs seeds on several threads, each seed on one; says which is the first that fails, whatever the threads' order.
fn run(options: &Options, kind: Kind, mistakes: Mistakes) -> bool {
    let (from, seeds, trace) = (options.from, options.seeds.unwrap_or(CI_SEEDS), options.trace);
    let (began, next) = (Instant::now(), AtomicU64::new(from));
    let work = || {
        let (mut total, mut failed) = (Figures::default(), BTreeMap::new());
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= from + seeds || !failed.is_empty() {
                return (total, failed);
            }
            let mut world = World::new(seed, kind, mistakes, trace);
            world.play();
            total.add(&world.figures);
            total.unchecked += world.monitors.iter().filter(|monitor| monitor.given_up).count() as u64;
            if let Some(violation) = world.violation.take() {
                failed.insert(seed, format!("at {} ms: {violation}", world.now / world::MS));
                // The seeds after it need not be run.
                next.fetch_max(from + seeds, Ordering::Relaxed);
            }
        }
    };
    let (mut total, mut failed) = (Figures::default(), BTreeMap::new());
    thread::scope(|scope| {
        let workers: Vec<_> = (0..options.jobs()).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            let (figures, failures) = worker.join().expect("a run does not panic");
            total.add(&figures);
            failed.extend(failures);
        }
    });
    if let Some((seed, violation)) = failed.first_key_value() {
        println!("{kind:?} seed {seed} {violation}");
        println!("replay: cargo test --features simulation --test simulation -- --seed {seed} {} --trace", kind.flag());
        return false;
    }
    let per_minute = (seeds * 60_000).checked_div(u64::try_from(began.elapsed().as_millis()).unwrap_or(1));
    println!(
        "{seeds} {kind:?} seeds from {from}: nothing wrong, {} a minute; {total:?}",
        per_minute.unwrap_or_default()
    );
    true
}
