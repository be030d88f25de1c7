//! The state machine with a real store, step by step: what the simulation would need luck to meet.

use std::sync::Arc;

use super::member::Endpoint;
use super::*;
use crate::cache::key::{AccountId, Key};
use crate::cache::route::route_hash;
use crate::cache::store::{Name, Place, Store, StoreConfig, StoreCopies};

const NOW: Now = Now { monotonic_ms: 1_000_000, wall_us: 1_000_000_000 };

/// Lists these pods, all of which serve.
fn list(uids: &[&str]) -> View {
    let endpoint = |uid: &&str| Endpoint {
        uid: Uid::new(uid),
        address: format!("{uid}:1").into(),
        peer: format!("{uid}:2").into(),
        serves: true,
    };
    View::of_list(1, [("s".into(), 1, uids.iter().map(endpoint).collect())])
}

fn start(view: &View) -> Replica<StoreCopies> {
    start_as(MemberId::new("a", 1), view)
}

fn start_as(me: MemberId, view: &View) -> Replica<StoreCopies> {
    let store = Arc::new(Store::new(StoreConfig { capacity_bytes: 1 << 20, shards: 1, replica: 1 }));
    store.join(&me, Mistakes::default());
    let (copies, clock) = (store.copies(), Arc::clone(store.clock()));
    let config = Config { page_bytes: 1 << 20, page_step: usize::MAX, linger_ms: 0, mistakes: Mistakes::default() };
    Replica::start(me, config, copies, clock, view, NOW)
}

/// Some key that this view gives to a member.
fn key_of(snapshot: &Snapshot, owner: &MemberId) -> Place {
    let space = AccountId::new("one").unwrap();
    let place = |number: u32| {
        let key: Arc<str> = number.to_string().into();
        let hash = route_hash(&space, Key::new(&key).unwrap());
        Place { hash, key: Name { space: space.clone(), key } }
    };
    (0..10_000).map(place).find(|place| snapshot.owner(place.hash) == Some(owner)).unwrap()
}

#[test]
fn what_was_forwarded_before_the_owners_boot_was_heard_of_ends_when_the_owner_is_lost() {
    let view = list(&["a", "b", "c"]);
    let mut replica = start(&view);
    let unheard = MemberId::new("b", 0);
    let place = key_of(&Arc::clone(replica.snapshot()), &unheard);
    replica.submit(7, place, Origin::Client, NOW);
    assert!(replica.outputs().iter().any(|it| matches!(it, Output::Forward { id: 7, to } if *to == unheard)));
    let heard = view.with_boot(&MemberId::new("b", 5));
    replica.news(&heard, NOW);
    assert!(!replica.outputs().iter().any(|output| matches!(output, Output::Unknown(_))));
    replica.news(&heard.with_gone(&MemberId::new("b", 5), &MemberId::new("c", 1)), NOW);
    assert!(replica.outputs().iter().any(|output| matches!(output, Output::Unknown(7))));
    assert_eq!(replica.requests(), 0);
}

#[test]
fn one_declared_gone_at_an_unknown_boot_fences_itself_if_it_was_cleared_and_answers_if_not() {
    let (me, other) = (MemberId::new("a", 2), MemberId::new("b", 1));
    // That an earlier process was lost too hides nothing.
    let before = list(&["a", "b"]).with_gone(&MemberId::new("a", 1), &other);
    let declared = before.with_gone(&MemberId::new("a", 0), &other);
    let mut cleared = start_as(me.clone(), &list(&["a"]));
    assert!(cleared.is_ready(), "there is nobody else");
    cleared.news(&before, NOW);
    assert!(!cleared.is_over());
    cleared.news(&declared, NOW);
    assert!(cleared.outputs().iter().any(|output| matches!(output, Output::Fenced(Fence::Dropped))));
    let mut fresh = start_as(me.clone(), &list(&["a", "b"]));
    fresh.news(&declared, NOW);
    assert!(!fresh.is_over() && !fresh.is_ready());
    assert!(!fresh.snapshot().view().is_gone(&me), "it has answered");
}
