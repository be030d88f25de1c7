//! `larder bench`: load with the client library, and what it came to. Also a checker: with `--verify` every answer is held
//! against what was acknowledged before, for use while a cluster changes.
//!
//! What it is not: a comparison with other servers (`benches/` has those), and no test of conditions, batches or dumps.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::connect::{BULK_RETRIES, BULK_TIMEOUT, Connect, duration, ttl};
use super::exit::{self, Problem};
use crate::cache::limits::MAX_KEY_BYTES;
use crate::client::{Config, Retries};

mod around;
mod calls;
mod counter;
mod distribution;
mod gap;
mod ledger;
mod live;
mod mix;
mod model;
mod pace;
mod plot;
mod report;
mod run;
mod seats;
mod size;
mod stop;
mod tally;
mod value;

use calls::Calls;
use distribution::Spread;
use ledger::Ledger;
use live::Live;
use mix::{Mix, Operation};
use report::{Report, Verdict};
use run::{Amount, End};
use size::Sizes;
use stop::Stop;

/// Keys at most: a verifying bench takes about 150 bytes for each.
const MAX_KEYS: u64 = 20_000_000;

/// Calls per second at most; more is planned by several benches.
const MAX_RATE: u32 = 10_000_000;

/// Calls under way at most, and unless told otherwise in a closed loop.
const MAX_WINDOW: usize = 65_536;
const CLOSED_WINDOW: usize = 64;

/// Calls under way at least in an open loop, unless told otherwise.
const MIN_OPEN_WINDOW: usize = 64;

/// How long a run lasts unless told otherwise.
const DEFAULT_DURATION: Duration = Duration::from_secs(10);

/// The longest prefix of keys: room for the number that follows it.
const MAX_PREFIX_BYTES: usize = MAX_KEY_BYTES - 64;

/// Entries live this much longer than a run that verifies, so that none expires before it is read for the last time.
const TTL_MARGIN: Duration = Duration::from_mins(10);

/// Make calls, measure them, and verify the answers
///
/// With --rate calls begin when they are due, whatever became of those before (an open loop), and latency counts from then;
/// without, each begins when one before it has ended (a closed loop). Every key is stored once before. SIGINT or SIGTERM ends
/// the run early. Exit status: 1 when --verify found anything, or nothing succeeded; 75 when an open loop was below 99 % of its planned
/// rate, which makes the run void.
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("end").args(["duration", "requests"]))]
pub struct Bench {
    /// Calls per second, begun when they are due; without it, as fast as answers come
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_RATE)))]
    rate: Option<u32>,

    /// Kinds of calls and their weights: get, store, delete, touch, incr
    #[arg(long, default_value = "get=90,store=10", value_name = "OPERATION=WEIGHT,…")]
    mix: Mix,

    /// Keys
    #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MAX_KEYS))]
    keys: u64,

    /// How calls are spread over the keys: uniform, sequential, zipf or zipf:THETA
    #[arg(long, default_value = "zipf:0.99", value_name = "NAME")]
    distribution: Spread,

    /// Bytes of values: a size, a range like 64..4KiB, or a list like 64,1KiB
    #[arg(long, default_value = "1KiB", value_name = "SIZE")]
    value_size: Sizes,

    /// What every key begins with [default: bench/, with --verify bench/ and the run's own number]
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,

    /// Time to live of every entry [default: 1h, longer for a longer run]
    #[arg(long, value_name = "TIME", value_parser = ttl)]
    ttl: Option<Duration>,

    /// Connections to each replica, of each thread
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: u16,

    /// Make each call on a stream of its own, as stock clients do, in place of sharing a pipeline
    #[arg(long)]
    unary: bool,

    /// Attempts of a call, the first included; 1 shows what a client is told that tries nothing again
    #[arg(long, default_value_t = Retries::default().attempts, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    attempts: u32,

    /// Calls under way at most, of all threads [default: 64; in an open loop twice the rate]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MAX_WINDOW as i64))]
    window: Option<u32>,

    /// Threads that make calls, each with a client of its own
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,

    /// How long calls are made before they count
    #[arg(long, default_value = "1s", value_name = "TIME", value_parser = duration)]
    warm_up: Duration,

    /// How long the part that counts lasts [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = lasting)]
    duration: Option<Duration>,

    /// End after so many calls instead
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    requests: Option<u64>,

    /// Do not store every key before
    #[arg(long, conflicts_with = "verify")]
    no_fill: bool,

    /// Hold every answer against what was acknowledged before, and read every key at the end
    #[arg(long)]
    verify: bool,

    /// Write the report as JSON to a file, or to standard output (-)
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Draw latencies by percentile and over time into an SVG file
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,

    #[command(flatten)]
    connect: Connect,
}

/// How long calls are measured: some time.
fn lasting(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("nothing can be measured in no time; give it 1s or more".to_owned()),
        time => Ok(time),
    }
}

impl Bench {
    pub fn run(self) -> ExitCode {
        match self.measured() {
            Ok(Verdict::Passed) => ExitCode::SUCCESS,
            Ok(Verdict::Failed) => ExitCode::from(exit::FAILURE),
            Ok(Verdict::Void) => ExitCode::from(exit::VOID),
            Err(problem) => problem.exit(),
        }
    }

    fn measured(self) -> Result<Verdict, Problem> {
        self.check()?;
        let run = rand::random();
        let amount = self.amount();
        let plan = self.in_words(&amount);
        let mut config = self.connect.clone().config(Config::DEFAULT_TIMEOUT)?;
        config.connections = usize::from(self.connections);
        config.unary = self.unary;
        config.retries.attempts = self.attempts;
        let patient = Config {
            retries: BULK_RETRIES,
            timeout: config.timeout.max(BULK_TIMEOUT),
            connections: 1,
            unary: false,
            ..config.clone()
        };
        let threads = usize::from(self.threads);
        let seats = seats::seats(&config, threads)?;
        let ledger = self.verify.then(|| Ledger::new(run, self.keys, self.mix.has(Operation::Incr)));
        let prefix = self.prefix.clone().unwrap_or_else(|| self.default_prefix(run));
        let picker = self.distribution.over(self.keys);
        let calls = Calls::new(run, prefix, self.mix.clone(), picker, self.value_size.clone(), self.ttl(), ledger);
        let (live, stop) = (Live::new()?, Stop::default());
        if !self.no_fill {
            live.phase(&format!("storing {} keys", self.keys));
            around::fill(&seats::seats(&patient, threads)?, &calls, self.keys)?;
        }
        let measured = run::measure(&seats, &calls, amount, &stop, &live)?;
        let end = Stop::default();
        if self.verify {
            live.phase(&format!("reading {} keys", self.keys));
            around::check(&seats::seats(&patient, threads)?, &calls, self.keys, &end, &live)?;
        }
        live.clear();
        let tally = measured.tally.clone();
        let verified = calls.ledger.as_ref().map(|ledger| (self.keys, ledger.found(), ledger.in_doubt()));
        let report = Report::new(plan, measured, verified);
        if let Some(path) = &self.plot {
            plot::draw(path, &report, &tally)
                .map_err(|error| Problem::failure(&format!("cannot draw {}: {error}", path.display())))?;
        }
        self.say(&report)?;
        Ok(report.verdict)
    }

    /// What no parser of one flag can see.
    fn check(&self) -> Result<(), Problem> {
        if self.verify && self.value_size.smallest() < value::MIN_BYTES {
            let least = value::MIN_BYTES;
            return Err(Problem::usage(&format!(
                "a value that can be verified has {least} bytes at least; raise --value-size"
            )));
        }
        if self.verify && self.connect.dry_run {
            return Err(Problem::usage(&"a dry run stores nothing that --verify could read; leave one of them out"));
        }
        if self.verify && self.ttl() < self.least_ttl() {
            let least = humantime::format_duration(self.least_ttl());
            return Err(Problem::usage(&format!(
                "entries would expire while they are verified: give --ttl {least} at least"
            )));
        }
        if self.prefix.as_ref().is_some_and(|prefix| prefix.len() > MAX_PREFIX_BYTES) {
            return Err(Problem::usage(&format!("--prefix is longer than {MAX_PREFIX_BYTES} bytes")));
        }
        match &self.plot {
            Some(path) if path.extension().is_none_or(|ending| ending != "svg") => {
                Err(Problem::usage(&"--plot draws SVG: give it a name that ends in .svg"))
            }
            _ => Ok(()),
        }
    }

    fn amount(&self) -> Amount {
        let window = match (self.window, self.rate) {
            (Some(window), _) => window as usize,
            // Enough for every call that is due while each takes the longest that it may, and that again.
            (None, Some(rate)) => (rate as usize).saturating_mul(2).clamp(MIN_OPEN_WINDOW, MAX_WINDOW),
            (None, None) => CLOSED_WINDOW,
        };
        let end = match self.requests {
            Some(calls) => End::Calls(calls),
            None => End::After(self.duration.unwrap_or(DEFAULT_DURATION)),
        };
        Amount { rate: self.rate, window, warm_up: self.warm_up, end }
    }

    fn ttl(&self) -> Duration {
        self.ttl.unwrap_or_else(|| self.least_ttl().max(Duration::from_hours(1)))
    }

    /// As far as it is known how long the run lasts.
    fn least_ttl(&self) -> Duration {
        self.warm_up + self.duration.unwrap_or_default() + TTL_MARGIN
    }

    fn default_prefix(&self, run: u64) -> String {
        if self.verify { format!("bench/{run:016x}/") } else { "bench/".to_owned() }
    }

    fn in_words(&self, amount: &Amount) -> String {
        let mut text = match amount.rate {
            Some(rate) => format!("open loop, {rate} calls/s"),
            None => "closed loop".to_owned(),
        };
        let _ = match amount.end {
            End::After(time) => write!(text, ", {}", humantime::format_duration(time)),
            End::Calls(calls) => write!(text, ", {calls} calls"),
        };
        let Self { mix, keys, distribution, value_size, connections, threads, .. } = self;
        let window = amount.window;
        let _ = write!(text, "; {mix}; {keys} keys, {distribution}, {value_size} B; ");
        let _ = write!(text, "threads {threads}, connections {connections}, window {window}");
        if self.unary {
            text.push_str(", unary");
        }
        if self.attempts != Retries::default().attempts {
            let _ = write!(text, ", attempts {}", self.attempts);
        }
        text
    }

    /// What people read goes to standard output, unless that is for JSON. With --verify the last line there is JSON.
    fn say(&self, report: &Report) -> Result<(), Problem> {
        match &self.json {
            Some(path) if path.as_os_str() == "-" => {
                exit::note(report);
                return exit::say(&report.json());
            }
            Some(path) => std::fs::write(path, report.json() + "\n")
                .map_err(|error| Problem::failure(&format!("cannot write {}: {error}", path.display())))?,
            None => {}
        }
        if self.verify {
            exit::say(&format_args!("{report}{}", report.summary()))
        } else {
            exit::say(&format_args!("{report}"))
        }
    }
}
