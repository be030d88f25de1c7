//! Clients that check what they are answered. They know nothing of the ring: each call goes to any replica, or to one for all; or they
//! are the library as programs use it.
//! Calls are begun when they are due, whatever became of those before (an open loop); a run that falls behind its plan is void,
//! because then it tested something else.
//!
//! Each key has one writer, who counts. An answer is *lost* if an acknowledged key is missing, and *stale* if it is older than
//! what was acknowledged before the question was asked. A call *failed* if it did after all its retries within its deadline.
//! A store of which nobody knows whether it was applied may still be, later: its key is not checked for staleness any more.

mod call;
mod report;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use larder::client::Client;
use larder::cluster::members::Members;
use parking_lot::Mutex;
use rand::seq::IndexedRandom as _;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::cluster::{Dev, PATIENCE, serves, until};
pub use call::name;
pub use report::Report;

/// How long a call may take, retries included. In a debug build, which takes some ten times the CPU, three times what is
/// promised: else a busy machine, on which nobody has his turn in time, looks like a fault.
pub const DEADLINE: Duration = Duration::from_secs(if cfg!(debug_assertions) { 3 } else { 1 });

/// How often due calls are begun, and how often the members are looked at.
const TICK: Duration = Duration::from_millis(2);
const LOOK: Duration = Duration::from_millis(20);

/// Keys that are stored or verified at once, before and after the run.
const BULK: usize = 64;

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Calls per second.
    pub rate: u32,
    pub keys: usize,
    pub value_bytes: usize,
    /// The part of the calls that store.
    pub stores: f64,
    pub clients: Clients,
}

/// Whom the clients ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// Any replica that is listed as serving.
    Any,
    /// Any replica that was, up to so long ago: each call has an idea of its own of how things are.
    Late(Duration),
    /// The oldest replica, for all.
    One,
    /// The owner of each key: the library decides, with its own retries and no others.
    Owners,
}

/// A run under way.
pub struct Load {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

struct Shared {
    plan: Plan,
    began: Instant,
    keys: Vec<Key>,
    /// The replicas as they were listed, the latest last.
    seen: Mutex<VecDeque<(Instant, Vec<String>)>>,
    connections: Mutex<BTreeMap<String, Client>>,
    report: Mutex<Report>,
    permits: Arc<Semaphore>,
    stop: AtomicBool,
}

#[derive(Default)]
struct Key {
    /// The count of the last store that was begun, and of the last that was acknowledged.
    begun: AtomicU64,
    acknowledged: AtomicU64,
    busy: AtomicBool,
    retired: AtomicBool,
}

impl Default for Plan {
    fn default() -> Self {
        // Six replicas of a debug build, in a restart, take more than a small machine has at a rate that is little for a release.
        let rate = if cfg!(debug_assertions) { 250 } else { 1000 };
        Self { rate, keys: 3000, value_bytes: 1024, stores: 0.1, clients: Clients::Any }
    }
}

impl Plan {
    /// As large as the faults are specified; for a release build and some minutes.
    pub fn full() -> Self {
        Self { rate: 2000, keys: 100_000, ..Self::default() }
    }

    /// Calls that are under way at once, if every one of them takes twice as long as it may.
    fn most(&self) -> u32 {
        self.rate * 2 * u32::try_from(DEADLINE.as_secs()).unwrap()
    }
}

impl Load {
    /// Stores every key, then begins.
    pub async fn start(dev: &Dev, plan: Plan) -> Self {
        let permits = Arc::new(Semaphore::new(plan.most() as usize));
        let shared = Arc::new(Shared {
            began: Instant::now(),
            keys: (0..plan.keys).map(|_| Key::default()).collect(),
            seen: Mutex::default(),
            connections: Mutex::default(),
            report: Mutex::default(),
            permits,
            stop: AtomicBool::new(false),
            plan,
        });
        shared.look(&dev.members());
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&shared).follow(dev.members_file().to_owned()));
        shared.each_key(async |shared, key| shared.store(key).await).await;
        tasks.spawn(Arc::clone(&shared).run());
        let load = Self { shared, tasks };
        load.goes_on().await;
        load
    }

    /// Since it was started, to compare with the moments in the report.
    pub fn elapsed(&self) -> Duration {
        self.shared.began.elapsed()
    }

    /// Waits until as many calls were made as are planned in half a second.
    pub async fn goes_on(&self) {
        let done = || self.shared.report.lock().done;
        let enough = done() + u64::from(self.shared.plan.rate / 2);
        until("the load goes on", || done() >= enough).await;
    }

    /// Ends it, and reads every key once more.
    pub async fn stop(mut self) -> Report {
        self.goes_on().await;
        let shared = Arc::clone(&self.shared);
        shared.stop.store(true, Ordering::Release);
        drop(timeout(PATIENCE, shared.permits.acquire_many(shared.plan.most())).await.expect("a call does not end"));
        shared.report.lock().ended(shared.began.elapsed());
        shared.each_key(async |shared, key| shared.get(key).await).await;
        self.tasks.abort_all();
        let mut report = std::mem::take(&mut *shared.report.lock());
        report.retired = shared.keys.iter().filter(|key| key.retired.load(Ordering::Acquire)).count();
        report
    }
}

impl Shared {
    /// Begins the calls that are due.
    async fn run(self: Arc<Self>) {
        let (began, mut ticks) = (Instant::now(), interval(TICK));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.report.lock().begins();
        let mut begun = 0_u64;
        loop {
            ticks.tick().await;
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            let due = u64::try_from(began.elapsed().as_micros()).unwrap() * u64::from(self.plan.rate) / 1_000_000;
            self.report.lock().planned = due;
            while begun < due {
                // None left: whoever should answer does not, and the plan is missed.
                let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else { break };
                begun += 1;
                let shared = Arc::clone(&self);
                tokio::spawn(async move {
                    shared.call().await;
                    drop(permit);
                });
            }
        }
    }

    async fn call(&self) {
        let key = rand::random_range(0..self.keys.len());
        let store = rand::random_bool(self.plan.stores) && !self.keys[key].busy.swap(true, Ordering::AcqRel);
        let began = Instant::now();
        if store {
            self.store(key).await;
            self.keys[key].busy.store(false, Ordering::Release);
        } else {
            self.get(key).await;
        }
        self.report.lock().took(began.elapsed());
    }

    /// Looks at the file of members again and again.
    async fn follow(self: Arc<Self>, path: PathBuf) {
        let mut ticks = interval(LOOK);
        loop {
            ticks.tick().await;
            if let Some(members) = std::fs::read(&path).ok().and_then(|text| Members::parse(&text).ok()) {
                self.look(&members);
            }
        }
    }

    fn look(&self, members: &Members) {
        let listed: Vec<String> =
            members.endpoints.iter().filter(|member| serves(member)).map(|member| member.address.clone()).collect();
        let mut seen = self.seen.lock();
        if !listed.is_empty() && seen.back().is_none_or(|(_, last)| *last != listed) {
            seen.push_back((Instant::now(), listed));
        }
    }

    /// A replica to ask, and whether others may be asked, too.
    fn pick(&self) -> String {
        let seen = self.seen.lock();
        let age = match self.plan.clients {
            Clients::Late(most) => most.mul_f64(rand::random()),
            Clients::Any | Clients::One | Clients::Owners => Duration::ZERO,
        };
        let then = Instant::now().checked_sub(age).unwrap_or(self.began);
        let at = seen.partition_point(|(since, _)| *since <= then).max(1) - 1;
        let listed = &seen[at].1;
        let picked = if self.plan.clients == Clients::One { listed.first() } else { listed.choose(&mut rand::rng()) };
        picked.unwrap().clone()
    }

    async fn each_key(self: &Arc<Self>, each: impl AsyncFn(&Self, usize) + Copy + 'static) {
        let next = AtomicU64::new(0);
        let worker = async || {
            while let Ok(key) = usize::try_from(next.fetch_add(1, Ordering::AcqRel))
                && key < self.keys.len()
            {
                each(self, key).await;
            }
        };
        futures::future::join_all((0..BULK).map(|_| worker())).await;
    }
}
