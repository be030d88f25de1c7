//! One operation, from its first attempt to its outcome.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::{Instant, sleep, timeout};
use tonic::Code;

use super::Client;
use super::error::{Error, Sent};
use super::lane::{Lost, Ready};
use super::observe::{EndedCall, Observer, TraceContext};
use super::operation::{Answer, Context, Operation};
use super::place::Place;
use super::stream::{Asked, Ended, ask_one};
use crate::rpc::failure::Failure;
use crate::rpc::wire::put_prefix;

/// Bytes of a value from which it goes on a stream of its own, so that it holds up no small calls.
const LARGE_BYTES: usize = 128 * 1024;

/// An operation under way.
struct Attempt<'a> {
    client: &'a Client,
    operation: &'a Operation<'a>,
    trace: Option<&'a TraceContext>,
    due: Instant,
}

/// What an attempt came to.
type Tried = (Result<Answer, Lost>, Arc<Place>);

impl Client {
    /// Carries out an operation on one key. An answer that a retry does not change is one, also if it is a failure.
    pub(super) async fn operate(&self, operation: &Operation<'_>) -> Result<Answer, Error> {
        match &self.config().observer {
            None => self.carry_out(operation, None).await.map(|(answer, _)| answer),
            Some(observer) => Box::pin(self.observed(operation, observer.as_ref())).await,
        }
    }

    async fn observed(&self, operation: &Operation<'_>, observer: &dyn Observer) -> Result<Answer, Error> {
        let (began, method) = (Instant::now(), operation.method());
        let trace = observer.begin(method);
        let outcome = self.carry_out(operation, trace.as_ref()).await;
        let (code, attempts) = match &outcome {
            Ok((Answer::Failed(failure), attempts)) => (failure.code(), *attempts),
            Ok((_, attempts)) => (Code::Ok, *attempts),
            Err(error) => (error.code(), error.attempts()),
        };
        let (duration, error) = (began.elapsed(), outcome.as_ref().err());
        observer.end(&EndedCall { method, code, duration, attempts, trace: trace.as_ref(), error });
        outcome.map(|(answer, _)| answer)
    }

    /// The same; answers also how often it was tried.
    async fn carry_out(&self, operation: &Operation<'_>, trace: Option<&TraceContext>) -> Result<(Answer, u32), Error> {
        let now = Instant::now();
        self.shared.begin(now);
        let attempt = Attempt { client: self, operation, trace, due: now + self.timeout() };
        let tried = match self.config().hedge {
            Some(delay) if operation.is_read() => Box::pin(attempt.hedged(delay, now)).await,
            _ => attempt.run(None, now).await,
        };
        match tried? {
            (Ok(answer), _) if !matches!(&answer, Answer::Failed(failure) if failure.temporary()) => Ok((answer, 1)),
            // Seldom, and not small: so it makes no call larger.
            failed => Box::pin(attempt.again(failed)).await,
        }
    }

    /// How long to wait before a call is made again; `None`: it failed for good.
    pub(super) fn wait_after(&self, error: &Error, attempt: u32, due: Instant) -> Option<Duration> {
        let now = Instant::now();
        let step = self.config().retries.step(error, attempt, rand::random())?;
        let in_time = now + step.wait < due;
        (in_time && (!step.is_paid || self.shared.budget.take(now))).then_some(step.wait)
    }

    fn is_idempotent(&self, operation: &Operation<'_>) -> bool {
        self.options.idempotent.unwrap_or(self.config().dry_run || operation.is_idempotent())
    }
}

impl Attempt<'_> {
    /// Tries it once.
    async fn run(&self, avoid: Option<&Arc<Place>>, now: Instant) -> Result<Tried, Error> {
        let shared = &self.client.shared;
        let hash =
            shared.hash(self.operation.key()).map_err(|failure| Error::from(failure).on(self.operation.key()))?;
        let place = shared.pick(hash, avoid);
        if self.operation.value_bytes() > LARGE_BYTES || self.client.config().unary {
            return Ok((Box::pin(self.run_large(&place, hash)).await, place));
        }
        let left = self.due.saturating_duration_since(now);
        // Rounded up: the client's own clock says when it is over.
        let timeout_ms = u64::try_from(left.as_micros().div_ceil(1000)).unwrap_or(u64::MAX).max(1);
        let trace = self.trace.map(|trace| (&*trace.traceparent, &*trace.tracestate));
        let (traceparent, tracestate) = trace.unwrap_or_default();
        let dry_run = self.client.config().dry_run;
        let context = Context { timeout_ms, dry_run, traceparent, tracestate };
        let outcome = match place.push(hash, self.operation, &context, self.due) {
            Ok(pushed) => pushed.await,
            Err(lost) => Err(lost),
        };
        Ok((outcome, place))
    }

    /// The same on a stream of its own.
    async fn run_large(&self, place: &Arc<Place>, hash: u64) -> Result<Answer, Lost> {
        let length = self.operation.encoded_len();
        let mut frame = BytesMut::with_capacity(length + 8);
        put_prefix(length, &mut frame);
        self.operation.encode(&mut frame);
        let path = self.operation.path();
        let dry_run = self.client.config().dry_run;
        let asked = Asked { path, frame: frame.freeze(), due: Some(self.due), dry_run, trace: self.trace.cloned() };
        match ask_one(place, place.number(hash), &asked).await {
            Ok(message) => Ok(Answer::of_unary(self.operation, message)),
            Err(Ended::Failed(failure)) => Ok(Answer::Failed(failure)),
            Err(Ended::Lost(lost)) => Err(lost),
        }
    }

    /// Tries it, and if there is no answer after `delay`, tries it elsewhere too; the first answer counts.
    async fn hedged(&self, delay: Duration, now: Instant) -> Result<Tried, Error> {
        let mut first = std::pin::pin!(self.run(None, now));
        if let Ok(tried) = timeout(delay, first.as_mut()).await {
            return tried;
        }
        let now = Instant::now();
        if !self.client.shared.budget.take(now) {
            return first.await;
        }
        let hash = self.client.shared.hash(self.operation.key()).map_err(Error::from)?;
        let owner = self.client.shared.pick(hash, None);
        let mut second = std::pin::pin!(self.run(Some(&owner), now));
        let is_answer = |tried: &Result<Tried, Error>| matches!(tried, Ok((Ok(_), _)));
        tokio::select! {
            tried = first.as_mut() => if is_answer(&tried) { tried } else { second.await },
            tried = second.as_mut() => if is_answer(&tried) { tried } else { first.await },
        }
    }

    /// The first attempt failed in a way that may pass.
    async fn again(&self, mut failed: Tried) -> Result<(Answer, u32), Error> {
        let idempotent = self.client.is_idempotent(self.operation);
        let (mut attempt, mut maybe) = (1, false);
        loop {
            let (outcome, place) = failed;
            let ended = match outcome {
                Ok(Answer::Failed(failure)) if failure.temporary() => Ended::Failed(failure),
                Ok(answer) => return Ok((answer, attempt)),
                Err(lost) => Ended::Lost(lost),
            };
            let error = Error::of(ended, &place.target, idempotent).after(attempt).on(self.operation.key());
            let Some(wait) = self.client.wait_after(&error, attempt, self.due) else {
                return Err(error.or_earlier(maybe));
            };
            maybe |= error.sent() == Sent::Maybe;
            sleep(wait).await;
            let avoid = should_avoid(&error, attempt).then_some(&place);
            attempt += 1;
            failed = self.run(avoid, Instant::now()).await?;
        }
    }
}

/// Whether another replica is the better choice after this.
fn should_avoid(error: &Error, attempt: u32) -> bool {
    match error.failure() {
        // For its connection's age, most likely: a new one will do.
        Some(Failure::Draining) => error.sent() != Sent::No || attempt > 1,
        Some(Failure::Starting | Failure::AppliedUnknown { .. } | Failure::Other { .. }) => true,
        _ => false,
    }
}

/// Waits until a connection has come about, or has not.
pub(super) async fn connected(place: &Arc<Place>, number: usize) {
    let Ok(entered) = place.enter(number) else { return };
    // Its end is an answer too.
    let _ = entered.lane().ready().wait_for(|ready| !matches!(ready, Ready::Connecting)).await;
}
