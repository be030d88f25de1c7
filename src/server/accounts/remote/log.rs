//! Says that the Accounts service cannot be asked: when it begins, at most once per [`LOG_INTERVAL`] while it lasts, and when
//! it is over.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::ask::AskError;

#[derive(Debug, Default)]
pub(super) struct AskLog(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    said: Option<Instant>,
    failures: u64,
}

/// Between two lines about the same trouble.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

impl AskLog {
    pub(super) fn failed(&self, error: &AskError) {
        let mut state = self.0.lock();
        state.failures += 1;
        let now = Instant::now();
        if state.said.is_none_or(|said| now >= said + LOG_INTERVAL) {
            state.said = Some(now);
            let failures = state.failures;
            drop(state);
            tracing::error!(%error, failures, "the accounts service cannot be asked; old answers serve while they may");
        }
    }

    pub(super) fn answered(&self) {
        let mut state = self.0.lock();
        if state.failures == 0 {
            return;
        }
        let failures = std::mem::take(&mut state.failures);
        state.said = None;
        drop(state);
        tracing::info!(failures, "the accounts service answers");
    }
}
