//! Limits that hold for the whole cluster, to the last key and byte, whoever is asked.

use std::time::Duration;

use larder::cache::key::{AccountId, Key};
use larder::cache::route::{home_hash, route_hash};
use larder::ring::Ring;
use larder::rpc::failure::Failure;
use larder::rpc::proto::v1::DeleteRequest;
use larder::rpc::status::failure_of;
use larder::server::drain::Outcome;
use tonic::Request;
use tonic::transport::Endpoint;

use crate::asking::{failure, store};
use crate::entry::{at, key_of, uids, with_account};
use crate::process::Process;
use crate::support::{TOKEN, client, dry_run};

fn full(limit: u64) -> Failure {
    Failure::QuotaKeys { account: "one".into(), limit }
}

#[tokio::test]
async fn what_one_replica_deletes_another_may_store_at_once() {
    let cluster = with_account(3, |account| account.max_cache_keys = 6).await;
    for owner in uids(&cluster) {
        for i in 0..2 {
            let key = key_of(&cluster, &owner, &format!("first-{i}"));
            at(&cluster, "a").await.store(store(&key, "v")).await.unwrap();
        }
    }
    for (deletes, stores) in [("a", "b"), ("b", "c"), ("c", "a")] {
        let (old, new) = (key_of(&cluster, deletes, "first-0"), key_of(&cluster, stores, "second"));
        let mut client = at(&cluster, stores).await;
        assert_eq!(failure(client.store(store(&new, "v")).await), full(6));
        assert_eq!(failure(client.store(dry_run(store(&new, "v"))).await), full(6));
        at(&cluster, deletes).await.delete(DeleteRequest { key: old, ..Default::default() }).await.unwrap();
        assert_eq!(client.store(dry_run(store(&new, "v"))).await.unwrap().into_inner().version, 0);
        client.store(store(&new, "v")).await.unwrap();
        client.store(store(&new, "another")).await.unwrap();
        assert_eq!(failure(client.store(store(&format!("{new}-more"), "v")).await), full(6));
    }
    cluster.end().await;
}

#[tokio::test]
async fn a_limit_holds_while_replicas_join_and_leave() {
    let mut cluster = with_account(2, |account| account.max_cache_keys = 50).await;
    let mut stored = 0;
    let mut next = 0;
    for round in 0..3 {
        match round {
            1 => cluster.join("c").await,
            2 => _ = cluster.leave("a").await,
            _ => {}
        }
        // Without waiting for anything to settle.
        let mut refused = 0;
        while stored < 20 * (round + 1).min(2) || (round == 2 && refused == 0) {
            next += 1;
            let entry = uids(&cluster)[next % cluster.replicas.len()].clone();
            match at(&cluster, &entry).await.store(store(&format!("k{next}"), "v")).await {
                Ok(_) => stored += 1,
                Err(status) => {
                    assert_eq!(failure_of(&status), full(50));
                    refused += 1;
                }
            }
        }
    }
    assert_eq!(stored, 50);
    cluster.end().await;
}

#[tokio::test]
async fn bytes_count_over_all_replicas_and_an_overwrite_needs_only_what_it_grows_by() {
    let cluster = with_account(3, |account| account.max_bytes = 3000).await;
    let all = uids(&cluster);
    let keys: Vec<String> = all.iter().map(|owner| key_of(&cluster, owner, "bytes")).collect();
    let used: usize = keys.iter().map(|key| key.len() + 900).sum();
    for key in &keys {
        at(&cluster, "b").await.store(store(key, "v".repeat(900))).await.unwrap();
    }
    let left = 3000 - used;
    let mut client = at(&cluster, "c").await;
    let over = Failure::QuotaBytes { account: "one".into(), limit: 3000 };
    assert_eq!(failure(client.store(store(&keys[0], "v".repeat(900 + left + 1))).await), over);
    client.store(store(&keys[0], "v".repeat(900 + left))).await.unwrap();
    assert_eq!(failure(client.store(store(&keys[1], "v".repeat(901))).await), over);
    client.store(store(&keys[2], "v".repeat(899))).await.unwrap();
    client.store(store(&keys[1], "v".repeat(901))).await.unwrap();
    cluster.end().await;
}

/// Replicas in processes of their own, so that the account's home can be stopped: not as long as others take for death.
#[tokio::test]
async fn while_the_home_says_nothing_a_create_waits_and_is_told_so_before_its_deadline() {
    let mut cluster = with_account(1, |account| account.max_cache_keys = 100).await;
    let mut processes = Vec::new();
    for uid in ["x", "y", "z"] {
        processes.push(Process::join(&mut cluster, uid, &[]).await);
    }
    assert_eq!(cluster.leave("a").await, Outcome::Clean);
    for process in &processes {
        process.settled(3).await;
    }
    let ring = Ring::new(processes.iter().map(|process| process.grpc.to_string()));
    let account = AccountId::new("one").unwrap();
    let home = ring.owner_of(home_hash(&account)).unwrap().to_owned();
    let (home, others): (Vec<_>, Vec<_>) = processes.iter().partition(|process| process.grpc.to_string() == home);
    let owner = others[0].grpc.to_string();
    let is_its = |key: &&String| ring.owner_of(route_hash(&account, Key::new(key).unwrap())) == Some(&owner);
    let key = (0..1_000_000).map(|i| format!("k{i}")).find(|key| is_its(&key)).unwrap();

    home[0].signal("STOP");
    // At the owner itself, and at a replica that forwards.
    for entry in others {
        let channel = Endpoint::from_shared(format!("http://{}", entry.grpc)).unwrap().connect().await.unwrap();
        let mut request = Request::new(store(&key, "v"));
        request.set_timeout(Duration::from_secs(1));
        let status = client(channel, Some(TOKEN)).store(request).await.unwrap_err();
        assert_eq!(failure_of(&status), Failure::QuotaUnknown { account: "one".into() }, "{status}");
        assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "250");
    }
    home[0].signal("CONT");
}
