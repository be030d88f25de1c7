//! The pipeline: small operations in both directions on one stream. What a client sends together is carried out together and
//! answered together; no operation costs a task, a timer or a box.
//!
//! A message is read only when every call before it has been begun and fewer than 1,024 are unanswered, so a client that does
//! not read its answers is not read from either. Calls on one key take effect in the order in which they were sent.

use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::time::Instant;

use super::body::Produce;
use super::call::{Call, mode};
use super::codec::{Messages, PREFIX_BYTES};
use super::drain::{Phase, Watch};
use super::forward::{self, Abroad, Cannot, Fields};
use super::held::Share;
use super::item::{self, Fit, Results, Tally, Turnstile};
use super::method::Method;
use super::service::Operations;
use super::trace::Span;
use super::wall::registry::Principal;
use crate::rpc::convert::{Operation, PipelineCall, PipelineCalls, PipelineKind};
use crate::rpc::failure::Failure;
use crate::rpc::fields::pipeline_response::{DRAIN, TOPOLOGY};
use crate::rpc::fields::pipeline_result::{DELETE, ERROR, GET, INCREMENT, STORE, TOUCH};
use crate::rpc::token::Token;

/// Bytes of answers after which they are sent although more messages are waiting to be read.
const SEND_BYTES: usize = 64 * 1024;

const FIELDS: Fields = Fields { answer: answer_field, error: ERROR };

/// A pipeline under way.
pub struct Pipeline {
    messages: Messages,
    /// Shown again at every message, so that a token that was withdrawn ends.
    token: Option<Token>,
    /// The calls of the last message that are not begun yet.
    calls: PipelineCalls,
    /// That message, for as long as the client does not take the results of its first calls, or some are under way elsewhere.
    kept: Option<Arc<Share>>,
    /// Calls that are carried out elsewhere.
    abroad: Abroad,
    read_at: Instant,
    results: Results,
    /// The digest of the view that the client was told of last.
    told: u64,
    turnstile: Turnstile,
    drain: Watch,
    draining: Pin<Box<dyn Future<Output = ()> + Send>>,
    asking: Option<Asking>,
    end: Option<Result<(), Failure>>,
}

/// The accounts are asked again about a token.
type Asking = Pin<Box<dyn Future<Output = Result<Arc<Principal>, Failure>> + Send>>;

impl Pipeline {
    #[must_use]
    pub fn new(call: &Call, messages: Messages, token: Option<Token>, drain: Watch) -> Self {
        let mut started = drain.clone();
        Self {
            messages,
            token,
            calls: PipelineCalls::default(),
            kept: None,
            abroad: Abroad::new(&call.connection().wall),
            read_at: Instant::now(),
            results: Results::new(call.connection().wall.held.share()),
            told: 0,
            turnstile: Turnstile::default(),
            drain,
            draining: Box::pin(async move {
                started.started().await;
            }),
            asking: None,
            end: None,
        }
    }

    /// Reads the next message into `calls`.
    fn poll_read(&mut self, call: &mut Call, cx: &mut Context<'_>) -> Poll<()> {
        if self.drain.phase() != Phase::Running {
            if !self.abroad.is_empty() {
                return Poll::Pending;
            }
            self.begin_drain();
            return Poll::Ready(());
        }
        match self.messages.poll_next(cx, &call.connection().wall.held) {
            Poll::Ready(Some(message)) => {
                if let Err(failure) = message.and_then(|message| self.accept(call, message)) {
                    self.end = Some(Err(failure));
                }
                Poll::Ready(())
            }
            Poll::Ready(None) => {
                self.end = Some(Ok(()));
                Poll::Ready(())
            }
            // Only a pipeline that has nothing else to do waits for that.
            Poll::Pending if self.abroad.is_empty() => self.draining.as_mut().poll(cx).map(|()| self.begin_drain()),
            Poll::Pending => Poll::Pending,
        }
    }

    fn accept(&mut self, call: &mut Call, message: Bytes) -> Result<(), Failure> {
        call.bytes_in += (message.len() + PREFIX_BYTES) as u64;
        let mut calls = mem::take(&mut self.calls);
        calls.read(message)?;
        let mut kept = call.connection().wall.held.share();
        kept.resize(calls.held_bytes())?;
        self.kept = Some(Arc::new(kept));
        self.read_at = Instant::now();
        if let Some(token) = &self.token {
            let connection = call.connection().clone();
            if let Some(principal) = connection.principal(token.expose()) {
                call.principal = Some(principal?);
            } else {
                let (asking, token) = (call.asking(), token.clone());
                self.asking = Some(Box::pin(async move { connection.ask_principal(&asking, &token).await }));
            }
        }
        // Last, so that calls of a caller who was refused are never there to be carried out.
        self.calls = calls;
        Ok(())
    }

    /// Waits for the accounts, if they are being asked; a refusal ends the stream once what was carried out is answered.
    fn poll_asking(&mut self, call: &mut Call, cx: &mut Context<'_>) -> Poll<()> {
        let Some(asking) = &mut self.asking else { return Poll::Ready(()) };
        let answer = ready!(asking.as_mut().poll(cx));
        self.asking = None;
        match answer {
            Ok(principal) => call.principal = Some(principal),
            Err(failure) => {
                self.calls.clear();
                self.end = Some(Err(failure));
            }
        }
        Poll::Ready(())
    }

    /// Every call that was read has been answered, and the connection leaves: say so, and end.
    fn begin_drain(&mut self) {
        self.results.put_mark(DRAIN);
        self.end = Some(Ok(()));
    }

    /// Carries out the calls of the last message.
    ///
    /// # Errors
    /// When what was carried out does not count (rule 16).
    fn turn(&mut self, call: &Call, principal: &Principal) -> Result<Fit, Failure> {
        let wall = &call.connection().wall;
        let now = Instant::now();
        let operations = Operations::of(wall, principal, call.mode(), now);
        let now_us = wall.clock.us_at(now.into_std());
        let mut tally = Tally::begin(now);
        let mut fit = Fit::Written;
        while let Some(next) = self.calls.first() {
            if self.results.is_full() {
                fit = Fit::Full;
                break;
            }
            if self.abroad.is_full() {
                break;
            }
            let context = next.context();
            let span = item::begin_span(call, method(next), context);
            let passed = self
                .turnstile
                .pass(wall, principal, now_us)
                .and_then(|()| item::in_time(context, self.read_at, now))
                .and_then(|()| may(next, principal))
                .map_err(Cannot::Fail);
            if passed.is_ok() && self.abroad.must_wait(|| next.key(), unary(next)) {
                self.leave(call, principal, span, None);
                continue;
            }
            let outcome = passed.and_then(|()| {
                let operations = operations.with_mode(mode(item::is_dry_run(call, context)));
                run(next, operations, &mut self.results)
            });
            let outcome = match outcome {
                Ok(done) => {
                    fit = done;
                    Ok(())
                }
                Err(Cannot::Fail(failure)) => {
                    fit = self.results.put_failure(next.id(), ERROR, &failure);
                    Err(failure)
                }
                Err(cannot) => {
                    self.leave(call, principal, span, Some(cannot));
                    continue;
                }
            };
            if fit == Fit::Full {
                if let Some(span) = span {
                    span.discard();
                }
                break;
            }
            item::end_span(wall, span.as_ref(), method(next), outcome.as_ref().copied());
            tally.add(call, method(next), outcome.as_ref().copied(), context);
            self.turnstile.next();
            self.calls.advance();
        }
        tally.write(call);
        if let Some(cluster) = &wall.cluster {
            cluster.check_alive(now)?;
        }
        Ok(fit)
    }

    /// The current call goes elsewhere, for the reason given, or waits for one that did.
    fn leave(&mut self, call: &Call, principal: &Principal, span: Option<Span>, cannot: Option<Cannot>) {
        let Some(next) = self.calls.first() else { return };
        let asked = (unary(next), next.unary());
        let forward = item::forward(call, principal, asked, (next.context(), span.as_ref()), self.read_at);
        let (number, method, context) = (next.id(), method(next), next.context().cloned());
        let item = forward::Item { number, method, context, span, forward, kept: self.kept.clone() };
        self.abroad.begin(next.key(), item, cannot);
        self.turnstile.next();
        self.calls.advance();
    }

    /// The results so far, and which view this replica has, if the client does not know.
    fn take(&mut self, call: &Call) -> Bytes {
        if let Some(cluster) = &call.connection().wall.cluster {
            let digest = cluster.handoff.hinted_digest();
            if mem::replace(&mut self.told, digest) != digest {
                self.results.put_fixed(TOPOLOGY, digest);
            }
        }
        self.results.take()
    }

    /// What there is to send, or else nothing until something happens.
    fn wait(&mut self, call: &Call, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        let full = self.abroad.poll_into(&mut self.results, &FIELDS, call, cx).is_ready();
        if full || !self.results.is_empty() { Poll::Ready(Some(Ok(self.take(call)))) } else { Poll::Pending }
    }
}

impl Produce for Pipeline {
    fn poll_next(&mut self, call: &mut Call, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        self.results.sent();
        loop {
            if self.abroad.poll_into(&mut self.results, &FIELDS, call, cx).is_ready() {
                return Poll::Ready(Some(Ok(self.take(call))));
            }
            if self.poll_asking(call, cx).is_pending() {
                // Answers to earlier calls do not wait for it.
                return self.wait(call, cx);
            }
            let principal = match call.principal() {
                Ok(principal) => principal.clone(),
                Err(failure) => return Poll::Ready(Some(Err(failure))),
            };
            let fit = match self.calls.len() {
                0 => Ok(Fit::Written),
                _ => self.turn(call, &principal),
            };
            match fit {
                Ok(Fit::Written) if self.results.len() < SEND_BYTES => {}
                Ok(_) => return Poll::Ready(Some(Ok(self.take(call)))),
                Err(failure) => return Poll::Ready(Some(Err(failure))),
            }
            if self.abroad.is_full() {
                return self.wait(call, cx);
            }
            self.kept = None;
            if self.end.is_none() && self.poll_read(call, cx).is_pending() {
                return self.wait(call, cx);
            }
            match &self.end {
                None => {}
                Some(_) if !self.abroad.is_empty() => return self.wait(call, cx),
                Some(_) if !self.results.is_empty() => return Poll::Ready(Some(Ok(self.take(call)))),
                Some(Ok(())) => return Poll::Ready(None),
                Some(Err(failure)) => return Poll::Ready(Some(Err(failure.clone()))),
            }
        }
    }
}

/// Whether the caller's token allows it.
fn may(call: PipelineCall<'_>, principal: &Principal) -> Result<(), Failure> {
    let reads = matches!(call.kind(), Some(PipelineKind::Get) | None);
    if principal.grant.read_only && !reads { Err(Failure::TokenReadOnly) } else { Ok(()) }
}

fn run(call: PipelineCall<'_>, operations: Operations<'_>, results: &mut Results) -> Result<Fit, Cannot> {
    let id = call.id();
    Ok(match call.operation(operations.ttl)? {
        Operation::Get(key) => operations
            .value(key, |value| results.put_if_fits(id, GET, value.encoded_len(), |buffer| value.encode(buffer)))??,
        Operation::Store(asked) => results.put_message(id, STORE, &operations.store(asked)?),
        Operation::Delete(asked) => results.put_message(id, DELETE, &operations.delete(asked)?),
        Operation::Touch(asked) => results.put_message(id, TOUCH, &operations.touch(asked)?),
        Operation::Increment(asked) => results.put_message(id, INCREMENT, &operations.increment(asked)?),
    })
}

fn method(call: PipelineCall<'_>) -> Method {
    match call.kind() {
        Some(PipelineKind::Get) => Method::PipelineGet,
        Some(PipelineKind::Store) => Method::PipelineStore,
        Some(PipelineKind::Delete) => Method::PipelineDelete,
        Some(PipelineKind::Touch) => Method::PipelineTouch,
        Some(PipelineKind::Increment) => Method::PipelineIncrement,
        None => Method::PipelineUnknown,
    }
}

/// The unary method that does the same.
fn unary(call: PipelineCall<'_>) -> Method {
    match call.kind() {
        Some(PipelineKind::Get) => Method::Get,
        Some(PipelineKind::Store) => Method::Store,
        Some(PipelineKind::Delete) => Method::Delete,
        Some(PipelineKind::Touch) => Method::Touch,
        Some(PipelineKind::Increment) => Method::Increment,
        None => Method::Unknown,
    }
}

fn answer_field(unary: Method) -> u32 {
    match unary {
        Method::Get => GET,
        Method::Store => STORE,
        Method::Delete => DELETE,
        Method::Touch => TOUCH,
        Method::Increment => INCREMENT,
        _ => ERROR,
    }
}
