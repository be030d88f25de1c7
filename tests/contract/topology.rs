//! What a replica that is alone says of the members.

use larder::rpc::metadata::TOPOLOGY;
use larder::rpc::proto::v1;
use larder::rpc::proto::v1::topology_client::TopologyClient;
use tonic::{Code, Request};

use crate::asking::store;
use crate::support::{READ_ONLY, TestServer};

fn request(token: &str) -> Request<v1::WatchRequest> {
    let mut request = Request::new(v1::WatchRequest {});
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

#[tokio::test]
async fn a_replica_that_is_alone_says_so_and_gives_no_hints() {
    let server = TestServer::start();
    let mut topology = TopologyClient::new(server.channel().await);
    let mut watch = topology.watch(request(READ_ONLY)).await.unwrap().into_inner();
    let said = watch.message().await.unwrap().unwrap();
    assert_eq!(said, v1::WatchResponse { account_id: "one".to_owned(), digest: 0, members: Vec::new() });
    let stored = server.client().await.store(store("k", "v")).await.unwrap();
    assert_eq!(stored.metadata().get(TOPOLOGY), None);
    server.trigger.start(std::time::Duration::from_secs(9));
    assert_eq!(watch.message().await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn who_shows_no_token_is_told_nothing() {
    let server = TestServer::start();
    let mut topology = TopologyClient::new(server.channel().await);
    let refused = topology.watch(request("of-nobody")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert_eq!(topology.watch(v1::WatchRequest {}).await.unwrap_err().code(), Code::Unauthenticated);
}
