//! Replicas that come, go, stand still and lie about their name: each built as `larder serve` builds it, in one process, with
//! a members file between them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use bytes::Bytes;
use larder::client::{Client, StoreOptions};
use larder::server::drain::Outcome;

#[path = "cluster/certificates.rs"]
mod certificates;
#[path = "cluster/metrics.rs"]
mod metrics;
#[path = "support/process.rs"]
mod process;
mod support;
#[path = "support/cluster.rs"]
mod test_cluster;

use process::Process;
use test_cluster::{TestCluster, member, metric, on_ring, page, wait};

const KEYS: usize = 300;

fn key(number: usize) -> String {
    format!("key {number}")
}

async fn fill(client: &Client) {
    for number in 0..KEYS {
        let value = Bytes::from(format!("value {number}"));
        client.store(&key(number), value, StoreOptions::default()).await.unwrap();
    }
}

async fn all_there(client: &Client) {
    for number in 0..KEYS {
        let got = client.get(&key(number)).await.unwrap();
        let got = got.unwrap_or_else(|| panic!("{} is lost", key(number)));
        assert_eq!(got.value, format!("value {number}"));
    }
}

#[tokio::test]
async fn three_replicas_share_the_ring_and_each_answers_for_all() {
    let cluster = TestCluster::of(3).await;
    let page = cluster.page_of("a").await;
    let shares: f64 = page["members"].as_array().unwrap().iter().map(|member| member["share"].as_f64().unwrap()).sum();
    assert!((shares - 1.0).abs() < 1e-9, "{shares}");
    fill(&cluster.client("a")).await;
    for uid in ["a", "b", "c"] {
        all_there(&cluster.client(uid)).await;
        assert!(cluster.metric(uid, "larder_store_entries").await > 0, "{uid} owns keys");
    }
    assert_eq!(cluster.metric("b", r#"larder_members{state="ring"}"#).await, 3);
    cluster.end().await;
}

#[tokio::test]
async fn who_joins_takes_its_share_over_and_who_leaves_hands_everything_on() {
    let mut cluster = TestCluster::of(3).await;
    fill(&cluster.client("b")).await;
    cluster.join("d").await;
    cluster.settled().await;
    assert!(cluster.metric("d", "larder_store_entries").await > 0);
    all_there(&cluster.client("d")).await;

    assert_eq!(cluster.leave("b").await, Outcome::Clean);
    cluster.settled().await;
    all_there(&cluster.client("a")).await;
    let mut entries = 0;
    for uid in ["a", "c", "d"] {
        entries += cluster.metric(uid, "larder_store_entries").await;
        assert_eq!(cluster.metric(uid, "larder_members_lost_total").await, 0, "{uid}");
        assert_eq!(cluster.metric(uid, "larder_fences_total").await, 0, "{uid}");
    }
    assert_eq!(entries, KEYS as u64, "each key once");
    cluster.end().await;
}

#[tokio::test]
async fn calls_wait_for_members_and_a_replica_without_a_list_says_what_it_waits_for() {
    let mut cluster = TestCluster::empty(&[]);
    std::fs::remove_file(cluster.members_file()).unwrap();
    let config = larder::server::config::Config::from_flags(cluster.flags("a")).unwrap();
    let bound = larder::server::app::build(&config, larder::server::clock::Clock::start()).await.unwrap();
    let admin = bound.addresses.admin;
    assert_eq!(page(admin, "/readyz").await, (503, "waiting for: members\n".to_owned()));
    cluster.list("a", bound.addresses.grpc, bound.addresses.peer.unwrap());
    cluster.serves("a", admin).await;
    wait("it owns everything", async || on_ring(&serde_json::from_str(&page(admin, "/members").await.1).unwrap()) == 1)
        .await;
    let client = test_cluster::client(bound.addresses.grpc);
    client.store("key", "value", StoreOptions::default()).await.unwrap();
    bound.shutdown.now().await;
}

#[tokio::test]
async fn the_last_ones_end_without_waiting_for_somebody_to_take_over() {
    let cluster = TestCluster::of(2).await;
    fill(&cluster.client("a")).await;
    let began = std::time::Instant::now();
    cluster.end().await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_replica_of_another_cluster_is_refused() {
    let mut cluster = TestCluster::of(2).await;
    cluster.start("stranger", &["--cluster=another"]).await;
    // Nobody clears it, so it is never ready; and the others go on without it.
    let admin = cluster.replicas["stranger"].addresses.admin;
    wait("it has the list", async || page(admin, "/members").await.1.contains("\"stranger\"")).await;
    fill(&cluster.client("a")).await;
    all_there(&cluster.client("b")).await;
    assert_eq!(page(admin, "/readyz").await.0, 503);
    cluster.end().await;
}

#[tokio::test]
async fn one_that_stood_still_comes_back_empty_under_another_boot() {
    let mut cluster = TestCluster::of(2).await;
    let process = Process::join(&mut cluster, "still", &[]).await;
    cluster.settled_as(3).await;
    let boot = member(&cluster.page_of("a").await, "still").unwrap()["boot"].as_u64().unwrap();

    process.signal("STOP");
    wait("the others take it for lost", async || {
        member(&cluster.page_of("a").await, "still").is_some_and(|member| member["state"] == "gone")
    })
    .await;
    fill(&cluster.client("a")).await;
    process.signal("CONT");
    cluster.settled_as(3).await;
    let page_of_it = page(process.admin, "/metrics").await.1;
    assert_eq!(metric(&page_of_it, "larder_fences_total"), 1);
    assert!(member(&cluster.page_of("a").await, "still").unwrap()["boot"].as_u64().unwrap() > boot);
    all_there(&test_cluster::client(process.grpc)).await;
    drop(process);
    cluster.end().await;
}
