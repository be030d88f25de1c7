//! A slow peer holds back what is forwarded to it, and nothing else.

use std::sync::atomic::Ordering::SeqCst;

use futures::future::{FutureExt as _, join_all};
use larder::ownership::member::MemberId;
use larder::server::peer::lane::{MAX_FORWARDS, MAX_QUEUED_BYTES, MAX_UNTAKEN_BYTES};
use larder::server::peer::{ForwardError, Forwarded};
use tokio::net::TcpListener;

use crate::pair::{Asker, Owner, eventually, get, topology};

#[tokio::test]
async fn a_peer_that_does_not_read_takes_bounded_memory_and_holds_back_nobody_else() {
    let (asker, owner) = (Asker::new(), Owner::start());
    // It accepts, by the kernel's backlog, and never reads.
    let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (deaf_id, deaf_address) = (MemberId::new("deaf", 1), deaf.local_addr().unwrap().to_string());
    let megabyte = get(vec![0; 1024 * 1024]);
    let room = MAX_QUEUED_BYTES / (1024 * 1024);
    let mut waiting: Vec<_> =
        (0..room + 8).map(|_| Box::pin(asker.peers.forward(&deaf_id, &deaf_address, &megabyte))).collect();
    let at_once: Vec<_> = waiting.iter_mut().filter_map(|forward| forward.now_or_never()).collect();
    assert!(at_once.len() >= 8 && at_once.iter().all(|end| *end == Err(ForwardError::Full)), "{at_once:?}");
    let mut waiting = waiting.split_off(0).into_iter().take(room - 1).collect::<Vec<_>>();
    let quick = get("quick");
    for _ in 0..10 {
        let came = asker.peers.forward(&owner.id(), &owner.address(), &quick).await;
        assert_eq!(came, Ok(Forwarded::Answer(Ok(quick.message.clone()))));
    }
    assert!(waiting.iter_mut().all(|forward| forward.now_or_never().is_none()));
    // It is given up: nothing was written whole, but for a megabyte that the kernel may have taken.
    asker.peers.keep_only(&topology(&[(&owner.id(), &owner.address())]));
    let ends = join_all(waiting).await;
    assert!(ends.iter().filter(|end| **end == Err(ForwardError::Refused)).count() >= room - 3, "{ends:?}");
}

#[tokio::test]
async fn forwards_under_way_are_bounded_and_room_comes_back() {
    let (asker, owner) = (Asker::new(), Owner::start());
    let (id, address, wait) = (owner.id(), owner.address(), get("wait"));
    let all = join_all((0..MAX_FORWARDS + 5).map(|_| asker.peers.forward(&id, &address, &wait)));
    let (ends, ()) = tokio::join!(all, async {
        let seen = || owner.echo.seen.lock().len();
        eventually("all that there is room for is there", || seen() == MAX_FORWARDS).await;
        owner.echo.permits.add_permits(MAX_FORWARDS);
    });
    assert_eq!(ends.iter().filter(|end| **end == Err(ForwardError::Full)).count(), 5);
    assert_eq!(asker.peers.stats().full.load(SeqCst), 5);
    assert!(asker.peers.forward(&id, &address, &get("x")).await.is_ok());
}

#[tokio::test]
async fn large_answers_that_nobody_takes_are_bounded_and_room_comes_back() {
    let (asker, owner) = (Asker::new(), Owner::start());
    let (id, address) = (owner.id(), owner.address());
    let bytes = larder::cache::limits::MAX_ENTRY_BYTES;
    let room = MAX_UNTAKEN_BYTES / bytes;
    let large = get(format!("large {bytes}"));
    for _ in 0..2 {
        let mut forwards: Vec<_> =
            (0..room + 4).map(|_| Box::pin(asker.peers.forward(&id, &address, &large))).collect();
        assert!(forwards.iter_mut().all(|forward| forward.now_or_never().is_none()));
        // Its answer comes after theirs.
        assert!(asker.peers.forward(&id, &address, &get("last")).await.is_ok());
        let ends: Vec<_> = forwards.iter_mut().filter_map(|forward| forward.now_or_never()).collect();
        let full = ends.iter().filter(|end| **end == Err(ForwardError::Full)).count();
        assert_eq!((ends.len(), full), (room + 4, 4));
    }
}
