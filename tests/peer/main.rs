//! The peer service and its clients over loopback, with stubs in place of the hand-off and the store.

#![expect(clippy::unwrap_used, reason = "unwrapping is how a test fails")]

mod breaks;
mod certificates;
mod forwards;
mod limits;
mod links;
#[expect(dead_code, reason = "the benchmark reads the workers too")]
mod pair;
