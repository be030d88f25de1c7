//! Clients of one replica each.

#![allow(dead_code, reason = "each test binary uses the part that it needs")]

use larder::cache::key::{AccountId, Key};
use larder::cache::route::route_hash;
use larder::ring::Ring;
use larder::server::accounts::file::FileAccount;
use tonic::transport::{Channel, Endpoint};

use crate::support::{Builder, Client, TOKEN, client};
use crate::test_cluster::TestCluster;

/// The names of the replicas.
pub fn uids(cluster: &TestCluster) -> Vec<String> {
    cluster.replicas.keys().cloned().collect()
}

pub async fn channel(cluster: &TestCluster, uid: &str) -> Channel {
    let address = cluster.replicas[uid].addresses.grpc;
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

/// A client of account `one` that speaks to one replica only.
pub async fn at(cluster: &TestCluster, uid: &str) -> Client {
    with(cluster, uid, TOKEN).await
}

pub async fn with(cluster: &TestCluster, uid: &str, token: &str) -> Client {
    client(channel(cluster, uid).await, Some(token))
}

/// The replica that owns a key of account `one` while nobody comes or goes.
pub fn owner(cluster: &TestCluster, key: &str) -> String {
    let ring = Ring::new(cluster.replicas.values().map(|bound| bound.addresses.grpc.to_string()));
    let hash = route_hash(&AccountId::new("one").unwrap(), Key::new(key).unwrap());
    let address = ring.owner_of(hash).unwrap();
    let is_it = |uid: &&String| cluster.replicas[*uid].addresses.grpc.to_string() == address;
    cluster.replicas.keys().find(is_it).unwrap().clone()
}

/// A key that this replica owns.
pub fn key_of(cluster: &TestCluster, uid: &str, about: &str) -> String {
    (0..1_000_000).map(|i| format!("{about}-{i}")).find(|key| owner(cluster, key) == uid).unwrap()
}

/// A cluster whose replicas have more flags.
pub async fn with_flags(count: usize, flags: &[&str]) -> TestCluster {
    started(TestCluster::empty(flags), count).await
}

/// A cluster where account `one` is changed.
pub async fn with_account(count: usize, change: impl FnOnce(&mut FileAccount)) -> TestCluster {
    let cluster = TestCluster::empty(&[]);
    let accounts = Builder::default().account(change).accounts;
    let path = cluster.members_file().with_file_name("accounts.json");
    std::fs::write(path, serde_json::to_string(&accounts).unwrap()).unwrap();
    started(cluster, count).await
}

async fn started(mut cluster: TestCluster, count: usize) -> TestCluster {
    for uid in ["a", "b", "c", "d"].iter().take(count) {
        cluster.join(uid).await;
    }
    cluster.settled().await;
    cluster
}
