//! What clients are told when an owner is lost, or nobody owns anything.

use larder::cache::key::{AccountId, Key};
use larder::cache::route::route_hash;
use larder::ring::Ring;
use larder::rpc::failure::Failure;
use larder::rpc::proto::v1;
use larder::rpc::status::failure_of;
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::asking::{failure, get, increment, store};
use crate::entry::at;
use crate::process::Process;
use crate::support::Client;
use crate::test_cluster::{TestCluster, on_ring, page, wait};

/// A key that the replica in a process of its own owns.
fn key_of(process: &Process, cluster: &TestCluster, about: &str) -> String {
    let (others, owner) = (cluster.replicas.values().map(|bound| bound.addresses.grpc), process.grpc.to_string());
    let ring = Ring::new(others.chain([process.grpc]).map(|address| address.to_string()));
    let hash = |key: &str| route_hash(&AccountId::new("one").unwrap(), Key::new(key).unwrap());
    let mut keys = (0..1_000_000).map(|i| format!("{about}-{i}"));
    keys.find(|key| ring.owner_of(hash(key)) == Some(&owner)).unwrap()
}

/// Calls of one kind, under way at the same time.
fn sixteen<F>(client: &Client, call: impl Fn(Client, u32) -> F) -> JoinSet<Result<(), Status>>
where
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let mut calls = JoinSet::new();
    for number in 0..16 {
        calls.spawn(call(client.clone(), number));
    }
    calls
}

fn pushback(status: &Status) -> Option<&str> {
    status.metadata().get("grpc-retry-pushback-ms").map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn an_operation_whose_owner_is_killed_is_repeated_if_that_is_safe_and_else_unknown() {
    let mut cluster = TestCluster::of(2).await;
    let mut lost = Process::join(&mut cluster, "lost", &[]).await;
    cluster.settled_as(3).await;
    let client = at(&cluster, "a").await;
    let key = |about: &str| key_of(&lost, &cluster, about);
    let (plain, condition, counter, named, read) = (key("p"), key("c"), key("n"), key("i"), key("r"));
    client.clone().store(store(&read, "v")).await.unwrap();

    lost.signal("STOP");
    let stores = sixteen(&client, |mut client, _| {
        let request = store(&plain, "v");
        async move { client.store(request).await.map(drop) }
    });
    let conditions = sixteen(&client, |mut client, _| {
        let request = v1::StoreRequest { condition: v1::StoreCondition::IfAbsent.into(), ..store(&condition, "v") };
        async move { client.store(request).await.map(drop) }
    });
    let counts = sixteen(&client, |mut client, _| {
        let request = increment(&counter, 1, "");
        async move { client.increment(request).await.map(drop) }
    });
    let named_counts = sixteen(&client, |mut client, number| {
        let request = increment(&named, 1, &number.to_string());
        async move { client.increment(request).await.map(drop) }
    });
    let reads = sixteen(&client, |mut client, _| {
        let request = get(&read);
        async move { client.get(request).await.map(drop) }
    });
    let stats = client.clone().stats(v1::StatsRequest {}).await.unwrap().into_inner();
    assert_eq!(stats.missing_replicas, [lost.grpc.to_string()], "who does not answer is named");
    lost.child.kill().unwrap();

    let unknown = |outcomes: Vec<Result<(), Status>>, expected: Failure, told: &str| {
        let failures: Vec<Status> = outcomes.into_iter().filter_map(Result::err).collect();
        assert!(!failures.is_empty(), "nothing was under way");
        for status in failures {
            assert_eq!((status.code(), failure_of(&status)), (Code::Unavailable, expected.clone()));
            assert_eq!(pushback(&status), Some(told));
        }
    };
    unknown(stores.join_all().await, Failure::AppliedUnknown { idempotent: true }, "50");
    // The one that is told "unknown" is not repeated, so nobody finds the key taken by itself.
    unknown(conditions.join_all().await, Failure::AppliedUnknown { idempotent: false }, "-1");
    unknown(counts.join_all().await, Failure::AppliedUnknown { idempotent: false }, "-1");
    for outcome in named_counts.join_all().await {
        outcome.unwrap();
    }
    for outcome in reads.join_all().await {
        assert_eq!(failure(outcome), Failure::NotFound, "its keys are lost with it");
    }
    // All sixteen of them, each once: the counter is another replica's now.
    let counted = client.clone().increment(increment(&named, 0, "")).await.unwrap().into_inner();
    assert_eq!(counted.value, 16);
    cluster.end().await;
}

#[tokio::test]
async fn while_nobody_serves_a_call_waits_and_ends_unavailable_at_its_deadline() {
    let mut cluster = TestCluster::empty(&[]);
    let admin = cluster.start("a", &[]).await.addresses.admin;
    wait("it is ready", async || page(admin, "/readyz").await.0 == 200).await;
    let mut client = at(&cluster, "a").await;
    // An item, because a unary call's client has a clock of its own, which may be the first to say so.
    let context = Some(v1::CallContext { timeout_ms: 100, ..Default::default() });
    let items = vec![v1::BatchStoreItem { store: Some(store("k", "v")), context }];
    let mut answers = client.batch_store(v1::BatchStoreRequest { items }).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    let Some(v1::batch_store_result::Result::Error(error)) = &answer.results[0].result else { panic!("{answer:?}") };
    let said = (error.reason.as_str(), error.code, error.retry_after_ms, error.temporary);
    assert_eq!(said, ("NO_OWNER", i64::from(Code::Unavailable as i32), 250, true));

    // Who goes away leaves nothing behind.
    let waits = async || cluster.metric("a", "larder_handoff_waiting_operations").await;
    let (mut caller, mut batch) = (client.clone(), client.clone());
    let call = tokio::spawn(async move { caller.get(get("k")).await });
    let items = (0..10).map(|i| v1::BatchGetItem { get: Some(get(&format!("k{i}"))), context: None }).collect();
    let mut stream = batch.batch_get(v1::BatchGetRequest { items }).await.unwrap().into_inner();
    let next = tokio::spawn(async move { stream.message().await });
    wait("both wait", async || waits().await == 11).await;
    call.abort();
    next.abort();
    wait("nothing waits", async || waits().await == 0).await;

    // And who waits long enough is served.
    let (mut waiting, mut caller) = (client.clone(), client);
    let call = tokio::spawn(async move { waiting.store(store("k", "v")).await });
    wait("it waits", async || waits().await == 1).await;
    cluster.serves("a", admin).await;
    call.await.unwrap().unwrap();
    wait("it owns all", async || on_ring(&cluster.page_of("a").await) == 1).await;
    assert_eq!(caller.get(get("k")).await.unwrap().into_inner().val, "v");
    cluster.end().await;
}
