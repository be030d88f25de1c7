//! Items of batches and pipelines are calls: with a trace of their own, they have spans of their own.

use larder::rpc::proto::v1;

use crate::asking::{all, get, store};
use crate::collector::Collector;
use crate::entry::{at, key_of, with_flags};
use crate::hops::{CALLER, CLIENT, SERVER, TRACE, spans, traced};

const OTHER_TRACE: &str = "1bf7651916cd43dd8448eb211c80319c";

fn context(trace: &str, flags: &str) -> v1::CallContext {
    v1::CallContext { traceparent: format!("00-{trace}-{CALLER}-{flags}"), ..Default::default() }
}

#[tokio::test]
async fn an_item_is_in_its_own_trace_or_in_that_of_the_call_it_came_in() {
    let collector = Collector::start().await;
    let flags = ["--otlp-endpoint", &collector.url(), "--span-delay=10", "--traces-sampler=parentbased_always_off"];
    let cluster = with_flags(2, &flags).await;
    let mut client = at(&cluster, "a").await;
    let (here, there) = (key_of(&cluster, "a", "key"), key_of(&cluster, "b", "key"));
    let item = |key: &str, context| v1::BatchGetItem { get: Some(get(key)), context };
    // One of its own, one that is not sampled, and one of the batch.
    let items = vec![
        item(&there, Some(context(OTHER_TRACE, "01"))),
        item(&here, Some(context(OTHER_TRACE, "00"))),
        item(&there, None),
    ];
    all(client.batch_get(traced(v1::BatchGetRequest { items }, "01")).await.unwrap().into_inner()).await;

    let own = spans(&collector, OTHER_TRACE, 3).await;
    let told: Vec<_> = own.iter().map(|span| (span.replica.as_str(), span.name.as_str(), span.kind)).collect();
    let forward = "larder.peer.v1.Peer/Forward";
    assert_eq!(
        told,
        [("a", "larder.v1.Cache/BatchGet/Item", SERVER), ("a", forward, CLIENT), ("b", "larder.v1.Cache/Get", SERVER)]
    );
    assert_eq!(own[0].parent, CALLER);
    assert_eq!(own[0].attributes["larder.result"], "forwarded");
    let batch = spans(&collector, TRACE, 3).await;
    assert_eq!(batch[0].name, "larder.v1.Cache/BatchGet");
    assert_eq!((batch[1].name.as_str(), &batch[1].parent), (forward, &batch[0].id));
    cluster.end().await;
}

#[tokio::test]
async fn a_call_in_a_pipeline_says_what_came_of_it_here() {
    let collector = Collector::start().await;
    let flags = ["--otlp-endpoint", &collector.url(), "--span-delay=10", "--traces-sampler=parentbased_always_off"];
    let cluster = with_flags(1, &flags).await;
    let operation =
        |id, operation| v1::PipelineCall { id, context: Some(context(TRACE, "01")), operation: Some(operation) };
    let calls = vec![
        operation(1, v1::pipeline_call::Operation::Store(store("k", "v"))),
        operation(2, v1::pipeline_call::Operation::Get(get("k"))),
    ];
    let messages = tokio_stream::iter([v1::PipelineRequest { calls }]);
    all(at(&cluster, "a").await.pipeline(messages).await.unwrap().into_inner()).await;
    let spans = spans(&collector, TRACE, 2).await;
    let told: Vec<_> = spans.iter().map(|span| (span.name.as_str(), span.attributes.get("larder.result"))).collect();
    assert_eq!(told, [("larder.v1.Cache/Pipeline/Store", None), ("larder.v1.Cache/Pipeline/Get", Some(&"hit".into()))]);
    assert!(spans.iter().all(|span| span.attributes["larder.account.id"] == "one" && span.parent == CALLER));
    cluster.end().await;
}
