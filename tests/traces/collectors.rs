//! What a collector can do to a replica, and what it is told: nothing, and no secret.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use larder::rpc::proto::v1;
use tokio::net::TcpListener;

use crate::asking::{all, get, increment, store};
use crate::collector::Collector;
use crate::entry::{at, key_of, with_flags};
use crate::support::{TOKEN, eventually};
use crate::test_cluster::{page, wait};

#[tokio::test]
async fn a_collector_that_takes_connections_and_never_answers_slows_no_call_and_no_end() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let held = tokio::spawn(async move {
        let mut connections = Vec::new();
        while let Ok((connection, _)) = silent.accept().await {
            connections.push(connection);
        }
    });
    let bounds = ["--span-queue=10", "--span-batch=5", "--span-delay=10", "--metrics-interval=10"];
    let cluster = with_flags(1, &[&["--otlp-endpoint", &endpoint][..], &bounds].concat()).await;
    let mut client = at(&cluster, "a").await;
    let began = Instant::now();
    for _ in 0..200 {
        client.get(get("k")).await.unwrap_err();
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    // 10 wait, 5 are in hand, and the queue was emptied once at most while these came.
    let dropped = r#"larder_spans_total{outcome="dropped"}"#;
    wait("spans are dropped", async || cluster.metric("a", dropped).await >= 180).await;
    assert_eq!(cluster.metric("a", r#"larder_spans_total{outcome="exported"}"#).await, 0);
    let ended = Instant::now();
    cluster.end().await;
    assert!(ended.elapsed() < Duration::from_secs(8), "{:?}", ended.elapsed());
    held.abort();
}

#[tokio::test]
async fn what_waits_when_a_replica_ends_is_sent_before_it_is_gone() {
    let collector = Collector::start().await;
    let cluster =
        with_flags(1, &["--otlp-endpoint", &collector.url(), "--span-delay=1h", "--metrics-interval=1h"]).await;
    at(&cluster, "a").await.get(get("k")).await.unwrap_err();
    assert!(collector.spans().is_empty() && collector.metrics().is_empty());
    cluster.end().await;
    assert_eq!(collector.spans().len(), 1);
    assert!(collector.metrics().iter().any(|metric| metric.name == "larder_calls"));
}

#[tokio::test]
async fn no_span_tells_a_key_a_value_or_a_token() {
    const KNOWN: [&str; 14] = [
        "error.type",
        "larder.account.id",
        "larder.dry_run",
        "larder.hop",
        "larder.owner",
        "larder.result",
        "larder.topology.digest",
        "network.peer.address",
        "network.peer.port",
        "rpc.method",
        "rpc.response.status_code",
        "rpc.system.name",
        "server.address",
        "server.port",
    ];
    let collector = Collector::start().await;
    let cluster = with_flags(2, &["--otlp-endpoint", &collector.url(), "--span-delay=10"]).await;
    let mut client = at(&cluster, "a").await;
    for owner in ["a", "b"] {
        let key = key_of(&cluster, owner, "secret-key");
        client.store(store(&key, "secret-value")).await.unwrap();
        client.get(get(&key)).await.unwrap();
        client.increment(increment(&key, 1, "")).await.unwrap_err();
        let items = vec![v1::BatchGetItem { get: Some(get(&key)), context: None }];
        all(client.batch_get(v1::BatchGetRequest { items }).await.unwrap().into_inner()).await;
    }
    client
        .store(v1::StoreRequest { account_token: TOKEN.into(), ..store("secret-key", "secret-value") })
        .await
        .unwrap();
    client.get(v1::GetRequest::default()).await.unwrap_err();
    eventually("all came", || collector.spans().len() >= 18).await;
    let mut names = BTreeSet::new();
    for span in collector.spans() {
        let text = format!("{span:?}");
        assert!(!text.contains("secret") && !text.contains(TOKEN), "{text}");
        names.extend(span.attributes.into_keys());
    }
    let unknown: Vec<_> = names.iter().filter(|name| !KNOWN.contains(&name.as_str())).collect();
    assert!(unknown.is_empty(), "say in docs/operations.md what these tell: {unknown:?}");
    cluster.end().await;
}

#[tokio::test]
async fn the_metrics_that_are_sent_are_those_of_the_page() {
    let collector = Collector::start().await;
    let cluster = with_flags(2, &["--otlp-endpoint", &collector.url(), "--metrics-interval=20"]).await;
    at(&cluster, "a").await.store(store("k", "v")).await.unwrap();
    let named = |name: &str| collector.metrics().into_iter().rev().find(|metric| metric.name == name);
    eventually("a duration came", || {
        named("larder_call_duration_seconds").is_some_and(|metric| format!("{metric:?}").contains("Cache/Store"))
    })
    .await;
    let (_, text) = page(cluster.replicas["a"].addresses.admin, "/metrics").await;
    let shown: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let sent: BTreeSet<String> = collector.metrics().into_iter().map(|metric| metric.name).collect();
    assert_eq!(sent.iter().map(String::as_str).collect::<BTreeSet<_>>(), shown);
    for family in
        ["larder_quota_leases", "larder_view_age_seconds", "process_cpu_seconds", "larder_build", "larder_ring_share"]
    {
        assert!(shown.contains(family), "{family}");
    }
    assert_eq!(named("larder_call_duration_seconds").unwrap().unit, "s");
    cluster.end().await;
}
