//! One call, made with the client library and held against what is known of its key.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::counter::Counted;
use super::distribution::Picker;
use super::ledger::Ledger;
use super::mix::{Mix, Operation};
use super::model::{Change, Ended, Seen};
use super::size::Sizes;
use crate::client::{Client, Entry, Error, ErrorKind, IncrementOptions, Sent, StoreOptions, Touch};
use crate::rpc::failure::Failure;

/// What all calls of a run have in common.
#[derive(Debug)]
pub struct Calls {
    /// Tells this run from others.
    pub run: u64,
    /// What every key begins with.
    pub prefix: String,
    pub mix: Mix,
    pub picker: Picker,
    pub sizes: Sizes,
    /// Of every entry that is stored or touched.
    pub ttl: Duration,
    /// Present when answers are verified.
    pub ledger: Option<Ledger>,
    /// What values are cut from when they are not.
    filling: Bytes,
    increments: AtomicU64,
}

/// How a call ended.
#[derive(Debug)]
pub struct Outcome {
    pub operation: Operation,
    /// Of the value.
    pub bytes: usize,
    /// Of a get or a touch: whether there was a value.
    pub hit: Option<bool>,
    /// Why it failed, after the client's own retries.
    pub failed: Option<Error>,
}

/// A name for an error, to count it by.
pub fn kind(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::Answer(failure) => failure.reason(),
        ErrorKind::Unreachable { .. } => "UNREACHABLE",
        ErrorKind::Full { .. } => "CLIENT_FULL",
        ErrorKind::NoSeeds | ErrorKind::Channel(_) | ErrorKind::TokenFile { .. } => "CLIENT_CONFIGURATION",
    }
}

/// Whether a write that failed may have been applied, by any of its attempts, or be yet.
fn ended(error: &Error) -> Ended {
    let vague = matches!(error.failure(), Some(Failure::Internal | Failure::Other { .. }));
    if error.sent() == Sent::Maybe || vague { Ended::Unknown } else { Ended::Refused }
}

impl Calls {
    pub fn new(
        run: u64,
        prefix: String,
        mix: Mix,
        picker: Picker,
        sizes: Sizes,
        ttl: Duration,
        ledger: Option<Ledger>,
    ) -> Self {
        let bytes = if ledger.is_some() { 0 } else { sizes.largest() };
        let mut filling = vec![0; bytes];
        rand::Rng::fill_bytes(&mut rand::rng(), &mut filling);
        let increments = AtomicU64::default();
        Self { run, prefix, mix, picker, sizes, ttl, ledger, filling: filling.into(), increments }
    }

    /// Makes some call.
    pub async fn call(&self, client: &Client) -> Outcome {
        let (operation, key, bytes) = {
            let mut random = rand::rng();
            (self.mix.pick(&mut random), self.picker.pick(&mut random), self.sizes.pick(&mut random))
        };
        match operation {
            Operation::Get => self.get(client, key).await,
            Operation::Store => self.write(client, key, Change::Store, bytes).await,
            Operation::Delete => self.write(client, key, Change::Delete, 0).await,
            Operation::Touch => self.touch(client, key).await,
            Operation::Incr => self.increment(client, key).await,
        }
    }

    /// Stores a key for the first time.
    pub async fn fill(&self, client: &Client, key: u64) -> Outcome {
        let bytes = self.sizes.pick(&mut rand::rng());
        self.write(client, key, Change::Store, bytes).await
    }

    /// Reads a key after the run.
    pub async fn check(&self, client: &Client, key: u64) -> Result<(), Error> {
        let Some(ledger) = &self.ledger else { return Ok(()) };
        let since = ledger.since(key);
        match client.get(&self.name(key)).await? {
            Some(entry) => ledger.saw_value(key, since, &entry.value, entry.version),
            None => ledger.saw(key, since, Seen::Nothing),
        }
        if self.mix.has(Operation::Incr) && ledger.is_counted(key) {
            let entry = client.get(&self.counter_name(key)).await?;
            ledger.saw_count(key, entry.as_ref().map(|entry| entry.value.as_ref()));
        }
        Ok(())
    }

    async fn get(&self, client: &Client, key: u64) -> Outcome {
        let since = self.ledger.as_ref().map(|ledger| (ledger, ledger.since(key)));
        let got = client.get(&self.name(key)).await;
        if let (Some((ledger, since)), Ok(entry)) = (since, &got) {
            match entry {
                Some(Entry { value, version, .. }) => ledger.saw_value(key, since, value, *version),
                None => ledger.saw(key, since, Seen::Nothing),
            }
        }
        let hit = got.as_ref().ok().map(Option::is_some);
        let bytes = got.as_ref().ok().and_then(Option::as_ref).map_or(0, |entry| entry.value.len());
        Outcome { operation: Operation::Get, bytes, hit, failed: got.err() }
    }

    /// A get instead, when every key near has a write under way.
    async fn write(&self, client: &Client, key: u64, change: Change, bytes: usize) -> Outcome {
        let Some(ledger) = &self.ledger else {
            let value = self.filling.slice(..bytes.min(self.filling.len()));
            let changed = self.change(client, key, change, value).await;
            return Outcome::of_write(change, bytes, changed.err());
        };
        let Some(writing) = ledger.write(key, change) else { return self.get(client, key).await };
        let value = if change == Change::Store { writing.value(bytes) } else { Bytes::new() };
        let changed = self.change(client, writing.key, change, value).await;
        let failed = match changed {
            Ok(version) => {
                writing.end(Ended::Acknowledged { version });
                None
            }
            Err(error) => {
                writing.end(ended(&error));
                Some(error)
            }
        };
        Outcome::of_write(change, bytes, failed)
    }

    /// Answers the version; 0: unknown.
    async fn change(&self, client: &Client, key: u64, change: Change, value: Bytes) -> Result<u64, Error> {
        let name = self.name(key);
        match change {
            Change::Store => {
                let options = StoreOptions { ttl: Some(self.ttl), ..StoreOptions::default() };
                client.store(&name, value, options).await
            }
            Change::Delete => client.delete(&name, None).await.map(|_| 0),
        }
    }

    async fn touch(&self, client: &Client, key: u64) -> Outcome {
        let since = self.ledger.as_ref().map(|ledger| (ledger, ledger.since(key)));
        let touched = client.touch(&self.name(key), Some(self.ttl), Touch::Overwrite).await;
        let (hit, failed) = match touched {
            Ok(_) => (Some(true), None),
            Err(error) if error.failure() == Some(&Failure::NotFound) => (Some(false), None),
            Err(error) => (None, Some(error)),
        };
        if let (Some((ledger, since)), Some(hit)) = (since, hit) {
            ledger.saw(key, since, if hit { Seen::Something } else { Seen::Nothing });
        }
        Outcome { operation: Operation::Touch, bytes: 0, hit, failed }
    }

    async fn increment(&self, client: &Client, key: u64) -> Outcome {
        let counting = self.ledger.as_ref().map(|ledger| ledger.count(key));
        let (key, request_id) = match &counting {
            Some(Some(counting)) => (counting.key, counting.request_id()),
            // Every counter near has an increment under way.
            Some(None) => return self.get(client, key).await,
            None => (key, format!("{:x}-{:x}", self.run, self.increments.fetch_add(1, Ordering::Relaxed))),
        };
        let options = IncrementOptions { request_id, ttl: Some(self.ttl) };
        let counted = client.increment(&self.counter_name(key), 1, options).await;
        if let Some(Some(counting)) = counting {
            counting.end(match &counted {
                Ok(counted) => Counted::To(counted.value),
                Err(error) if ended(error) == Ended::Unknown => Counted::Unknown,
                Err(_) => Counted::Refused,
            });
        }
        Outcome { operation: Operation::Incr, bytes: 0, hit: None, failed: counted.err() }
    }

    fn name(&self, key: u64) -> String {
        format!("{}{key}", self.prefix)
    }

    /// Counters are keys of their own: a value is no number.
    fn counter_name(&self, key: u64) -> String {
        format!("{}count/{key}", self.prefix)
    }
}

impl Outcome {
    fn of_write(change: Change, bytes: usize, failed: Option<Error>) -> Self {
        let operation = match change {
            Change::Store => Operation::Store,
            Change::Delete => Operation::Delete,
        };
        Self { operation, bytes, hit: None, failed }
    }
}
