//! What a removal leaves at a member (rules 8 and 10), whichever way an entry goes.

use super::*;
use crate::cache::key::AccountId;
use crate::cache::route::route_hash;
use crate::cache::version::Version;
use crate::ownership::Arcs;
use crate::ownership::copies::{Copies, Frozen};
use crate::ownership::member::{Endpoint, MemberId};
use crate::ownership::mistake::Mistakes;
use crate::ownership::snapshot::Snapshot;
use crate::ownership::view::View;
use crate::ring::Stretch;

/// How an entry goes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Delete,
    Clear,
    Touch,
    Expiry,
    Eviction,
}

/// What it is when it goes.
#[derive(Clone, Copy, Debug)]
enum What {
    /// In a settled arc.
    Settled,
    /// Written here, and no source has a copy.
    Unshadowed,
    /// A source has an older copy.
    Shadowed,
    /// Of another's key.
    Copy,
}

const ALL_WAYS: [Way; 5] = [Way::Delete, Way::Clear, Way::Touch, Way::Expiry, Way::Eviction];

struct Member {
    store: Arc<Store>,
    copies: StoreCopies,
    me: MemberId,
    arcs: Arc<Arcs>,
    snapshot: Arc<Snapshot>,
}

impl Member {
    fn new() -> Self {
        let (store, me) = (Arc::new(store_of(1 << 20, 4)), MemberId::new("me", 1));
        store.join(&me, Mistakes::default());
        let snapshot = Arc::new(Snapshot::new(View::default()));
        let mut member = Self { copies: store.copies(), store, me, arcs: Arc::default(), snapshot };
        member.view(1, "me");
        member
    }

    /// Everything belongs to one pod.
    fn view(&mut self, version: u64, owner: &str) {
        let endpoint = |uid: &str| Endpoint {
            uid: MemberId::new(uid, 1).uid,
            address: format!("{uid}:1").into(),
            peer: format!("{uid}:2").into(),
            serves: uid == owner,
        };
        let view = View::of_slice("a", version, vec![endpoint("me"), endpoint("other")]).with_boot(&self.me);
        let new = Arc::new(Snapshot::new(view));
        let arcs = self.arcs.after_change(&self.snapshot.stretches_of(&self.me), &new.stretches_of(&self.me));
        self.copies.change(&new, &Arc::new(arcs.clone()), &[]);
        self.arcs = Arc::new(arcs.held());
        self.copies.advance(&self.arcs);
        self.snapshot = new;
    }

    fn settle(&mut self) {
        self.arcs = Arc::default();
        self.copies.settle_below(&self.arcs, Stretch::ALL);
    }

    /// The key with a value that expires at 1000 ms.
    fn with(what: What) -> (Self, Tenant, Place, Version) {
        let mut member = Self::new();
        let space = tenant(&member.store, "a");
        let place = member.store.place(&space, key("k"));
        let write = |store: &Store, condition| {
            store.store(scope(&space), key("k"), &[7; 200], Some(1000), condition, at(0)).unwrap()
        };
        let version = match what {
            What::Settled => {
                member.settle();
                write(&member.store, Condition::Always)
            }
            What::Unshadowed => {
                member.copies.resolve(&place, None);
                write(&member.store, Condition::IfAbsent)
            }
            What::Shadowed => {
                let carried = Carried {
                    value: vec![6; 200].into(),
                    expires_ms: None,
                    payer: None,
                    budget: None,
                    requests: Vec::new(),
                };
                let version = Version::from_u64(1 << 20);
                member.copies.resolve(&place, Some(Frozen { version, value: Some(carried) }));
                write(&member.store, Condition::IfVersion(version))
            }
            What::Copy => {
                member.settle();
                let version = write(&member.store, Condition::Always);
                member.view(2, "other");
                version
            }
        };
        (member, space, place, version)
    }

    fn entry(&mut self, place: &Place) -> Option<(Version, bool)> {
        self.copies.at(place, |shard, _, at| {
            let entry = shard.entry(at?);
            Some((entry.version(), entry.meta().is_tombstone()))
        })
    }
}

/// Whether it went: operations touch no copies.
fn remove(store: &Store, space: &Tenant, way: Way) -> bool {
    let scope = scope(space);
    match way {
        Way::Delete => store.delete(scope, key("k"), None, at(10)).is_ok(),
        Way::Clear => {
            let removed = store.remove_page(scope, "", None, usize::MAX, at(10));
            removed.is_ok_and(|removed| removed.removed == 1)
        }
        Way::Touch => store.touch(scope, key("k"), None, TouchMode::Overwrite, at(1000)) == Err(StoreError::NotFound),
        Way::Expiry => store.expire_due(at(1000), usize::MAX) == 1,
        Way::Eviction => {
            let evicted = store.stats().evicted;
            store.set_capacity(0, at(10));
            store.set_capacity(1 << 20, at(10));
            store.stats().evicted == evicted + 1
        }
    }
}

#[test]
fn a_removal_in_a_settled_arc_or_of_a_key_that_no_source_has_leaves_nothing() {
    for what in [What::Settled, What::Unshadowed] {
        for way in ALL_WAYS {
            let (mut member, space, place, _) = Member::with(what);
            let unsettled = matches!(what, What::Unshadowed);
            assert_eq!(remove(&member.store, &space, way), !(unsettled && way == Way::Clear), "{what:?} {way:?}");
            if unsettled && way == Way::Clear {
                continue;
            }
            assert_eq!(member.entry(&place), None, "{what:?} {way:?}");
            assert_eq!((member.store.stats().memory_bytes, space.usage().keys), (0, 0), "{what:?} {way:?}");
        }
    }
}

#[test]
fn a_removal_by_the_authority_while_a_source_has_an_older_copy_leaves_a_tombstone_with_a_new_version() {
    for way in ALL_WAYS.into_iter().filter(|way| *way != Way::Clear) {
        let (mut member, space, place, version) = Member::with(What::Shadowed);
        assert!(remove(&member.store, &space, way), "{way:?}");
        let (left, is_tombstone) = member.entry(&place).unwrap();
        assert!(is_tombstone && left > version, "{way:?}");
        assert_eq!(space.usage().keys, 0, "{way:?}");
        assert_eq!(get(&member.store, &space, "k", at(10)), None, "{way:?}");
        let again = member.store.store(scope(&space), key("k"), b"w", None, Condition::IfAbsent, at(10)).unwrap();
        assert!(again > left, "{way:?}");
        member.store.delete(scope(&space), key("k"), None, at(10)).unwrap();
        assert_eq!(member.store.stats().tombstones, 1, "{way:?}");
        member.settle();
        assert_eq!((member.entry(&place), member.store.stats().memory_bytes), (None, 0), "{way:?}");
    }
}

#[test]
fn a_copy_that_expires_or_is_evicted_becomes_a_tombstone_of_the_same_version_and_operations_leave_it_alone() {
    for way in ALL_WAYS {
        let (mut member, space, place, version) = Member::with(What::Copy);
        let goes = matches!(way, Way::Expiry | Way::Eviction);
        assert_eq!(remove(&member.store, &space, way), goes, "{way:?}");
        assert_eq!(member.entry(&place), Some((version, goes)), "{way:?}");
        assert_eq!(space.usage().keys, u64::from(!goes), "{way:?}");
        let sent = member.copies.lend(&place, &MemberId::new("other", 0)).unwrap();
        assert_eq!((sent.version, sent.value.is_none()), (version, goes), "{way:?}");
        member.copies.drop_through(&MemberId::new("other", 0), &place);
        assert_eq!((member.entry(&place), member.store.stats().memory_bytes), (None, 0), "{way:?}");
    }
}

#[test]
fn an_account_that_only_another_replica_names_is_not_made() {
    let mut member = Member::new();
    let accounts = member.copies.tenants().len();
    let key = Name { space: AccountId::new("unheard-of").unwrap(), key: "k".into() };
    let place = Place { hash: route_hash(&key.space, super::key("k")), key };
    assert_eq!(member.copies.lend(&place, &MemberId::new("other", 0)), None);
    assert_eq!(member.copies.tenants().len(), accounts);
}

#[test]
fn a_page_ends_where_the_settled_hashes_end_and_an_unsettled_hash_is_refused() {
    let mut member = Member::new();
    let space = tenant(&member.store, "a");
    assert_eq!(member.store.page(&space, "", None, 1000, at(0)).unwrap_err(), Standing::Unresolved);
    let half = Stretch { first: 0, last: u64::MAX / 2 };
    let arcs = Arc::new(member.arcs.without(half));
    member.copies.settle_below(&arcs, half);
    let mut stored = 0;
    for number in 0..100 {
        let name = format!("key-{number}");
        if put(&member.store, &space, &name, b"v").is_ok() {
            stored += 1;
        }
    }
    let page = member.store.page(&space, "", None, 1 << 20, at(0)).unwrap();
    assert!((20..80).contains(&stored));
    assert_eq!((page.items.len(), page.end), (stored, false));
    let next = page.next.unwrap();
    assert_eq!(next.hash(), half.last + 1);
    assert_eq!(member.store.page(&space, "", Some(&next), 1000, at(0)).unwrap_err(), Standing::Unresolved);
    assert_eq!(member.store.remove_page(scope(&space), "", Some(&next), 9, at(0)).unwrap_err(), Standing::Unresolved);
    member.settle();
    assert!(member.store.page(&space, "", Some(&next), 1000, at(0)).unwrap().end);
}

#[test]
fn what_is_taken_over_and_does_not_fit_is_as_if_evicted_at_once_and_does_not_come_back() {
    let mut member = Member::new();
    let owner = tenant(&member.store, "owner");
    owner.set_budget(crate::cache::quota::Budget { guaranteed_bytes: 1 << 20, ..Default::default() });
    let take = |member: &mut Member, space: &str, number: usize| {
        let space = tenant(&member.store, space);
        let place = member.store.place(&space, key(&format!("key-{number}")));
        let payer = Some(space.id().clone());
        let carried =
            Carried { value: vec![7; 2000].into(), expires_ms: None, payer, budget: None, requests: Vec::new() };
        let version = Version::from_u64(1 << 20);
        member.store.clock().observe(version);
        member.copies.resolve(&place, Some(Frozen { version, value: Some(carried) }));
        (place, version)
    };
    let mut number = 0;
    // 2,000 bytes, the key and a head, and 56 bytes for the index and the mark.
    while member.store.stats().memory_bytes + 2088 <= 1 << 20 {
        take(&mut member, "owner", number);
        number += 1;
    }
    for number in 0..3 {
        let (place, version) = take(&mut member, "other", number);
        let (left, is_tombstone) = member.entry(&place).unwrap();
        assert!(left > version && is_tombstone, "{number}");
        assert_eq!(member.copies.standing(&place), Standing::Authority);
    }
    assert_eq!((owner.usage().keys, tenant(&member.store, "other").usage().keys), (number as u64, 0));
    assert!(member.store.stats().memory_bytes <= 1 << 20);
    member.settle();
    assert_eq!(member.store.stats().tombstones, 0);
}
