//! Batches and removals of many.

use larder::rpc::proto::v1;
use larder::rpc::proto::v1::batch_delete_result::Result::Delete;
use larder::rpc::proto::v1::{batch_get_result, batch_store_result};
use larder::server::method::Method;
use tonic::Code;

use crate::asking::{all, delete, failure, get, store};
use crate::raw::{Raw, framed};
use crate::support::{Client, TestServer};

const MIB: usize = 1024 * 1024;

fn get_items(keys: impl IntoIterator<Item = String>) -> v1::BatchGetRequest {
    let item = |key: String| v1::BatchGetItem { get: Some(v1::GetRequest { key }), context: None };
    v1::BatchGetRequest { items: keys.into_iter().map(item).collect() }
}

fn store_items(keys: impl IntoIterator<Item = String>) -> v1::BatchStoreRequest {
    let item = |key: String| v1::BatchStoreItem { store: Some(store(&key, key.clone())), context: None };
    v1::BatchStoreRequest { items: keys.into_iter().map(item).collect() }
}

async fn fill(client: &mut Client, prefix: &str, keys: usize) {
    let batch = store_items((0..keys).map(|i| format!("{prefix}{i}")));
    let results: Vec<_> = all(client.batch_store(batch).await.unwrap().into_inner()).await;
    let stored = results.iter().flat_map(|message| &message.results);
    assert_eq!(stored.filter(|one| matches!(one.result, Some(batch_store_result::Result::Store(_)))).count(), keys);
}

#[tokio::test]
async fn every_item_of_a_batch_has_its_own_result() {
    let server = TestServer::start();
    let mut client = server.client().await;
    fill(&mut client, "k", 3000).await;
    let mut keys: Vec<String> = (0..3000).map(|i| format!("k{i}")).collect();
    keys[7] = "missing".into();
    keys[8] = String::new();
    let messages = all(client.batch_get(get_items(keys.clone())).await.unwrap().into_inner()).await;
    let mut results: Vec<_> = messages.into_iter().flat_map(|message| message.results).collect();
    results.sort_by_key(|result| result.index);
    assert_eq!(results.len(), keys.len());
    for (i, result) in results.into_iter().enumerate() {
        assert_eq!(result.index as usize, i);
        match result.result.unwrap() {
            batch_get_result::Result::Get(got) => assert_eq!(got.val, keys[i]),
            batch_get_result::Result::Error(error) => {
                assert_eq!(error.reason, if i == 7 { "NOT_FOUND" } else { "KEY_INVALID" });
            }
        }
    }
    let items = [delete("k1"), delete("missing")].map(|one| v1::BatchDeleteItem { delete: Some(one), context: None });
    let deleted = all(client.batch_delete(v1::BatchDeleteRequest { items: items.into() }).await.unwrap().into_inner());
    let existed: Vec<_> = deleted.await.into_iter().flat_map(|message| message.results).collect();
    let answer = |existed| Some(Delete(v1::DeleteResponse { existed }));
    assert_eq!([&existed[0].result, &existed[1].result], [&answer(true), &answer(false)]);
}

#[tokio::test]
async fn a_batch_of_large_values_comes_in_messages_below_1_mib_or_one_value_each() {
    let server = TestServer::start();
    let mut client = server.client().await;
    for (i, bytes) in [100_000, 400_000, 600_000, 200_000, 4 * MIB - 64 * 1024 - 16, 1].into_iter().enumerate() {
        client.store(store(&format!("k{i}"), vec![1; bytes])).await.unwrap();
    }
    let keys = (0..60).map(|i| format!("k{}", i % 6));
    let messages = all(client.batch_get(get_items(keys)).await.unwrap().into_inner()).await;
    assert_eq!(messages.iter().map(|message| message.results.len()).sum::<usize>(), 60);
    for message in messages {
        let bytes = prost::Message::encoded_len(&message);
        assert!(bytes < MIB || message.results.len() == 1, "{bytes} bytes in {} results", message.results.len());
    }
}

#[tokio::test]
async fn a_batch_has_a_size() {
    let server = TestServer::start();
    let mut client = server.client().await;
    for keys in [0, 10_001] {
        let answer = client.batch_get(get_items((0..keys).map(|i| i.to_string()))).await;
        assert_eq!(failure(answer).reason(), "BATCH_SIZE");
    }
    // Two million empty items in one message are not even decoded.
    let raw = Raw::connect(&server).await;
    let flood = framed(0, &[0x0a, 0].repeat(2_000_000));
    assert_eq!(raw.call("larder.v1.Cache/BatchGet", &[], flood.clone()).await.reason(), "BATCH_SIZE");
    assert_eq!(raw.call("larder.v1.Cache/Pipeline", &[], flood).await.reason(), "PIPELINE_SIZE");
}

#[tokio::test]
async fn clear_and_delete_by_prefix_remove_what_they_say() {
    let server = TestServer::start();
    let mut client = server.client().await;
    fill(&mut client, "a/", 2500).await;
    fill(&mut client, "b/", 700).await;
    let slip = client.delete_prefix(v1::DeletePrefixRequest::default()).await;
    assert_eq!(failure(slip).reason(), "FIELD_INVALID");
    let prefix = v1::DeletePrefixRequest { prefix: "a/".into() };
    let progress = all(client.delete_prefix(prefix).await.unwrap().into_inner()).await;
    assert_eq!(progress.last(), Some(&v1::DeletePrefixResponse { deleted: 2500, done: true }));
    assert_eq!(failure(client.get(get("a/1")).await).reason(), "NOT_FOUND");
    client.get(get("b/1")).await.unwrap();
    let progress = all(client.clear(v1::ClearRequest {}).await.unwrap().into_inner()).await;
    assert_eq!(progress.last(), Some(&v1::ClearResponse { deleted: 700, done: true }));
    assert_eq!(client.stats(v1::StatsRequest {}).await.unwrap().into_inner().keys, 0);
}

#[tokio::test]
async fn items_of_a_batch_meet_the_rates_one_by_one() {
    let server = TestServer::builder()
        .account(|account| {
            account.requests_per_second = 150;
            account.burst = 5;
        })
        .manual_clock()
        .start();
    let mut client = server.client().await;
    let messages = all(client.batch_store(store_items((0..1000).map(|i| i.to_string()))).await.unwrap().into_inner());
    let mut reasons = std::collections::BTreeMap::<String, usize>::new();
    for result in messages.await.into_iter().flat_map(|message| message.results) {
        let reason = match result.result.unwrap() {
            batch_store_result::Result::Store(_) => "OK".to_owned(),
            batch_store_result::Result::Error(error) => error.reason,
        };
        *reasons.entry(reason).or_default() += 1;
    }
    assert_eq!(reasons.into_iter().collect::<Vec<_>>(), [("ACCOUNT_RATE".to_owned(), 995), ("OK".to_owned(), 5)]);
    assert_eq!(server.wall.metrics.calls(Method::BatchStoreItem, Code::ResourceExhausted), 995);
}
