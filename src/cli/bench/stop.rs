//! That a run is to end early, and when that was said.

use std::sync::OnceLock;

use tokio::time::Instant;

/// Said once, heard by all.
#[derive(Debug, Default)]
pub struct Stop(OnceLock<Instant>);

impl Stop {
    pub fn now(&self) {
        let _ = self.0.set(Instant::now());
    }

    pub fn is_said(&self) -> bool {
        self.0.get().is_some()
    }

    pub fn at(&self) -> Option<Instant> {
        self.0.get().copied()
    }
}
