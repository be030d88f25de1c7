//! One call with its retries, and what is made of its answer.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use larder::client::{Client, Config, Entry, Error, Retries, Routing, Sent, StoreOptions};
use larder::rpc::failure::Failure;
use larder::rpc::token::Token;
use tokio::time::{Instant, sleep};

use super::super::cluster::TOKEN;
use super::{Clients, DEADLINE, Shared};

/// Between two tries of one call, unless the server asks for more.
const PAUSE: Duration = Duration::from_millis(10);

/// The life of every entry: longer than any test.
const TTL: Duration = Duration::from_hours(1);

impl Shared {
    pub(super) async fn store(&self, key: usize) {
        let state = &self.keys[key];
        let count = state.begun.fetch_add(1, Ordering::AcqRel) + 1;
        let value = value(key, count, self.plan.value_bytes);
        let options = StoreOptions { ttl: Some(TTL), ..StoreOptions::default() };
        let store = |client: Client| {
            let value = value.clone();
            async move { client.store(&name(key), value, options).await }
        };
        let (stored, unknown) = self.try_until(store).await;
        if unknown {
            state.retired.store(true, Ordering::Release);
        }
        match stored {
            Ok(_) => _ = state.acknowledged.fetch_max(count, Ordering::AcqRel),
            Err(error) => self.failed("store", key, &error),
        }
    }

    pub(super) async fn get(&self, key: usize) {
        let state = &self.keys[key];
        let before = state.acknowledged.load(Ordering::Acquire);
        let get = |client: Client| async move { client.get(&name(key)).await };
        let (got, _) = self.try_until(get).await;
        match got {
            Ok(Some(Entry { value, .. })) => {
                let count = counted(key, &value);
                assert!(count <= state.begun.load(Ordering::Acquire), "a value that was never stored: {value:?}");
                if count < before && !state.retired.load(Ordering::Acquire) {
                    let what = format!("{}: {count} after {before}", name(key));
                    self.report.lock().stale.push((self.began.elapsed(), what));
                }
            }
            Ok(None) if before > 0 => {
                self.report.lock().lost.entry(key).or_insert(self.began.elapsed());
            }
            Ok(None) => {}
            Err(error) => self.failed("get", key, &error),
        }
    }

    /// Tries a call at one replica after the other. Answers also whether a try may still be applied.
    async fn try_until<T, F>(&self, call: impl Fn(Client) -> F) -> (Result<T, Error>, bool)
    where
        F: Future<Output = Result<T, Error>>,
    {
        if self.plan.clients == Clients::Owners {
            let tried = call(self.owners()).await;
            let unknown = tried.as_ref().is_err_and(|error| error.sent() == Sent::Maybe);
            return (tried, unknown);
        }
        let end = Instant::now() + DEADLINE;
        let mut unknown = false;
        loop {
            let address = self.pick();
            let client = self.client(&address);
            let left = end.saturating_duration_since(Instant::now());
            let tried = match tokio::time::timeout(left, call(client)).await {
                Ok(tried) => tried,
                Err(_) => Err(Failure::DeadlineExceeded.into()),
            };
            let Err(error) = tried else { return (tried, unknown) };
            unknown |= error.sent() == Sent::Maybe;
            let pause = error.retry_after().unwrap_or_default() + PAUSE;
            if !error.temporary() || Instant::now() + pause >= end {
                return (Err(error), unknown);
            }
            self.report.lock().retried(&error);
            sleep(pause).await;
        }
    }

    /// The library as programs use it. It was told of one replica, and learns of all others.
    fn owners(&self) -> Client {
        let seed = || self.seen.lock()[0].1[0].clone();
        let connect = || {
            let config = Config { token: Some(Token::new(TOKEN).unwrap()), ..Config::new(seed().parse().unwrap()) };
            Client::new(Config { timeout: DEADLINE, ..config }).unwrap()
        };
        self.connections.lock().entry(String::new()).or_insert_with(connect).clone()
    }

    fn client(&self, address: &str) -> Client {
        let connect = || {
            let token = Some(Token::new(TOKEN).unwrap());
            let config = Config::new(address.parse().unwrap());
            // This one picks replicas and tries again by itself, as stock clients do.
            let config = Config { routing: Routing::Seeds, retries: Retries::NONE, ..config };
            Client::new(Config { token, timeout: DEADLINE, ..config }).unwrap()
        };
        self.connections.lock().entry(address.to_owned()).or_insert_with(connect).clone()
    }

    fn failed(&self, what: &str, key: usize, error: &Error) {
        let told = format!("{what} {}: {error}", name(key));
        self.report.lock().failed.push((self.began.elapsed(), told));
    }
}

pub fn name(key: usize) -> String {
    format!("load/{key}")
}

fn value(key: usize, count: u64, bytes: usize) -> Bytes {
    format!("{:.<bytes$}", format!("{}:{count}:", name(key))).into()
}

/// The count that a value carries; it must be whole, and this key's.
fn counted(key: usize, value: &[u8]) -> u64 {
    let text = std::str::from_utf8(value).unwrap();
    let (count, rest) = text
        .strip_prefix(&format!("{}:", name(key)))
        .and_then(|rest| rest.split_once(':'))
        .unwrap_or_else(|| panic!("another key's value for {}: {text}", name(key)));
    assert!(rest.bytes().all(|byte| byte == b'.'), "{text}");
    count.parse().unwrap()
}
