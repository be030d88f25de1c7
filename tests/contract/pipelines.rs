//! The pipeline.

use std::time::Duration;

use larder::rpc::proto::v1;
use larder::rpc::proto::v1::pipeline_call::Operation;
use larder::rpc::proto::v1::pipeline_result::Result as Answer;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::asking::{all, delete, failure, get, increment, store, touch};
use crate::support::{Client, READ_ONLY, TestServer};

fn call(id: u64, operation: Operation) -> v1::PipelineCall {
    v1::PipelineCall { id, context: None, operation: Some(operation) }
}

fn message(calls: Vec<v1::PipelineCall>) -> v1::PipelineRequest {
    v1::PipelineRequest { calls }
}

/// Sends messages, closes, and answers all results by id.
async fn run(client: &mut Client, messages: Vec<v1::PipelineRequest>) -> Vec<v1::PipelineResult> {
    let answers = client.pipeline(tokio_stream::iter(messages)).await.unwrap().into_inner();
    let mut results: Vec<_> = all(answers).await.into_iter().flat_map(|answer| answer.results).collect();
    results.sort_by_key(|result| result.id);
    results
}

fn reason(result: &v1::PipelineResult) -> &str {
    match &result.result {
        Some(Answer::Error(error)) => &error.reason,
        _ => "OK",
    }
}

#[tokio::test]
async fn every_operation_works_in_a_pipeline() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let calls = vec![
        call(1, Operation::Store(store("k", "v"))),
        call(2, Operation::Get(get("k"))),
        call(3, Operation::Touch(touch("k", 9000, v1::TouchMode::Overwrite))),
        call(4, Operation::Delete(delete("k"))),
        call(5, Operation::Increment(increment("n", 3, ""))),
        call(6, Operation::Get(get("k"))),
        call(7, Operation::Get(get(""))),
        v1::PipelineCall { id: 8, context: None, operation: None },
    ];
    let results = run(&mut client, calls.into_iter().map(|call| message(vec![call])).collect()).await;
    let reasons: Vec<&str> = results.iter().map(reason).collect();
    assert_eq!(reasons, ["OK", "OK", "OK", "OK", "OK", "NOT_FOUND", "KEY_INVALID", "FIELD_INVALID"]);
    assert!(matches!(&results[1].result, Some(Answer::Get(got)) if got.val == "v" && got.version > 0));
    assert!(matches!(&results[2].result, Some(Answer::Touch(touched)) if touched.changed));
    assert!(matches!(&results[3].result, Some(Answer::Delete(deleted)) if deleted.existed));
    assert!(matches!(&results[4].result, Some(Answer::Increment(counted)) if counted.value == 3));
}

#[tokio::test]
async fn large_answers_of_one_message_come_in_several() {
    let server = TestServer::start();
    let mut client = server.client().await;
    client.store(store("large", vec![3; 700_000])).await.unwrap();
    let calls = (1..=40).map(|id| call(id, Operation::Get(get("large")))).collect();
    let results = run(&mut client, vec![message(calls)]).await;
    assert_eq!(results.len(), 40);
    assert!(results.iter().all(|one| matches!(&one.result, Some(Answer::Get(got)) if got.val.len() == 700_000)));
}

#[tokio::test]
async fn a_call_that_cannot_be_answered_ends_the_stream() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let one = |id| call(id, Operation::Get(get("k")));
    for calls in [vec![one(0)], vec![one(1), one(2), one(1)]] {
        let mut answers = client.pipeline(tokio_stream::iter(vec![message(calls)])).await.unwrap().into_inner();
        assert_eq!(failure(answers.message().await).reason(), "FIELD_INVALID");
    }
    let many = (1..=1025).map(one).collect();
    let mut answers = client.pipeline(tokio_stream::iter(vec![message(many)])).await.unwrap().into_inner();
    assert_eq!(failure(answers.message().await).reason(), "PIPELINE_SIZE");
}

#[tokio::test]
async fn an_item_has_a_dry_run_and_rights_of_its_own() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let dry = v1::CallContext { dry_run: true, ..Default::default() };
    let calls = vec![
        v1::PipelineCall { context: Some(dry), ..call(1, Operation::Store(store("k", "v"))) },
        call(2, Operation::Get(get("k"))),
    ];
    let results = run(&mut client, vec![message(calls)]).await;
    assert_eq!(results[0].result, Some(Answer::Store(v1::StoreResponse { version: 0 })));
    assert_eq!(reason(&results[1]), "NOT_FOUND");

    let mut reader = server.client_with(READ_ONLY).await;
    let calls = vec![call(1, Operation::Store(store("k", "v"))), call(2, Operation::Get(get("k")))];
    let results = run(&mut reader, vec![message(calls)]).await;
    assert_eq!([reason(&results[0]), reason(&results[1])], ["TOKEN_READ_ONLY", "NOT_FOUND"]);
}

#[tokio::test]
async fn a_thousand_items_on_one_stream_meet_a_limit_of_150_per_second() {
    let server = TestServer::builder()
        .account(|account| {
            account.requests_per_second = 150;
            account.burst = 5;
        })
        .manual_clock()
        .start();
    let mut client = server.client().await;
    let (send, messages) = mpsc::channel(4);
    let mut answers = client.pipeline(ReceiverStream::new(messages)).await.unwrap().into_inner();
    let (mut admitted, mut refused) = (0, 0);
    // Ten messages of a hundred, a tenth of a second apart: the burst, and then 15 a message.
    for round in 0..10 {
        let calls = (1..=100).map(|id| call(round * 100 + id, Operation::Get(get("k")))).collect();
        send.send(message(calls)).await.unwrap();
        let mut seen = 0;
        while seen < 100 {
            for result in answers.message().await.unwrap().unwrap().results {
                seen += 1;
                match &result.result {
                    Some(Answer::Error(error)) if error.reason == "ACCOUNT_RATE" => {
                        assert!(error.retry_after_ms >= 1 && error.temporary);
                        refused += 1;
                    }
                    _ => admitted += 1,
                }
            }
        }
        server.advance(Duration::from_millis(100));
    }
    // The burst of 5 at once; then a tenth of a second gives 15, of which a bucket of 5 keeps 5.
    assert_eq!((admitted, refused), (50, 950));
}

#[tokio::test]
async fn a_withdrawn_token_ends_its_pipeline() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let (send, messages) = mpsc::channel(4);
    let mut answers = client.pipeline(ReceiverStream::new(messages)).await.unwrap().into_inner();
    send.send(message(vec![call(1, Operation::Get(get("k")))])).await.unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap().results.len(), 1);
    server.replace_accounts(&larder::server::accounts::file::File::default());
    send.send(message(vec![call(2, Operation::Get(get("k")))])).await.unwrap();
    assert_eq!(failure(answers.message().await).reason(), "TOKEN_UNKNOWN");
}

#[tokio::test]
async fn a_pipeline_ends_in_good_order_when_its_connection_is_old() {
    let mut builder = TestServer::builder();
    builder.wire.connection_age = Duration::from_millis(100);
    let server = builder.start();
    let mut client = server.client().await;
    let (send, messages) = mpsc::channel(4);
    let mut answers = client.pipeline(ReceiverStream::new(messages)).await.unwrap().into_inner();
    send.send(message(vec![call(1, Operation::Get(get("k")))])).await.unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap().results.len(), 1);
    let last = tokio::time::timeout(crate::support::PATIENCE, answers.message()).await.expect("it goes on");
    assert_eq!(last.unwrap().unwrap().drain, Some(v1::Drain {}));
    assert_eq!(answers.message().await.unwrap(), None);
}

#[tokio::test]
async fn a_drain_is_said_after_every_call_that_was_read_is_answered() {
    let server = TestServer::start();
    let mut client = server.client().await;
    let (send, messages) = mpsc::channel(4);
    let mut answers = client.pipeline(ReceiverStream::new(messages)).await.unwrap().into_inner();
    send.send(message(vec![call(1, Operation::Get(get("k")))])).await.unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap().results.len(), 1);
    server.trigger.start(Duration::from_secs(10));
    let last = answers.message().await.unwrap().unwrap();
    assert_eq!((last.results.len(), last.drain), (0, Some(v1::Drain {})));
    assert_eq!(answers.message().await.unwrap(), None);
}

#[tokio::test]
async fn an_item_that_waited_past_its_own_deadline_is_not_carried_out() {
    let server = TestServer::start();
    let mut client = server.client().await;
    // Answers that the client does not read hold the rest of the message back.
    client.store(store("large", vec![3; 3_000_000])).await.unwrap();
    let mut calls: Vec<_> = (1..=8).map(|id| call(id, Operation::Get(get("large")))).collect();
    let context = v1::CallContext { timeout_ms: 20, ..Default::default() };
    calls.push(v1::PipelineCall { context: Some(context), ..call(9, Operation::Store(store("k", "v"))) });
    let mut answers = client.pipeline(tokio_stream::iter([message(calls)])).await.unwrap().into_inner();
    let first = answers.message().await.unwrap().unwrap();
    assert_eq!(first.results.len(), 1);
    tokio::time::sleep(Duration::from_millis(40)).await;
    let rest: Vec<_> = all(answers).await.into_iter().flat_map(|answer| answer.results).collect();
    assert_eq!(rest.iter().map(reason).collect::<Vec<_>>(), [vec!["OK"; 7], vec!["DEADLINE_EXCEEDED"]].concat());
    assert_eq!(failure(client.get(get("k")).await).reason(), "NOT_FOUND");
}
