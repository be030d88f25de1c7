//! The wall in front of accounts that must be asked: two servers, of which one is the other's Accounts service.

use larder::rpc::failure::Failure;
use larder::rpc::proto::{tutorial, v1};
use larder::server::method::Method;
use tonic::Code;

use crate::asking::{all, failure, get, store};
use crate::support::{OTHER, READ_ONLY, TOKEN, TestServer, client};

#[tokio::test]
async fn whoever_calls_first_waits_for_the_accounts_and_the_next_do_not() {
    let accounts = TestServer::start();
    let mut builder = TestServer::builder();
    builder.remote = Some(accounts.address);
    let server = builder.start();
    let mut one = server.client().await;
    for _ in 0..5 {
        one.store(store("k", "v")).await.unwrap();
    }
    assert_eq!(accounts.wall.metrics.calls(Method::GetByToken, Code::Ok), 1);
    assert_eq!(failure(server.client_with("unknown").await.get(get("k")).await), Failure::TokenUnknown);
    assert_eq!(failure(server.client_with(READ_ONLY).await.store(store("k", "w")).await), Failure::TokenReadOnly);
}

#[tokio::test]
async fn every_way_a_token_comes_may_have_to_ask() {
    let accounts = TestServer::start();
    let mut builder = TestServer::builder();
    builder.remote = Some(accounts.address);
    let server = builder.start();
    // In a message of larder.v1, and of the tutorial.
    let in_message = v1::StoreRequest { account_token: OTHER.into(), ..store("k", "v") };
    client(server.channel().await, None).store(in_message).await.unwrap();
    let asked = tutorial::StoreReq { key: "t".into(), val: "v".into(), account_token: TOKEN.into() };
    server.tutorial().await.store(asked).await.unwrap();
    // At the beginning of a stream.
    let mut reader = server.client_with(READ_ONLY).await;
    let calls =
        vec![v1::PipelineCall { id: 1, context: None, operation: Some(v1::pipeline_call::Operation::Get(get("k"))) }];
    let messages = tokio_stream::iter([v1::PipelineRequest { calls }]);
    let answers = all(reader.pipeline(messages).await.unwrap().into_inner()).await;
    assert_eq!(answers.iter().map(|answer| answer.results.len()).sum::<usize>(), 1);
    assert_eq!(accounts.wall.metrics.calls(Method::GetByToken, Code::Ok), 3);
}
