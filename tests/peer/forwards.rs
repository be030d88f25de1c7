//! What is forwarded comes back, whatever it is.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use futures::future::join_all;
use larder::cache::key::AccountId;
use larder::ownership::message::Refusal;
use larder::rpc::failure::Failure;
use larder::rpc::trace::Trace;
use larder::server::accounts::Limits;
use larder::server::method::Method;
use larder::server::peer::{Forward, ForwardError, Forwarded};
use tokio::time::Instant;

use crate::pair::{Asker, Echo, Owner, Stub, eventually, get, quota};

#[expect(clippy::unnecessary_wraps, reason = "what a forward comes to")]
fn answer(text: &str) -> Result<Forwarded, ForwardError> {
    Ok(Forwarded::Answer(Ok(text.to_owned().into())))
}

#[tokio::test]
async fn everything_that_belongs_to_a_forward_arrives() {
    let (asker, owner) = (Asker::new(), Owner::start());
    let id = |text| AccountId::new(text).unwrap();
    let trace = Trace::of_texts("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "a=b");
    let limits = Limits { max_keys: Some(3), max_bytes: Some(4), ..Limits::default() };
    let whole = Forward {
        method: Method::TutorialStore,
        space: id("tutorial"),
        payer: Some((id("team-7"), limits)),
        deadline: Some(Instant::now() + Duration::from_secs(30)),
        dry_run: true,
        trace: trace.into(),
        ..get("one")
    };
    for forward in [whole.clone(), get("two"), get(""), whole] {
        let came = asker.peers.forward(&owner.id(), &owner.address(), &forward).await;
        assert_eq!(came, Ok(Forwarded::Answer(Ok(forward.message.clone()))));
        let seen = owner.echo.seen.lock().pop().unwrap();
        assert_eq!((seen.method, &seen.message, &seen.space), (forward.method, &forward.message, &forward.space));
        assert_eq!((&seen.payer, seen.dry_run), (&forward.payer, forward.dry_run));
        assert_eq!(seen.trace.context(), forward.trace.context());
        assert_eq!(seen.deadline.is_some(), forward.deadline.is_some());
        if let (Some(there), Some(here)) = (seen.deadline, forward.deadline) {
            let difference = there.max(here) - there.min(here);
            assert!(difference < Duration::from_secs(5), "{difference:?}");
        }
    }
}

#[tokio::test]
async fn the_forwards_of_one_turn_share_a_message() {
    let (asker, owner) = (Asker::new(), Owner::start());
    let (id, address) = (owner.id(), owner.address());
    let forwards: Vec<Forward> = (0..500).map(|number| get(number.to_string())).collect();
    for turn in 1..=3 {
        let answers = join_all(forwards.iter().map(|forward| asker.peers.forward(&id, &address, forward))).await;
        let expected: Vec<_> = (0..500).map(|number| answer(&number.to_string())).collect();
        assert_eq!(answers, expected);
        let stats = owner.service.stats();
        assert_eq!((stats.messages.load(SeqCst), stats.forwards.load(SeqCst)), (turn, turn * 500));
        // The stamp is looked at once for each message, too.
        assert_eq!(owner.desk.stamps.load(SeqCst), usize::try_from(turn).unwrap());
    }
}

#[tokio::test]
async fn answers_come_in_any_order() {
    let (asker, owner) = (Asker::new(), Owner::start());
    let (id, address) = (owner.id(), owner.address());
    let (first, second) = (get("wait"), get("second"));
    let mut slow = std::pin::pin!(asker.peers.forward(&id, &address, &first));
    tokio::select! {
        _ = &mut slow => panic!("nobody has let it go"),
        quick = asker.peers.forward(&id, &address, &second) => assert_eq!(quick, answer("second")),
    }
    owner.echo.permits.add_permits(1);
    assert_eq!(slow.await, answer("wait"));
}

#[tokio::test]
async fn failures_cross_as_they_are() {
    let (asker, owner) = (Asker::new(), Owner::start());
    for (text, failure) in [("missing", Failure::NotFound), ("full", quota()), ("panic", Failure::Internal)] {
        let came = asker.peers.forward(&owner.id(), &owner.address(), &get(text)).await;
        assert_eq!(came, Ok(Forwarded::Answer(Err(failure))));
    }
    owner.echo.permits.add_permits(1);
    let came = asker.peers.forward(&owner.id(), &owner.address(), &get("wait and panic")).await;
    assert_eq!(came, Ok(Forwarded::Answer(Err(Failure::Internal))));
}

#[tokio::test]
async fn moved_counts_only_with_a_stamp_that_was_accepted() {
    let slow = || Stub { slowly: true, ..Stub::new("a") };
    for desk in [Stub::new("a"), slow()] {
        let owner = Owner::start_as("larder", None, Stub { slowly: desk.slowly, ..Stub::new("b") }, Echo::new());
        let asker = Asker::new_as("larder", None, desk);
        let moved = async || asker.peers.forward(&owner.id(), &owner.address(), &get("moved")).await;
        assert_eq!(moved().await, Ok(Forwarded::Moved));
        *asker.desk.refusal.lock() = Some(Refusal::ClockAhead);
        assert_eq!(moved().await, Err(ForwardError::Refused));
    }
}

#[tokio::test]
async fn what_is_refused_by_its_stamp_was_not_carried_out() {
    for slowly in [false, true] {
        let owner = Owner::start_as("larder", None, Stub { slowly, ..Stub::new("b") }, Echo::new());
        let asker = Asker::new();
        for refusal in [Refusal::NotMe, Refusal::Over, Refusal::ClockAhead] {
            *owner.desk.refusal.lock() = Some(refusal);
            let came = asker.peers.forward(&owner.id(), &owner.address(), &get("x")).await;
            assert_eq!(came, Err(ForwardError::Refused), "{refusal:?}");
        }
        assert!(owner.echo.seen.lock().is_empty());
        *owner.desk.refusal.lock() = None;
        assert_eq!(asker.peers.forward(&owner.id(), &owner.address(), &get("x")).await, answer("x"));
    }
}

#[tokio::test]
async fn a_replica_of_another_cluster_is_refused_and_counted() {
    let (asker, owner) = (Asker::new_as("other", None, Stub::new("a")), Owner::start());
    let came = asker.peers.forward(&owner.id(), &owner.address(), &get("x")).await;
    assert_eq!(came, Err(ForwardError::Refused));
    assert_eq!(owner.service.stats().strangers.load(SeqCst), 1);
    assert!(owner.echo.seen.lock().is_empty());
}

#[tokio::test]
async fn a_forward_that_nobody_waits_for_any_more_harms_no_other() {
    let (asker, owner) = (Asker::new(), Owner::start());
    let (id, address) = (owner.id(), owner.address());
    for _ in 0..10 {
        let (given_up, quick) = (get("wait"), get("quick"));
        let slow = asker.peers.forward(&id, &address, &given_up);
        tokio::select! {
            _ = slow => panic!("nobody has let it go"),
            came = asker.peers.forward(&id, &address, &quick) => assert_eq!(came, answer("quick")),
        }
    }
    owner.echo.permits.add_permits(10);
    eventually("all were carried out", || owner.echo.dropped.load(SeqCst) == 10).await;
    assert_eq!(asker.peers.forward(&id, &address, &get("after")).await, answer("after"));
}

#[tokio::test]
async fn what_has_expired_is_not_carried_out() {
    let (asker, owner) = (Asker::new(), Owner::start());
    let late = Forward { deadline: Some(Instant::now()), ..get("x") };
    let came = asker.peers.forward(&owner.id(), &owner.address(), &late).await;
    assert_eq!(came, Err(ForwardError::Refused));
    assert!(owner.echo.seen.lock().is_empty());
}

#[tokio::test]
async fn the_largest_messages_pass_both_ways() {
    let (asker, owner) = (Asker::new(), Owner::start());
    let (id, address) = (owner.id(), owner.address());
    let largest = larder::cache::limits::MAX_ENTRY_BYTES;
    let requests: Vec<Forward> =
        (0..3).flat_map(|_| [get(vec![b'v'; largest]), get(format!("large {largest}")), get("small")]).collect();
    let came = join_all(requests.iter().map(|forward| asker.peers.forward(&id, &address, forward))).await;
    for (came, lengths) in came.into_iter().zip([largest, largest, 5].into_iter().cycle()) {
        let Ok(Forwarded::Answer(Ok(message))) = came else { panic!("{came:?}") };
        assert_eq!(message.len(), lengths);
    }
}
