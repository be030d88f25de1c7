//! Answers larger than memory should be: what a slow reader costs does not grow with the data. A binary of its own, because
//! it looks at the memory of the whole process.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use larder::rpc::proto::v1;
use support::{Client, TestServer};

const MIB: usize = 1024 * 1024;

/// What a stream may cost: its chunk, the send buffers, the client's window, and the allocator's habits.
const ROOM: usize = 64 * MIB;

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

async fn fill(client: &mut Client, entries: usize) {
    for i in 0..entries {
        let request = v1::StoreRequest { key: format!("k{i}"), val: vec![1; MIB].into(), ..Default::default() };
        client.store(request).await.unwrap();
    }
}

#[tokio::test]
async fn a_batch_and_a_dump_of_much_data_take_little_memory() {
    let server = TestServer::start();
    let mut client = server.client().await;
    fill(&mut client, 100).await;
    let before = resident();
    // A gigabyte of answers to one request.
    let item = |i: usize| {
        let get = Some(v1::GetRequest { key: format!("k{}", i % 100) });
        v1::BatchGetItem { get, context: None }
    };
    let request = v1::BatchGetRequest { items: (0..1000).map(item).collect() };
    let mut batch = client.batch_get(request).await.unwrap().into_inner();
    let mut bytes = 0;
    while let Some(message) = batch.message().await.unwrap() {
        for result in message.results {
            let Some(v1::batch_get_result::Result::Get(got)) = result.result else { panic!("{:?}", result.index) };
            bytes += got.val.len();
        }
        assert!(resident() < before + ROOM, "{} bytes more after {bytes}", resident() - before);
    }
    assert_eq!(bytes, 1000 * MIB);

    // Dumps that nobody reads beyond the first item, twenty at once: two gigabytes, if they were made.
    let mut dumps = Vec::new();
    for _ in 0..20 {
        // Each on a connection of its own: streams of one connection share its window.
        let mut client = server.client().await;
        let mut dump = client.dump(v1::DumpRequest::default()).await.unwrap().into_inner();
        dump.message().await.unwrap().unwrap();
        dumps.push((client, dump));
    }
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert!(resident() < before + 3 * ROOM, "{} bytes more", resident().saturating_sub(before));
}
