//! Questions under way: at most one per token, whoever waits for it, and each on its own task, so that it goes on when the
//! caller who caused it goes away.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tonic::Code;
use zeroize::Zeroizing;

use super::super::cache::{AnswerCache, Found, Verdict};
use super::super::hash::Digest;
use super::super::{Asking, Grant};
use super::ask::{Answer, AskError, Question};
use super::{Inner, MAX_QUESTIONS, MAX_RENEWALS, PATIENCE};
use crate::rpc::failure::Failure;

/// Where callers come: what is remembered, and what is under way. One lock over both.
#[derive(Debug)]
pub(super) struct Desk {
    cache: AnswerCache,
    flights: HashMap<Digest, Flight, foldhash::fast::RandomState>,
    /// How many of the flights are renewals.
    renewals: usize,
}

/// What can be said at once.
#[derive(Debug)]
pub(super) enum Looked {
    Answer(Result<Grant, Failure>),
    /// An old answer, because the service cannot be asked.
    Stale(Grant),
    /// Nothing, or an old answer that a question might renew.
    Ask {
        stale: Option<Grant>,
    },
}

/// What a caller who may wait is told.
#[derive(Debug)]
pub(super) enum Boarding {
    Answer(Result<Grant, Failure>),
    Stale(Grant),
    Wait {
        flight: Flight,
        stale: Option<Grant>,
    },
    /// Too many questions are under way.
    Full,
    /// The caller's time is over.
    Late,
}

/// A question under way, as those who wait see it.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    outcome: watch::Receiver<Option<Outcome>>,
    started: Instant,
    renewal: bool,
}

/// A question that is to be asked now that the lock is released.
#[derive(Debug)]
#[must_use = "those who wait for it wait in vain until it starts"]
pub(super) struct Departure {
    token: Digest,
    outcome: watch::Sender<Option<Outcome>>,
    timeout: Duration,
}

type Outcome = Result<Verdict, AskError>;

/// Takes the flight off the desk, also when its task ends without an answer.
struct Landing {
    inner: Arc<Inner>,
    token: Digest,
    outcome: watch::Sender<Option<Outcome>>,
}

impl Desk {
    pub(super) fn new(cache: AnswerCache) -> Self {
        Self { cache, flights: HashMap::default(), renewals: 0 }
    }

    /// What can be said without waiting; an answer that will soon be old is renewed in the background.
    pub(super) fn look(&mut self, token: Digest, now: Instant, longest: Duration) -> (Looked, Option<Departure>) {
        match self.cache.look(&token, now) {
            Found::Fresh { grant, ahead } => {
                let renew = ahead && !self.flights.contains_key(&token) && self.renewals < MAX_RENEWALS;
                let departure = renew.then(|| self.depart(token, now, longest, true).1);
                (Looked::Answer(Ok(grant)), departure)
            }
            Found::Unknown => (Looked::Answer(Err(Failure::TokenUnknown)), None),
            Found::Failing => (Looked::Answer(Err(Failure::AccountsUnavailable)), None),
            Found::Stale { grant, may_ask } => {
                let waited = self.flights.get(&token).is_some_and(|flight| now >= flight.started + PATIENCE);
                let full = self.renewals >= MAX_RENEWALS && !self.flights.contains_key(&token);
                let ask = may_ask && !waited && !full;
                (if ask { Looked::Ask { stale: Some(grant) } } else { Looked::Stale(grant) }, None)
            }
            Found::Nothing => (Looked::Ask { stale: None }, None),
        }
    }

    /// The same for a caller who may wait until `give_up`: he joins the question about his token, or causes it.
    pub(super) fn board(
        &mut self,
        token: Digest,
        now: Instant,
        give_up: Instant,
        longest: Duration,
    ) -> (Boarding, Option<Departure>) {
        let (looked, departure) = self.look(token, now, longest);
        let stale = match looked {
            Looked::Answer(answer) => return (Boarding::Answer(answer), departure),
            Looked::Stale(grant) => return (Boarding::Stale(grant), departure),
            Looked::Ask { stale } => stale,
        };
        if now >= give_up {
            return (Boarding::Late, None);
        }
        if let Some(flight) = self.flights.get(&token) {
            return (Boarding::Wait { flight: flight.clone(), stale }, None);
        }
        if stale.is_none() && self.flights.len() - self.renewals >= MAX_QUESTIONS {
            return (Boarding::Full, None);
        }
        // A renewal serves all who come after, so it is not cut short by the deadline of the caller who causes it.
        let timeout = if stale.is_some() { longest } else { longest.min(give_up - now) };
        let (flight, departure) = self.depart(token, now, timeout, stale.is_some());
        (Boarding::Wait { flight, stale }, Some(departure))
    }

    /// Tokens remembered, and questions under way.
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.cache.len(), self.flights.len())
    }

    fn depart(&mut self, token: Digest, now: Instant, timeout: Duration, renewal: bool) -> (Flight, Departure) {
        let (sender, outcome) = watch::channel(None);
        let flight = Flight { outcome, started: now, renewal };
        self.renewals += usize::from(renewal);
        self.flights.insert(token, flight.clone());
        (flight, Departure { token, outcome: sender, timeout })
    }

    fn take_off(&mut self, token: &Digest) {
        if let Some(flight) = self.flights.remove(token) {
            self.renewals -= usize::from(flight.renewal);
        }
    }

    /// Keeps what the service said; also says whether that contradicts what it said before.
    fn keep(&mut self, token: Digest, answer: Answer, now: Instant) -> (Verdict, bool) {
        let verdict = match answer {
            Answer::Known(account, read_only) => {
                Verdict::Known { account: self.cache.unchanged(&token, account), read_only }
            }
            Answer::Unknown => Verdict::Unknown,
        };
        let contradicts = self.cache.learn(token, &verdict, now);
        (verdict, contradicts)
    }
}

impl Flight {
    /// How it ended; `None`: its runtime is gone.
    pub(super) async fn landed(mut self) -> Option<Outcome> {
        self.outcome.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone())
    }

    /// How long a caller waits who has an old answer: what is left after that must do for the call itself.
    pub(super) fn patience(&self, now: Instant, give_up: Instant) -> Instant {
        (self.started + PATIENCE).min(now + give_up.saturating_duration_since(now) / 2)
    }
}

impl Departure {
    /// Asks, on behalf of the caller who caused it.
    pub(super) fn start(self, inner: &Arc<Inner>, token: &str, asking: &Asking) {
        let question = Question {
            token: Zeroizing::new(token.to_owned()),
            digest: self.token,
            timeout: self.timeout,
            trace: asking.trace.clone(),
            dry_run: asking.dry_run,
        };
        let landing = Landing { inner: Arc::clone(inner), token: self.token, outcome: self.outcome };
        inner.home.spawn(landing.fly(question));
    }
}

impl Landing {
    async fn fly(self, question: Question) {
        let (started, limit) = (Instant::now(), question.timeout);
        let answer = timeout(limit, self.inner.ask.ask(question)).await.unwrap_or(Err(AskError::Deadline));
        let answer = answer.map_err(|error| match error {
            // The service, or the channel, was just quicker to see that the time is over.
            AskError::Status { code: Code::DeadlineExceeded | Code::Cancelled, .. }
                if started.elapsed() >= limit / 10 * 9 =>
            {
                AskError::Deadline
            }
            error => error,
        });
        let outcome = match answer {
            Ok(answer) => Ok(self.keep(answer)),
            Err(error) => Err(self.fail(error, limit)),
        };
        self.outcome.send_replace(Some(outcome));
    }

    fn keep(&self, answer: Answer) -> Verdict {
        let (verdict, contradicts) = {
            let mut desk = self.inner.desk.lock();
            desk.take_off(&self.token);
            desk.keep(self.token, answer, Instant::now())
        };
        if contradicts {
            self.inner.generation.fetch_add(1, Ordering::Release);
        }
        let counters = &self.inner.counters;
        let counter = if verdict == Verdict::Unknown { &counters.unknown } else { &counters.known };
        counter.fetch_add(1, Ordering::Relaxed);
        self.inner.log.answered();
        verdict
    }

    fn fail(&self, error: AskError, limit: Duration) -> AskError {
        // That one caller had little time says nothing about the service.
        let hasty = error == AskError::Deadline && limit < self.inner.timeout;
        let mut desk = self.inner.desk.lock();
        desk.take_off(&self.token);
        if !hasty {
            desk.cache.fail(self.token, Instant::now(), rand::random());
        }
        drop(desk);
        if !hasty {
            self.inner.counters.failed.fetch_add(1, Ordering::Relaxed);
            self.inner.log.failed(&error);
        }
        error
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        if self.outcome.borrow().is_none() {
            self.inner.desk.lock().take_off(&self.token);
        }
    }
}
