//! Dumps.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use larder::rpc::proto::v1;

use crate::asking::{all, failure, store};
use crate::support::{Client, TestServer};

async fn fill(client: &mut Client, keys: usize, bytes: usize) -> BTreeMap<String, Bytes> {
    let mut stored = BTreeMap::new();
    for i in 0..keys {
        let (key, value) = (format!("dir{}/{i}", i % 2), Bytes::from(vec![7; bytes]));
        client.store(store(&key, value.clone())).await.unwrap();
        stored.insert(key, value);
    }
    stored
}

#[tokio::test]
async fn a_dump_has_every_entry_once() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let stored = fill(&mut client, 300, 5000).await;
    let items = all(client.dump(v1::DumpRequest::default()).await.unwrap().into_inner()).await;
    assert_eq!(items.len(), 300);
    let dumped: BTreeMap<String, Bytes> = items.into_iter().map(|item| (item.key, item.val)).collect();
    assert_eq!(dumped, stored);
    let prefix = v1::DumpRequest { prefix: "dir1/".into(), ..Default::default() };
    let items = all(client.dump(prefix).await.unwrap().into_inner()).await;
    assert_eq!(items.iter().filter(|item| item.key.starts_with("dir1/")).count(), 150);
    assert_eq!(items.len(), 150);
}

#[tokio::test]
async fn a_dump_goes_on_after_any_item() {
    let server = TestServer::start();
    let mut client = server.client().await;
    fill(&mut client, 40, 10).await;
    let items = all(client.dump(v1::DumpRequest::default()).await.unwrap().into_inner()).await;
    for (i, item) in items.iter().enumerate() {
        let from = v1::DumpRequest { cursor: item.cursor.clone(), ..Default::default() };
        let rest = all(client.dump(from).await.unwrap().into_inner()).await;
        assert_eq!(rest, items[i + 1..], "after item {i}");
    }
    let nonsense = v1::DumpRequest { cursor: "nonsense".into(), ..Default::default() };
    assert_eq!(failure(client.dump(nonsense).await).reason(), "CURSOR_INVALID");
}

#[tokio::test]
async fn a_dump_ends_when_the_replica_drains_and_its_cursor_still_works() {
    let server = TestServer::start();
    let mut client = server.client().await;
    fill(&mut client, 200, 50_000).await;
    let mut dump = client.dump(v1::DumpRequest::default()).await.unwrap().into_inner();
    let first = dump.message().await.unwrap().unwrap();
    server.trigger.start(Duration::from_secs(10));
    let mut items = 1;
    let ended = loop {
        match dump.message().await {
            Ok(Some(_)) => items += 1,
            Ok(None) => panic!("the dump ended as if it were whole"),
            Err(status) => break status,
        }
    };
    assert!(items < 200, "all {items} came");
    assert_eq!(failure(Err::<(), _>(ended)).reason(), "DRAINING");
    let cursor = larder::cache::cursor::Cursor::from_bytes(&first.cursor);
    assert!(cursor.is_ok());
}
