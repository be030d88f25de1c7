//! The tutorial's API, as a client generated from its file sees it.

use base64::Engine as _;
use larder::rpc::proto::tutorial as rpc;
use larder::rpc::proto::tutorial::accounts_client::AccountsClient;
use prost::Message as _;
use tonic::{Code, Status};

use crate::asking::all;
use crate::raw::{Raw, framed};
use crate::support::{OTHER, READ_ONLY, TOKEN, TestServer};

fn store(key: &str, token: &str) -> rpc::StoreReq {
    rpc::StoreReq { key: key.into(), val: key.to_owned().into(), account_token: token.into() }
}

fn get(key: &str) -> rpc::GetReq {
    rpc::GetReq { key: key.into() }
}

/// The tutorial's own error, from its trailer.
fn error(status: &Status) -> rpc::Error {
    let text = status.metadata().get("rpc-error").expect("the trailer `rpc-error`").to_str().unwrap();
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    rpc::Error::decode(bytes.as_slice()).unwrap()
}

#[tokio::test]
async fn all_callers_share_one_key_space_and_a_token_says_whose_quota_counts() {
    let server = TestServer::builder().account(|account| account.max_cache_keys = 2).start();
    let mut cache = server.tutorial().await;
    cache.store(store("a", TOKEN)).await.unwrap();
    cache.store(store("b", TOKEN)).await.unwrap();
    let over = cache.store(store("c", TOKEN)).await.unwrap_err();
    assert_eq!(over.code(), Code::FailedPrecondition);
    cache.store(store("c", OTHER)).await.unwrap();
    cache.store(store("d", "")).await.unwrap();
    // Overwriting needs no room, whoever does it.
    cache.store(store("d", TOKEN)).await.unwrap();
    assert_eq!(cache.get(get("c")).await.unwrap().into_inner().val, "c");
    let mut keys: Vec<String> = Vec::new();
    for item in all(cache.dump(rpc::DumpReq {}).await.unwrap().into_inner()).await {
        assert_eq!(item.val, item.key);
        keys.push(item.key);
    }
    keys.sort();
    assert_eq!(keys, ["a", "b", "c", "d"]);
}

#[tokio::test]
async fn errors_travel_as_status_and_as_trailer() {
    let server = TestServer::start();
    let mut cache = server.tutorial().await;
    for (status, code) in [
        (cache.get(get("missing")).await.unwrap_err(), Code::NotFound),
        (cache.get(get("")).await.unwrap_err(), Code::InvalidArgument),
        (cache.store(store("k", "unknown")).await.unwrap_err(), Code::Unauthenticated),
        (cache.store(store("k", READ_ONLY)).await.unwrap_err(), Code::PermissionDenied),
    ] {
        assert_eq!(status.code(), code);
        let error = error(&status);
        assert_eq!((error.code, error.temporary), (i64::from(code as i32), false));
        assert_eq!(error.messsage, status.message());
        assert!(error.user_error_code > 100);
    }
}

#[tokio::test]
async fn accounts_tell_the_limits_of_a_token() {
    let server = TestServer::builder().account(|account| account.max_cache_keys = 7).start();
    let mut accounts = AccountsClient::new(server.channel().await);
    let asked = rpc::GetByTokenReq { token: TOKEN.into() };
    let account = accounts.get_by_token(asked).await.unwrap().into_inner().account.unwrap();
    assert_eq!(account.max_cache_keys, 7);
    let unknown = accounts.get_by_token(rpc::GetByTokenReq { token: "unknown".into() }).await.unwrap_err();
    assert_eq!((unknown.code(), error(&unknown).code), (Code::Unauthenticated, 16));
}

#[tokio::test]
async fn switched_off_it_is_not_there() {
    let server = TestServer::builder().wall(|wall| wall.tutorial_api = false).start();
    let raw = Raw::connect(&server).await;
    for method in ["rpc.Cache/Store", "rpc.Cache/Get", "rpc.Cache/Dump", "rpc.Accounts/GetByToken"] {
        assert_eq!(raw.call(method, &[], framed(0, b"")).await.code(), Code::Unimplemented, "{method}");
    }
}
