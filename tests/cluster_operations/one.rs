//! Operations on one key.

use std::time::Duration;

use larder::rpc::failure::Failure;
use larder::rpc::proto::{tutorial, v1};
use tonic::Request;

use crate::asking::{failure, get, increment, store};
use crate::entry::{at, channel, key_of, owner, uids, with_account, with_flags};
use crate::script::play;
use crate::support::TestServer;
use crate::test_cluster::TestCluster;

#[tokio::test]
async fn every_operation_at_every_replica_answers_what_one_alone_does() {
    let (alone, cluster) = (TestServer::start(), TestCluster::of(3).await);
    let mut expected = alone.client().await;
    let mut round = 0;
    for entry in uids(&cluster) {
        let mut client = at(&cluster, &entry).await;
        for owner in uids(&cluster) {
            round += 1;
            let key = key_of(&cluster, &owner, &format!("key-{round}"));
            let (expected, got) = (play(&mut expected, &key).await, play(&mut client, &key).await);
            assert_eq!(got, expected, "at {entry}, owned by {owner}");
        }
    }
    let mut forwarded = 0;
    for uid in uids(&cluster) {
        forwarded +=
            cluster.metric(&uid, "larder_calls_carried_out_total{method=\"larder.v1.Cache/Get\",code=\"Ok\"}").await;
    }
    assert!(forwarded > 0, "nothing was forwarded");
}

#[tokio::test]
async fn what_one_replica_stored_every_other_reads() {
    let cluster = TestCluster::of(3).await;
    let all = uids(&cluster);
    for writer in &all {
        for i in 0..20 {
            at(&cluster, writer).await.store(store(&format!("{writer}-{i}"), writer.clone())).await.unwrap();
        }
    }
    for reader in &all {
        let mut client = at(&cluster, reader).await;
        for writer in &all {
            for i in 0..20 {
                let got = client.get(get(&format!("{writer}-{i}"))).await.unwrap().into_inner();
                assert_eq!(got.val, *writer);
            }
        }
    }
}

#[tokio::test]
async fn an_increment_repeated_at_another_replica_is_applied_once() {
    let cluster = TestCluster::of(3).await;
    for counter in 0..6 {
        let counter = format!("counter-{counter}");
        let mut answers = Vec::new();
        for entry in uids(&cluster) {
            let counted = at(&cluster, &entry).await.increment(increment(&counter, 5, "once")).await.unwrap();
            answers.push(counted.into_inner());
        }
        assert!(answers.iter().all(|answer| *answer == answers[0] && answer.value == 5), "{answers:?}");
    }
}

#[tokio::test]
async fn the_largest_value_goes_through_a_forward() {
    let cluster = TestCluster::of(2).await;
    let key = key_of(&cluster, "b", "large");
    let val: Vec<u8> =
        (0..4 * 1024 * 1024 - 64 * 1024 - key.len()).map(|i| u8::try_from(i * 31 % 251).unwrap()).collect();
    let mut client = at(&cluster, "a").await;
    client.store(store(&key, val.clone())).await.unwrap();
    assert_eq!(client.get(get(&key)).await.unwrap().into_inner().val, val);
    assert_eq!(owner(&cluster, &key), "b");
}

#[tokio::test]
async fn the_tutorials_keys_are_everybodys_at_every_replica() {
    let cluster = with_flags(3, &["--tutorial-api"]).await;
    let all = uids(&cluster);
    for (i, writer) in (0..30).zip(all.iter().cycle()) {
        let mut client = tutorial::cache_client::CacheClient::new(channel(&cluster, writer).await);
        let request = tutorial::StoreReq {
            key: format!("k{i}"),
            val: "v".into(),
            account_token: if i % 2 == 0 { crate::support::TOKEN.into() } else { String::new() },
        };
        client.store(request).await.unwrap();
    }
    for reader in &all {
        let mut client = tutorial::cache_client::CacheClient::new(channel(&cluster, reader).await);
        for i in 0..30 {
            assert_eq!(client.get(tutorial::GetReq { key: format!("k{i}") }).await.unwrap().into_inner().val, "v");
        }
        let missing = client.get(tutorial::GetReq { key: "none".into() }).await;
        assert_eq!(failure(missing), Failure::NotFound);
        let dumped = crate::asking::all(client.dump(tutorial::DumpReq {}).await.unwrap().into_inner()).await;
        let mut keys: Vec<String> = dumped.into_iter().map(|item| item.key).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 30);
        let stats = at(&cluster, reader).await.stats(v1::StatsRequest {}).await.unwrap().into_inner();
        assert_eq!((stats.keys, stats.missing_replicas.len()), (15, 0), "half of them are charged to `one`");
    }
}

#[tokio::test]
async fn a_quota_holds_for_all_replicas_together() {
    let cluster = with_account(3, |account| account.max_cache_keys = 100).await;
    let all = uids(&cluster);
    let mut tasks = tokio::task::JoinSet::new();
    for entry in &all {
        let mut client = at(&cluster, entry).await;
        let entry = entry.clone();
        tasks.spawn(async move {
            let mut stored = 0;
            for i in 0..60 {
                match client.store(store(&format!("{entry}-{i}"), "v")).await {
                    Ok(_) => stored += 1,
                    Err(status) => {
                        let full = Failure::QuotaKeys { account: "one".into(), limit: 100 };
                        assert_eq!(larder::rpc::status::failure_of(&status), full);
                    }
                }
            }
            stored
        });
    }
    let stored: u64 = tasks.join_all().await.into_iter().sum();
    assert_eq!(stored, 100);
    let stats = at(&cluster, "a").await.stats(v1::StatsRequest {}).await.unwrap().into_inner();
    assert_eq!((stats.keys, stats.max_cache_keys), (100, 100));
}

#[tokio::test]
async fn a_dry_run_changes_nothing_at_the_owner_either() {
    let cluster = TestCluster::of(2).await;
    let key = key_of(&cluster, "b", "dry");
    let mut client = at(&cluster, "a").await;
    let stored = client.store(crate::support::dry_run(store(&key, "v"))).await.unwrap().into_inner();
    assert_eq!(stored.version, 0);
    assert_eq!(failure(client.get(get(&key)).await), Failure::NotFound);
}

#[tokio::test]
async fn a_call_whose_time_is_over_is_not_carried_out_by_the_owner() {
    let cluster = TestCluster::of(2).await;
    let key = key_of(&cluster, "b", "late");
    let mut request = Request::new(store(&key, "v"));
    request.set_timeout(Duration::from_nanos(1));
    let late = failure(at(&cluster, "a").await.store(request).await);
    assert_eq!(late.reason(), "DEADLINE_EXCEEDED");
    assert_eq!(failure(at(&cluster, "b").await.get(get(&key)).await), Failure::NotFound);
}
