//! Traces, as a collector sees them: replicas built as `larder serve` builds them, in one process, and a collector that takes
//! OTLP over gRPC.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../contract/asking.rs"]
mod asking;
#[path = "../support/collector.rs"]
mod collector;
#[path = "../cluster_operations/entry.rs"]
mod entry;
#[path = "../support/fake.rs"]
mod fake;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/cluster.rs"]
mod test_cluster;

mod accounts;
mod collectors;
mod hops;
mod items;
mod results;
mod sampling;
