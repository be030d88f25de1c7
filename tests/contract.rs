//! The contract, method by method, through generated clients.

mod support;

use larder::rpc::proto::v1;
use support::TestServer;
use tonic::Code;

fn store(key: &str, val: &'static str) -> v1::StoreRequest {
    v1::StoreRequest { key: key.into(), val: val.into(), ..Default::default() }
}

fn get(key: &str) -> v1::GetRequest {
    v1::GetRequest { key: key.into() }
}

#[tokio::test]
async fn what_was_stored_is_got_with_its_version() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let version = client.store(store("k", "v")).await.unwrap().into_inner().version;
    let got = client.get(get("k")).await.unwrap().into_inner();
    assert_eq!(got, v1::GetResponse { val: "v".into(), version, remaining_ttl_ms: 0 });
    assert_eq!(client.get(get("other")).await.unwrap_err().code(), Code::NotFound);
}
