//! A run: warm up, and measure.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant as SystemInstant, SystemTime};

use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::calls::{Calls, Outcome, kind};
use super::gap::{Gap, Gaps};
use super::live::Live;
use super::mix::Operation;
use super::pace::{self, MAX_DUE, Schedule};
use super::report::Second;
use super::seats::{Seat, each};
use super::stop::Stop;
use super::tally::{Call, Latencies, Tally};
use crate::cli::exit::Problem;
use crate::client::{Client, Error};
use crate::rpc::failure::Failure;

/// Failures in words at most; all are counted.
const MAX_TOLD: usize = 10;

/// From now until the first call: time for the threads to start.
const LEAD: Duration = Duration::from_millis(20);

/// How long calls that are due may still be begun after the plan's end.
const GRACE: Duration = Duration::from_millis(50);

/// How much, and how fast.
#[derive(Clone, Copy, Debug)]
pub struct Amount {
    /// Calls per second of an open loop; none: a closed loop.
    pub rate: Option<u32>,
    /// Calls under way at most, of all threads.
    pub window: usize,
    pub warm_up: Duration,
    pub end: End,
}

/// When a run is over, after it was warmed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    After(Duration),
    Calls(u64),
}

/// What came of the part that counts.
#[derive(Debug)]
pub struct Measured {
    pub tally: Tally,
    pub seconds: Vec<Second>,
    /// From its beginning to its end.
    pub time: Duration,
    /// Calls that were planned in that time; none in a closed loop.
    pub planned: Option<u64>,
    pub gap: Gap,
    /// Of this process.
    pub cpu: Duration,
    /// Failures in words.
    pub told: Vec<String>,
}

/// What the threads of a run share.
#[derive(Debug)]
pub struct Run<'a> {
    calls: &'a Calls,
    amount: Amount,
    /// Calls before this do not count.
    from: Instant,
    /// Nor do those after this.
    until: Option<Instant>,
    /// Of a closed loop that ends after so many.
    left: AtomicU64,
    stop: &'a Stop,
    over: AtomicBool,
    gaps: Mutex<Gaps>,
    tallies: Box<[Mutex<Tally>]>,
    told: Mutex<Vec<String>>,
}

/// Warms up and measures.
pub fn measure(seats: &[Seat], calls: &Calls, amount: Amount, stop: &Stop, live: &Live) -> Result<Measured, Problem> {
    let first = SystemInstant::now() + LEAD;
    let schedule = amount.rate.map(|rate| Schedule { from: first, rate });
    // In an open loop the moments of the calls that count begin with one of them.
    let warm = schedule.map_or(0, |schedule| schedule.within(amount.warm_up));
    let from = schedule.map_or(first + amount.warm_up, |schedule| schedule.due(warm));
    let (left, until) = match amount.end {
        End::Calls(calls) => (calls, None),
        End::After(time) => (u64::MAX, Some(Instant::from_std(from + time))),
    };
    let from = Instant::from_std(from);
    let run = Run {
        calls,
        amount,
        from,
        until,
        left: AtomicU64::new(left),
        stop,
        over: AtomicBool::new(false),
        gaps: Mutex::new(Gaps::new(from)),
        tallies: seats.iter().map(|_| Mutex::default()).collect(),
        told: Mutex::default(),
    };
    let (mut to, mut due): (Vec<_>, Vec<_>) = seats.iter().map(|_| mpsc::channel(MAX_DUE)).unzip();
    if schedule.is_none() {
        to.clear();
    }
    let due: Vec<Mutex<Option<_>>> = due.drain(..).map(|due| Mutex::new(Some(due))).collect();
    let cpu = cpu_time();
    let mut planned = None;
    let mut seconds = Vec::new();
    let work = async |number: usize, client: Client| {
        let due = due[number].lock().take();
        run.thread(number, &client, due.filter(|_| schedule.is_some())).await;
    };
    each(seats, work, |working| {
        thread::scope(|scope| {
            if let Some(schedule) = schedule {
                let measured = match amount.end {
                    End::Calls(calls) => calls,
                    End::After(time) => schedule.within(time),
                };
                let run = &run;
                scope.spawn(move || run.plan(schedule, warm + measured, to));
                planned = Some(measured);
            }
            seconds = live.watch(&run, working);
        });
    })?;
    let time = run.time();
    if let (Some(schedule), true) = (schedule, stop.is_said()) {
        planned = Some(schedule.within(time));
    }
    let mut tally = Tally::default();
    run.tallies.iter().for_each(|its| tally.add(&its.lock()));
    let gap = run.gaps.lock().longest(Instant::now().min(from + time));
    let cpu = cpu_time().saturating_sub(cpu);
    Ok(Measured { tally, seconds, time, planned, gap, cpu, told: run.told.into_inner() })
}

impl Run<'_> {
    pub fn stop(&self) -> &Stop {
        self.stop
    }

    /// Since the part that counts began; none yet while it is warmed up.
    pub fn elapsed(&self) -> Option<Duration> {
        Instant::now().checked_duration_since(self.from)
    }

    pub fn amount(&self) -> Amount {
        self.amount
    }

    /// What was counted since the last look: successes, and failures.
    pub fn recent(&self) -> (Latencies, u64) {
        let mut recent = Latencies::default();
        let mut failed = 0;
        for tally in &self.tallies {
            let mut tally = tally.lock();
            recent.add(&tally.recent);
            tally.recent.clear();
            failed += std::mem::take(&mut tally.recent_failed);
        }
        (recent, failed)
    }

    /// How long the part that counts lasted, or has until now.
    fn time(&self) -> Duration {
        let now = Instant::now();
        let end = self.until.map_or(now, |until| until.min(now));
        let end = self.stop.at().map_or(end, |stopped| stopped.min(end));
        end.saturating_duration_since(self.from)
    }

    /// Hands out the moments of an open loop to the threads.
    fn plan(&self, schedule: Schedule, count: u64, to: Vec<mpsc::Sender<Instant>>) {
        schedule.follow(count, self.until, &to, self.stop);
        thread::park_timeout(GRACE);
        self.over.store(true, Ordering::Release);
    }

    async fn thread(&self, number: usize, client: &Client, due: Option<mpsc::Receiver<Instant>>) {
        let threads = self.tallies.len();
        let window = (self.amount.window / threads + usize::from(number < self.amount.window % threads)).max(1);
        let call = async |planned| self.one(number, client, planned).await;
        match due {
            Some(due) => pace::open(due, window, &self.over, call).await,
            None => pace::closed(window, || self.more(), call).await,
        }
    }

    /// Whether a closed loop goes on.
    fn more(&self) -> bool {
        let now = Instant::now();
        if self.stop.is_said() || self.until.is_some_and(|until| now >= until) {
            return false;
        }
        now < self.from
            || self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1)).is_ok()
    }

    async fn one(&self, number: usize, client: &Client, planned: Instant) {
        let counts = planned >= self.from && self.until.is_none_or(|until| planned < until);
        if counts {
            self.tallies[number].lock().begun += 1;
        }
        let Outcome { operation, bytes, hit, failed } = self.calls.call(client).await;
        let took = planned.elapsed();
        match failed {
            None if counts => {
                self.gaps.lock().success(Instant::now());
                self.tallies[number].lock().succeeded(Call { operation, took, bytes, hit });
            }
            // To whom verifies, no failure is too early.
            Some(error) if counts || self.calls.ledger.is_some() => self.failed(number, operation, &error),
            None | Some(_) => {}
        }
    }

    fn failed(&self, number: usize, operation: Operation, error: &Error) {
        self.tallies[number].lock().failed(operation, kind(error));
        let mut told = self.told.lock();
        if told.len() < MAX_TOLD {
            let now = humantime::format_rfc3339_millis(SystemTime::now());
            told.push(format!("{now} {} failed: {error}", operation.name()));
        }
        drop(told);
        // Nobody would fare better.
        if matches!(error.failure(), Some(Failure::TokenMissing | Failure::TokenUnknown | Failure::TokenReadOnly)) {
            self.stop.now();
        }
    }
}

/// What this process has used of the processors.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}
