//! How others reach the hand-off's thread. Two ways in, both bounded: a queue of commands, which may be full, and the notes of
//! tickets, of which each ticket leaves a few.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::ticket::{Slot, Ticket};
use crate::cache::store::{Carried, Name};
use crate::ownership::member::MemberId;
use crate::ownership::message::{Answer, CallId, Refusal, Request, Stamp};
use crate::ownership::shard::Place;
use crate::ownership::{LeaseAsk, LeaseId, LeaseVerdict, Origin, RequestId};
use crate::rpc::failure::Failure;

/// Commands that may wait for the thread. It takes microseconds for each, so this is a few milliseconds of work; who asks
/// when it is full waits, but for operations, which are refused.
const MAX_COMMANDS: usize = 4096;

/// Operations that may wait at once, of all clients and peers.
const MAX_TICKETS: usize = 65_536;

/// How long a caller should stay away when too many wait.
const RETRY_AFTER: Duration = Duration::from_millis(100);

type Replied = Result<(Stamp, Answer<Name, Carried>), Refusal>;

/// What the thread is asked to do.
pub(super) enum Command {
    Request {
        stamp: Stamp,
        request: Request<Name>,
        reply: oneshot::Sender<Replied>,
    },
    Accept {
        stamp: Stamp,
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    Submit {
        id: RequestId,
        place: Place<Name>,
        origin: Origin,
        slot: Arc<Slot>,
    },
    Lease {
        id: LeaseId,
        ask: LeaseAsk,
        reply: oneshot::Sender<LeaseVerdict>,
    },
    /// What came of a call to a peer.
    Answered {
        boot: u64,
        id: CallId,
        outcome: Outcome,
    },
    /// A forward to this member was refused.
    RefusedBy(MemberId),
    /// SIGTERM.
    Leave,
}

/// How a call to a peer ended.
pub(super) enum Outcome {
    Answer(Box<(Stamp, Answer<Name, Carried>)>),
    /// It surely was not heard.
    Refused,
    /// Nothing is known.
    Lost,
}

/// The near end.
pub(super) struct Inbox {
    commands: mpsc::Sender<Command>,
    notes: Arc<Notes>,
    next_id: AtomicU64,
}

/// What tickets say: never refused, and bounded by how many tickets there may be.
#[derive(Debug, Default)]
pub(super) struct Notes {
    left: Mutex<Vec<Note>>,
    notify: Notify,
    tickets: AtomicUsize,
}

/// What a ticket says.
#[derive(Clone, Copy, Debug)]
pub(super) enum Note {
    TurnedAway(RequestId),
    /// Told to run, the shard would not have it.
    Again(RequestId),
    Finished(RequestId),
    LeaseOver(LeaseId),
}

/// Somebody waits for a verdict on a lease. Dropping it says that nobody does any more.
struct Asking<'a>(LeaseId, &'a Notes);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.1.tickets.fetch_sub(1, Ordering::Relaxed);
        self.1.leave(Note::LeaseOver(self.0));
    }
}

impl Inbox {
    pub(super) fn new() -> (Self, mpsc::Receiver<Command>, Arc<Notes>) {
        let (commands, received) = mpsc::channel(MAX_COMMANDS);
        let notes = Arc::new(Notes::default());
        (Self { commands, notes: Arc::clone(&notes), next_id: AtomicU64::new(1) }, received, notes)
    }

    /// Asks something; none when the thread has ended.
    pub(super) async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Tells something; waits while the queue is full.
    pub(super) async fn tell(&self, command: Command) {
        // A thread that has ended need not be told.
        let _ = self.commands.send(command).await;
    }

    pub(super) fn submit(&self, place: Place<Name>, origin: Origin) -> Result<Ticket, Failure> {
        let room = self.room()?;
        let id = self.enter()?;
        // From here on the ticket's drop says that it ended.
        let (ticket, slot) = Ticket::new(id, Arc::clone(&self.notes));
        room.send(Command::Submit { id, place, origin, slot });
        Ok(ticket)
    }

    /// Tells something that will be noticed later anyway.
    pub(super) fn mention(&self, command: Command) {
        let _ = self.commands.try_send(command);
    }

    /// Waits for a verdict; an error when there was none before the deadline, or the thread ended.
    pub(super) async fn lease(&self, ask: LeaseAsk, deadline: Option<Instant>) -> Result<LeaseVerdict, Failure> {
        let account = ask.account.clone();
        let (id, verdict) = {
            let room = self.room()?;
            let id = self.enter()?;
            let (reply, verdict) = oneshot::channel();
            room.send(Command::Lease { id, ask, reply });
            (id, verdict)
        };
        // Dropped after the verdict's way.
        let _asking = Asking(id, &self.notes);
        let verdict = match deadline {
            Some(deadline) => timeout_at(deadline, verdict).await,
            None => Ok(verdict.await),
        };
        let unknown = |_| Failure::QuotaUnknown { account: account.to_string() };
        verdict.map_err(unknown)?.map_err(|_| Failure::Starting)
    }

    /// Counts one more that waits.
    fn enter(&self) -> Result<RequestId, Failure> {
        if self.notes.tickets.fetch_add(1, Ordering::Relaxed) >= MAX_TICKETS {
            self.notes.tickets.fetch_sub(1, Ordering::Relaxed);
            return Err(Failure::Overloaded { retry_after: RETRY_AFTER });
        }
        Ok(self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// Room for one command. First of all: what is refused leaves no note, so that notes are bounded by commands.
    fn room(&self) -> Result<mpsc::Permit<'_, Command>, Failure> {
        self.commands.try_reserve().map_err(|error| match error {
            mpsc::error::TrySendError::Full(()) => Failure::Overloaded { retry_after: RETRY_AFTER },
            mpsc::error::TrySendError::Closed(()) => Failure::Draining,
        })
    }

    /// Operations that wait, and are being forwarded or run after they waited.
    pub(super) fn tickets(&self) -> usize {
        self.notes.tickets.load(Ordering::Relaxed)
    }
}

impl Notes {
    pub(super) fn turned_away(&self, id: RequestId) {
        self.leave(Note::TurnedAway(id));
    }

    pub(super) fn again(&self, id: RequestId) {
        self.leave(Note::Again(id));
    }

    pub(super) fn finished(&self, id: RequestId) {
        self.tickets.fetch_sub(1, Ordering::Relaxed);
        self.leave(Note::Finished(id));
    }

    fn leave(&self, note: Note) {
        let mut notes = self.left.lock();
        notes.push(note);
        let first = notes.len() == 1;
        drop(notes);
        if first {
            self.notify.notify_one();
        }
    }

    /// Waits until there are some. Cancel-safe.
    pub(super) async fn some(&self) {
        self.notify.notified().await;
    }

    /// All that were left, in order.
    pub(super) fn take(&self) -> Vec<Note> {
        std::mem::take(&mut *self.left.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::key::AccountId;
    use crate::server::handoff::Verdict;

    fn place() -> Place<Name> {
        let space = AccountId::new("one").unwrap();
        Place { hash: 7, key: Name { space, key: "key".into() } }
    }

    #[tokio::test]
    async fn a_ticket_hears_its_verdicts_and_says_when_it_is_over() {
        let (inbox, mut commands, notes) = Inbox::new();
        let mut ticket = inbox.submit(place(), Origin::Client).unwrap();
        let Some(Command::Submit { id, slot, .. }) = commands.recv().await else { panic!("nothing was submitted") };
        let to = MemberId::new("b", 1);
        slot.give(Verdict::Forward(to.clone()));
        assert_eq!(ticket.verdict().await, Verdict::Forward(to));
        ticket.turned_away();
        slot.give(Verdict::Run);
        assert_eq!(ticket.verdict().await, Verdict::Run);
        assert_eq!(inbox.tickets(), 1);
        drop(ticket);
        assert_eq!(inbox.tickets(), 0);
        notes.some().await;
        let left = notes.take();
        assert!(matches!(left[..], [Note::TurnedAway(a), Note::Finished(b)] if a == id && b == id), "{left:?}");
    }

    #[tokio::test]
    async fn when_too_many_wait_the_next_is_refused_and_takes_no_place() {
        let (inbox, _commands, notes) = Inbox::new();
        let tickets: Vec<Ticket> = std::iter::from_fn(|| inbox.submit(place(), Origin::Peer).ok()).collect();
        assert_eq!(tickets.len(), MAX_COMMANDS);
        let refused = inbox.submit(place(), Origin::Peer).unwrap_err();
        assert!(matches!(refused, Failure::Overloaded { .. }), "{refused}");
        assert_eq!(inbox.tickets(), MAX_COMMANDS);
        assert!(notes.take().is_empty(), "nor leaves it a note");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_nobody_answers_ends_with_its_deadline_and_says_so() {
        let (inbox, _commands, notes) = Inbox::new();
        let account = AccountId::new("one").unwrap();
        let ask = LeaseAsk { account, keys: 1, bytes: 1, max_keys: Some(1), max_bytes: None, dry_run: false };
        let deadline = Instant::now() + Duration::from_secs(1);
        assert_eq!(inbox.lease(ask, Some(deadline)).await, Err(Failure::QuotaUnknown { account: "one".into() }));
        assert!(matches!(notes.take()[..], [Note::LeaseOver(_)]));
    }
}
