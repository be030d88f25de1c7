//! The task that keeps the members known: it watches one replica, another when that one ends or is behind, and ends with the
//! last clone of the client. Until it has heard anything, and whenever it hears nothing, calls go on by what is known.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use prost::Message;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::place::Place;
use super::shared::{Hints, Known, Shared, Wires};
use super::stream::{Answers, Asked, Ended, ask};
use super::topology::Topology;
use crate::rpc::failure::Failure;
use crate::rpc::proto::v1;
use crate::rpc::wire::{PREFIX_BYTES, put_prefix};

/// How long a replica may take to say who the members are.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Between two changes of the replica that is watched for what it knows.
const MIN_BETWEEN: Duration = Duration::from_secs(1);

/// After a hint: the replica that is watched is mostly about to say the same.
const PATIENCE: Duration = Duration::from_millis(100);

/// The first wait after a replica did not answer; doubles up to [`MAX_RETRY`].
const MIN_RETRY: Duration = Duration::from_millis(20);
const MAX_RETRY: Duration = Duration::from_secs(1);

/// The wait after an answer that will stay the same: a wrong token, or a server without this service.
const LASTING_RETRY: Duration = Duration::from_secs(5);

pub(super) const WATCH: &str = "/larder.v1.Topology/Watch";

/// How watching one replica ended.
enum End {
    /// The client is gone.
    Over,
    /// Another one knows better.
    Behind(Arc<Place>),
    /// Whether it had said anything before.
    Ended(Ended, bool),
}

/// Lets another task watch once this one ends, also if it ends with its runtime.
struct Watching(Weak<Shared>);

impl Drop for Watching {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.is_watched.store(false, Ordering::Release);
        }
    }
}

/// The task. Does not keep the client alive.
pub(super) fn watch(shared: &Arc<Shared>) -> impl Future<Output = ()> + Send + use<> {
    let (watching, wires) = (Watching(Arc::downgrade(shared)), Arc::clone(&shared.wires));
    let mut alive = shared.alive.subscribe();
    async move {
        let weak = &watching.0;
        tokio::select! {
            () = run(weak, &wires) => {}
            _ = alive.changed() => {}
        }
    }
}

async fn run(weak: &Weak<Shared>, wires: &Wires) {
    let (mut failures, mut next): (u32, Option<Arc<Place>>) = (0, None);
    loop {
        let Some(place) = next.take().or_else(|| weak.upgrade().map(|shared| shared.any(None))) else { return };
        let began = Instant::now();
        match follow(weak, &wires.hints, &place).await {
            End::Over => return,
            End::Behind(other) => {
                next = Some(other);
                failures = 0;
                sleep_until(began + MIN_BETWEEN).await;
            }
            End::Ended(ended, had_said) => {
                let Some(shared) = weak.upgrade() else { return };
                failures = if had_said { 0 } else { failures + 1 };
                let is_lasting = matches!(&ended, Ended::Failed(failure) if !failure.temporary());
                shared.known.send_if_modified(|known| {
                    let is_news = !matches!(known, Known::Topology(_));
                    if is_news {
                        *known = Known::Failed(ended, place.target.clone());
                    }
                    is_news
                });
                drop(shared);
                let wait = if is_lasting { LASTING_RETRY } else { backoff(failures) };
                sleep(wait).await;
            }
        }
    }
}

fn backoff(failures: u32) -> Duration {
    let wait = (MIN_RETRY * 2_u32.saturating_pow(failures.min(16))).min(MAX_RETRY);
    wait.mul_f64(0.5 + rand::random::<f64>() / 2.0)
}

/// Watches one replica.
async fn follow(weak: &Weak<Shared>, hints: &Hints, place: &Arc<Place>) -> End {
    let asked = timeout(ANSWER_TIMEOUT, begin(place)).await;
    let (mut answers, mut said) = match asked.unwrap_or(Err(Ended::Failed(Failure::DeadlineExceeded))) {
        Ok(began) => began,
        Err(ended) => return End::Ended(ended, false),
    };
    loop {
        let Some(shared) = weak.upgrade() else { return End::Over };
        shared.learn(said);
        drop(shared);
        said = tokio::select! {
            biased;
            next = answers.next() => match next.and_then(topology_of) {
                Ok(said) => said,
                Err(ended) => return End::Ended(ended, true),
            },
            other = behind(hints) => return End::Behind(other),
        };
    }
}

/// Asks a replica for the members; its first answer with it.
async fn begin(place: &Arc<Place>) -> Result<(Answers, Topology), Ended> {
    let asked = Asked { path: WATCH, frame: frame(&v1::WatchRequest {}), due: None, dry_run: false, trace: None };
    let mut answers = ask(place, 0, &asked).await?;
    let said = answers.next().await.and_then(topology_of)?;
    Ok((answers, said))
}

/// Asks a replica for the members, once.
pub(super) async fn ask_once(place: &Arc<Place>) -> Result<Topology, Ended> {
    begin(place).await.map(|(_, said)| said)
}

/// Waits until a replica knows other members than what is known, and for longer than news take.
async fn behind(hints: &Hints) -> Arc<Place> {
    loop {
        hints.another().await;
        sleep(PATIENCE).await;
        if let Some(other) = hints.take() {
            return other;
        }
    }
}

fn topology_of(message: Option<Bytes>) -> Result<Topology, Ended> {
    let message = message.ok_or(Ended::Failed(Failure::Draining))?;
    let wrong = |problem: String| Ended::Failed(Failure::Malformed(problem));
    let said = v1::WatchResponse::decode(message).map_err(|error| wrong(error.to_string()))?;
    Topology::of(said).map_err(|error| wrong(format!("the account of the topology: {error}")))
}

/// A message with its prefix.
pub(super) fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + length);
    put_prefix(length, &mut frame);
    // A growing buffer has room for every message.
    let _ = message.encode(&mut frame);
    frame.freeze()
}
