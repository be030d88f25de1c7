//! Things that are said at most once a minute of each peer, so that a wrong configuration is in the log and not all of it.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How often one thing is said of one peer.
const INTERVAL: Duration = Duration::from_secs(60);

/// Peers that are remembered.
const MAX_PEERS: usize = 1024;

/// When what was said last.
#[derive(Debug, Default)]
pub(in crate::server) struct Seldom(Mutex<HashMap<(String, &'static str), Instant>>);

impl Seldom {
    /// Whether it is time to say this of that peer.
    pub(in crate::server) fn may_say(&self, what: &'static str, peer: &str) -> bool {
        let now = Instant::now();
        let mut said = self.0.lock();
        if said.len() >= MAX_PEERS {
            said.retain(|_, at| now < *at + INTERVAL);
        }
        let known = said.get(&(peer.to_owned(), what)).is_some_and(|at| now < *at + INTERVAL);
        if known || said.len() >= MAX_PEERS {
            return false;
        }
        said.insert((peer.to_owned(), what), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_thing_is_said_once_a_minute_of_each_peer() {
        let seldom = Seldom::default();
        assert!(seldom.may_say("cluster", "a") && !seldom.may_say("cluster", "a"));
        assert!(seldom.may_say("cluster", "b") && seldom.may_say("clock", "a"));
        tokio::time::advance(INTERVAL).await;
        assert!(seldom.may_say("cluster", "a") && !seldom.may_say("cluster", "a"));
    }
}
