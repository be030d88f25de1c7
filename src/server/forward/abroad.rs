//! Items of a batch or a pipeline that are carried out elsewhere, or wait for a key. They are under way all at once, and their
//! answers come in any order, but for items on one key: of those, one that changes something begins only when all before it
//! are over, and nothing overtakes it. So in one stream the calls on one key take effect in the order in which they were sent.
//!
//! Each item is a task, so that answers are taken in, and counted, although the client does not read: what has arrived and not
//! been taken is held on the account of all calls ([`Share`]). What there is no room for is dropped, and its item fails.

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use futures::FutureExt as _;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Cannot, Forward, anywhere, carry_out, message_of};
use crate::rpc::failure::Failure;
use crate::rpc::proto::v1;
use crate::server::call::Call;
use crate::server::held::Share;
use crate::server::item::{self, Fit, Results, Tally};
use crate::server::method::Method;
use crate::server::trace::Span;
use crate::server::wall::Wall;

/// Items of one stream that may be under way, or wait for one that is, at once.
pub const MAX_UNDER_WAY: usize = 1024;

/// An item on its way.
pub struct Item {
    /// The client's name for it.
    pub number: u64,
    /// What it is counted as.
    pub method: Method,
    pub context: Option<v1::CallContext>,
    /// Its own, if it is recorded by itself.
    pub span: Option<Span>,
    pub forward: Forward,
    /// The request it is a part of, for as long as it is under way.
    pub kept: Option<Arc<Share>>,
}

/// Field numbers of results.
pub struct Fields {
    /// Of the answer of a unary method.
    pub answer: fn(Method) -> u32,
    pub error: u32,
}

/// An item that is over.
struct Done {
    number: u64,
    method: Method,
    forwarded: Method,
    context: Option<v1::CallContext>,
    began: Instant,
    /// The unary method's answer.
    outcome: Result<Bytes, Failure>,
    key: Arc<str>,
}

/// The items of one stream that are under way.
pub struct Abroad {
    wall: Arc<Wall>,
    tasks: JoinSet<()>,
    lanes: HashMap<Arc<str>, Lane>,
    arrived: Arc<Mutex<Arrived>>,
    /// Under way, waiting, or arrived and not taken.
    items: usize,
    /// Taken, and waits for room in a message.
    late: Option<Done>,
}

/// Items on one key.
#[derive(Default)]
struct Lane {
    /// That were begun and are not over.
    under_way: usize,
    /// One of them changes something.
    changes: bool,
    waiting: VecDeque<Item>,
}

struct Arrived {
    items: VecDeque<Done>,
    bytes: usize,
    share: Share,
    waker: Option<Waker>,
}

impl Abroad {
    /// Nothing is under way.
    #[must_use]
    pub fn new(wall: &Arc<Wall>) -> Self {
        let arrived = Arrived { items: VecDeque::new(), bytes: 0, share: wall.held.share(), waker: None };
        Self {
            wall: Arc::clone(wall),
            tasks: JoinSet::new(),
            lanes: HashMap::new(),
            arrived: Arc::new(Mutex::new(arrived)),
            items: 0,
            late: None,
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items == 0 && self.late.is_none()
    }

    /// Whether no more may be begun now.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.items >= MAX_UNDER_WAY
    }

    /// Whether an item on this key has to wait for others, so that it must not be tried here either.
    #[must_use]
    pub fn must_wait<'a>(&self, key: impl FnOnce() -> &'a str, method: Method) -> bool {
        !self.lanes.is_empty() && self.lanes.get(key()).is_some_and(|lane| lane.holds_back(method))
    }

    /// Begins an item that could not be carried out here, for the reason given; without a reason, one that
    /// [`Self::must_wait`].
    pub fn begin(&mut self, key: &str, item: Item, cannot: Option<Cannot>) {
        let key: Arc<str> = key.into();
        self.items += 1;
        let lane = self.lanes.entry(Arc::clone(&key)).or_default();
        if cannot.is_none() {
            lane.waiting.push_back(item);
            return;
        }
        lane.enter(item.forward.method);
        self.spawn(key, item, cannot);
    }

    /// Puts the answers that have come into a message of results, until it is full; pending when there are no more now.
    pub fn poll_into(&mut self, results: &mut Results, fields: &Fields, call: &Call, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let done = match self.late.take() {
                Some(late) => late,
                None => ready!(self.poll_done(cx)),
            };
            let fit = match &done.outcome {
                Ok(message) => {
                    let changed = !reads(done.forwarded);
                    results.put_encoded(done.number, (fields.answer)(done.forwarded), message, changed)
                }
                Err(failure) => Ok(results.put_failure(done.number, fields.error, failure)),
            };
            if let Ok(Fit::Full) = fit {
                self.late = Some(done);
                return Poll::Ready(());
            }
            let outcome = match fit {
                Err(no_room) => {
                    results.put_failure(done.number, fields.error, &no_room);
                    Err(no_room)
                }
                Ok(_) => done.outcome.map(drop),
            };
            let mut tally = Tally::begin(done.began);
            tally.add(call, done.method, outcome.as_ref().copied(), done.context.as_ref());
            tally.write(call);
        }
    }

    /// The next item that is over; pending also when none is under way.
    fn poll_done(&mut self, cx: &mut Context<'_>) -> Poll<Done> {
        if self.items == 0 {
            return Poll::Pending;
        }
        let mut arrived = self.arrived.lock();
        let Some(done) = arrived.items.pop_front() else {
            if !arrived.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                arrived.waker = Some(cx.waker().clone());
            }
            return Poll::Pending;
        };
        arrived.take(&done);
        drop(arrived);
        // Its task is over, or about to be.
        let _ = self.tasks.try_join_next();
        self.items -= 1;
        self.leave(&done.key);
        Poll::Ready(done)
    }

    fn leave(&mut self, key: &Arc<str>) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        let next = lane.leave();
        if lane.under_way == 0 && next.is_empty() {
            self.lanes.remove(key);
        }
        for item in next {
            self.spawn(Arc::clone(key), item, None);
        }
    }

    fn spawn(&mut self, key: Arc<str>, item: Item, cannot: Option<Cannot>) {
        let (wall, arrived, began) = (Arc::clone(&self.wall), Arc::clone(&self.arrived), Instant::now());
        self.tasks.spawn(async move {
            let Item { number, method, context, span, forward, kept } = item;
            let run = async {
                match cannot {
                    Some(cannot) => carry_out(&wall, &forward, cannot).await,
                    None => anywhere(&wall, &forward).await,
                }
            };
            let outcome = AssertUnwindSafe(run).catch_unwind().await.unwrap_or_else(|_| {
                let (trace_id, span_id) = (forward.trace.trace_id(), forward.trace.span_id());
                tracing::error!(method = method.traits().name, trace_id, span_id, "a handler panicked");
                Err(Failure::Internal)
            });
            item::end_span(&wall, span.as_ref(), method, outcome.as_ref().map(drop));
            let forwarded = forward.method;
            drop((forward, kept));
            let outcome = outcome.map(message_of);
            Arrived::put(&arrived, Done { number, method, forwarded, context, began, outcome, key });
        });
    }
}

impl Lane {
    fn holds_back(&self, method: Method) -> bool {
        !self.waiting.is_empty() || (self.under_way > 0 && (self.changes || !reads(method)))
    }

    fn enter(&mut self, method: Method) {
        self.under_way += 1;
        self.changes |= !reads(method);
    }

    /// One is over; answers those that may begin.
    fn leave(&mut self) -> Vec<Item> {
        self.under_way -= 1;
        let mut next = Vec::new();
        if self.under_way > 0 {
            return next;
        }
        self.changes = false;
        // All reads up to the next change, or that change.
        while let Some(first) = self.waiting.front() {
            let method = first.forward.method;
            if self.under_way > 0 && (self.changes || !reads(method)) {
                break;
            }
            self.enter(method);
            next.extend(self.waiting.pop_front());
        }
        next
    }
}

impl Arrived {
    fn put(arrived: &Mutex<Self>, mut done: Done) {
        let mut arrived = arrived.lock();
        if let Ok(message) = &done.outcome {
            let bytes = arrived.bytes + message.len();
            match arrived.share.resize(bytes) {
                // Only reads have large answers; what was changed is told in any case.
                Err(full) if reads(done.forwarded) => done.outcome = Err(full),
                Ok(()) | Err(_) => arrived.bytes = bytes,
            }
        }
        arrived.items.push_back(done);
        let waker = arrived.waker.take();
        drop(arrived);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn take(&mut self, done: &Done) {
        if let Ok(message) = &done.outcome {
            self.bytes = self.bytes.saturating_sub(message.len());
            // Less always fits.
            let _ = self.share.resize(self.bytes);
        }
    }
}

fn reads(method: Method) -> bool {
    method == Method::Get
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::key::AccountId;
    use crate::server::trace::Traced;

    fn item(number: u64, method: Method) -> Item {
        let forward = Forward {
            method,
            message: Bytes::new(),
            space: AccountId::new("one").unwrap(),
            payer: None,
            deadline: None,
            dry_run: false,
            trace: Traced::No,
        };
        Item { number, method, context: None, span: None, forward, kept: None }
    }

    fn numbers(items: &[Item]) -> Vec<u64> {
        items.iter().map(|item| item.number).collect()
    }

    #[test]
    fn reads_of_a_key_are_under_way_together_and_nothing_overtakes_a_change() {
        let mut lane = Lane::default();
        lane.enter(Method::Get);
        assert!(!lane.holds_back(Method::Get) && lane.holds_back(Method::Store));
        lane.enter(Method::Get);
        for (number, method) in [(3, Method::Store), (4, Method::Get), (5, Method::Get), (6, Method::Delete)] {
            assert!(lane.holds_back(method) || number == 4 || number == 5);
            lane.waiting.push_back(item(number, method));
        }
        assert!(lane.holds_back(Method::Get), "a read would overtake the change that waits");
        assert!(lane.leave().is_empty());
        assert_eq!(numbers(&lane.leave()), [3]);
        assert_eq!(numbers(&lane.leave()), [4, 5]);
        assert!(lane.leave().is_empty());
        assert_eq!(numbers(&lane.leave()), [6]);
        assert!(lane.holds_back(Method::Get));
        assert!(lane.leave().is_empty() && lane.under_way == 0 && !lane.holds_back(Method::Store));
    }
}
