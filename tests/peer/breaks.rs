//! Connections that are refused, break or end.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use futures::future::join_all;
use larder::ownership::member::MemberId;
use larder::ownership::snapshot::Snapshot;
use larder::server::accept::config::DEAD_PATH_TIMEOUT;
use larder::server::drain::Outcome;
use larder::server::peer::lane::IDLE_TIMEOUT;
use larder::server::peer::{ForwardError, Forwarded};
use socket2::{SockFilter, SockRef};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::pair::{Asker, Echo, Owner, Stub, eventually, get, topology, view};

/// An address where nobody listens.
async fn nobody() -> String {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string()
}

#[tokio::test]
async fn where_nobody_listens_a_forward_is_refused_and_is_reached_once_somebody_does() {
    let asker = Asker::new();
    let (id, address) = (MemberId::new("b", 1), nobody().await);
    for _ in 0..3 {
        assert_eq!(asker.peers.forward(&id, &address, &get("x")).await, Err(ForwardError::Refused));
    }
    // The later ones did not try.
    assert_eq!(asker.peers.stats().not_connected.load(SeqCst), 1);
    let owner = Owner::start();
    let reached = async {
        while asker.peers.forward(&id, &owner.address(), &get("x")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reached).await.unwrap();
}

#[tokio::test]
async fn when_a_connection_breaks_what_was_written_whole_is_unknown_and_the_rest_is_refused() {
    // It takes the first message and never gets on with it, so the windows of HTTP/2 fill up.
    let stuck = Stub { slowly: true, stuck: true, ..Stub::new("b") };
    let (asker, owner) = (Asker::new(), Owner::start_as("larder", None, stuck, Echo::new()));
    let (id, address) = (owner.id(), owner.address());
    let (small, large) = (get("small"), get(vec![b'x'; 3_000_000]));
    let (first, rest, ()) = tokio::join!(
        asker.peers.forward(&id, &address, &small),
        async {
            eventually("the first was heard", || owner.desk.stamps.load(SeqCst) == 1).await;
            join_all((0..3).map(|_| asker.peers.forward(&id, &address, &large))).await
        },
        async {
            eventually("the next is on its way", || asker.peers.stats().messages.load(SeqCst) == 2).await;
            tokio::task::yield_now().await;
            owner.drain.force();
        }
    );
    assert_eq!(first, Err(ForwardError::Unknown));
    assert!(rest.iter().all(|end| *end == Err(ForwardError::Refused)), "{rest:?}");
}

#[tokio::test]
async fn whoever_never_greets_was_told_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (id, address) = (MemberId::new("b", 1), listener.local_addr().unwrap().to_string());
    let forward = get("needle in a message");
    for hang_up in [true, false] {
        let asker = Asker::new();
        let (came, ()) = tokio::join!(asker.peers.forward(&id, &address, &forward), async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut heard = Vec::new();
            while !heard.windows(6).any(|bytes| bytes == b"larder") {
                assert!(socket.read_buf(&mut heard).await.unwrap() > 0);
            }
            while !hang_up && socket.read_buf(&mut heard).await.unwrap() > 0 {}
            assert!(!heard.windows(6).any(|bytes| bytes == b"needle"));
        });
        assert_eq!(came, Err(ForwardError::Refused));
    }
}

#[tokio::test]
async fn a_member_that_the_topology_lost_is_given_up_at_once() {
    let (asker, owner) = (Asker::new(), Owner::start());
    let (id, address, wait) = (owner.id(), owner.address(), get("wait"));
    let here = MemberId::new("a", 1);
    let (came, ()) = tokio::join!(asker.peers.forward(&id, &address, &wait), async {
        eventually("it waits there", || owner.echo.seen.lock().len() == 1).await;
        asker.peers.keep_only(&topology(&[(&here, "127.0.0.1:1"), (&id, &address)]));
        tokio::task::yield_now().await;
        asker.peers.keep_only(&topology(&[(&here, "127.0.0.1:1")]));
    });
    assert_eq!(came, Err(ForwardError::Unknown));
    // What it was doing for us is dropped.
    eventually("it is dropped", || owner.echo.dropped.load(SeqCst) == 1).await;
}

#[tokio::test]
async fn who_left_in_good_order_or_tells_its_boot_answers_what_it_was_sent() {
    let here = MemberId::new("a", 1);
    for unheard in [false, true] {
        let (asker, owner) = (Asker::new(), Owner::start());
        let (id, address, wait) = (owner.id(), owner.address(), get("wait"));
        let known_as = if unheard { MemberId { boot: 0, ..id.clone() } } else { id.clone() };
        let members = view(&[(&here, "127.0.0.1:1"), (&id, &address)]);
        let next = if unheard { members } else { members.with_left(&id) };
        let (came, ()) = tokio::join!(asker.peers.forward(&known_as, &address, &wait), async {
            eventually("it waits there", || owner.echo.seen.lock().len() == 1).await;
            asker.peers.keep_only(&Snapshot::new(next));
            tokio::task::yield_now().await;
            owner.echo.permits.add_permits(1);
        });
        assert_eq!(came, Ok(Forwarded::Answer(Ok(wait.message.clone()))), "{unheard}");
        eventually("the stream has ended", || owner.service.stats().streams.load(SeqCst) == 0).await;
        assert_eq!(asker.peers.stats().broken.load(SeqCst), 0);
    }
}

#[tokio::test]
async fn an_answer_that_came_before_the_connection_ended_counts_however_long_its_stamp_is_looked_at() {
    let desk = Stub { slowly: true, stuck: true, ..Stub::new("a") };
    let (asker, owner) = (Asker::new_as("larder", None, desk), Owner::start());
    let (id, address, forward) = (owner.id(), owner.address(), get("x"));
    let (came, ()) = tokio::join!(asker.peers.forward(&id, &address, &forward), async {
        eventually("the answer came", || asker.desk.stamps.load(SeqCst) == 1).await;
        owner.drain.force();
        eventually("the connection has ended", || owner.wire.connections() == 0).await;
        asker.desk.accepts.add_permits(1);
    });
    assert_eq!(came, Ok(Forwarded::Answer(Ok(forward.message.clone()))));
}

#[tokio::test]
async fn a_replica_that_goes_away_answers_what_was_forwarded_and_no_forward_is_lost() {
    let (asker, owner) = (Asker::new(), Owner::start());
    let (id, address) = (owner.id(), owner.address());
    let waits: Vec<_> = (0..50).map(|_| get("wait")).collect();
    let all = join_all(waits.iter().map(|forward| asker.peers.forward(&id, &address, forward)));
    let (ends, outcome, ()) = tokio::join!(
        all,
        async {
            eventually("all wait there", || owner.echo.seen.lock().len() == 50).await;
            owner.drain.drain(Duration::from_secs(20)).await
        },
        async {
            eventually("the port is closed", || std::net::TcpStream::connect(&address).is_err()).await;
            owner.echo.permits.add_permits(50);
        }
    );
    assert!(ends.iter().all(|end| matches!(end, Ok(Forwarded::Answer(Ok(_))))), "{ends:?}");
    assert_eq!(outcome, Outcome::Clean);
    assert_eq!(asker.peers.forward(&id, &address, &get("x")).await, Err(ForwardError::Refused));
}

#[tokio::test]
async fn forwards_go_on_over_a_new_connection_when_an_old_one_is_sent_away() {
    use larder::server::accept::WireConfig;
    use larder::server::peer::wire_config;
    let config = WireConfig { connection_age: Duration::from_millis(150), connection_age_jitter: 0.0, ..wire_config() };
    let (asker, owner) = (Asker::new(), Owner::start_on(config));
    let (id, address, forward) = (owner.id(), owner.address(), get("x"));
    let accepted = || owner.wire.stats().accepted();
    let all = async {
        while accepted() < 4 {
            let came = join_all((0..8).map(|_| asker.peers.forward(&id, &address, &forward))).await;
            assert!(came.iter().all(Result::is_ok), "{came:?}");
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all).await.unwrap();
    assert_eq!(asker.peers.stats().broken.load(SeqCst), 0);
}

/// Passes connections on to an address. A connection of which it is told goes dead as when the network drops its packets: neither
/// side's kernel hears of the other any more.
async fn pass_on(listener: TcpListener, to: String, die: Arc<Notify>) {
    while let Ok((mut near, _)) = listener.accept().await {
        let mut far = TcpStream::connect(&to).await.unwrap();
        let die = Arc::clone(&die);
        tokio::spawn(async move {
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
                () = die.notified() => {}
            }
            // BPF_RET: of every segment that comes, 0 bytes are taken, before TCP sees it.
            let nothing = [SockFilter::new(0x06, 0, 0, 0)];
            for socket in [&near, &far] {
                SockRef::from(socket).attach_filter(&nothing).unwrap();
            }
            std::future::pending::<()>().await;
        });
    }
}

/// F16.
#[tokio::test]
async fn both_sides_notice_within_seconds_that_the_path_between_them_is_dead() {
    let (asker, owner) = (Asker::new(), Owner::start());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (id, address, die) = (owner.id(), listener.local_addr().unwrap().to_string(), Arc::new(Notify::new()));
    tokio::spawn(pass_on(listener, owner.address(), Arc::clone(&die)));
    let forward = get("x");
    assert!(asker.peers.forward(&id, &address, &forward).await.is_ok());
    assert_eq!(owner.wire.connections(), 1);
    die.notify_waiters();
    tokio::task::yield_now().await;
    let began = Instant::now();
    // Without a deadline: it is the connection that ends it.
    assert_eq!(asker.peers.forward(&id, &address, &forward).await, Err(ForwardError::Unknown));
    assert!(began.elapsed() < 2 * DEAD_PATH_TIMEOUT, "{:?}", began.elapsed());
    eventually("the other side knows, too", || owner.wire.connections() == 0).await;
    assert!(asker.peers.forward(&id, &address, &forward).await.is_ok(), "over another connection");
}

/// Lets this time pass here at once: for what has a timer of its own, and no other clock. Not in the other replica, whose threads
/// are its own.
async fn after(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    // Whoever was woken begins to wait anew before the clock goes on.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    tokio::time::resume();
}

/// A little more than a lane may be without use.
const MINUTE: Duration = IDLE_TIMEOUT.saturating_add(Duration::from_secs(1));

#[tokio::test]
async fn a_lane_that_nobody_uses_for_a_minute_ends_in_good_order() {
    let (asker, owner) = (Asker::new(), Owner::start());
    let (id, address, forward) = (owner.id(), owner.address(), get("x"));
    assert!(asker.peers.forward(&id, &address, &forward).await.is_ok());
    // First for the greeting; from then on it counts.
    after(Duration::from_secs(2)).await;
    assert!(asker.peers.forward(&id, &address, &forward).await.is_ok());
    after(IDLE_TIMEOUT / 2).await;
    assert!(asker.peers.forward(&id, &address, &forward).await.is_ok());
    after(IDLE_TIMEOUT / 2).await;
    assert_eq!(owner.wire.connections(), 1, "it was used in this minute");
    after(MINUTE).await;
    eventually("it ends", || owner.wire.connections() == 0).await;
    assert_eq!(asker.peers.stats().broken.load(SeqCst), 0);
    assert!(asker.peers.forward(&id, &address, &forward).await.is_ok());
    assert_eq!(owner.wire.stats().accepted(), 2);
}

#[tokio::test]
async fn a_lane_whose_callers_are_all_gone_without_an_answer_is_cut() {
    let (asker, owner) = (Asker::new(), Owner::start());
    let (id, address, waits) = (owner.id(), owner.address(), get("wait"));
    let mut patient = Box::pin(asker.peers.forward(&id, &address, &waits));
    let mut hasty = Box::pin(asker.peers.forward(&id, &address, &waits));
    tokio::select! {
        _ = &mut patient => panic!("nothing answers it"),
        _ = &mut hasty => panic!("nothing answers it"),
        () = eventually("they wait there", || owner.echo.seen.lock().len() == 2) => {}
    }
    drop(hasty);
    for time in [Duration::from_secs(2), MINUTE, MINUTE] {
        after(time).await;
    }
    assert_eq!(owner.wire.connections(), 1, "one waits");
    drop(patient);
    after(MINUTE).await;
    eventually("it is cut", || owner.wire.connections() == 0 && owner.echo.dropped.load(SeqCst) == 2).await;
    assert_eq!(asker.peers.stats().broken.load(SeqCst), 1);
}
