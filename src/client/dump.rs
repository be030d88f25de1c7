//! A stream of entries. Memory is bounded by HTTP/2 flow control: what is not read is not sent. A dump that a replica breaks
//! off goes on at another by itself.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use prost::Message as _;
use tokio::time::{Instant, Sleep, sleep};

use super::error::Error;
use super::place::Place;
use super::shared::Shared;
use super::stream::{Answers, Asked, Ended, ask};
use super::values::duration;
use super::watch::frame;
use crate::rpc::failure::Failure;
use crate::rpc::proto::v1;

const DUMP: &str = "/larder.v1.Cache/Dump";

/// How long the next item may take. A server that walks past many entries of others is silent for a while.
const MAX_SILENCE: Duration = Duration::from_secs(30);

/// The entries of a dump, one by one: a [`Stream`], and [`Dump::next`] for who needs no more.
pub struct Dump {
    begin: Begin,
    state: State,
    silence: Pin<Box<Sleep>>,
}

/// One entry of a dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpedEntry {
    pub key: String,
    pub value: Bytes,
    pub version: u64,
    /// `None`: it does not expire.
    pub remaining_ttl: Option<Duration>,
    /// Where to go on if the dump breaks off; opaque.
    pub cursor: Bytes,
}

/// What it takes to begin, and to go on elsewhere.
struct Begin {
    shared: Arc<Shared>,
    prefix: String,
    cursor: Bytes,
    due: Instant,
    /// How long the first answer may take.
    timeout: Duration,
    /// Attempts since the last entry.
    attempts: u32,
    avoid: Option<Arc<Place>>,
}

enum State {
    Beginning(Pin<Box<dyn Future<Output = Begun> + Send>>),
    Reading(Answers, Arc<Place>),
    Over,
}

type Begun = (Result<Answers, Ended>, Arc<Place>);

impl Dump {
    pub(super) async fn begin(
        shared: &Arc<Shared>,
        prefix: &str,
        cursor: Bytes,
        timeout: Duration,
    ) -> Result<Self, Error> {
        let begin = Begin {
            shared: Arc::clone(shared),
            prefix: prefix.to_owned(),
            cursor,
            due: Instant::now() + shared.config.stream_timeout,
            timeout,
            attempts: 0,
            avoid: None,
        };
        let mut dump = Self { begin, state: State::Over, silence: Box::pin(sleep(MAX_SILENCE)) };
        dump.state = State::Beginning(dump.begin.at(Duration::ZERO));
        std::future::poll_fn(|cx| dump.poll_begin(cx)).await?;
        Ok(dump)
    }

    /// The next entry; `None` at the end.
    ///
    /// # Errors
    /// See [`Error`]; after a temporary one go on with a new dump from the last entry's cursor.
    pub async fn next(&mut self) -> Result<Option<DumpedEntry>, Error> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await.transpose()
    }

    /// Ready once answers come.
    fn poll_begin(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        while let State::Beginning(beginning) = &mut self.state {
            let (begun, place) = ready!(beginning.as_mut().poll(cx));
            match begun {
                Ok(answers) => self.state = State::Reading(answers, place),
                Err(ended) => self.again(ended, &place)?,
            }
        }
        self.silence.as_mut().reset(Instant::now() + MAX_SILENCE);
        Poll::Ready(Ok(()))
    }

    /// It broke off: goes on elsewhere, if it may.
    fn again(&mut self, ended: Ended, place: &Arc<Place>) -> Result<(), Error> {
        self.state = State::Over;
        let Begin { shared, attempts, due, .. } = &mut self.begin;
        *attempts += 1;
        let error = Error::of(ended, &place.target, true).after(*attempts);
        let now = Instant::now();
        let step = shared.config.retries.step(&error, *attempts, rand::random());
        let Some(step) = step.filter(|step| now + step.wait < *due && (!step.is_paid || shared.budget.take(now)))
        else {
            return Err(error);
        };
        self.begin.avoid = Some(Arc::clone(place));
        self.state = State::Beginning(self.begin.at(step.wait));
        Ok(())
    }
}

impl Begin {
    fn at(&self, wait: Duration) -> Pin<Box<dyn Future<Output = Begun> + Send>> {
        let message = v1::DumpRequest { prefix: self.prefix.clone(), cursor: self.cursor.clone() };
        let asked = Asked { path: DUMP, frame: frame(&message), due: Some(self.due), dry_run: false, trace: None };
        let (shared, avoid, timeout) = (Arc::clone(&self.shared), self.avoid.clone(), self.timeout);
        Box::pin(async move {
            sleep(wait).await;
            let place = shared.any(avoid.as_ref());
            let begun = tokio::time::timeout(timeout, ask(&place, 0, &asked)).await;
            (begun.unwrap_or(Err(Ended::Failed(Failure::DeadlineExceeded))), place)
        })
    }
}

impl Stream for Dump {
    type Item = Result<DumpedEntry, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Err(error) = ready!(self.poll_begin(cx)) {
                return Poll::Ready(Some(Err(error)));
            }
            let State::Reading(answers, place) = &mut self.state else { return Poll::Ready(None) };
            let place = Arc::clone(place);
            let next = match answers.poll_next(cx) {
                Poll::Ready(next) => next,
                Poll::Pending => {
                    ready!(self.silence.as_mut().poll(cx));
                    Err(Ended::Failed(Failure::DeadlineExceeded))
                }
            };
            match next {
                Ok(None) => self.state = State::Over,
                Ok(Some(message)) => {
                    let Ok(item) = v1::DumpItem::decode(message) else {
                        self.state = State::Over;
                        let failure = Failure::Malformed("an item of the dump cannot be read".to_owned());
                        return Poll::Ready(Some(Err(failure.into())));
                    };
                    self.begin.cursor = item.cursor.clone();
                    self.begin.attempts = 0;
                    return Poll::Ready(Some(Ok(item.into())));
                }
                Err(ended) => {
                    if let Err(error) = self.again(ended, &place) {
                        return Poll::Ready(Some(Err(error)));
                    }
                }
            }
        }
    }
}

impl fmt::Debug for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dump").field("prefix", &self.begin.prefix).finish_non_exhaustive()
    }
}

impl From<v1::DumpItem> for DumpedEntry {
    fn from(item: v1::DumpItem) -> Self {
        Self {
            key: item.key,
            value: item.val,
            version: item.version,
            remaining_ttl: duration(item.remaining_ttl_ms),
            cursor: item.cursor,
        }
    }
}
