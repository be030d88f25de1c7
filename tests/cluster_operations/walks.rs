//! Dump, clear and delete by prefix over the whole cluster.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use larder::rpc::proto::v1;

use crate::asking::{all, store};
use crate::entry::{at, uids};
use crate::support::Client;
use crate::test_cluster::TestCluster;

async fn fill(client: &mut Client, prefix: &str, keys: usize) {
    let item = |i| v1::BatchStoreItem { store: Some(store(&format!("{prefix}{i}"), format!("v{i}"))), context: None };
    for from in (0..keys).step_by(5000) {
        let items = (from..keys.min(from + 5000)).map(item).collect();
        let answers = all(client.batch_store(v1::BatchStoreRequest { items }).await.unwrap().into_inner()).await;
        let stored = answers.iter().flat_map(|answer| &answer.results);
        let stored = stored.filter(|one| matches!(one.result, Some(v1::batch_store_result::Result::Store(_))));
        assert_eq!(stored.count(), keys.min(from + 5000) - from);
    }
}

/// Dumps, at another replica after each `items`; answers how often each key came.
async fn dump(clients: &mut [Client], prefix: &str, items: usize) -> BTreeMap<String, u32> {
    let mut seen = BTreeMap::new();
    let mut cursor = bytes::Bytes::new();
    for i in 0.. {
        let client = &mut clients[i % clients.len()];
        let request = v1::DumpRequest { prefix: prefix.into(), cursor: cursor.clone() };
        let mut stream = client.dump(request).await.unwrap().into_inner();
        let mut came = 0;
        loop {
            let Some(item) = stream.message().await.unwrap() else { return seen };
            assert_eq!(item.val, item.key.replacen(prefix, "v", 1));
            *seen.entry(item.key).or_default() += 1;
            cursor = item.cursor;
            came += 1;
            if came == items {
                break;
            }
        }
    }
    seen
}

#[tokio::test]
async fn a_dump_has_every_key_once_at_every_replica_and_goes_on_at_another() {
    let cluster = TestCluster::of(3).await;
    let mut clients = Vec::new();
    for uid in uids(&cluster) {
        clients.push(at(&cluster, &uid).await);
    }
    fill(&mut clients[0], "k", 2000).await;
    fill(&mut clients[1], "other", 100).await;
    for first in 0..clients.len() {
        for items in [usize::MAX, 300] {
            clients.rotate_left(first);
            let seen = dump(&mut clients, "k", items).await;
            assert_eq!(seen.len(), 2000);
            assert!(seen.values().all(|times| *times == 1));
        }
    }
    let stats = clients[2].stats(v1::StatsRequest {}).await.unwrap().into_inner();
    assert_eq!((stats.keys, stats.missing_replicas.len()), (2100, 0));
    says_all_of_every_member(&stats);
}

#[tokio::test]
async fn clear_and_delete_by_prefix_remove_everything_everywhere() {
    let cluster = TestCluster::of(3).await;
    let mut client = at(&cluster, "a").await;
    fill(&mut client, "k", 1000).await;
    fill(&mut client, "x", 500).await;
    let request = v1::DeletePrefixRequest { prefix: "k".into() };
    let progress =
        all(client.delete_prefix(crate::support::dry_run(request.clone())).await.unwrap().into_inner()).await;
    assert_eq!(progress.last().map(|last| (last.deleted, last.done)), Some((1000, true)));
    let progress = all(client.delete_prefix(request).await.unwrap().into_inner()).await;
    assert_eq!(progress.last().map(|last| (last.deleted, last.done)), Some((1000, true)));
    let mut other = at(&cluster, "b").await;
    let progress = all(other.clear(v1::ClearRequest {}).await.unwrap().into_inner()).await;
    assert_eq!(progress.last().map(|last| (last.deleted, last.done)), Some((500, true)));
    assert_eq!(other.stats(v1::StatsRequest {}).await.unwrap().into_inner().keys, 0);
}

#[tokio::test]
async fn a_dump_has_every_lasting_key_once_while_replicas_come_and_go_under_writes() {
    let mut cluster = TestCluster::of(2).await;
    let mut clients = [at(&cluster, "a").await, at(&cluster, "b").await];
    fill(&mut clients[0], "k", 20_000).await;
    let over = Arc::new(AtomicBool::new(false));
    let (mut writer, stop) = (at(&cluster, "a").await, Arc::clone(&over));
    let writes = tokio::spawn(async move {
        for i in 0_u64.. {
            if stop.load(Ordering::Relaxed) {
                return i;
            }
            // Lasting keys are overwritten, others come and go.
            writer.store(store(&format!("k{}", i % 20_000), format!("v{}", i % 20_000))).await.unwrap();
            writer.store(store(&format!("z{i}"), "")).await.unwrap();
            writer.delete(crate::asking::delete(&format!("z{i}"))).await.unwrap();
        }
        0
    });
    let stop = Arc::clone(&over);
    let dumps = tokio::spawn(async move {
        let mut dumps = 0;
        while !stop.load(Ordering::Relaxed) {
            for items in [usize::MAX, 3000] {
                let seen = dump(&mut clients, "k", items).await;
                assert_eq!(seen.len(), 20_000);
                let twice: Vec<_> = seen.iter().filter(|(_, times)| **times != 1).collect();
                assert!(twice.is_empty(), "{twice:?}");
                dumps += 1;
            }
        }
        dumps
    });
    cluster.join("c").await;
    cluster.settled().await;
    cluster.join("d").await;
    cluster.leave("c").await;
    cluster.settled().await;
    cluster.leave("d").await;
    cluster.settled().await;
    over.store(true, Ordering::Relaxed);
    assert!(writes.await.unwrap() > 0);
    assert!(dumps.await.unwrap() > 0);
}

/// The figures of the members add up to those of the cluster.
fn says_all_of_every_member(stats: &v1::StatsResponse) {
    let members = &stats.members;
    assert_eq!(members.len(), 3);
    assert_eq!(members.iter().map(|its| its.keys).sum::<u64>(), stats.keys);
    assert_eq!(members.iter().map(|its| its.bytes).sum::<u64>(), stats.bytes);
    assert!((members.iter().map(|its| its.share).sum::<f64>() - 1.0).abs() < 1e-9);
    for its in members {
        let (member, replica) = (its.member.as_ref().unwrap(), its.replica.as_ref().unwrap());
        assert!(member.in_ring && member.state() == v1::MemberState::Serving, "{member:?}");
        assert!(replica.entries == its.keys && replica.calls > 0 && !replica.handing_off, "{its:?}");
    }
    assert_eq!(members[0].replica, stats.replica);
}
