//! `larder dev` as people run it: real processes, on loopback.

#![expect(clippy::unwrap_used, reason = "unwrapping is how a test fails")]

mod cluster;
mod life;
mod usage;
