//! `larder dev` as people run it: real processes, on loopback. And what replicas promise together, under load: nothing fails, is
//! lost or is stale while they come, go and are replaced; and when one dies, no more than its share.

#![expect(clippy::unwrap_used, reason = "unwrapping is how a test fails")]

mod black_hole;
mod cluster;
mod faults;
mod life;
mod load;
mod moves;
mod usage;
