//! The loop of the picture in `super`.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, WatchEvent, WatchParams};
use rand::RngExt as _;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::super::backoff::{Backoff, MAX_WAIT, MAX_WAIT_AT_START};
use super::super::slices::{Reading, SERVICE_LABEL};
use super::complaint::{Said, Trouble};
use super::{Slices, events};
use crate::cluster::MAX_ENDPOINTS;
use crate::ownership::view::View;

/// Within this time a list is complete, and a watch begins.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// For how many seconds a watch is asked, by chance, so that the replicas' do not end together. For kube's own 290 s a dead
/// one would be trusted.
pub const WATCH_SECONDS: RangeInclusive<u32> = 30..=45;

/// How long after its end a watch is dead.
pub const END_MARGIN: Duration = Duration::from_secs(5);

/// A watch that ends sooner, and says nothing, is a failure: otherwise it would be begun again and again.
const SHORTEST_WATCH: Duration = Duration::from_secs(1);

/// Follows the slices of one Service.
pub struct Follower {
    source: Slices,
    to: watch::Sender<Option<Arc<View>>>,
    /// All that was said so far, merged. Nothing before the first list.
    known: Option<View>,
    backoff: Backoff,
    said: Said,
}

impl Follower {
    pub fn new(source: Slices, to: watch::Sender<Option<Arc<View>>>) -> Self {
        Self { source, to, known: None, backoff: Backoff::default(), said: Said::default() }
    }

    /// For ever.
    pub async fn follow(mut self) {
        // The version to go on from; with none, a list gives one.
        let mut seen = None;
        let mut is_from_list = false;
        loop {
            let trouble = match &mut seen {
                Some(seen) => self.watch(seen).await.inspect(|()| is_from_list = false).err(),
                None => self.list().await.map(|version| (seen, is_from_list) = (Some(version), true)).err(),
            };
            let Some(trouble) = trouble else { continue };
            let mut wait = self.backoff.next_wait(if self.known.is_some() { MAX_WAIT } else { MAX_WAIT_AT_START });
            if !trouble.may_resume() {
                // A version from before is too old after an outage. It is no reason to wait that the API server answers again.
                if seen.take().is_some() && !is_from_list {
                    wait = Duration::ZERO;
                }
            }
            is_from_list = false;
            self.said.trouble(&trouble, self.source.last_heard.age(), wait);
            sleep(wait).await;
        }
    }

    /// A quorum read, in one piece. Returns the list's version.
    async fn list(&mut self) -> Result<String, Trouble> {
        let params = ListParams::default().labels(&self.labels());
        let list = timeout(CALL_TIMEOUT, self.source.api.list(&params)).await;
        let list = list.map_err(|_| Trouble::Silent(CALL_TIMEOUT))?.map_err(|error| self.trouble(error))?;
        let version = list.metadata.resource_version.unwrap_or_default();
        let reading = self.source.selection.list(&version, &list.items)?;
        let (found, _) = reading.view.source_version();
        if let Some((known, _)) = self.known.as_ref().map(View::source_version)
            && found < known
        {
            return Err(Trouble::Older { known, found });
        }
        let endpoints = reading.view.endpoints().len();
        tracing::debug!(version, endpoints, "members listed");
        if endpoints == 0 {
            let Slices { selection, namespace, .. } = &self.source;
            tracing::warn!(
                service = selection.service,
                namespace,
                family = %selection.family,
                "no endpoint of this address family is listed; check the Service's name, its selector and the family"
            );
        }
        self.take(reading)?;
        Ok(version)
    }

    /// One watch to its end. `seen` goes on with what it says.
    async fn watch(&mut self, seen: &mut String) -> Result<(), Trouble> {
        let seconds = rand::rng().random_range(WATCH_SECONDS);
        let params = WatchParams::default().labels(&self.labels()).timeout(seconds);
        let began = Instant::now();
        let events = timeout(CALL_TIMEOUT, events::begin(&self.source.api, &params, seen)).await;
        let mut events = events.map_err(|_| Trouble::Silent(CALL_TIMEOUT))?.map_err(|error| self.trouble(error))?;
        let dead_at = began + Duration::from_secs(seconds.into()) + END_MARGIN;
        let mut said_something = false;
        loop {
            match timeout_at(dead_at, events.next()).await {
                Ok(Some(event)) => {
                    let event = event.map_err(|error| self.trouble(error))?;
                    self.event(event, seen)?;
                    said_something = true;
                    self.works();
                }
                Ok(None) if said_something || began.elapsed() >= SHORTEST_WATCH => {
                    self.works();
                    return Ok(());
                }
                Ok(None) => return Err(Trouble::EndedAtOnce),
                Err(_) => {
                    tracing::warn!(after = ?began.elapsed(), "a watch of the members is dead; another goes on where it was");
                    return Ok(());
                }
            }
        }
    }

    fn event(&mut self, event: WatchEvent<EndpointSlice>, seen: &mut String) -> Result<(), Trouble> {
        let selection = &self.source.selection;
        let (reading, version) = match event {
            WatchEvent::Added(slice) | WatchEvent::Modified(slice) => {
                (selection.applied(&slice)?, slice.metadata.resource_version)
            }
            WatchEvent::Deleted(slice) => (selection.deleted(&slice)?, slice.metadata.resource_version),
            WatchEvent::Bookmark(bookmark) => (None, Some(bookmark.metadata.resource_version)),
            WatchEvent::Error(status) => return Err(Trouble::of_status(&status, &self.source.namespace)),
        };
        if let Some(version) = version.filter(|version| !version.is_empty()) {
            *seen = version;
        }
        reading.map_or(Ok(()), |reading| self.take(reading))
    }

    /// Merges it, and passes on what is new.
    fn take(&mut self, reading: Reading) -> Result<(), Trouble> {
        reading.oddities.iter().for_each(|oddity| self.said.oddity(oddity));
        let view = match &self.known {
            Some(known) => known.merge(&reading.view),
            None => reading.view,
        };
        let endpoints = view.endpoints().len();
        if endpoints > MAX_ENDPOINTS {
            return Err(Trouble::TooMany(endpoints));
        }
        self.source.last_heard.heard();
        if self.known.as_ref() != Some(&view) {
            self.to.send_replace(Some(Arc::new(view.clone())));
            self.known = Some(view);
        }
        Ok(())
    }

    /// The API server carries out a watch: all is as it should be.
    fn works(&mut self) {
        self.source.last_heard.heard();
        self.backoff.reset();
        self.said.recovered();
    }

    fn labels(&self) -> String {
        format!("{SERVICE_LABEL}={}", self.source.selection.service)
    }

    fn trouble(&self, error: kube::Error) -> Trouble {
        Trouble::of(error, &self.source.namespace)
    }
}
