//! The hand-off's messages.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use futures::future::{FutureExt as _, join};
use larder::ownership::member::MemberId;
use larder::ownership::message::{Answer, Refusal, Request};
use larder::server::peer::CallError;
use larder::server::peer::links::CALL_TIMEOUT;
use tokio::net::TcpListener;

use crate::pair::{Asker, DIGEST, Owner, Stub, eventually, topology};

#[tokio::test]
async fn a_request_is_answered_under_the_others_stamp() {
    let (asker, owner) = (Asker::new(), Owner::start());
    for _ in 0..3 {
        let (stamp, answer) = asker.call(&owner.address(), &owner.id(), Request::Claim).await.unwrap();
        assert!(matches!(answer, Answer::Cleared { has_copies: true }));
        assert_eq!(
            (stamp.from, stamp.to, stamp.digest, stamp.clock_us),
            (owner.id(), (*asker.desk.me).clone(), DIGEST, 9)
        );
    }
    assert_eq!(owner.wire.stats().accepted(), 1);
}

#[tokio::test]
async fn a_page_delays_neither_a_ping_nor_a_claim() {
    let (asker, owner) = (Asker::new(), Owner::start());
    let (id, address) = (owner.id(), owner.address());
    let pull = Request::Pull { after: None, max_bytes: 1000 };
    let mut page = std::pin::pin!(asker.call(&address, &id, pull));
    for request in [Request::Ping, Request::Claim] {
        tokio::select! {
            _ = &mut page => panic!("the page is not to come"),
            answered = asker.call(&address, &id, request) => assert!(answered.is_ok()),
        }
    }
    assert_eq!(owner.wire.connections(), 3);
}

#[tokio::test]
async fn who_listens_not_or_is_another_has_refused() {
    let (asker, owner) = (Asker::new(), Owner::start());
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let nobody = asker.call(&address, &owner.id(), Request::Claim).await;
    assert_eq!(nobody.err(), Some(CallError::Refused));
    for (refusal, error) in [
        (Refusal::NotMe, CallError::Refused),
        (Refusal::Over, CallError::Refused),
        (Refusal::ClockAhead, CallError::Lost),
    ] {
        *owner.desk.refusal.lock() = Some(refusal);
        let came = asker.call(&owner.address(), &owner.id(), Request::Ping).await;
        assert_eq!(came.err(), Some(error), "{refusal:?}");
    }
}

#[tokio::test]
async fn a_replica_of_another_cluster_says_nothing_that_counts() {
    let (asker, owner) = (Asker::new_as("other", None, Stub::new("a")), Owner::start());
    let came = asker.call(&owner.address(), &owner.id(), Request::Claim).await;
    assert_eq!(came.err(), Some(CallError::Lost));
    assert_eq!((owner.service.stats().strangers.load(SeqCst), owner.desk.stamps.load(SeqCst)), (1, 0));
}

#[tokio::test]
async fn a_refusal_is_from_now_and_never_from_memory() {
    let asker = Asker::new();
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (id, text) = (MemberId::new("b", 1), address.to_string());
    for _ in 0..3 {
        assert_eq!(asker.call(&text, &id, Request::Claim).await.err(), Some(CallError::Refused));
    }
    // Somebody listens there now, and says nothing.
    let listener = TcpListener::bind(address).await.unwrap();
    let ping = asker.call(&text, &id, Request::Ping);
    let (came, _socket) = join(ping, listener.accept()).await;
    assert_eq!(came.err(), Some(CallError::Lost));
}

#[tokio::test]
async fn a_silent_peer_is_lost_to_a_ping_within_its_timeout_and_a_lost_member_at_once() {
    let asker = Asker::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (id, address) = (MemberId::new("b", 1), listener.local_addr().unwrap().to_string());
    let began = tokio::time::Instant::now();
    assert_eq!(asker.call(&address, &id, Request::Ping).await.err(), Some(CallError::Lost));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    let mut claim = std::pin::pin!(asker.call(&address, &id, Request::Claim));
    assert!((&mut claim).now_or_never().is_none());
    let owner = Owner::start();
    let (lost_id, lost_address) = (owner.id(), owner.address());
    let mut pull = Box::pin(asker.call(&lost_address, &lost_id, Request::Pull { after: None, max_bytes: 9 }));
    while owner.service.stats().exchanges.load(SeqCst) == 0 {
        assert!((&mut pull).now_or_never().is_none());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    asker.peers.keep_only(&topology(&[(&id, &address)]));
    let lost = tokio::time::timeout(Duration::from_secs(3), pull).await.unwrap();
    assert_eq!(lost.err(), Some(CallError::Lost));
    eventually("its connection is closed", || owner.wire.connections() == 0).await;
}

#[tokio::test]
async fn a_peer_that_is_there_and_does_not_answer_is_given_up_after_ten_seconds() {
    let (asker, owner) = (Asker::new(), Owner::start());
    let (id, address) = (owner.id(), owner.address());
    let mut pull = Box::pin(asker.call(&address, &id, Request::Pull { after: None, max_bytes: 9 }));
    let heard = eventually("it is heard", || owner.desk.stamps.load(SeqCst) == 1);
    tokio::select! {
        _ = &mut pull => panic!("the page is not to come"),
        () = heard => {}
    }
    tokio::time::pause();
    tokio::time::advance(CALL_TIMEOUT / 2).await;
    assert!((&mut pull).now_or_never().is_none());
    tokio::time::advance(CALL_TIMEOUT / 2).await;
    assert_eq!((&mut pull).now_or_never().expect("its time is over").err(), Some(CallError::Lost));
    tokio::time::resume();
    // The connection is as good as before.
    owner.desk.pages.add_permits(1);
    assert!(asker.call(&address, &id, Request::Pull { after: None, max_bytes: 9 }).await.is_ok());
    assert_eq!(owner.wire.stats().accepted(), 1);
}
