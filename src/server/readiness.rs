//! Readiness as a set of named tokens: who starts something takes a token and drops it when that is done. The replica is
//! ready once, when the last token is gone, and stays so: only shutdown takes it back, and that is not this module's affair.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

/// The set of what is still missing. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Readiness {
    pending: Arc<Mutex<BTreeSet<&'static str>>>,
    ready: Arc<watch::Sender<bool>>,
}

/// Held while something is missing; released by dropping it.
#[derive(Debug)]
#[must_use = "the replica is never ready before this is dropped at the right time"]
pub struct Token {
    name: &'static str,
    readiness: Readiness,
}

impl Default for Readiness {
    fn default() -> Self {
        Self { pending: Arc::default(), ready: Arc::new(watch::Sender::new(false)) }
    }
}

impl Readiness {
    /// Registers something that must happen first.
    pub fn token(&self, name: &'static str) -> Token {
        self.pending.lock().insert(name);
        Token { name, readiness: self.clone() }
    }

    /// What is still missing, by name.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        self.pending.lock().iter().copied().collect()
    }

    #[must_use]
    pub fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// Waits until nothing is missing.
    pub async fn ready(&self) {
        // The sender lives in `self`, so this cannot fail.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        let mut pending = self.readiness.pending.lock();
        pending.remove(self.name);
        if pending.is_empty() {
            drop(pending);
            self.readiness.ready.send_replace(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_ready_when_the_last_token_is_dropped_and_stays_so() {
        let readiness = Readiness::default();
        let (first, second) = (readiness.token("listeners"), readiness.token("accounts"));
        drop(first);
        assert_eq!((readiness.is_ready(), readiness.missing()), (false, vec!["accounts"]));
        drop(second);
        readiness.ready().await;
        drop(readiness.token("late"));
        assert!(readiness.is_ready());
    }
}
