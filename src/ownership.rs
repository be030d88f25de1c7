//! Who owns a key while replicas come and go: the rules of the hand-off protocol as a state machine without I/O.
//!
//! A [`Replica`] is given what happens (a message, news of the source, the passing of time) and says what to do, as
//! [`Output`]s. It has no clock, no sockets and no tasks; the server drives it, and so does the simulation. Comments name
//! the protocol's rules that the code carries out.
//!
//! What it does not do: execute operations (the store does, under a shard's lock, after asking the shard's own view:
//! [`shard::ShardView::standing`]), write messages, keep deadlines.
//!
//! The caller's part of the contract: it carries the outputs out in their order and before the next input, then calls
//! [`Replica::carried_out`]; it hands every message of a peer to [`Replica::request`], [`Replica::answer`] or, for forwards,
//! [`Replica::accept`]; and it calls [`Replica::tick`] every 100 ms or so.

use std::collections::BTreeSet;
use std::sync::Arc;

mod arcs;
mod calls;
pub mod copies;
mod detector;
mod exit;
mod gain;
pub mod member;
pub mod message;
pub mod mistake;
mod quota;
mod requests;
pub mod shard;
pub mod snapshot;
pub mod view;

pub use arcs::{Arcs, Phase};
pub use detector::{Detector, FENCE_PAUSE_MS, PING_EVERY_MS};
pub use quota::{LeaseAsk, LeaseId, LeaseVerdict};
pub use requests::{Origin, RequestId};

use crate::cache::version::{HybridClock, Now};
use calls::Calls;
use copies::Copies;
use exit::Exit;
use gain::Open;
use member::{Boot, MemberId, Uid};
use message::{Answer, CallId, Refusal, Request, Stamp};
use mistake::{Mistake, Mistakes};
use quota::Quotas;
use requests::Requests;
use shard::Place;
use snapshot::Snapshot;
use view::View;

/// Microseconds by which another's clock may be ahead of mine (rule 19).
pub const MAX_CLOCK_AHEAD_US: u64 = 3600 * 1_000_000;

/// What may differ between deployments.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bytes of one page of the hand-off, about: what a receiver must have room for, per source.
    pub page_bytes: usize,
    /// Milliseconds that a leaver stays after SIGTERM at least, for those who still send to it.
    pub linger_ms: u64,
    pub mistakes: Mistakes,
}

/// How far a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// Started, and not cleared by everybody yet (rule 14).
    Fresh,
    Cleared,
    /// Fenced, or ended in good order: nothing more comes of it.
    Over,
}

/// Who starts.
#[derive(Clone, Debug)]
pub struct Identity {
    pub me: MemberId,
    /// When the process starts again after it fenced itself: the boot that it had. Others may have declared it gone before
    /// they knew that boot.
    pub fenced: Option<Boot>,
}

/// One replica's part in the cluster.
#[derive(Debug)]
pub struct Replica<S: Copies> {
    me: MemberId,
    /// The process that fenced itself before this one started in its place.
    fenced: Option<MemberId>,
    config: Config,
    mistakes: Mistakes,
    store: S,
    clock: Arc<HybridClock>,
    snapshot: Arc<Snapshot>,
    arcs: Arc<Arcs>,
    open: Option<Open<S::Key, S::Value>>,
    calls: Calls<S::Key>,
    requests: Requests<S::Key>,
    quotas: Quotas,
    detector: Detector,
    exit: Exit,
    life: Life,
    was_endpoint: bool,
    may_pull: bool,
    /// Who does not have my view: the next message brings it.
    behind: BTreeSet<Uid>,
    /// Keys that were resolved since the outputs were carried out.
    misses: Vec<Place<S::Key>>,
    outputs: Vec<Output<S::Key>>,
}

/// What is to be done now.
#[derive(Debug)]
pub enum Output<K> {
    /// Send a request to `stamp.to`, and hand in its answer under this id.
    Call { id: CallId, stamp: Stamp, request: Request<K> },
    /// This request may run: ask its shard again.
    Run(RequestId),
    /// Forward this client's request, under [`Replica::stamp`].
    Forward { id: RequestId, to: MemberId },
    /// Answer this forwarded request "moved", under [`Replica::stamp`].
    Moved(RequestId),
    /// This request was forwarded to a member that is lost: whether it was applied is unknown.
    Unknown(RequestId),
    /// This ask ended.
    Lease { id: LeaseId, verdict: LeaseVerdict },
    /// The topology changed.
    Changed(Arc<Snapshot>),
    /// Drop everything, answer UNAVAILABLE, and start again under a new boot (rule 16).
    Fenced(Fence),
    /// End now (rule 13). `dropped`: entries that nobody took over, which is to be 0 unless everybody leaves.
    Exit { dropped: usize },
}

/// An answer, and what it carries.
pub type Reply<S> = (Stamp, Answer<<S as Copies>::Key, <S as Copies>::Value>);

/// Why a replica must start again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fence {
    #[error("this process did not run for {FENCE_PAUSE_MS} ms or more; others may have taken its keys")]
    Paused,
    #[error("others took this process for lost, and may have taken its keys")]
    Dropped,
}

impl<S: Copies> Replica<S> {
    /// Rule 14: starts with the first consistent list. Listen for peers before making it. The clock is kept over a fence.
    pub fn start(identity: Identity, config: Config, store: S, clock: Arc<HybridClock>, list: &View, now: Now) -> Self {
        let Identity { me, fenced } = identity;
        let mut replica = Self {
            fenced: fenced.map(|boot| MemberId { uid: me.uid.clone(), boot }),
            me,
            mistakes: config.mistakes,
            config,
            store,
            clock,
            snapshot: Arc::new(Snapshot::new(View::default())),
            arcs: Arc::default(),
            open: None,
            calls: Calls::default(),
            requests: Requests::default(),
            quotas: Quotas::default(),
            detector: Detector::default(),
            exit: Exit::default(),
            life: Life::Fresh,
            was_endpoint: false,
            may_pull: true,
            behind: BTreeSet::new(),
            misses: Vec::new(),
            outputs: Vec::new(),
        };
        replica.learn(list, now);
        replica.kick(now);
        replica
    }

    /// The source, or anybody, says something about the members (rules 1 and 2).
    pub fn news(&mut self, view: &View, now: Now) {
        self.learn(view, now);
        self.kick(now);
    }

    /// A request of a peer: what to answer. At once, from local state (invariant I6).
    ///
    /// # Errors
    /// When the message is not for this process. The sender must see [`Refusal::NotMe`] and [`Refusal::Over`] as a refused
    /// connection.
    pub fn request(&mut self, stamp: &Stamp, request: &Request<S::Key>, now: Now) -> Result<Reply<S>, Refusal> {
        let unsealed = matches!(request, Request::Claim) && self.mistakes.make(Mistake::ClearWithoutSealing);
        if !unsealed {
            self.accept(stamp, now)?;
        }
        let same_view = stamp.digest == self.snapshot.digest();
        let answer = self.serve(&stamp.from, request, same_view, now);
        self.kick(now);
        Ok((self.answer_stamp(stamp), answer))
    }

    /// What an answer to a message with this stamp carries: my view, if the sender's is another.
    #[must_use]
    pub fn answer_stamp(&self, to: &Stamp) -> Stamp {
        let mut stamp = self.stamp(&to.from);
        stamp.view = (to.digest != stamp.digest).then(|| Arc::clone(self.snapshot.view()));
        stamp
    }

    /// What every message of a peer does first (rules 2, 18 and 19). A forward or its answer needs nothing else.
    ///
    /// # Errors
    /// When the message is not to be taken.
    pub fn accept(&mut self, stamp: &Stamp, now: Now) -> Result<(), Refusal> {
        if self.is_over() {
            return Err(Refusal::Over);
        }
        if stamp.to.uid != self.me.uid || (stamp.to.boot != 0 && stamp.to.boot != self.me.boot) {
            return Err(Refusal::NotMe);
        }
        if stamp.clock_us > now.wall_us + MAX_CLOCK_AHEAD_US {
            return Err(Refusal::ClockAhead);
        }
        self.clock.observe_us(stamp.clock_us);
        self.detector.heard(&stamp.from);
        if stamp.digest == self.snapshot.digest() {
            self.behind.remove(&stamp.from.uid);
        } else if let Some(view) = &stamp.view {
            self.learn(view, now);
            if stamp.digest != self.snapshot.digest() {
                self.behind.insert(stamp.from.uid.clone());
            }
            self.kick(now);
        }
        if self.is_over() { Err(Refusal::Over) } else { Ok(()) }
    }

    /// What a message to this member carries.
    #[must_use]
    pub fn stamp(&self, to: &MemberId) -> Stamp {
        let clock_us = if self.mistakes.make(Mistake::ClockNotCarried) { 0 } else { self.clock.latest_us() };
        let view = self.behind.contains(&to.uid).then(|| Arc::clone(self.snapshot.view()));
        Stamp { from: self.me.clone(), to: to.clone(), digest: self.snapshot.digest(), view, clock_us }
    }

    /// Time passed.
    pub fn tick(&mut self, now: Now) {
        if self.is_over() {
            return;
        }
        let (pings, absent) = self.detector.tick(&self.me, &self.snapshot, now.monotonic_ms);
        if absent && !self.mistakes.make(Mistake::NoFence) {
            self.fence(Fence::Paused);
            return;
        }
        for id in pings {
            self.ping(&id, now);
        }
        // Who has left is not told of those who leave after it, so it would take them for lost.
        let gone = if self.exit.has_left() { Vec::new() } else { self.detector.gone(&self.snapshot) };
        for id in gone {
            let view = self.snapshot.view().with_gone(&id);
            self.learn(&view, now);
        }
        self.time_out(now);
        self.wake_paused(now);
        self.kick(now);
    }

    /// The receiver sets the pace of a hand-off: while not allowed, no further page is asked for.
    pub fn allow_pulls(&mut self, allowed: bool, now: Now) {
        self.may_pull = allowed;
        self.kick(now);
    }

    /// Rule 16: this process must not go on.
    pub fn fence(&mut self, why: Fence) {
        if !self.is_over() {
            self.life = Life::Over;
            self.requests.clear();
            self.quotas.clear();
            self.outputs.push(Output::Fenced(why));
        }
    }

    /// What is to be done, in this order.
    #[must_use]
    pub fn outputs(&mut self) -> Vec<Output<S::Key>> {
        std::mem::take(&mut self.outputs)
    }

    /// Rules 1 to 3: merges, and adopts what comes of it.
    fn learn(&mut self, heard: &View, now: Now) {
        if self.is_over() {
            return;
        }
        let mut merged = self.snapshot.view().merge(heard);
        #[cfg(feature = "simulation")]
        if self.mistakes.make(Mistake::OlderViewWins) {
            merged = self.snapshot.view().merge_with_source_of(heard);
        }
        // A merge may have lacked what only I know of myself.
        merged = merged.with_boot(&self.me);
        if let Some(fenced) = &self.fenced {
            merged = merged.with_gone(fenced);
        }
        if self.exit.is_leaving() {
            merged = merged.with_leaving(&self.me);
        }
        if self.exit.has_left() {
            merged = merged.with_left(&self.me);
        }
        if merged != **self.snapshot.view() {
            self.change(Snapshot::new(merged), now);
        }
    }

    /// Rule 3: one step. What is lost freezes, what is gained is claimed, and what was under way is void.
    fn change(&mut self, new: Snapshot, now: Now) {
        let old = std::mem::replace(&mut self.snapshot, Arc::new(new));
        let new = Arc::clone(&self.snapshot);
        let lost = new.lost_since(&old);
        let mine = new.present_as(&self.me.uid).filter(|member| member.id == self.me);
        let is_lost = new.view().is_gone(&self.me) || (self.was_endpoint && mine.is_none());
        if is_lost && !self.exit.has_left() && !self.mistakes.make(Mistake::NoFence) {
            self.fence(Fence::Dropped);
            return;
        }
        self.was_endpoint |= mine.is_some();
        let gained = self.arcs.after_change(&old.stretches_of(&self.me), &new.stretches_of(&self.me));
        self.arcs = Arc::new(gained);
        self.store.change(&new, &self.arcs, &lost);
        if !self.mistakes.make(Mistake::StaleAnswerCounts) && !self.mistakes.make(Mistake::NeitherFence) {
            self.calls.void();
        }
        self.void_leases();
        self.behind.clear();
        let others = new.present().map(|member| &member.id).filter(|id| id.uid != self.me.uid);
        let asked =
            |id: &&MemberId| !self.mistakes.make(Mistake::AskOnlyPreviousOwner) || old.loses_to(&new, id, &self.me);
        let waiting = others.filter(asked).cloned().collect();
        self.reopen(waiting);
        self.review(&lost);
        self.kick(now);
    }

    /// Everything that can be done at once.
    fn kick(&mut self, now: Now) {
        if self.is_over() {
            return;
        }
        self.claim(now);
        self.hold();
        self.fetch(now);
        self.pull(now);
        self.settle();
        self.lease_on(now);
        self.leave_on(now);
    }
}

/// For whoever watches: the server's metrics, and the simulation's invariants.
impl<S: Copies> Replica<S> {
    #[must_use]
    pub fn me(&self) -> &MemberId {
        &self.me
    }

    #[must_use]
    pub fn store(&self) -> &S {
        &self.store
    }

    pub fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    #[must_use]
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    #[must_use]
    pub fn arcs(&self) -> &Arcs {
        &self.arcs
    }

    /// Cleared by everybody at least once (DESIGN §4, *Ready*).
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.life == Life::Cleared
    }

    /// Ended, or to be started again.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.life == Life::Over
    }

    /// No hand-off is under way here.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.open.is_none()
    }

    /// Who has not cleared me, and who holds copies for me.
    #[must_use]
    pub fn awaited(&self) -> (usize, usize) {
        self.open.as_ref().map_or((0, 0), |open| (open.waiting.len(), open.sources.len()))
    }
}
