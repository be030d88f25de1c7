//! Drives the hand-off's state machine: one thread owns the [`crate::ownership::Replica`], everybody else holds a [`Handoff`].
//!
//! A worker that may carry an operation out, or knows whose it is, needs nothing of this: it asks the key's shard. Only what
//! has to wait for a key comes here ([`Handoff::submit`]), and what peers say to each other. The thread never waits for
//! anybody: what it is asked it answers from memory, what it asks others runs on the workers.
//!
//! Rule 16's clock is this thread's pulse: while it does not beat, no answer leaves ([`Handoff::check_alive`]).
//!
//! Not here: what the rules are (`ownership`), how messages travel (`peer`), how an operation is carried out (`forward`).

mod alive;
mod desk;
mod driver;
mod figures;
mod inbox;
mod outputs;
mod pace;
pub mod page;
mod shared;
mod source;
mod thread;
mod ticket;
mod tickets;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::HeaderValue;
use tokio::sync::watch;

pub use self::figures::{Figures, Forwards, Status};
use self::inbox::Command;
use self::shared::Shared;
pub use self::source::Source;
pub use self::thread::{HandoffConfig, Idle, Life, Running};
pub use self::ticket::{Ticket, Verdict};
use crate::cache::store::{Carried, Name};
use crate::ownership::member::{MemberId, Uid};
use crate::ownership::message::{Answer, Refusal, Request, Stamp};
use crate::ownership::shard::Place;
use crate::ownership::snapshot::Snapshot;
use crate::ownership::view::View;
use crate::ownership::{LeaseAsk, LeaseVerdict, MAX_CLOCK_AHEAD_US, Origin};
use crate::rpc::failure::Failure;
use crate::server::topology::Hint;

/// This replica's part in the cluster. Cheap to clone; clones are the same.
#[derive(Clone)]
pub struct Handoff(Arc<Shared>);

/// Who this replica is, and who the others are, at one moment. Published after every shard of the store has it.
#[derive(Clone, Debug)]
pub struct Topology {
    pub me: Arc<MemberId>,
    pub snapshot: Arc<Snapshot>,
    /// The view, as clients know it.
    pub hint: Hint,
    /// Who does not have this view, and what brings it: what is sent to them does.
    behind: BTreeMap<Uid, Arc<View>>,
}

impl Topology {
    fn new(me: MemberId, snapshot: Arc<Snapshot>, behind: BTreeMap<Uid, Arc<View>>) -> Self {
        Self { me: Arc::new(me), hint: Hint::of(snapshot.digest()), snapshot, behind }
    }
}

impl Handoff {
    /// The members, by the view in force.
    #[must_use]
    pub fn topology(&self) -> Arc<Snapshot> {
        Arc::clone(&self.0.topology.load().snapshot)
    }

    /// The same and who this replica is, as one value.
    #[must_use]
    pub fn current(&self) -> Arc<Topology> {
        self.0.topology.load_full()
    }

    /// What answers say of the view.
    #[must_use]
    pub fn hint(&self) -> HeaderValue {
        self.0.topology.load().hint.header.clone()
    }

    /// The same as a number.
    #[must_use]
    pub fn hinted_digest(&self) -> u64 {
        self.0.topology.load().hint.digest
    }

    /// Every change of it; some may be skipped.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Arc<Topology>> {
        self.0.changes.subscribe()
    }

    /// Who this process is; another boot after a fence.
    #[must_use]
    pub fn me(&self) -> Arc<MemberId> {
        Arc::clone(&self.0.topology.load().me)
    }

    /// Rule 16, after an operation was executed and before its answer is sent: `since` is a moment before the operation ran,
    /// `now` one after it did.
    ///
    /// # Errors
    /// When this process stood still for too long in between, so that others may have taken its keys.
    pub fn check_alive(&self, since: Instant, now: Instant) -> Result<(), Failure> {
        let us = |moment| self.0.clock.us_at(moment);
        if self.0.alive.is_alive(us(since), us(now)) { Ok(()) } else { Err(Failure::Starting) }
    }

    /// What every message of a peer does first, where nothing is to be learnt from it: the sender has the same view. None:
    /// ask [`Self::accept`].
    #[must_use]
    pub fn try_accept(&self, stamp: &Stamp) -> Option<Result<(), Refusal>> {
        let topology = self.0.topology.load();
        let me = &topology.me;
        if stamp.digest != topology.snapshot.digest() || topology.behind.contains_key(&stamp.from.uid) {
            return None;
        }
        if stamp.to.uid != me.uid || (stamp.to.boot != 0 && stamp.to.boot != me.boot) {
            return Some(Err(Refusal::NotMe));
        }
        if stamp.clock_us > self.0.clock.now().wall_us + MAX_CLOCK_AHEAD_US {
            return Some(Err(Refusal::ClockAhead));
        }
        self.0.versions.observe_us(stamp.clock_us);
        Some(Ok(()))
    }

    /// What every message of a peer does first (rules 2, 18 and 19), whatever it says.
    ///
    /// # Errors
    /// When the message is not to be taken.
    pub async fn accept(&self, stamp: Stamp) -> Result<(), Refusal> {
        match self.try_accept(&stamp) {
            Some(accepted) => accepted,
            None => self.0.inbox.ask(|reply| Command::Accept { stamp, reply }).await.unwrap_or(Err(Refusal::Over)),
        }
    }

    /// The stamp of a forward.
    #[must_use]
    pub fn stamp(&self, to: &MemberId) -> Stamp {
        let topology = self.0.topology.load();
        self.0.stamp(&topology, to, topology.behind.get(&to.uid))
    }

    /// The stamp of an answer to a message with this one: the view with it, if the sender has another.
    #[must_use]
    pub fn answer_stamp(&self, to: &Stamp) -> Stamp {
        let topology = self.0.topology.load();
        let other = to.digest != topology.snapshot.digest();
        self.0.stamp(&topology, &to.from, other.then(|| topology.snapshot.view()))
    }

    /// A peer asks something of the hand-off.
    ///
    /// # Errors
    /// When the message is not to be taken.
    pub async fn request(
        &self,
        stamp: Stamp,
        request: Request<Name>,
    ) -> Result<(Stamp, Answer<Name, Carried>), Refusal> {
        let asked = self.0.inbox.ask(|reply| Command::Request { stamp, request, reply });
        asked.await.unwrap_or(Err(Refusal::Over))
    }

    /// A forward to this member was refused: so the hand-off notices before it asks by itself.
    pub fn refused_by(&self, member: &MemberId) {
        self.0.inbox.mention(Command::RefusedBy(member.clone()));
    }

    /// This replica's allowance for an account is used up: asks the account's home for more. Then the operation is to be tried
    /// again; it may need another lease.
    ///
    /// # Errors
    /// When the account has no more, or too many wait; [`Failure::QuotaUnknown`] when nothing is known until then.
    pub async fn lease(&self, ask: LeaseAsk, deadline: Option<tokio::time::Instant>) -> Result<(), Failure> {
        let account = ask.account.to_string();
        match self.0.inbox.lease(ask, deadline).await? {
            LeaseVerdict::Granted => Ok(()),
            LeaseVerdict::OverKeys { limit } => Err(Failure::QuotaKeys { account, limit }),
            LeaseVerdict::OverBytes { limit } => Err(Failure::QuotaBytes { account, limit }),
        }
    }

    /// Since when the view is as it is.
    #[must_use]
    pub fn view_age(&self) -> Duration {
        let changed_us = self.0.figures.view_changed_us.load(Ordering::Relaxed);
        Duration::from_micros(self.0.clock.us_at(Instant::now()).saturating_sub(changed_us))
    }

    /// How it stood at the last tick; none before the first list.
    #[must_use]
    pub fn status(&self) -> Option<Arc<Status>> {
        self.0.status.load_full()
    }

    /// Operations and leases that wait.
    #[must_use]
    pub fn tickets(&self) -> usize {
        self.0.inbox.tickets()
    }

    /// What is counted of the hand-off; forwards are counted there by who forwards.
    #[must_use]
    pub fn figures(&self) -> &Arc<Figures> {
        &self.0.figures
    }

    /// An operation cannot be carried out here now, nor is it known whose it is: what becomes of it, the ticket says.
    ///
    /// # Errors
    /// When too many wait already.
    pub fn submit(&self, place: Place<Name>, origin: Origin) -> Result<Ticket, Failure> {
        self.0.inbox.submit(place, origin)
    }
}

impl fmt::Debug for Handoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handoff").field(&self.0.topology.load().me).finish()
    }
}

#[cfg(test)]
mod tests;
