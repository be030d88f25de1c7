//! Who owns a key while replicas come and go: the rules of the hand-off protocol as a state machine without I/O.
//!
//! A [`Replica`] is given what happens (a message, news of the source, the passing of time) and says what to do, as
//! [`Output`]s. It has no clock, no sockets and no tasks; the server drives it, and so does the simulation. Comments name
//! the protocol's rules that the code carries out.
//!
//! What it does not do: execute operations (the store does, under a shard's lock, after asking the shard's own view:
//! [`shard::ShardView::standing`]), write messages, keep deadlines.
//!
//! The caller's part of the contract: it carries the outputs out in their order; it says of every request that it submitted
//! when it [`finished`](Replica::finished); it hands every message of a peer to [`Replica::request`], [`Replica::answer`] or,
//! for forwards, [`Replica::accept`]; it calls [`Replica::tick`] every 100 ms or so, and [`Replica::go_on`] while it
//! [`has_more`](Replica::has_more) to do and nothing else happens.

use std::collections::{BTreeMap, BTreeSet};
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
mod pull;
mod quota;
mod requests;
pub mod shard;
pub mod snapshot;
pub(crate) mod stretches;
mod told;
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
use member::{MemberId, Uid};
use message::{Answer, CallId, Refusal, Request, Stamp};
use mistake::{Mistake, Mistakes};
use quota::Quotas;
use requests::Requests;
use snapshot::Snapshot;
use told::Told;
use view::View;

/// Microseconds by which another's clock may be ahead of mine (rule 19).
pub const MAX_CLOCK_AHEAD_US: u64 = 3600 * 1_000_000;

/// Milliseconds for which pings do not spread what the source said: it tells everybody, and in a large cluster many pings are
/// under way while it does.
const SOURCE_TELLS_MS: u64 = 1500;

/// What may differ between deployments.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bytes of one page of the hand-off, about: what a receiver must have room for, per source.
    pub page_bytes: usize,
    /// Keys of pages that are stored in one go, of each source, before whoever waits has a turn ([`Replica::go_on`]).
    pub page_step: usize,
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

/// One replica's part in the cluster.
#[derive(Debug)]
pub struct Replica<S: Copies> {
    me: MemberId,
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
    /// Members that came, or came back, and have not cleared me since.
    strangers: BTreeSet<MemberId>,
    may_pull: bool,
    told: Told,
    /// What changes my view now, nobody but me can have told the others.
    is_my_news: bool,
    /// From when on pings bring the view too.
    spread_from_ms: u64,
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
    pub fn start(me: MemberId, config: Config, store: S, clock: Arc<HybridClock>, list: &View, now: Now) -> Self {
        let mut replica = Self {
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
            strangers: BTreeSet::new(),
            may_pull: true,
            told: Told::default(),
            is_my_news: false,
            spread_from_ms: 0,
            outputs: Vec::new(),
        };
        replica.say(list, now);
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
        let mut answer_stamp = self.answer_stamp(stamp);
        if matches!(request, Request::Ping) && self.leaves_it_to_the_source(&stamp.from, now) {
            answer_stamp.view = None;
        }
        Ok((answer_stamp, answer))
    }

    /// What an answer to a message with this stamp carries: my view, if the sender's is another.
    #[must_use]
    pub fn answer_stamp(&mut self, to: &Stamp) -> Stamp {
        let mut stamp = self.stamp(&to.from);
        stamp.view = if to.digest == stamp.digest { None } else { self.told.lacks(&to.from, &self.snapshot) };
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
        if self.told.heard(&stamp.from, stamp.digest, &self.snapshot) {
            self.told.is_behind(&stamp.from, &self.snapshot);
        } else if let Some(view) = stamp.view.as_ref().filter(|_| stamp.digest != self.snapshot.digest()) {
            self.learn(view, now);
            if stamp.digest == self.snapshot.digest() {
                self.told.heard(&stamp.from, stamp.digest, &self.snapshot);
            } else {
                self.told.is_behind(&stamp.from, &self.snapshot);
            }
            self.kick(now);
        }
        if self.is_over() { Err(Refusal::Over) } else { Ok(()) }
    }

    /// What a message to this member carries.
    #[must_use]
    pub fn stamp(&self, to: &MemberId) -> Stamp {
        let clock_us = if self.mistakes.make(Mistake::ClockNotCarried) { 0 } else { self.clock.latest_us() };
        let view = self.view_for(&to.uid);
        Stamp { from: self.me.clone(), to: to.clone(), digest: self.snapshot.digest(), view, clock_us }
    }

    /// Who does not have my view, and what the next message is to bring: a view, or what is missing of it.
    #[must_use]
    pub fn behind(&self) -> &BTreeMap<Uid, Arc<View>> {
        self.told.behind()
    }

    /// What of my view the next message to this member is to bring; none, if it has my view as far as is known.
    #[must_use]
    pub fn view_for(&self, uid: &Uid) -> Option<Arc<View>> {
        self.told.brings(uid)
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
        if !gone.is_empty() {
            self.say(&View::of_gone(&gone, &self.me), now);
        }
        self.time_out(now);
        self.store_pages(None);
        self.wake_paused(now);
        self.kick(now);
    }

    /// The receiver sets the pace of a hand-off: while not allowed, no further page is asked for.
    pub fn allow_pulls(&mut self, allowed: bool, now: Now) {
        self.may_pull = allowed;
        self.kick(now);
    }

    /// Bytes of the pages that are asked for from here on, about.
    pub fn ask_for_pages_of(&mut self, bytes: usize) {
        self.config.page_bytes = bytes;
    }

    /// Is there a part of a page that came, and that nothing but time keeps from being stored?
    #[must_use]
    pub fn has_more(&self) -> bool {
        !self.is_over() && self.open.as_ref().is_some_and(Open::has_ripe)
    }

    /// Stores a part of the pages that came.
    pub fn go_on(&mut self, now: Now) {
        if !self.is_over() {
            self.store_pages(None);
            self.kick(now);
        }
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
        let mine = self.snapshot.view();
        let mut merged = if mine.includes(heard) { None } else { Some(mine.merge(heard)) };
        #[cfg(feature = "simulation")]
        if self.mistakes.make(Mistake::OlderViewWins) {
            merged = Some(mine.merge_with_source_of(heard));
        }
        // A merge may have lacked what only I know of myself.
        for own in self.own_marks() {
            let merged_so_far = merged.as_ref().unwrap_or(mine);
            if !merged_so_far.includes(&own) {
                merged = Some(merged_so_far.merge(&own));
            }
        }
        // Nobody has taken from me what I never had.
        if self.life == Life::Fresh
            && let Some(answers) = merged.as_ref().and_then(|merged| merged.answers(&self.me))
        {
            merged = merged.map(|merged| merged.merge(&answers));
        }
        #[cfg(feature = "simulation")]
        if self.mistakes.make(Mistake::OlderMarkHides) {
            merged = merged.map(View::with_older_marks_only);
        }
        if let Some(merged) = merged.filter(|merged| *merged != **mine) {
            self.change(Snapshot::new(merged), now);
        }
    }

    /// Need a ping to this member, or its answer, not bring my view? Whoever is lost must learn it from anybody, and at once.
    pub(super) fn leaves_it_to_the_source(&self, id: &MemberId, now: Now) -> bool {
        now.monotonic_ms < self.spread_from_ms && id.boot != 0 && self.snapshot.is_present(id)
    }

    /// As [`Self::learn`], of what nobody but me can have told the others: the first messages bring it.
    fn say(&mut self, news: &View, now: Now) {
        self.is_my_news = true;
        self.learn(news, now);
        self.is_my_news = false;
    }

    fn own_marks(&self) -> Vec<View> {
        let mut marks = vec![View::of_boot(&self.me)];
        marks.extend(self.exit.is_leaving().then(|| View::of_leaving(&self.me)));
        marks.extend(self.exit.has_left().then(|| View::of_left(&self.me)));
        marks
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
        self.told.changed(&old, &new);
        let others = || new.present().map(|member| &member.id).filter(|id| id.uid != self.me.uid);
        if self.is_my_news {
            self.spread_from_ms = 0;
        } else if self.spread_from_ms <= now.monotonic_ms {
            // From the first of several changes on, so that there is an end to it.
            self.spread_from_ms = now.monotonic_ms + SOURCE_TELLS_MS;
        }
        if self.is_my_news {
            others().for_each(|id| self.told.is_behind(id, &new));
        }
        let asked =
            |id: &&MemberId| !self.mistakes.make(Mistake::AskOnlyPreviousOwner) || old.loses_to(&new, id, &self.me);
        self.strangers.retain(|id| new.is_present(id));
        self.strangers.extend(others().filter(|id| !old.is_present(id)).cloned());
        let waiting = others().filter(asked).cloned().collect();
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

    /// Is this member present and, as far as this replica can tell, there?
    #[must_use]
    pub fn answers(&self, uid: &Uid) -> bool {
        self.snapshot.present_as(uid).is_some_and(|member| self.detector.answers(&member.id))
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

#[cfg(test)]
mod tests;
