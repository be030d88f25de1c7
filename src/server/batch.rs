//! Batches: many keys in one request, a result for each in a stream. Results are made when the client can take them, so the
//! answers to a batch may be larger than memory.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use prost::Message;
use tokio::time::Instant;

use super::body::Produce;
use super::call::{Call, mode};
use super::held::Share;
use super::item::{self, Fit, Results, Tally, Turnstile};
use super::method::Method;
use super::service::{self, Operations};
use super::wall::registry::Principal;
use crate::rpc::convert;
use crate::rpc::failure::Failure;
use crate::rpc::proto::v1;

/// Items carried out before others have their turn.
const ITEMS_PER_TURN: usize = 256;

/// Field numbers of a result.
const ANSWER: u32 = 2;
const ERROR: u32 = 3;

/// A batch under way.
pub struct Batch<I> {
    principal: Arc<Principal>,
    items: std::vec::IntoIter<I>,
    /// The items, for as long as the client does not take their results.
    _kept: Share,
    index: u64,
    results: Results,
    turnstile: Turnstile,
    read_at: Instant,
}

/// An item of a batch.
pub trait Item: Send {
    const METHOD: Method;

    fn context(&self) -> Option<&v1::CallContext>;

    /// Does it, and writes the result.
    ///
    /// # Errors
    /// Whatever the operation may fail with.
    fn run(&self, operations: Operations<'_>, index: u64, results: &mut Results) -> Result<Fit, Failure>;
}

pub type BatchGet = Batch<v1::BatchGetItem>;
pub type BatchStore = Batch<v1::BatchStoreItem>;
pub type BatchDelete = Batch<v1::BatchDeleteItem>;

impl<I: Item> Batch<I> {
    fn of<M: Message + Default>(call: &Call, message: Bytes, items: fn(M) -> Vec<I>) -> Result<Self, Failure> {
        convert::batch_size(service::count_items(&message))?;
        let bytes = message.len();
        let items = items(convert::decode(message)?);
        let mut kept = call.connection().wall.held.share();
        kept.resize(bytes + size_of_val(items.as_slice()))?;
        Ok(Self {
            principal: call.principal()?.clone(),
            items: items.into_iter(),
            _kept: kept,
            index: 0,
            results: Results::new(call.connection().wall.held.share()),
            turnstile: Turnstile::default(),
            read_at: Instant::now(),
        })
    }

    /// Carries out some items; answers whether the message is full.
    fn turn(&mut self, call: &Call) -> Fit {
        let wall = &call.connection().wall;
        let now = Instant::now();
        let operations = Operations::of(wall, &self.principal, call.mode(), now);
        let now_us = wall.clock.us_at(now.into_std());
        let mut tally = Tally::begin(now);
        let mut fit = Fit::Written;
        for _ in 0..ITEMS_PER_TURN {
            let Some(next) = self.items.as_slice().first() else { break };
            if self.results.is_full() {
                fit = Fit::Full;
                break;
            }
            let context = next.context();
            let outcome = self
                .turnstile
                .pass(wall, &self.principal, now_us)
                .and_then(|()| item::in_time(context, self.read_at, now))
                .and_then(|()| {
                    let operations = operations.with_mode(mode(item::is_dry_run(call, context)));
                    next.run(operations, self.index, &mut self.results)
                });
            fit = match &outcome {
                Ok(fit) => *fit,
                Err(failure) => self.results.put_failure(self.index, ERROR, failure),
            };
            if fit == Fit::Full {
                break;
            }
            tally.add(call, I::METHOD, outcome.as_ref().map(|_| ()), context);
            self.items.next();
            self.index += 1;
            self.turnstile.next();
        }
        tally.write(call);
        fit
    }
}

impl<I: Item> Produce for Batch<I> {
    fn poll_next(&mut self, call: &mut Call, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        self.results.sent();
        let fit = self.turn(call);
        let is_over = self.items.len() == 0;
        if fit == Fit::Full || (is_over && !self.results.is_empty()) {
            return Poll::Ready(Some(Ok(self.results.take())));
        }
        if is_over {
            return Poll::Ready(None);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl BatchGet {
    /// # Errors
    /// When the request is wrong as a whole.
    pub fn new(call: &Call, message: Bytes) -> Result<Self, Failure> {
        Self::of(call, message, |request: v1::BatchGetRequest| request.items)
    }
}

impl BatchStore {
    /// # Errors
    /// When the request is wrong as a whole.
    pub fn new(call: &Call, message: Bytes) -> Result<Self, Failure> {
        Self::of(call, message, |request: v1::BatchStoreRequest| request.items)
    }
}

impl BatchDelete {
    /// # Errors
    /// When the request is wrong as a whole.
    pub fn new(call: &Call, message: Bytes) -> Result<Self, Failure> {
        Self::of(call, message, |request: v1::BatchDeleteRequest| request.items)
    }
}

impl Item for v1::BatchGetItem {
    const METHOD: Method = Method::BatchGetItem;

    fn context(&self) -> Option<&v1::CallContext> {
        self.context.as_ref()
    }

    fn run(&self, operations: Operations<'_>, index: u64, results: &mut Results) -> Result<Fit, Failure> {
        operations.value(convert::batch_get_item(self)?, |value| {
            results.put_if_fits(index, ANSWER, value.encoded_len(), |buffer| value.encode(buffer))
        })?
    }
}

impl Item for v1::BatchStoreItem {
    const METHOD: Method = Method::BatchStoreItem;

    fn context(&self) -> Option<&v1::CallContext> {
        self.context.as_ref()
    }

    fn run(&self, operations: Operations<'_>, index: u64, results: &mut Results) -> Result<Fit, Failure> {
        let stored = operations.store(convert::batch_store_item(self, operations.ttl)?)?;
        Ok(results.put_message(index, ANSWER, &stored))
    }
}

impl Item for v1::BatchDeleteItem {
    const METHOD: Method = Method::BatchDeleteItem;

    fn context(&self) -> Option<&v1::CallContext> {
        self.context.as_ref()
    }

    fn run(&self, operations: Operations<'_>, index: u64, results: &mut Results) -> Result<Fit, Failure> {
        let deleted = operations.delete(convert::batch_delete_item(self)?)?;
        Ok(results.put_message(index, ANSWER, &deleted))
    }
}
