//! Keeps the replicas of a `larder dev`: what the kubelet and the endpoint controller do for pods, for processes.
//!
//! Each replica has a keeper, which starts its process, asks its health port how it is, and starts it again in place when it
//! dies. What keepers see goes into the [`Fleet`], and every change of that into the file of members. What commands do
//! is in [`super::operations`].

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::Signal;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::super::exit;
use super::child::{self, Process};
use super::fleet::{Ended, Fleet};
use super::members::MembersFile;
use super::ports::Ports;
use crate::client::{Client, Config, Health};

/// How often a replica is asked how it is, and how long it may take to answer: a readiness probe of Kubernetes.
const PROBE_PERIOD: Duration = Duration::from_secs(1);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// The same as long as its process has never served: a person waits.
const STARTUP_PERIOD: Duration = Duration::from_millis(20);

/// So many answers other than "serving", or none, one after another, and it is said to serve no more.
const PROBE_FAILURES: u32 = 3;

/// A process that dies is started again at once; then after so long, doubled each time up to the greatest.
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const GREATEST_BACKOFF: Duration = Duration::from_secs(10);

/// One that has lived so long dies for the first time.
const LONG_LIFE: Duration = Duration::from_secs(10);

/// What does not change while it runs.
#[derive(Debug)]
pub struct Settings {
    /// Of this very command: what is started.
    pub program: PathBuf,
    pub base_port: u16,
    /// Flags that all replicas have.
    pub flags: Vec<OsString>,
    pub members_file: PathBuf,
    /// Where the logs go.
    pub directory: PathBuf,
}

/// The replicas and who keeps them. Dropped, it kills them.
#[derive(Debug)]
pub struct Supervisor {
    pub(super) settings: Settings,
    fleet: watch::Sender<Fleet>,
    file: Mutex<MembersFile>,
    keepers: Mutex<JoinSet<()>>,
    /// One command at a time.
    pub(super) commands: tokio::sync::Mutex<()>,
    /// Whether the terminal gets the replicas' warnings. Not at the end: that they miss each other then is no news.
    pub(super) heard: Arc<AtomicBool>,
}

impl Supervisor {
    pub fn new(settings: Settings) -> Arc<Self> {
        let file = Mutex::new(MembersFile::new(settings.members_file.clone()));
        let supervisor = Self {
            settings,
            fleet: watch::Sender::default(),
            file,
            keepers: Mutex::default(),
            commands: tokio::sync::Mutex::default(),
            heard: Arc::new(AtomicBool::new(true)),
        };
        supervisor.change(|_| ());
        Arc::new(supervisor)
    }

    /// How things are now.
    pub fn fleet(&self) -> Fleet {
        self.fleet.borrow().clone()
    }

    pub fn log_of(&self, number: u16) -> PathBuf {
        self.settings.directory.join(format!("replica-{number}.log"))
    }

    /// Waits until something is so.
    pub(super) async fn until(&self, so: impl FnMut(&Fleet) -> bool) {
        // Fails only when the sender is gone, which is here.
        drop(self.fleet.subscribe().wait_for(so).await);
    }

    /// New replicas, which are started and kept from now on. They are listed all at once: each list that differs is a view of
    /// the cluster of its own, which voids what the one before has begun.
    pub(super) fn join(self: &Arc<Self>, places: &[(u16, Ports)]) -> Vec<Arc<str>> {
        let uids: Vec<Arc<str>> = places.iter().map(|_| format!("dev-{:016x}", rand::random::<u64>()).into()).collect();
        self.change(|fleet| {
            for ((number, ports), uid) in places.iter().zip(&uids) {
                fleet.join(*number, *ports, Arc::clone(uid));
            }
        });
        let mut keepers = self.keepers.lock();
        while keepers.try_join_next().is_some() {}
        for ((number, ports), uid) in places.iter().zip(&uids) {
            keepers.spawn(Arc::clone(self).keep(*number, *ports, Arc::clone(uid)));
        }
        uids
    }

    /// Marks replicas as leaving and tells their processes, all at once.
    pub(super) fn terminate(&self, uids: &[Arc<str>]) {
        for pid in self.change(|fleet| fleet.terminate(uids)) {
            child::signal(pid, Signal::TERM);
        }
    }

    /// Kills a replica's process, to be started again.
    pub(super) fn kill(&self, uid: &str) {
        if let Some(pid) = self.change(|fleet| fleet.killed(uid)) {
            child::signal(pid, Signal::KILL);
        }
    }

    /// Kills every process.
    pub(super) fn kill_all(&self) {
        for pid in self.fleet().members().iter().filter_map(|member| member.pid) {
            child::signal(pid, Signal::KILL);
        }
    }

    /// Changes what is known, and says so in the file before anybody acts upon it.
    fn change<R>(&self, change: impl FnOnce(&mut Fleet) -> R) -> R {
        let mut file = self.file.lock();
        let mut answer = None;
        self.fleet.send_modify(|fleet| {
            answer = Some(change(fleet));
            if let Err(error) = file.write(fleet.endpoints()) {
                exit::note(&format_args!(
                    "cannot write the file of members, {}: {error}",
                    self.settings.members_file.display()
                ));
            }
        });
        answer.expect("`send_modify` calls its closure once")
    }

    /// The life of one replica: one process after another, until one ends that was to leave.
    async fn keep(self: Arc<Self>, number: u16, ports: Ports, uid: Arc<str>) {
        let mut backoff = Duration::ZERO;
        loop {
            let began = Instant::now();
            let ended = match self.start(number, ports, &uid) {
                Ok(process) => self.watch(process, ports, &uid).await,
                Err(error) => (Ended { how: error.to_string(), usage: false, said: String::new() }, false),
            };
            let (ended, served) = ended;
            let on_purpose = self.fleet.borrow().member(&uid).is_none_or(|its| its.killed || its.terminating);
            self.change(|fleet| fleet.ended(&uid, (!served && !on_purpose).then(|| ended.clone())));
            if self.fleet.borrow().member(&uid).is_none() {
                return;
            }
            if on_purpose || began.elapsed() >= LONG_LIFE {
                backoff = Duration::ZERO;
            }
            if !on_purpose {
                let Ended { how, .. } = &ended;
                let log = self.log_of(number);
                exit::note(&format_args!(
                    "replica {number} ended by itself, with {how}; it is started again in {} (its log: {})",
                    humantime::format_duration(backoff),
                    log.display()
                ));
            }
            let left = |fleet: &Fleet| fleet.member(&uid).is_none_or(|member| member.terminating);
            if timeout(backoff, self.until(left)).await.is_ok() && left(&self.fleet.borrow()) {
                return self.change(|fleet| fleet.ended(&uid, None));
            }
            backoff = (backoff * 2).clamp(FIRST_BACKOFF, GREATEST_BACKOFF);
        }
    }

    fn start(&self, number: u16, ports: Ports, uid: &str) -> std::io::Result<Process> {
        let Settings { program, flags, .. } = &self.settings;
        let mut all = flags.clone();
        all.extend(own_flags(ports, uid).into_iter().map(OsString::from));
        let process =
            Process::start(program, &all, format!("replica {number}"), self.log_of(number), Arc::clone(&self.heard))?;
        self.change(|fleet| fleet.started(uid, process.pid()));
        Ok(process)
    }

    /// Asks a process how it is until it ends. Answers how it ended, and whether it ever served.
    async fn watch(&self, mut process: Process, ports: Ports, uid: &str) -> (Ended, bool) {
        let mut served = false;
        let ended = tokio::select! {
            ended = process.ended() => ended,
            never = self.probe(ports, uid, &mut served) => match never {},
        };
        (ended, served)
    }

    /// As the kubelet does it: one that serves becomes ready at its first good answer, and unready after several bad ones.
    async fn probe(&self, ports: Ports, uid: &str, served: &mut bool) -> std::convert::Infallible {
        let target = ports.health().to_string().parse().expect("an address and a port are a target");
        let config = Config { timeout: PROBE_TIMEOUT, ..Config::new(target) };
        let client = Client::new(config).expect("there are no TLS options that may be wrong");
        let mut failures = 0;
        while !*served {
            match client.health().await {
                Ok(Health::Serving) => *served = true,
                _ => sleep(STARTUP_PERIOD).await,
            }
        }
        let mut ticks = interval(PROBE_PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut said = false;
        loop {
            if said != (failures < PROBE_FAILURES) {
                said = failures < PROBE_FAILURES;
                self.change(|fleet| fleet.says(uid, said));
            }
            ticks.tick().await;
            failures = match client.health().await {
                Ok(Health::Serving) => 0,
                _ => failures + 1,
            };
        }
    }
}

/// The flags that only this replica has.
fn own_flags(ports: Ports, uid: &str) -> Vec<String> {
    vec![
        format!("--uid={uid}"),
        format!("--advertise={}", ports.grpc()),
        format!("--listen={}", ports.grpc()),
        format!("--peer-listen={}", ports.peer()),
        format!("--health-listen={}", ports.health()),
        format!("--admin-listen={}", ports.admin()),
    ]
}
