//! The loop of a driver of the comparison (`benches/compare`), whatever client it drives: callers that each send their next
//! call when the last is answered or, at a rate, when its time has come; what they did in a window, and the CPU time of both
//! sides meanwhile, as a line of JSON.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

/// Callers walk over the keys in this stride, a prime, so that neighbours in time are not neighbours in the table.
const STRIDE: usize = 7_919;

/// What is driven, and for how long.
#[derive(Clone, Debug)]
pub struct Plan {
    /// `name=value` for each word of the command line.
    words: Vec<(String, String)>,
    pub address: String,
    pub verb: Verb,
    pub bytes: usize,
    pub keys: usize,
    pub connections: usize,
    /// Calls in flight on each connection.
    pub window: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Get,
    Store,
    /// Nine gets to a store.
    Mix,
    /// Stores every key once; nothing is measured.
    Fill,
}

/// One of those who call, each with one call in flight.
pub trait Caller: Send + 'static {
    /// Makes a call that begins with the key of this index; how many keys it was about.
    fn call(&mut self, index: usize) -> impl Future<Output = Result<usize, String>> + Send;
}

#[derive(Default)]
struct Meter {
    measures: AtomicBool,
    stopped: AtomicBool,
    items: AtomicU64,
}

impl Plan {
    pub fn of(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let pair = |word: String| {
            word.split_once('=')
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .ok_or(format!("{word}: name=value"))
        };
        let mut plan = Self {
            words: words.map(pair).collect::<Result<_, _>>()?,
            address: String::new(),
            verb: Verb::Get,
            bytes: 0,
            keys: 0,
            connections: 0,
            window: 0,
        };
        plan.address = plan.text("address")?.to_owned();
        plan.verb = match plan.text("verb")? {
            "get" => Verb::Get,
            "store" => Verb::Store,
            "mix" => Verb::Mix,
            "fill" => Verb::Fill,
            other => return Err(format!("verb={other}: get, store, mix or fill")),
        };
        (plan.bytes, plan.keys) = (plan.number("bytes")?, plan.number("keys")?);
        (plan.connections, plan.window) = (plan.number("connections")?, plan.number("window")?);
        Ok(plan)
    }

    pub fn text(&self, name: &str) -> Result<&str, String> {
        let found = self.words.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).ok_or_else(|| format!("{name}= is missing"))
    }

    pub fn number(&self, name: &str) -> Result<usize, String> {
        self.text(name)?.parse().map_err(|error| format!("{name}: {error}"))
    }

    pub fn key(&self, index: usize) -> String {
        format!("c/{}/{index:012}", self.bytes)
    }

    /// All of them.
    pub fn all_keys(&self) -> Vec<String> {
        (0..self.keys).map(|index| self.key(index)).collect()
    }

    /// Whether the call of this index is a get.
    pub fn reads(&self, index: usize) -> bool {
        match self.verb {
            Verb::Get => true,
            Verb::Store | Verb::Fill => false,
            Verb::Mix => !index.is_multiple_of(10),
        }
    }

    /// Where a caller goes on after this index.
    pub fn next(&self, index: usize) -> usize {
        (index + STRIDE) % self.keys
    }

    /// Lets them call; what was seen, as a line.
    pub async fn drive<C: Caller>(self, callers: Vec<C>) -> Result<String, String> {
        let rate = self.number("rate").unwrap_or(0);
        let (warm_up, time) = (self.number("warm_up_ms")? as u64, self.number("window_ms")? as u64);
        let servers: Vec<String> = self.text("servers")?.split(',').map(str::to_owned).collect();
        let (plan, meter, count) = (Arc::new(self), Arc::new(Meter::default()), callers.len());
        // Each caller's share of the rate, and their turns spread over it.
        let every = (rate > 0).then(|| Duration::from_secs_f64(count as f64 / rate as f64));
        let mut tasks = JoinSet::new();
        for (number, caller) in callers.into_iter().enumerate() {
            let pace = every.map(|every| {
                (Instant::now() + every * u32::try_from(number).unwrap_or(0) / u32::try_from(count).unwrap_or(1), every)
            });
            tasks.spawn(call_on(caller, Arc::clone(&plan), Arc::clone(&meter), number * 131, pace));
        }
        sleep(Duration::from_millis(warm_up)).await;
        let seen = || Ok::<_, String>((meter.items.load(Relaxed), cpu("self")?, cpu_of_all(&servers)?));
        let (from, before) = (Instant::now(), seen()?);
        meter.measures.store(true, Relaxed);
        sleep(Duration::from_millis(time)).await;
        let (after, took) = (seen()?, from.elapsed());
        meter.measures.store(false, Relaxed);
        meter.stopped.store(true, Relaxed);
        let mut waits = Vec::new();
        while let Some(ended) = tasks.join_next().await {
            waits.extend(ended.map_err(|error| error.to_string())??);
        }
        waits.sort_unstable();
        let percentile = |percent: usize| waits.get(waits.len() * percent / 100).copied().unwrap_or(0);
        Ok(format!(
            r#"{{"items":{},"seconds":{},"client":{},"server":{},"p50_us":{},"p99_us":{}}}"#,
            after.0 - before.0,
            took.as_secs_f64(),
            after.1 - before.1,
            after.2 - before.2,
            percentile(50),
            percentile(99),
        ))
    }
}

/// Calls until it is over; how long each call in the window took, in microseconds, where there is a rate.
async fn call_on<C: Caller>(
    mut caller: C,
    plan: Arc<Plan>,
    meter: Arc<Meter>,
    first: usize,
    mut pace: Option<(Instant, Duration)>,
) -> Result<Vec<u32>, String> {
    let (mut index, mut waits) = (first % plan.keys, Vec::new());
    while !meter.stopped.load(Relaxed) {
        let mut began = None;
        if let Some((due, every)) = &mut pace {
            // A call whose turn came while the one before was under way has been waiting since.
            let late = *due < Instant::now();
            if !late {
                sleep_until(*due).await;
            }
            began = Some(if late { *due } else { Instant::now() });
            *due += *every;
        }
        let items = caller.call(index).await?;
        if let (Some(began), true) = (began, meter.measures.load(Relaxed)) {
            waits.push(u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX));
        }
        meter.items.fetch_add(items as u64, Relaxed);
        for _ in 0..items {
            index = plan.next(index);
        }
    }
    Ok(waits)
}

fn cpu_of_all(processes: &[String]) -> Result<f64, String> {
    processes.iter().map(|process| cpu(process)).sum()
}

/// CPU time that all threads of a process used, in seconds.
fn cpu(process: &str) -> Result<f64, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("process {process}: {error}");
    let mut nanoseconds = 0.0;
    for thread in fs::read_dir(format!("/proc/{process}/task")).map_err(|error| wrong(&error))? {
        let file = thread.map_err(|error| wrong(&error))?.path().join("schedstat");
        // A thread may end meanwhile.
        let Ok(text) = fs::read_to_string(file) else { continue };
        nanoseconds += text.split(' ').next().unwrap_or_default().parse::<f64>().map_err(|error| wrong(&error))?;
    }
    Ok(nanoseconds / 1e9)
}
