//! Calls that go over the whole cluster, in the order of route hashes: each step covers a stretch of hashes and is carried out
//! by the replica that is the authority for it, once the stretch is settled there. Of every hash exactly one such replica
//! exists at any time, so a key that exists all the while is met exactly once, however keys move meanwhile; where nobody is
//! settled yet, the walk waits.
//!
//! The place between two steps is a [`Cursor`], which means the same at every replica.

mod steps;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout_at};

pub use self::steps::{ClearStep, DumpStep, Form, clear_page, dump_page};
use super::call::Call;
use super::drain::{Phase, Watch};
use super::forward::{Cluster, Forward, Sent};
use super::method::Method;
use super::trace::Traced;
use super::wall::Wall;
use crate::cache::cursor::Cursor;
use crate::cache::key::AccountId;
use crate::ownership::member::MemberId;
use crate::ownership::shard::Standing;
use crate::rpc::failure::Failure;

/// How long another replica may take for one step before it is asked again. A step is a millisecond of work; the largest has
/// one entry of 4 MiB.
const STEP_TIME: Duration = Duration::from_secs(5);

/// Between two looks at a place that nobody has settled yet, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// What is done at each step. It may be done again: a step whose answer is lost is.
pub trait Step: Clone + Send + Sync + 'static {
    const METHOD: Method;
    /// What comes of it.
    type Found: Send + 'static;

    fn space(&self) -> &AccountId;

    fn dry_run(&self) -> bool;

    /// Takes the step here.
    ///
    /// # Errors
    /// When the place is not this replica's, or not settled.
    fn here(&self, wall: &Wall, after: Option<&Cursor>) -> Result<Stride<Self::Found>, Standing>;

    /// What another replica is asked.
    fn request(&self, after: Option<&Cursor>) -> Bytes;

    /// What it answers; none: the place is not settled there.
    ///
    /// # Errors
    /// When that is no answer.
    fn read(&self, message: Bytes) -> Result<Option<Stride<Self::Found>>, Failure>;
}

/// A step that was taken.
#[derive(Debug)]
pub struct Stride<F> {
    pub found: F,
    /// Where to go on; none: this was the end.
    pub next: Option<Cursor>,
}

/// A walk under way.
pub struct Walk<S: Step> {
    wall: Arc<Wall>,
    step: S,
    after: Option<Cursor>,
    ended: bool,
    elsewhere: Option<Elsewhere<S>>,
    deadline: Option<Instant>,
    trace: Traced,
    drain: Watch,
}

type Elsewhere<S> = Pin<Box<dyn Future<Output = Result<Stride<<S as Step>::Found>, Failure>> + Send>>;

impl<S: Step> Walk<S> {
    /// From a place on, or from the beginning. It ends early when the replica drains, if it waits then.
    #[must_use]
    pub fn new(call: &Call, step: S, after: Option<Cursor>, drain: Watch) -> Self {
        let wall = Arc::clone(&call.connection().wall);
        let (deadline, trace) = (call.deadline, call.traced.clone());
        Self { wall, step, after, ended: false, elsewhere: None, deadline, trace, drain }
    }

    /// Whether the replica drains, and somebody else should go on.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.drain.phase() != Phase::Running
    }

    /// What comes of the next step; none at the end.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<S::Found, Failure>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if self.elsewhere.is_none() {
            match take(&self.wall, &self.step, self.after.as_ref()) {
                Ok(Ok(stride)) => return Poll::Ready(Some(Ok(self.advance(stride)))),
                Ok(Err(standing)) => self.elsewhere = Some(self.ask(standing)),
                Err(failure) => return Poll::Ready(Some(Err(failure))),
            }
        }
        let Some(elsewhere) = &mut self.elsewhere else { return Poll::Pending };
        let stride = ready!(elsewhere.as_mut().poll(cx));
        self.elsewhere = None;
        Poll::Ready(Some(stride.map(|stride| self.advance(stride))))
    }

    /// Whether the last step was taken.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    fn advance(&mut self, stride: Stride<S::Found>) -> S::Found {
        self.ended = stride.next.is_none();
        self.after = stride.next;
        stride.found
    }

    fn ask(&self, standing: Standing) -> Elsewhere<S> {
        let asking = Asking {
            wall: Arc::clone(&self.wall),
            step: self.step.clone(),
            after: self.after.clone(),
            deadline: self.deadline,
            trace: self.trace.clone(),
        };
        let mut drain = self.drain.clone();
        Box::pin(async move {
            tokio::select! {
                biased;
                stride = asking.go(standing) => stride,
                _ = drain.started() => Err(Failure::Draining),
            }
        })
    }
}

/// One step that is not taken here at once.
struct Asking<S> {
    wall: Arc<Wall>,
    step: S,
    after: Option<Cursor>,
    deadline: Option<Instant>,
    trace: Traced,
}

impl<S: Step> Asking<S> {
    async fn go(&self, mut standing: Standing) -> Result<Stride<S::Found>, Failure> {
        let Some(cluster) = &self.wall.cluster else { return Err(Failure::Internal) };
        let mut pause = FIRST_PAUSE;
        loop {
            if let Standing::Other(owner) = &standing
                && let Some(stride) = self.there(cluster, owner).await?
            {
                return Ok(stride);
            }
            sleep(pause).await;
            if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(Failure::DeadlineExceeded);
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
            match take(&self.wall, &self.step, self.after.as_ref())? {
                Ok(stride) => return Ok(stride),
                Err(again) => standing = again,
            }
        }
    }

    /// Asks the owner; none: it is to be asked again, or somebody else.
    async fn there(&self, cluster: &Cluster, owner: &MemberId) -> Result<Option<Stride<S::Found>>, Failure> {
        let due = Instant::now() + STEP_TIME;
        let due = self.deadline.map_or(due, |deadline| deadline.min(due));
        let forward = Forward {
            method: S::METHOD,
            message: self.step.request(self.after.as_ref()),
            space: self.step.space().clone(),
            payer: None,
            deadline: Some(due),
            dry_run: self.step.dry_run(),
            trace: self.trace.clone(),
        };
        match timeout_at(due, cluster.send(owner, &forward)).await {
            Ok(Sent::Answer(Ok(message))) => self.step.read(message),
            Ok(Sent::Answer(Err(failure))) if !failure.temporary() => Err(failure),
            // It was not taken, or can be taken again.
            _ => Ok(None),
        }
    }
}

/// Tries a step here. The outer error: what this replica finds does not count any more (rule 16).
fn take<S: Step>(wall: &Wall, step: &S, after: Option<&Cursor>) -> Result<Result<Stride<S::Found>, Standing>, Failure> {
    let since = Instant::now();
    let taken = step.here(wall, after);
    if let (Some(cluster), Ok(_)) = (&wall.cluster, &taken) {
        cluster.check_alive(since)?;
    }
    Ok(taken)
}
