//! The thread's life: made, started once everything that it talks to is there, stopped last.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};

use super::alive::Alive;
use super::driver::Driver;
use super::figures::{Figures, Progress};
use super::inbox::{Command, Inbox, Notes};
use super::pace::{Load, Pace, PageSize};
use super::shared::Shared;
use super::source::Source;
use super::tickets::Tickets;
use super::{Handoff, Topology};
use crate::cache::store::Store;
use crate::ownership::member::{Boot, MemberId, Uid};
use crate::ownership::mistake::Mistakes;
use crate::ownership::snapshot::Snapshot;
use crate::ownership::view::View;
use crate::server::clock::Clock;
use crate::server::peer::Peers;
use crate::server::readiness::Token;
use crate::server::workers::Workers;

/// What an operator may set.
#[derive(Clone, Debug)]
pub struct HandoffConfig {
    /// What the source of members calls this replica.
    pub uid: Uid,
    /// This replica's place on the ring, "ip:port", as the source should list it.
    pub address: Arc<str>,
    /// How long a leaver stays at least.
    pub linger: Duration,
    /// Bytes per second that are taken over at most; 0: no bound.
    pub rate: u64,
    /// Bytes of one page, about.
    pub page_bytes: usize,
}

/// How far this replica's part in the cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It takes part, or waits for its first list.
    Member,
    /// It left. Entries that nobody took over are lost with it.
    Ended { dropped: usize },
}

/// The thread before it runs.
pub struct Idle {
    shared: Arc<Shared>,
    config: HandoffConfig,
    store: Arc<Store>,
    me: MemberId,
    commands: mpsc::Receiver<Command>,
    notes: Arc<Notes>,
}

/// The running thread.
pub struct Running {
    handoff: Handoff,
    life: watch::Receiver<Life>,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Handoff {
    /// A replica that takes part in nothing yet; the store is a member's from here on. Its clock is the one that the store
    /// makes versions by.
    #[must_use]
    pub fn new(config: HandoffConfig, store: Arc<Store>, clock: Clock) -> (Self, Idle) {
        let me = identity(&config.uid, None);
        store.join(&me, Mistakes::default());
        let (inbox, commands, notes) = Inbox::new();
        let snapshot = Arc::new(Snapshot::new(View::default()));
        let topology = Arc::new(Topology::new(me.clone(), snapshot, BTreeMap::new()));
        let alive = Alive::default();
        alive.tick(clock.us_at(Instant::now()));
        let shared = Arc::new(Shared {
            topology: ArcSwap::new(Arc::clone(&topology)),
            changes: watch::Sender::new(topology),
            alive,
            clock,
            versions: Arc::clone(store.clock()),
            inbox,
            figures: Arc::new(Figures::default()),
            status: ArcSwapOption::empty(),
        });
        (Self(Arc::clone(&shared)), Idle { shared, config, store, me, commands, notes })
    }
}

impl Idle {
    /// Starts the thread. Peers must be able to reach this replica already (rule 14). `ready` is dropped when every member
    /// present has cleared it once.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(self, peers: Peers, source: Source, workers: &Workers, ready: Token) -> io::Result<Running> {
        let (life, lives) = watch::channel(Life::Member);
        let (stop, stopped) = watch::channel(false);
        let handoff = Handoff(Arc::clone(&self.shared));
        let driver = Driver {
            pace: Pace::new(self.config.rate),
            page_size: PageSize::new(self.config.page_bytes),
            load: Load::new((0..workers.count()).map(|index| workers.handle(index).clone())),
            shared: self.shared,
            config: self.config,
            store: self.store,
            peers,
            source,
            me: self.me,
            replica: None,
            tickets: Tickets::default(),
            progress: Progress::default(),
            entered: false,
            leaving: false,
            ready: Some(ready),
            life,
        };
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (commands, notes) = (self.commands, self.notes);
        let thread = std::thread::Builder::new().name("hand-off".to_owned()).spawn(move || {
            runtime.block_on(driver.run(commands, notes, stopped));
            runtime.shutdown_background();
        })?;
        Ok(Running { handoff, life: lives, stop, thread })
    }
}

impl Running {
    /// Rule 11: hands everything over. [`Self::ended`] says when that is done.
    pub async fn leave(&self) {
        self.handoff.0.inbox.tell(Command::Leave).await;
    }

    /// Waits until this replica has left. Answers how many entries nobody took over.
    pub async fn ended(&mut self) -> usize {
        match self.life.wait_for(|life| *life != Life::Member).await.as_deref() {
            Ok(Life::Ended { dropped }) => *dropped,
            // The thread panicked; whatever there was, is lost.
            Ok(Life::Member) | Err(_) => 0,
        }
    }

    /// Waits until the thread has panicked: a replica without it answers nothing any more.
    pub async fn broken(&self) {
        let mut life = self.life.clone();
        while life.changed().await.is_ok() {}
    }

    /// The time is over: says what nobody took over.
    pub fn cut_off(&self, entries: u64) {
        self.handoff.0.figures.dropped.fetch_add(entries, Ordering::Relaxed);
        tracing::warn!(dropped = entries, "the time to leave is over; entries that nobody took over are lost");
    }

    /// Ends the thread and waits for it; it takes a moment only.
    pub fn stop(self) {
        self.stop.send_replace(true);
        if self.thread.join().is_err() {
            tracing::error!("the hand-off's thread panicked");
        }
    }
}

/// Who a process is: its boot is the time of its start in milliseconds, and greater than the one before it.
pub(super) fn identity(uid: &Uid, before: Option<Boot>) -> MemberId {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
    MemberId { uid: uid.clone(), boot: before.map_or(now.max(1), |before| now.max(before + 1)) }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running")
            .field("handoff", &self.handoff)
            .field("life", &*self.life.borrow())
            .finish_non_exhaustive()
    }
}
