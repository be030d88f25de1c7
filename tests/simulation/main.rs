//! The hand-off's state machines, N of them, on a simulated network in virtual time, with clients writing all the while.
//! See `README.md` beside this file. Not a libtest harness, so that a seed can be given:
//!
//! `cargo test --features simulation --test simulation -- --seed 7 [--rough | --torn] [--trace] [--mistake NoTombstone]`

mod clients;
mod invariants;
mod mistakes;
mod monitor;
mod network;
mod plan;
mod pods;
mod random;
mod store;
mod world;

use std::process::ExitCode;

use larder::ownership::mistake::Mistakes;

use world::{Kind, World};

const USAGE: &str =
    "usage: simulation [--seed N | --seeds N [--from N]] [--rough | --torn] [--trace] [--mistake NAME | --mistakes]";

/// Seeds of each kind when nothing else is asked for: what CI runs.
const CI_SEEDS: u64 = 200;

#[derive(Default)]
struct Options {
    from: u64,
    seeds: Option<u64>,
    kind: Option<Kind>,
    trace: bool,
    mistake: Option<String>,
    mistakes: bool,
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
            "--trace" => options.trace = true,
            "--mistake" => options.mistake = Some(arguments.next()?),
            "--mistakes" => options.mistakes = true,
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
        return mistakes::catch_all();
    }
    let mistake = options.mistake.as_deref().map(mistakes::by_name);
    if mistake == Some(None) {
        eprintln!("there is no such mistake; see tests/simulation/README.md");
        return ExitCode::from(64);
    }
    let mistakes = mistake.flatten().map(Mistakes::only).unwrap_or_default();
    let seeds = options.seeds.unwrap_or(CI_SEEDS);
    let kinds = match (options.kind, options.seeds) {
        (Some(kind), _) => vec![kind],
        (None, Some(_)) => vec![Kind::Calm],
        (None, None) => vec![Kind::Calm, Kind::Rough, Kind::Torn],
    };
    for kind in kinds {
        if !run(options.from, seeds, kind, mistakes, options.trace) {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn run(from: u64, seeds: u64, kind: Kind, mistakes: Mistakes, trace: bool) -> bool {
    let mut total = world::Figures::default();
    let mut unchecked = 0;
    for seed in from..from + seeds {
        let mut world = World::new(seed, kind, mistakes, trace);
        world.play();
        if let Some(violation) = &world.violation {
            println!("{kind:?} seed {seed} at {} ms: {violation}", world.now / world::MS);
            let flag = match kind {
                Kind::Calm => "",
                Kind::Rough => " --rough",
                Kind::Torn => " --torn",
            };
            println!("replay: cargo test --features simulation --test simulation -- --seed {seed}{flag} --trace");
            return false;
        }
        unchecked += world.monitors.iter().filter(|monitor| monitor.given_up).count();
        let figures = &world.figures;
        total.events += figures.events;
        total.operations += figures.operations;
        total.unknown += figures.unknown;
        total.forwards += figures.forwards;
        total.messages += figures.messages;
        total.exits += figures.exits;
        total.crashes += figures.crashes;
        total.fenced += figures.fenced;
    }
    println!("{seeds} {kind:?} seeds from {from}: nothing wrong; {unchecked} keys not checked to the end; {total:?}");
    true
}
