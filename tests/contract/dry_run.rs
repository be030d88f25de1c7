//! A dry run makes every check and changes nothing, whatever the method.

use larder::rpc::proto::v1;
use larder::rpc::proto::{tutorial, v1::pipeline_call::Operation};

use crate::asking::{all, delete, failure, get, increment, store, touch};
use crate::support::{Client, TOKEN, TestServer, dry_run};

/// Everything a client can see of the account, and what it uses.
async fn state(client: &mut Client) -> (Vec<v1::DumpItem>, v1::StatsResponse) {
    let items = all(client.dump(v1::DumpRequest::default()).await.unwrap().into_inner()).await;
    let mut stats = client.stats(v1::StatsRequest {}).await.unwrap().into_inner();
    // It counts calls, which a dry run is one of.
    stats.members.clear();
    let v1::ReplicaStats { memory_bytes, hits, misses, .. } = stats.replica.take().unwrap();
    stats.replica = Some(v1::ReplicaStats { memory_bytes, hits, misses, ..Default::default() });
    (items, stats)
}

#[tokio::test]
async fn no_method_changes_anything_in_a_dry_run() {
    let server = TestServer::builder().manual_clock().start();
    let mut client = server.client().await;
    client.store(v1::StoreRequest { ttl_ms: 60_000, ..store("k", "v") }).await.unwrap();
    client.increment(increment("n", 1, "first")).await.unwrap();
    let before = state(&mut client).await;

    assert_eq!(client.get(dry_run(get("k"))).await.unwrap().into_inner().val, "v");
    assert_eq!(failure(client.get(dry_run(get("new"))).await).reason(), "NOT_FOUND");
    assert_eq!(client.store(dry_run(store("new", "v"))).await.unwrap().into_inner().version, 0);
    assert_eq!(client.store(dry_run(store("k", "longer than before"))).await.unwrap().into_inner().version, 0);
    assert!(client.delete(dry_run(delete("k"))).await.unwrap().into_inner().existed);
    let touched = client.touch(dry_run(touch("k", 1, v1::TouchMode::Overwrite))).await.unwrap().into_inner();
    assert_eq!(touched, v1::TouchResponse { remaining_ttl_ms: 1, version: 0, changed: true });
    let counted = client.increment(dry_run(increment("n", 5, "second"))).await.unwrap().into_inner();
    assert_eq!(counted, v1::IncrementResponse { value: 6, version: 0 });

    let items = vec![v1::BatchStoreItem { store: Some(store("new", "v")), context: None }];
    let batch = client.batch_store(dry_run(v1::BatchStoreRequest { items })).await.unwrap().into_inner();
    assert_eq!(all(batch).await[0].results.len(), 1);
    let items = vec![v1::BatchDeleteItem { delete: Some(delete("k")), context: None }];
    let batch = client.batch_delete(dry_run(v1::BatchDeleteRequest { items })).await.unwrap().into_inner();
    assert_eq!(all(batch).await[0].results.len(), 1);
    let calls = [
        Operation::Store(store("new", "v")),
        Operation::Delete(delete("k")),
        Operation::Touch(touch("k", 1, v1::TouchMode::Overwrite)),
        Operation::Increment(increment("n", 5, "third")),
    ];
    let calls = calls.into_iter().zip(1..).map(|(operation, id)| v1::PipelineCall {
        id,
        context: None,
        operation: Some(operation),
    });
    let pipeline = tokio_stream::iter([v1::PipelineRequest { calls: calls.collect() }]);
    let answers = all(client.pipeline(dry_run(pipeline)).await.unwrap().into_inner()).await;
    assert_eq!(answers.iter().map(|answer| answer.results.len()).sum::<usize>(), 4);

    let cleared = all(client.clear(dry_run(v1::ClearRequest {})).await.unwrap().into_inner()).await;
    assert_eq!(cleared.last(), Some(&v1::ClearResponse { deleted: 2, done: true }));
    let prefix = v1::DeletePrefixRequest { prefix: "k".into() };
    let cleared = all(client.delete_prefix(dry_run(prefix)).await.unwrap().into_inner()).await;
    assert_eq!(cleared.last(), Some(&v1::DeletePrefixResponse { deleted: 1, done: true }));

    let mut shared = server.tutorial().await;
    let asked = tutorial::StoreReq { key: "t".into(), val: "v".into(), account_token: TOKEN.into() };
    shared.store(dry_run(asked)).await.unwrap();
    let missing = shared.get(dry_run(tutorial::GetReq { key: "t".into() })).await.unwrap_err();
    assert_eq!(missing.code(), tonic::Code::NotFound);

    assert_eq!(state(&mut client).await, before);
    // What was not applied is not remembered either.
    assert_eq!(client.increment(increment("n", 5, "second")).await.unwrap().into_inner().value, 6);
}

#[tokio::test]
async fn a_dry_run_meets_every_check() {
    let server = TestServer::builder().account(|account| account.max_cache_keys = 1).start();
    let mut client = server.client().await;
    client.store(store("k", "v")).await.unwrap();
    assert_eq!(failure(client.store(dry_run(store("new", "v"))).await).reason(), "QUOTA_KEYS");
    assert_eq!(failure(client.store(dry_run(store("", "v"))).await).reason(), "KEY_INVALID");
    let absent = v1::StoreRequest { condition: v1::StoreCondition::IfAbsent.into(), ..store("k", "v") };
    assert_eq!(failure(client.store(dry_run(absent)).await).reason(), "ALREADY_EXISTS");
    assert_eq!(failure(client.increment(dry_run(increment("k", 1, ""))).await).reason(), "NOT_A_COUNTER");
    let mut reader = server.client_with(crate::support::READ_ONLY).await;
    assert_eq!(failure(reader.delete(dry_run(delete("k"))).await).reason(), "TOKEN_READ_ONLY");
}
