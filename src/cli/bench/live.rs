//! What is seen while a bench runs: a line on standard error, when that is a terminal; and what a signal does.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::report::{Second, millis};
use super::run::{End, Run};
use super::seats::Working;
use super::stop::Stop;
use crate::cli::exit::Problem;

/// How often the line is drawn anew, and a row is written down.
const TICK: Duration = Duration::from_secs(1);

/// How often is looked whether it is over.
const LOOK: Duration = Duration::from_millis(10);

/// Rows at most: a day of them.
const MAX_ROWS: usize = 86_400;

/// The terminal, and the signals.
#[derive(Debug)]
pub struct Live {
    bar: ProgressBar,
    runtime: Runtime,
}

impl Live {
    pub fn new() -> Result<Self, Problem> {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Problem::failure(&format!("cannot start: {error}")))?;
        Ok(Self { bar, runtime })
    }

    /// Says what is being done.
    pub fn phase(&self, what: &str) {
        self.bar.set_message(what.to_owned());
        self.bar.tick();
    }

    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }

    /// Watches a run to its end, and answers a row for each second. SIGINT and SIGTERM end it early.
    pub fn watch(&self, run: &Run<'_>, working: &Working) -> Vec<Second> {
        let mut rows = Vec::new();
        let mut warming = true;
        let look = || {
            let (latencies, failed) = run.recent();
            let Some(elapsed) = run.elapsed() else { return self.phase("warming up") };
            // What came of the warming up is in the first look.
            if std::mem::take(&mut warming) && elapsed < TICK / 2 {
                return;
            }
            let row = Second::of(elapsed, &latencies, failed);
            self.phase(&line(run, elapsed, &row));
            if rows.len() < MAX_ROWS {
                rows.push(row);
            }
        };
        self.until(run.stop(), working, look);
        rows
    }

    /// Waits until it is done; SIGINT and SIGTERM stop it.
    pub fn signals(&self, stop: &Stop, working: &Working) {
        self.until(stop, working, || self.bar.tick());
    }

    fn until(&self, stop: &Stop, working: &Working, mut look: impl FnMut()) {
        self.runtime.block_on(async {
            let begin = Instant::now();
            let (mut interrupt, mut terminate) = (heed(SignalKind::interrupt()), heed(SignalKind::terminate()));
            let (mut ticks, mut looks) = (interval_at(begin + TICK, TICK), interval_at(begin, LOOK));
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while !working.is_over() {
                tokio::select! {
                    _ = ticks.tick() => look(),
                    _ = looks.tick() => {}
                    () = came(&mut interrupt) => stop.now(),
                    () = came(&mut terminate) => stop.now(),
                }
            }
        });
    }
}

/// None: then the signal does what it always does.
fn heed(kind: SignalKind) -> Option<Signal> {
    signal(kind).ok()
}

async fn came(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => _ = signal.recv().await,
        None => std::future::pending().await,
    }
}

fn line(run: &Run<'_>, elapsed: Duration, row: &Second) -> String {
    let of = match run.amount().end {
        End::After(time) => format!(" of {} s", time.as_secs()),
        End::Calls(_) => String::new(),
    };
    format!(
        "{} s{of}: {} calls/s, p50 {}, p99 {}, slowest {}, {} failed",
        elapsed.as_secs(),
        row.succeeded,
        millis(row.p50_us),
        millis(row.p99_us),
        millis(row.max_us),
        row.failed
    )
}
