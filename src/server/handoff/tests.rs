//! The thread, with what comes to it in an order that seldom comes.

use super::*;
use crate::cache::key::AccountId;
use crate::cache::store::{Store, StoreConfig};
use crate::cluster::{Discover, LastHeard};
use crate::ownership::member::Endpoint;
use crate::server::clock::Clock;
use crate::server::peer::{Peers, PeersConfig};
use crate::server::readiness::Readiness;
use crate::server::workers::Workers;

/// Far more than a test may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A source that says what it is told to.
struct Says(watch::Receiver<Arc<View>>);

impl Discover for Says {
    fn last_heard(&self) -> LastHeard {
        LastHeard::never()
    }

    async fn run(mut self, to: watch::Sender<Option<Arc<View>>>) {
        loop {
            to.send_replace(Some(Arc::clone(&self.0.borrow_and_update())));
            tokio::select! {
                () = to.closed() => return,
                changed = self.0.changed() => if changed.is_err() { return to.closed().await },
            }
        }
    }
}

/// A replica before its thread runs.
struct Alone {
    handoff: Handoff,
    idle: Idle,
    peers: Peers,
    workers: Workers,
}

impl Alone {
    fn new() -> Self {
        Self::lingering(Duration::ZERO)
    }

    fn lingering(linger: Duration) -> Self {
        let config =
            HandoffConfig { uid: Uid::new("a"), address: "127.0.0.1:1".into(), linger, rate: 0, page_bytes: 1 << 20 };
        let clock = Clock::start();
        let (handoff, idle) = Handoff::new(
            config,
            Arc::new(Store::new(StoreConfig { capacity_bytes: 1 << 20, shards: 4, replica: 0 })),
            clock.clone(),
        );
        let peers = Peers::new(PeersConfig { cluster: "larder".into(), tls: None, clock });
        peers.attach(Arc::new(handoff.clone()));
        Self { handoff, idle, peers, workers: Workers::start(1).unwrap() }
    }

    /// In a cluster of these; nobody but `a` listens.
    fn start(self, uids: &[&str]) -> (Running, Workers) {
        let (running, workers, _) = self.start_with(uids);
        (running, workers)
    }

    /// With what the source says, to be changed.
    fn start_with(self, uids: &[&str]) -> (Running, Workers, watch::Sender<Arc<View>>) {
        let member = |(uid, port): (&&str, u16)| Endpoint {
            uid: Uid::new(uid),
            address: format!("127.0.0.1:{port}").into(),
            peer: "127.0.0.1:1".into(),
            serves: true,
        };
        let members = uids.iter().zip(1..).map(member).collect();
        let (says, said) = watch::channel(Arc::new(View::of_list(1, [("s".into(), 1, members)])));
        let make = move || std::future::ready(Ok::<_, std::convert::Infallible>(Says(said.clone())));
        let source = Source::new(make, self.workers.handle(0).clone());
        let ready = Readiness::default().token("members");
        (self.idle.start(self.peers, source, &self.workers, ready).unwrap(), self.workers, says)
    }
}

fn place(number: u64) -> Place<Name> {
    let space = AccountId::new("one").unwrap();
    let name = Name { space: space.clone(), key: number.to_string().into() };
    Place { hash: crate::cache::route::route_hash(&space, crate::cache::key::Key::new(&name.key).unwrap()), key: name }
}

#[tokio::test]
async fn what_gave_up_before_the_thread_heard_of_it_holds_up_no_leaver() {
    let alone = Alone::new();
    // More than the thread takes at once, so that the notes of their ends overtake them.
    for number in 0..1000 {
        drop(alone.handoff.submit(place(number), Origin::Client).unwrap());
        let account = AccountId::new("one").unwrap();
        let ask = LeaseAsk { account, keys: 1, bytes: 1, max_keys: Some(0), max_bytes: None, dry_run: false };
        let passed = Some(tokio::time::Instant::now());
        assert_eq!(alone.handoff.lease(ask, passed).await, Err(Failure::QuotaUnknown { account: "one".into() }));
    }
    let (mut running, workers) = alone.start(&["a"]);
    running.leave().await;
    let ended = tokio::time::timeout(PATIENCE, running.ended()).await;
    tokio::task::spawn_blocking(move || (running.stop(), workers.stop())).await.unwrap();
    assert_eq!(ended, Ok(0));
}

#[tokio::test]
async fn a_member_that_nobody_ever_heard_from_is_given_up_and_not_counted_as_lost() {
    let alone = Alone::new();
    let handoff = alone.handoff.clone();
    let mut changes = handoff.changes();
    let (running, workers) = alone.start(&["a", "b"]);
    for listed in [true, false] {
        let is_so = changes.wait_for(|now| now.snapshot.present_as(&Uid::new("b")).is_some() == listed);
        tokio::time::timeout(PATIENCE, is_so).await.unwrap().unwrap();
    }
    let lost = handoff.figures().lost.load(Ordering::Relaxed);
    tokio::task::spawn_blocking(move || (running.stop(), workers.stop())).await.unwrap();
    assert_eq!(lost, 0);
}

/// As `helm uninstall` does it: the Service goes, and with it every list that a new life could begin with.
#[tokio::test]
async fn a_leaver_whom_the_source_lists_no_more_ends_and_begins_no_new_life() {
    let alone = Alone::lingering(Duration::from_secs(3600));
    let mut changes = alone.handoff.changes();
    let (mut running, workers, says) = alone.start_with(&["a"]);
    let listed = changes.wait_for(|now| now.snapshot.present_as(&Uid::new("a")).is_some());
    tokio::time::timeout(PATIENCE, listed).await.unwrap().unwrap();
    running.leave().await;
    says.send_replace(Arc::new(View::of_list(2, [])));
    let ended = tokio::time::timeout(PATIENCE, running.ended()).await;
    tokio::task::spawn_blocking(move || (running.stop(), workers.stop())).await.unwrap();
    assert_eq!(ended, Ok(0));
}
