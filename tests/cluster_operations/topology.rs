//! Who is where, as clients are told.

use larder::rpc::metadata::TOPOLOGY;
use larder::rpc::proto::v1;
use larder::rpc::proto::v1::topology_client::TopologyClient;
use tonic::{Code, Request, Streaming};

use crate::asking::{get, store};
use crate::entry::{at, channel};
use crate::support::TOKEN;
use crate::test_cluster::TestCluster;

async fn watch(cluster: &TestCluster, uid: &str) -> Streaming<v1::WatchResponse> {
    let mut request = Request::new(v1::WatchRequest {});
    request.metadata_mut().insert("authorization", format!("Bearer {TOKEN}").parse().unwrap());
    TopologyClient::new(channel(cluster, uid).await).watch(request).await.unwrap().into_inner()
}

fn on_ring(said: &v1::WatchResponse) -> usize {
    said.members.iter().filter(|member| member.in_ring).count()
}

/// Whatever comes until the ring has so many members.
async fn until(watch: &mut Streaming<v1::WatchResponse>, ring: usize) -> v1::WatchResponse {
    loop {
        let said = watch.message().await.unwrap().unwrap();
        if on_ring(&said) == ring {
            return said;
        }
    }
}

#[tokio::test]
async fn a_watcher_is_told_at_once_and_of_each_change_and_of_the_end() {
    let mut cluster = TestCluster::of(2).await;
    let mut watch = watch(&cluster, "a").await;
    let said = watch.message().await.unwrap().unwrap();
    assert_eq!((said.account_id.as_str(), on_ring(&said)), ("one", 2));
    let addresses: Vec<String> = cluster.replicas.values().map(|bound| bound.addresses.grpc.to_string()).collect();
    assert!(said.members.iter().all(|member| addresses.contains(&member.address)), "{said:?}");
    assert!(said.members.iter().all(|member| member.state() == v1::MemberState::Serving), "{said:?}");

    cluster.join("c").await;
    let more = until(&mut watch, 3).await;
    assert!(more.digest != said.digest && more.digest != 0);
    cluster.leave("c").await;
    until(&mut watch, 2).await;
    let end = tokio::spawn(async move {
        loop {
            if let Err(status) = watch.message().await {
                return status;
            }
        }
    });
    cluster.end().await;
    assert_eq!(end.await.unwrap().code(), Code::Unavailable);
}

#[tokio::test]
async fn every_answer_says_which_view_the_replica_has() {
    let cluster = TestCluster::of(2).await;
    let digest = watch(&cluster, "a").await.message().await.unwrap().unwrap().digest;
    let hint = format!("{digest:016x}");
    let mut client = at(&cluster, "a").await;
    let stored = client.store(store("k", "v")).await.unwrap();
    assert_eq!(stored.metadata().get(TOPOLOGY).unwrap(), hint.as_str());
    let missing = client.get(get("none")).await.unwrap_err();
    assert_eq!(missing.metadata().get(TOPOLOGY).unwrap(), hint.as_str());
    let request = v1::BatchGetRequest { items: vec![v1::BatchGetItem { get: Some(get("k")), context: None }] };
    let batch = client.batch_get(request).await.unwrap();
    assert_eq!(batch.metadata().get(TOPOLOGY).unwrap(), hint.as_str());
    drop(batch);
    cluster.end().await;
}

#[tokio::test]
async fn a_pipeline_says_it_once_and_after_each_change() {
    let mut cluster = TestCluster::of(2).await;
    let mut client = at(&cluster, "a").await;
    let (send, messages) = tokio::sync::mpsc::channel(1);
    let messages = tokio_stream::wrappers::ReceiverStream::new(messages);
    let operation = Some(v1::pipeline_call::Operation::Get(get("none")));
    let request = v1::PipelineRequest { calls: vec![v1::PipelineCall { id: 1, context: None, operation }] };
    send.send(request.clone()).await.unwrap();
    let mut answers = client.pipeline(messages).await.unwrap().into_inner();
    let first = answers.message().await.unwrap().unwrap().topology;
    let watched = watch(&cluster, "a").await.message().await.unwrap().unwrap().digest;
    assert_eq!(first, watched);
    send.send(request.clone()).await.unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap().topology, 0);
    cluster.join("c").await;
    cluster.settled().await;
    send.send(request).await.unwrap();
    assert!(![0, first].contains(&answers.message().await.unwrap().unwrap().topology));
    drop(send);
    cluster.end().await;
}
