//! Every operation at every replica of a cluster, whoever owns the key: what a client sees is what one replica alone shows it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "contract/asking.rs"]
mod asking;
#[path = "cluster_operations/entry.rs"]
mod entry;
#[path = "cluster_operations/lost.rs"]
mod lost;
#[path = "cluster_operations/many.rs"]
mod many;
#[path = "cluster_operations/one.rs"]
mod one;
#[path = "support/process.rs"]
mod process;
#[path = "cluster_operations/quotas.rs"]
mod quotas;
#[path = "cluster_operations/script.rs"]
mod script;
mod support;
#[path = "support/cluster.rs"]
mod test_cluster;
#[path = "cluster_operations/topology.rs"]
mod topology;
#[path = "cluster_operations/walks.rs"]
mod walks;
