//! Batches and pipelines over all owners.

use std::collections::BTreeSet;
use std::time::Duration;

use larder::rpc::proto::v1::pipeline_call::Operation;
use larder::rpc::proto::v1::pipeline_result::Result as Answer;
use larder::rpc::proto::v1::{self, batch_get_result, batch_store_result};

use crate::asking::{all, delete, get, increment, store};
use crate::entry::{at, key_of, owner, uids, with_flags};
use crate::test_cluster::TestCluster;

/// Over several chunks of results and several turns.
const ITEMS: usize = 3000;

#[tokio::test]
async fn every_item_of_a_batch_over_all_owners_has_its_own_result() {
    let cluster = TestCluster::of(3).await;
    let key = |i: usize| format!("k{i}");
    let owners: BTreeSet<String> = (0..ITEMS).map(|i| owner(&cluster, &key(i))).collect();
    assert_eq!(owners.len(), 3);
    for entry in uids(&cluster) {
        let mut client = at(&cluster, &entry).await;
        let mut items: Vec<_> = (0..ITEMS)
            .map(|i| v1::BatchStoreItem { store: Some(store(&key(i), format!("{entry}{i}"))), context: None })
            .collect();
        items[3].store = Some(store("", "no key"));
        items[4].store.as_mut().unwrap().condition = v1::StoreCondition::IfVersion.into();
        items[4].store.as_mut().unwrap().expected_version = 5;
        items[5].context = Some(v1::CallContext { dry_run: true, ..Default::default() });
        let answers = client.batch_store(v1::BatchStoreRequest { items }).await.unwrap().into_inner();
        let mut results: Vec<_> = all(answers).await.into_iter().flat_map(|answer| answer.results).collect();
        results.sort_by_key(|result| result.index);
        assert_eq!(results.len(), ITEMS);
        for (i, result) in (0..).zip(results) {
            assert_eq!(result.index as usize, i);
            match (i, result.result.unwrap()) {
                (3, batch_store_result::Result::Error(error)) => assert_eq!(error.reason, "KEY_INVALID"),
                (4, batch_store_result::Result::Error(error)) => assert_eq!(error.reason, "VERSION_MISMATCH"),
                (5, batch_store_result::Result::Store(stored)) => assert_eq!(stored.version, 0),
                (_, batch_store_result::Result::Store(stored)) => assert!(stored.version > 0),
                (_, batch_store_result::Result::Error(error)) => panic!("{i}: {error:?}"),
            }
        }
        for reader in uids(&cluster) {
            let mut client = at(&cluster, &reader).await;
            let items = (0..ITEMS).map(|i| v1::BatchGetItem { get: Some(get(&key(i))), context: None }).collect();
            let answers = client.batch_get(v1::BatchGetRequest { items }).await.unwrap().into_inner();
            let results: Vec<_> = all(answers).await.into_iter().flat_map(|answer| answer.results).collect();
            assert_eq!(results.len(), ITEMS);
            for result in results {
                match (result.index, result.result.unwrap()) {
                    (3..=5, batch_get_result::Result::Error(error)) => assert_eq!(error.reason, "NOT_FOUND"),
                    (i, batch_get_result::Result::Get(got)) => assert_eq!(got.val, format!("{entry}{i}")),
                    (i, other) => panic!("{i}: {other:?}"),
                }
            }
        }
    }
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_every_item_of_its_batch() {
    let longest = Duration::from_secs(2);
    let cluster = with_flags(2, &["--max-deadline=2s"]).await;
    let (mut client, key) = (at(&cluster, "a").await, key_of(&cluster, "b", "large"));
    client.store(store(&key, "v".repeat(16 * 1024))).await.unwrap();
    let items = (0..ITEMS).map(|_| v1::BatchGetItem { get: Some(get(&key)), context: None }).collect();
    let answers = client.batch_get(v1::BatchGetRequest { items }).await.unwrap().into_inner();
    // Items that wait for the results of others to be taken begin only after the longest time that a call may take.
    tokio::time::sleep(longest + Duration::from_millis(500)).await;
    let results: Vec<_> = all(answers).await.into_iter().flat_map(|answer| answer.results).collect();
    assert_eq!(results.len(), ITEMS);
    for result in results {
        assert!(matches!(result.result, Some(batch_get_result::Result::Get(_))), "{result:?}");
    }
    cluster.end().await;
}

#[tokio::test]
async fn calls_on_one_key_in_one_pipeline_take_effect_in_the_order_sent() {
    let cluster = TestCluster::of(3).await;
    for entry in uids(&cluster) {
        let mut client = at(&cluster, &entry).await;
        let key = |i: u64| format!("{entry}-{}", i % 7);
        // Store, read and remove each key over and over, in many messages that are all there at once.
        let operation = |i: u64| match i / 7 % 4 {
            0 => Operation::Store(store(&key(i), i.to_string())),
            1 | 2 => Operation::Get(get(&key(i))),
            _ => Operation::Delete(delete(&key(i))),
        };
        let calls: Vec<_> =
            (0..2800).map(|i| v1::PipelineCall { id: i + 1, context: None, operation: Some(operation(i)) }).collect();
        let messages: Vec<_> = calls.chunks(100).map(|calls| v1::PipelineRequest { calls: calls.to_vec() }).collect();
        let answers = client.pipeline(tokio_stream::iter(messages)).await.unwrap().into_inner();
        let mut results: Vec<_> = all(answers).await.into_iter().flat_map(|answer| answer.results).collect();
        results.sort_by_key(|result| result.id);
        assert_eq!(results.len(), calls.len());
        for result in results {
            let i = result.id - 1;
            match (i / 7 % 4, result.result.unwrap()) {
                (0, Answer::Store(_)) => {}
                (turn @ (1 | 2), Answer::Get(got)) => assert_eq!(got.val, (i - turn * 7).to_string()),
                (3, Answer::Delete(deleted)) => assert!(deleted.existed),
                (_, other) => panic!("{i}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_pipeline_counts_every_increment_whoever_owns_the_counter() {
    let cluster = TestCluster::of(3).await;
    let mut client = at(&cluster, "a").await;
    let calls: Vec<_> = (0..1000)
        .map(|i| v1::PipelineCall {
            id: i + 1,
            context: None,
            operation: Some(Operation::Increment(increment(&format!("n{}", i % 10), 1, ""))),
        })
        .collect();
    let answers = client.pipeline(tokio_stream::iter([v1::PipelineRequest { calls }])).await.unwrap().into_inner();
    let results: Vec<_> = all(answers).await.into_iter().flat_map(|answer| answer.results).collect();
    for result in &results {
        let Some(Answer::Increment(counted)) = &result.result else { panic!("{result:?}") };
        // In order: the n-th increment of a counter answers n.
        assert_eq!(counted.value.cast_unsigned(), (result.id - 1) / 10 + 1);
    }
    assert_eq!(results.len(), 1000);
}
