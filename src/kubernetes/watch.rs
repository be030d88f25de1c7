//! Lists and watches the EndpointSlices, for as long as anybody listens.
//!
//! Not kube's `watcher`: it hides the list's version, which is part of the view, and goes on with a watch that the API server
//! has answered with 504 or, before the stream, with 410. Here:
//!
//! ```text
//!            +--------------- all else (410, 504, 403, JSON, versions without order) -----------+
//!            v                                                                                  |
//!         (wait) ---> quorum list ---> watch from the list's version ---> its end ---> watch from the last version
//!                         |                       ^                                             |
//!                       failed: wait              +---- (wait) ---- connection lost, 429, 5xx --+
//! ```
//!
//! A list moves the floor of the view, at all replicas, so an interrupted watch goes on where it was if it can. Waits are at most
//! 30 s. A watch ends by itself within a minute; one that does not is dead. The last good view stays whatever happens, and
//! nothing is said before the first complete list.

mod client;
mod complaint;
mod events;
mod follow;

use std::sync::Arc;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client, Config};
use tokio::sync::watch;

use self::follow::Follower;
use super::slices::Selection;
use crate::cluster::{Discover, LastHeard};
use crate::ownership::view::View;

/// The EndpointSlices of one Service.
#[derive(Clone)]
pub struct Slices {
    api: Api<EndpointSlice>,
    namespace: String,
    selection: Selection,
    last_heard: LastHeard,
}

/// Why there is no client for the API server.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(
        "this is no pod with a service account: {0}; run in Kubernetes with `automountServiceAccountToken: true`, or use a members file"
    )]
    NotInCluster(String),
    #[error("the client for the API server cannot be made: {0}")]
    Client(String),
}

impl Slices {
    /// Of the API server that runs this pod, as its service account; in the pod's own namespace unless another is given. Does not
    /// connect. Within a tokio runtime only.
    ///
    /// # Errors
    /// When this process has no service account, or what it has cannot be read.
    pub fn in_cluster(namespace: Option<&str>, selection: Selection) -> Result<Self, ClientError> {
        let config = Config::incluster().map_err(|error| ClientError::NotInCluster(error.to_string()))?;
        Self::with(config, namespace, selection)
    }

    fn with(config: Config, namespace: Option<&str>, selection: Selection) -> Result<Self, ClientError> {
        let namespace = namespace.unwrap_or(&config.default_namespace).to_owned();
        let client = client::client(config).map_err(|error| ClientError::Client(error.to_string()))?;
        Ok(Self::new(client, &namespace, selection))
    }

    fn new(client: Client, namespace: &str, selection: Selection) -> Self {
        let api = Api::namespaced(client, namespace);
        Self { api, namespace: namespace.to_owned(), selection, last_heard: LastHeard::never() }
    }
}

impl Discover for Slices {
    fn last_heard(&self) -> LastHeard {
        self.last_heard.clone()
    }

    async fn run(self, to: watch::Sender<Option<Arc<View>>>) {
        let unheard = to.clone();
        tokio::select! {
            () = unheard.closed() => {}
            () = Follower::new(self, to).follow() => {}
        }
    }
}

#[cfg(test)]
mod tests;
