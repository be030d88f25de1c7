//! Batches: many keys in one request, a result for each in a stream. Results are made when the client can take them, so the
//! answers to a batch may be larger than memory. Items of other replicas' keys are under way there meanwhile.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use prost::Message;
use tokio::time::Instant;

use super::body::Produce;
use super::call::{Call, mode};
use super::forward::{self, Abroad, Cannot, Fields};
use super::held::Share;
use super::item::{self, Fit, Results, Tally, Turnstile};
use super::method::Method;
use super::service::Operations;
use super::trace::Span;
use super::wall::registry::Principal;
use crate::rpc::convert;
use crate::rpc::failure::Failure;
use crate::rpc::proto::v1;

/// Items carried out before others have their turn.
const ITEMS_PER_TURN: usize = 256;

/// Field number of the request in an item.
const OPERATION: u32 = 1;

/// Field numbers of a result.
const ANSWER: u32 = 2;
const ERROR: u32 = 3;
const FIELDS: Fields = Fields { answer: |_| ANSWER, error: ERROR };

/// A batch under way.
pub struct Batch<I> {
    principal: Arc<Principal>,
    items: std::vec::IntoIter<I>,
    /// The same as they were encoded.
    raw: forward::Messages,
    /// The items, for as long as the client does not take their results.
    kept: Arc<Share>,
    /// Those that are carried out elsewhere.
    abroad: Abroad,
    index: u64,
    results: Results,
    turnstile: Turnstile,
    read_at: Instant,
}

/// An item of a batch.
pub trait Item: Send {
    /// What it is counted as.
    const METHOD: Method;
    /// The unary method that does the same.
    const UNARY: Method;

    fn key(&self) -> &str;

    /// The unary request.
    fn encode(&self) -> Bytes;

    fn context(&self) -> Option<&v1::CallContext>;

    /// Does it, and writes the result.
    ///
    /// # Errors
    /// When it may not run here, or fails.
    fn run(&self, operations: Operations<'_>, index: u64, results: &mut Results) -> Result<Fit, Cannot>;
}

pub type BatchGet = Batch<v1::BatchGetItem>;
pub type BatchStore = Batch<v1::BatchStoreItem>;
pub type BatchDelete = Batch<v1::BatchDeleteItem>;

impl<I: Item> Batch<I> {
    fn of<M: Message + Default>(call: &Call, message: Bytes, items: fn(M) -> Vec<I>) -> Result<Self, Failure> {
        convert::batch_size(convert::count_items(&message))?;
        let wall = &call.connection().wall;
        let (bytes, raw) = (message.len(), wall.cluster.is_some().then(|| forward::Messages::of(message.clone())));
        let items = items(convert::decode(message)?);
        let mut kept = wall.held.share();
        kept.resize(bytes + size_of_val(items.as_slice()))?;
        Ok(Self {
            principal: call.principal()?.clone(),
            items: items.into_iter(),
            raw: raw.unwrap_or_default(),
            kept: Arc::new(kept),
            abroad: Abroad::new(wall),
            index: 0,
            results: Results::new(wall.held.share()),
            turnstile: Turnstile::default(),
            read_at: Instant::now(),
        })
    }

    /// Carries out some items; answers whether the message is full.
    ///
    /// # Errors
    /// When what was carried out does not count (rule 16).
    fn turn(&mut self, call: &Call) -> Result<Fit, Failure> {
        let wall = &call.connection().wall;
        let principal = Arc::clone(&self.principal);
        let now = Instant::now();
        let operations = Operations::of(wall, &principal, call.mode(), now);
        let now_us = wall.clock.us_at(now.into_std());
        let mut tally = Tally::begin(now);
        let mut fit = Fit::Written;
        for _ in 0..ITEMS_PER_TURN {
            let Some(next) = self.items.as_slice().first() else { break };
            if self.results.is_full() {
                fit = Fit::Full;
                break;
            }
            if self.abroad.is_full() {
                break;
            }
            let context = next.context();
            let span = item::begin_span(call, I::METHOD, context);
            let passed = self
                .turnstile
                .pass(wall, &principal, now_us)
                .and_then(|()| item::in_time(context, self.read_at, now))
                .map_err(Cannot::Fail);
            if passed.is_ok() && self.abroad.must_wait(|| next.key(), I::UNARY) {
                self.leave(call, span, None);
                continue;
            }
            let outcome = passed.and_then(|()| {
                let operations = operations.with_mode(mode(item::is_dry_run(call, context)));
                next.run(operations, self.index, &mut self.results)
            });
            let outcome = match outcome {
                Ok(done) => {
                    fit = done;
                    Ok(())
                }
                Err(Cannot::Fail(failure)) => {
                    fit = self.results.put_failure(self.index, ERROR, &failure);
                    Err(failure)
                }
                Err(cannot) => {
                    self.leave(call, span, Some(cannot));
                    continue;
                }
            };
            if fit == Fit::Full {
                if let Some(span) = span {
                    span.discard();
                }
                break;
            }
            item::end_span(wall, span.as_ref(), I::METHOD, outcome.as_ref().copied());
            tally.add(call, I::METHOD, outcome.as_ref().copied(), context);
            self.next();
        }
        tally.write(call);
        if let Some(cluster) = &wall.cluster {
            cluster.check_alive(now)?;
        }
        Ok(fit)
    }

    /// The current item goes elsewhere, for the reason given, or waits for one that did.
    fn leave(&mut self, call: &Call, span: Option<Span>, cannot: Option<Cannot>) {
        let number = self.index;
        let (Some(next), raw) = self.next() else { return };
        let message =
            raw.and_then(|raw| forward::operation(&raw, OPERATION..=OPERATION)).unwrap_or_else(|| next.encode());
        let context = next.context().cloned();
        let forward =
            item::forward(call, &self.principal, (I::UNARY, message), (context.as_ref(), span.as_ref()), self.read_at);
        let kept = Some(Arc::clone(&self.kept));
        let item = forward::Item { number, method: I::METHOD, context, span, forward, kept };
        self.abroad.begin(next.key(), item, cannot);
    }

    /// The current item is over, or on its way; the item, and as it was encoded.
    fn next(&mut self) -> (Option<I>, Option<Bytes>) {
        self.index += 1;
        self.turnstile.next();
        (self.items.next(), self.raw.next())
    }
}

impl<I: Item> Produce for Batch<I> {
    fn poll_next(&mut self, call: &mut Call, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        self.results.sent();
        let full = self.abroad.poll_into(&mut self.results, &FIELDS, call, cx).is_ready();
        let fit = if full {
            Fit::Full
        } else {
            match self.turn(call) {
                Ok(fit) => fit,
                Err(failure) => return Poll::Ready(Some(Err(failure))),
            }
        };
        if fit == Fit::Full {
            return Poll::Ready(Some(Ok(self.results.take())));
        }
        let all_begun = self.items.len() == 0;
        if all_begun && self.abroad.is_empty() {
            return Poll::Ready((!self.results.is_empty()).then(|| Ok(self.results.take())));
        }
        if !all_begun && !self.abroad.is_full() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        // Nothing can be done here until an answer comes from elsewhere. What there is need not wait for it.
        let full = self.abroad.poll_into(&mut self.results, &FIELDS, call, cx).is_ready();
        if full || !self.results.is_empty() {
            return Poll::Ready(Some(Ok(self.results.take())));
        }
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
    const UNARY: Method = Method::Get;

    fn key(&self) -> &str {
        self.get.as_ref().map_or("", |request| &request.key)
    }

    fn encode(&self) -> Bytes {
        self.get.as_ref().map(Message::encode_to_vec).unwrap_or_default().into()
    }

    fn context(&self) -> Option<&v1::CallContext> {
        self.context.as_ref()
    }

    fn run(&self, operations: Operations<'_>, index: u64, results: &mut Results) -> Result<Fit, Cannot> {
        Ok(operations.value(convert::batch_get_item(self)?, |value| {
            results.put_if_fits(index, ANSWER, value.encoded_len(), |buffer| value.encode(buffer))
        })??)
    }
}

impl Item for v1::BatchStoreItem {
    const METHOD: Method = Method::BatchStoreItem;
    const UNARY: Method = Method::Store;

    fn key(&self) -> &str {
        self.store.as_ref().map_or("", |request| &request.key)
    }

    fn encode(&self) -> Bytes {
        self.store.as_ref().map(Message::encode_to_vec).unwrap_or_default().into()
    }

    fn context(&self) -> Option<&v1::CallContext> {
        self.context.as_ref()
    }

    fn run(&self, operations: Operations<'_>, index: u64, results: &mut Results) -> Result<Fit, Cannot> {
        let stored = operations.store(convert::batch_store_item(self, operations.ttl)?)?;
        Ok(results.put_message(index, ANSWER, &stored))
    }
}

impl Item for v1::BatchDeleteItem {
    const METHOD: Method = Method::BatchDeleteItem;
    const UNARY: Method = Method::Delete;

    fn key(&self) -> &str {
        self.delete.as_ref().map_or("", |request| &request.key)
    }

    fn encode(&self) -> Bytes {
        self.delete.as_ref().map(Message::encode_to_vec).unwrap_or_default().into()
    }

    fn context(&self) -> Option<&v1::CallContext> {
        self.context.as_ref()
    }

    fn run(&self, operations: Operations<'_>, index: u64, results: &mut Results) -> Result<Fit, Cannot> {
        let deleted = operations.delete(convert::batch_delete_item(self)?)?;
        Ok(results.put_message(index, ANSWER, &deleted))
    }
}
