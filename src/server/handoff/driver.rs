//! The thread that owns the state machine: takes what happens, one thing at a time, and carries out what follows from it.
//! Nothing here waits but for the next thing to happen.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::figures::{Progress, Stage};
use super::inbox::{Command, Note, Notes, Outcome};
use super::pace::{Load, Pace, PageSize};
use super::shared::Shared;
use super::source::Source;
use super::ticket::Verdict;
use super::tickets::Tickets;
use super::{HandoffConfig, Life, Status, Topology};
use crate::cache::store::{Store, StoreCopies};
use crate::cache::version::Now;
use crate::ownership::member::MemberId;
use crate::ownership::message::{Answer, Refusal, Stamp};
use crate::ownership::mistake::Mistakes;
use crate::ownership::snapshot::Snapshot;
use crate::ownership::view::View;
use crate::ownership::{Config, Phase, Replica};
use crate::rpc::peer::write_copy;
use crate::server::peer::Peers;
use crate::server::readiness::Token;

/// How often the state machine is told that time passed.
const TICK: Duration = Duration::from_millis(100);

/// How often while a hand-off is under way, or somebody waits: what was turned away is tried again after about as long.
const BUSY_TICK: Duration = Duration::from_millis(20);

/// Commands taken before the clock and the tickets have their turn: well under a millisecond of work.
const BURST: usize = 64;

/// Entries of a page that are stored before whoever waits for the thread has a turn: some 50 microseconds of work.
const PAGE_STEP: usize = 32;

/// The thread's own.
pub(super) struct Driver {
    pub(super) shared: Arc<Shared>,
    pub(super) config: HandoffConfig,
    pub(super) store: Arc<Store>,
    pub(super) peers: Peers,
    pub(super) source: Source,
    pub(super) me: MemberId,
    /// None until the first consistent list came.
    pub(super) replica: Option<Replica<StoreCopies>>,
    pub(super) tickets: Tickets,
    pub(super) pace: Pace,
    pub(super) page_size: PageSize,
    pub(super) load: Load,
    pub(super) progress: Progress,
    /// Operations were submitted, and what follows was not carried out yet.
    pub(super) entered: bool,
    pub(super) leaving: bool,
    /// Dropped when everybody has cleared this replica once.
    pub(super) ready: Option<Token>,
    pub(super) life: watch::Sender<Life>,
}

impl Driver {
    /// Runs until told to stop.
    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        notes: Arc<Notes>,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut ticked = Instant::now();
        loop {
            let pause = self.pause();
            let has_more = self.replica.as_ref().is_some_and(Replica::has_more);
            let every = if self.is_busy() { BUSY_TICK } else { TICK };
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                () = sleep_until(ticked + every) => {
                    ticked = Instant::now();
                    self.tick();
                }
                () = notes.some() => {}
                () = self.source.changed() => self.look_at_the_source(),
                command = commands.recv() => match command {
                    Some(command) => self.take(command),
                    None => return,
                },
                () = sleep(pause.unwrap_or_default()), if pause.is_some() => self.pull(),
                () = ready(()), if has_more => {}
            }
            for _ in 0..BURST {
                let Ok(command) = commands.try_recv() else { break };
                self.take(command);
            }
            if std::mem::take(&mut self.entered) {
                self.submitted();
            }
            notes.take().into_iter().for_each(|note| self.note(note));
            if has_more {
                self.go_on();
            }
            // Timers and tasks of this runtime have their turn also when commands never end.
            tokio::task::yield_now().await;
        }
    }

    /// Whether a hand-off is under way, or somebody waits for one.
    fn is_busy(&self) -> bool {
        !self.tickets.is_empty() || self.replica.as_ref().is_some_and(|replica| !replica.is_settled())
    }

    /// The moment, told to the store too.
    pub(super) fn now(&mut self) -> Now {
        let now = self.shared.clock.now();
        if let Some(replica) = &mut self.replica {
            replica.store_mut().set_now(now);
        }
        now
    }

    fn tick(&mut self) {
        let now = self.now();
        if let Some(replica) = &mut self.replica {
            replica.tick(now);
            self.carry_out();
        }
        self.look_at_the_source();
        // After a fence was told: nobody sees the pulse of a process that must not answer.
        self.shared.alive.tick(self.shared.now_us());
        let now_us = self.shared.now_us();
        self.pace.yield_to(self.load.idle(now_us), now_us);
        self.pull();
        self.tell_status();
    }

    fn take(&mut self, command: Command) {
        let now = self.now();
        match command {
            Command::Request { stamp, request, reply } => {
                let answer = match &mut self.replica {
                    Some(replica) => replica.request(&stamp, &request, now),
                    None => Err(self.not_yet(&stamp)),
                };
                if let Ok((_, answer)) = &answer {
                    self.shared.figures.answered(answer);
                }
                // Who asked may have given up.
                drop(reply.send(answer));
            }
            Command::Accept { stamp, reply } => {
                let accepted = match &mut self.replica {
                    Some(replica) => replica.accept(&stamp, now),
                    None => Err(self.not_yet(&stamp)),
                };
                let _ = reply.send(accepted);
            }
            Command::Submit { id, place, origin, slot } => {
                if !self.tickets.insert(id, place.clone(), origin, slot) {
                    return;
                }
                match &mut self.replica {
                    Some(replica) if !replica.is_over() => {
                        replica.enter(id, place, origin);
                        // What was decided is carried out with the others of this burst.
                        self.entered = true;
                        self.page_size.shrink();
                        self.pace.touched(self.shared.now_us());
                        return;
                    }
                    // It has left; whoever is still here is to go elsewhere.
                    Some(_) => self.tickets.tell(id, Verdict::Fenced),
                    None => {}
                }
            }
            Command::Lease { id, ask, reply } => {
                if !self.tickets.insert_lease(id, reply) {
                    return;
                }
                match &mut self.replica {
                    Some(replica) if !replica.is_over() => replica.lease(id, ask, now),
                    // Without a part in the cluster there is no home to ask.
                    _ => self.tickets.remove_lease(id),
                }
            }
            Command::RefusedBy(member) => {
                if let Some(replica) = &mut self.replica {
                    replica.refused_by(&member);
                }
            }
            Command::Answered { boot, id, outcome } if boot == self.me.boot => self.answered(id, outcome, now),
            Command::Answered { .. } => {}
            Command::Leave => self.leave(now),
        }
        self.carry_out();
    }

    /// Decides on what was submitted in one burst.
    fn submitted(&mut self) {
        let now = self.now();
        if let Some(replica) = &mut self.replica {
            replica.submitted(now);
            self.carry_out();
        }
    }

    fn note(&mut self, note: Note) {
        let now = self.now();
        let place = if let Note::Again(id) = note { self.tickets.get(id) } else { None };
        match note {
            Note::Finished(id) => self.tickets.remove(id),
            Note::LeaseOver(id) => self.tickets.remove_lease(id),
            Note::TurnedAway(_) | Note::Again(_) => {}
        }
        let Some(replica) = &mut self.replica else { return };
        match (note, place) {
            (Note::TurnedAway(id), _) => replica.turned_away(id, now),
            (Note::Again(id), Some((place, origin))) => replica.submit(id, place, origin, now),
            (Note::Again(_), None) => {}
            (Note::Finished(id), _) => replica.finished(id, now),
            (Note::LeaseOver(id), _) => replica.lease_over(id),
        }
        self.carry_out();
    }

    fn answered(&mut self, id: u64, outcome: Outcome, now: Now) {
        let Some(replica) = &mut self.replica else { return };
        match outcome {
            Outcome::Answer(answered) => {
                let (stamp, answer) = *answered;
                let bytes = self.shared.figures.came(&answer);
                if matches!(answer, Answer::Page { .. }) {
                    replica.ask_for_pages_of(self.page_size.grow(replica.awaited().1));
                }
                replica.answer(id, &stamp, answer, now);
                if bytes > 0 {
                    let now_us = self.shared.now_us();
                    self.pace.took(bytes, now_us);
                    self.pull();
                }
            }
            Outcome::Refused => replica.refused(id, now),
            Outcome::Lost => replica.lost(id, now),
        }
    }

    /// It listens before it has a list (rule 14), and has no part in anything yet.
    fn not_yet(&self, stamp: &Stamp) -> Refusal {
        let for_me = stamp.to.uid == self.me.uid && (stamp.to.boot == 0 || stamp.to.boot == self.me.boot);
        if for_me { Refusal::Starting } else { Refusal::NotMe }
    }

    /// Rule 11.
    fn leave(&mut self, now: Now) {
        self.leaving = true;
        match &mut self.replica {
            Some(replica) => replica.leave(now),
            // Nobody has heard of it, and it holds nothing.
            None => self.ended(0),
        }
    }

    /// Stores a part of the pages that came.
    fn go_on(&mut self) {
        let now = self.now();
        if let Some(replica) = &mut self.replica {
            replica.go_on(now);
            self.carry_out();
        }
    }

    /// How long no page may be asked for.
    fn pause(&mut self) -> Option<Duration> {
        let handing = self.replica.as_ref().is_some_and(|replica| !replica.is_settled());
        if handing { self.pace.wait(self.shared.now_us()) } else { None }
    }

    /// Says whether pages may be asked for.
    fn pull(&mut self) {
        let now = self.now();
        let allowed = self.pace.wait(self.shared.now_us()).is_none();
        if let Some(replica) = self.replica.as_mut().filter(|replica| !replica.is_settled()) {
            replica.allow_pulls(allowed, now);
            self.carry_out();
        }
    }

    fn look_at_the_source(&mut self) {
        let now = self.now();
        match &mut self.replica {
            None => {
                if let Some(list) = self.source.first() {
                    self.start(&list, now);
                }
            }
            Some(replica) => {
                let snapshot = Arc::clone(replica.snapshot());
                let me = &self.me.uid;
                let answers = |uid: &_| uid == me || replica.answers(uid);
                if let Some(view) = self.source.release(&snapshot, &answers, now.monotonic_ms) {
                    replica.news(&view, now);
                    self.carry_out();
                }
            }
        }
    }

    /// Rule 14: with the first consistent list.
    fn start(&mut self, list: &View, now: Now) {
        let config = Config {
            page_bytes: self.page_size.grow(1),
            page_step: PAGE_STEP,
            linger_ms: u64::try_from(self.config.linger.as_millis()).unwrap_or(u64::MAX),
            mistakes: Mistakes::default(),
        };
        let mut copies = self.store.copies();
        copies.set_now(now);
        copies.write_pages(write_copy);
        let versions = Arc::clone(&self.shared.versions);
        let mut replica = Replica::start(self.me.clone(), config, copies, versions, list, now);
        for (id, place, origin) in self.tickets.all() {
            replica.submit(id, place, origin, now);
        }
        if self.leaving {
            replica.leave(now);
        }
        tracing::info!(me = %self.me, members = replica.snapshot().present().count(), "takes part in the cluster");
        self.replica = Some(replica);
        self.carry_out();
    }

    /// Publishes the topology.
    pub(super) fn publish(&self, snapshot: Arc<Snapshot>) {
        let behind = self.replica.as_ref().map(|replica| replica.behind().clone()).unwrap_or_default();
        self.shared.publish(Topology::new(self.me.clone(), snapshot, behind));
    }

    /// How it stands, for whoever looks.
    fn tell_status(&self) {
        let Some(replica) = &self.replica else { return };
        let (waiting, sources) = replica.awaited();
        self.shared.status.store(Some(Arc::new(Status {
            me: self.me.clone(),
            snapshot: Arc::clone(replica.snapshot()),
            stage: match (&self.ready, self.leaving) {
                (_, true) => Stage::Leaving,
                (None, false) => Stage::Ready,
                (Some(_), false) => Stage::Starting,
            },
            gaining: replica.arcs().count(Phase::Gaining),
            held: replica.arcs().count(Phase::Held),
            waiting,
            sources,
            settled: replica.is_settled(),
            source_age: self.source.age(),
            held_back: self.source.holds_back(),
        })));
    }

    /// The state machine's part is over.
    pub(super) fn ended(&mut self, dropped: usize) {
        self.shared.figures.dropped.fetch_add(dropped as u64, Relaxed);
        if dropped > 0 {
            tracing::warn!(dropped, "left the cluster with entries that nobody took over");
        } else {
            tracing::info!("left the cluster in good order");
        }
        self.life.send_replace(Life::Ended { dropped });
    }
}
