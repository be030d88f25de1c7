//! Operations on one key.

use std::time::Duration;

use larder::cache::version::Version;
use larder::rpc::failure::Failure;
use larder::rpc::proto::v1::{self, StoreCondition, TouchMode};
use larder::server::method::Method;
use tonic::Code;

use crate::asking::{delete, failure, get, increment, store, touch};
use crate::support::{OTHER, TestServer};

#[tokio::test]
async fn what_was_stored_is_got_with_its_version() {
    let server = TestServer::start();
    let mut client = server.client().await;
    for value in [vec![], b"v".to_vec(), vec![7; 300_000], vec![9; 4 * 1024 * 1024 - 64 * 1024 - 1]] {
        let version = client.store(store("k", value.clone())).await.unwrap().into_inner().version;
        let got = client.get(get("k")).await.unwrap().into_inner();
        assert_eq!(got, v1::GetResponse { val: value.into(), version, remaining_ttl_ms: 0 });
    }
    assert_eq!(failure(client.get(get("other")).await), Failure::NotFound);
    // Large values too, whose calls last until the client has them.
    crate::support::eventually("four gets are over", || server.wall.metrics.calls(Method::Get, Code::Ok) == 4).await;
    assert_eq!(server.wall.metrics.in_progress(Method::Get), 0);
}

#[tokio::test]
async fn keys_of_two_accounts_never_meet() {
    let server = TestServer::start();
    server.client().await.store(store("k", "v")).await.unwrap();
    assert_eq!(failure(server.client_with(OTHER).await.get(get("k")).await), Failure::NotFound);
}

#[tokio::test]
async fn a_store_obeys_its_condition() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let with = |condition: StoreCondition, expected_version| v1::StoreRequest {
        condition: condition.into(),
        expected_version,
        ..store("k", "v")
    };
    assert_eq!(failure(client.store(with(StoreCondition::IfPresent, 0)).await), Failure::NotFound);
    let first = client.store(with(StoreCondition::IfAbsent, 0)).await.unwrap().into_inner().version;
    assert_eq!(failure(client.store(with(StoreCondition::IfAbsent, 0)).await), Failure::AlreadyExists);
    let second = client.store(with(StoreCondition::IfVersion, first)).await.unwrap().into_inner().version;
    assert!(second > first);
    let stale = failure(client.store(with(StoreCondition::IfVersion, first)).await);
    assert_eq!(stale, Failure::VersionMismatch { current: Version::from_u64(second) });
    client.store(with(StoreCondition::IfPresent, 0)).await.unwrap();
}

#[tokio::test]
async fn an_entry_lives_as_long_as_its_ttl() {
    let server = TestServer::builder().manual_clock().start();
    let mut client = server.client().await;
    client.store(v1::StoreRequest { ttl_ms: 1000, ..store("k", "v") }).await.unwrap();
    server.advance(Duration::from_millis(999));
    assert_eq!(client.get(get("k")).await.unwrap().into_inner().remaining_ttl_ms, 1);
    server.advance(Duration::from_millis(1));
    assert_eq!(failure(client.get(get("k")).await), Failure::NotFound);
}

#[tokio::test]
async fn an_account_has_a_default_and_a_maximum_ttl() {
    let server = TestServer::builder()
        .account(|account| {
            account.default_ttl_ms = 50;
            account.max_ttl_ms = 100;
        })
        .manual_clock()
        .start();
    let mut client = server.client().await;
    client.store(store("k", "v")).await.unwrap();
    assert_eq!(client.get(get("k")).await.unwrap().into_inner().remaining_ttl_ms, 50);
    let long = client.store(v1::StoreRequest { ttl_ms: 101, ..store("k", "v") }).await;
    assert_eq!(failure(long), Failure::TtlTooLong { asked_ms: 101, max_ms: 100 });
}

#[tokio::test]
async fn a_touch_overwrites_extends_or_shortens() {
    let server = TestServer::builder().manual_clock().start();
    let mut client = server.client().await;
    assert_eq!(failure(client.touch(touch("k", 1, TouchMode::Overwrite)).await), Failure::NotFound);
    client.store(v1::StoreRequest { ttl_ms: 1000, ..store("k", "v") }).await.unwrap();
    for (ttl_ms, mode, changed, remaining) in [
        (500, TouchMode::ExtendOnly, false, 1000),
        (2000, TouchMode::ExtendOnly, true, 2000),
        (3000, TouchMode::ShortenOnly, false, 2000),
        (700, TouchMode::ShortenOnly, true, 700),
        (5000, TouchMode::Overwrite, true, 5000),
        (0, TouchMode::Overwrite, true, 0),
    ] {
        let touched = client.touch(touch("k", ttl_ms, mode)).await.unwrap().into_inner();
        assert_eq!((touched.changed, touched.remaining_ttl_ms), (changed, remaining), "{ttl_ms} {mode:?}");
    }
}

#[tokio::test]
async fn an_increment_with_a_request_id_is_applied_once() {
    let server = TestServer::start();
    let mut client = server.client().await;
    for (delta, id, value) in [(5, "a", 5), (5, "a", 5), (-2, "b", 3), (5, "a", 5), (1, "", 4), (1, "", 5)] {
        let counted = client.increment(increment("n", delta, id)).await.unwrap().into_inner();
        assert_eq!(counted.value, value, "{delta} {id}");
    }
    assert_eq!(client.get(get("n")).await.unwrap().into_inner().val, "5");
    client.store(store("n", "five")).await.unwrap();
    assert_eq!(failure(client.increment(increment("n", 1, "")).await), Failure::NotACounter);
    client.store(store("n", i64::MAX.to_string())).await.unwrap();
    assert_eq!(failure(client.increment(increment("n", 1, "")).await), Failure::CounterOverflow);
}

#[tokio::test]
async fn a_delete_is_idempotent_unless_it_names_a_version() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let version = client.store(store("k", "v")).await.unwrap().into_inner().version;
    let stale = client.delete(v1::DeleteRequest { key: "k".into(), if_version: version + 1 }).await;
    assert_eq!(failure(stale), Failure::VersionMismatch { current: Version::from_u64(version) });
    assert!(client.delete(delete("k")).await.unwrap().into_inner().existed);
    assert!(!client.delete(delete("k")).await.unwrap().into_inner().existed);
}

#[tokio::test]
async fn an_account_is_held_to_its_keys_and_bytes_exactly() {
    let server = TestServer::builder()
        .account(|account| {
            account.max_cache_keys = 2;
            account.max_bytes = 10;
        })
        .start();
    let mut client = server.client().await;
    client.store(store("a", "1")).await.unwrap();
    client.store(store("b", "1")).await.unwrap();
    let third = failure(client.store(store("c", "1")).await);
    assert_eq!(third, Failure::QuotaKeys { account: "one".into(), limit: 2 });
    client.store(store("a", "1234567")).await.unwrap();
    let larger = failure(client.store(store("a", "12345678")).await);
    assert_eq!(larger, Failure::QuotaBytes { account: "one".into(), limit: 10 });
    let stats = client.stats(v1::StatsRequest {}).await.unwrap().into_inner();
    assert_eq!((stats.account_id.as_str(), stats.keys, stats.bytes), ("one", 2, 10));
    assert_eq!((stats.max_cache_keys, stats.max_bytes), (2, 10));
    let replica = stats.replica.unwrap();
    assert_eq!((replica.entries, replica.connections), (2, 1));
}

#[tokio::test]
async fn bad_requests_are_refused_with_their_reason() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let long = "k".repeat(4097);
    let huge = vec![0; 4 * 1024 * 1024 - 64 * 1024];
    let refused = [
        failure(client.store(store("", "v")).await),
        failure(client.get(get(&long)).await),
        failure(client.store(store("k", huge)).await),
        failure(client.increment(increment("k", 1, &"i".repeat(65))).await),
    ];
    assert_eq!(
        refused.map(|failure| failure.reason()),
        ["KEY_INVALID", "KEY_INVALID", "ENTRY_TOO_LARGE", "REQUEST_ID_TOO_LONG"]
    );
}
