//! Says that a collector takes nothing: when it begins, at most once per [`LOG_INTERVAL`] while it lasts, and when it is over.

use std::time::Duration;

use tokio::time::Instant;

use super::Undelivered;

/// One collector's troubles with one signal.
#[derive(Debug)]
pub struct Trouble {
    /// What is sent, as the log calls it.
    signal: &'static str,
    said: Option<Instant>,
    failures: u64,
}

/// Between two lines about the same trouble.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

impl Trouble {
    #[must_use]
    pub fn new(signal: &'static str) -> Self {
        Self { signal, said: None, failures: 0 }
    }

    pub fn failed(&mut self, error: &Undelivered) {
        self.failures += 1;
        let now = Instant::now();
        if self.said.is_none_or(|said| now >= said + LOG_INTERVAL) {
            self.said = Some(now);
            let (signal, failures) = (self.signal, self.failures);
            tracing::warn!(signal, %error, failures, "the collector takes nothing; is the endpoint right, and does it take this signal?");
        }
    }

    pub fn delivered(&mut self) {
        if std::mem::take(&mut self.failures) > 0 {
            self.said = None;
            tracing::info!(signal = self.signal, "the collector takes what it is sent again");
        }
    }
}
