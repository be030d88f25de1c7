use super::*;
use crate::ownership::member::{Endpoint, MemberId};

fn id(uid: &str) -> MemberId {
    MemberId::new(uid, 1)
}

fn list(version: u64, serving: &[&str], present: &[&str]) -> Arc<View> {
    let endpoint = |uid: &&str, serves| Endpoint {
        uid: Uid::new(uid),
        address: format!("{uid}:1").into(),
        peer: format!("{uid}:2").into(),
        serves,
    };
    let endpoints = serving.iter().map(|uid| endpoint(uid, true)).chain(present.iter().map(|uid| endpoint(uid, false)));
    Arc::new(View::of_list(version, [("s".into(), version, endpoints.collect())]))
}

fn known(view: &View, uids: &[&str]) -> Snapshot {
    Snapshot::new(uids.iter().fold(view.clone(), |view, uid| view.with_boot(&id(uid))))
}

/// Everybody answers but these.
fn but(silent: &'static [&str]) -> impl Fn(&Uid) -> bool {
    |uid| !silent.contains(&uid.as_str())
}

const FIVE: &[&str] = &["a", "b", "c", "d", "e"];

#[test]
fn what_takes_nobody_away_is_released_at_once_and_once() {
    let known = known(&list(1, &["a", "b", "c"], &[]), &["a", "b", "c"]);
    let mut hold = HoldBack::default();
    // A new one, and one that begins to terminate.
    let news = list(2, &["a", "b", "d"], &["c"]);
    assert_eq!(hold.release(&news, &known, &but(&[]), 0), Some(news.clone()));
    assert_eq!(hold.release(&news, &known, &but(&[]), 1), None);
    assert_eq!(hold.held_since_ms(), None);
}

#[test]
fn what_is_known_already_is_not_released() {
    let view = list(1, &["a"], &[]);
    let mut hold = HoldBack::default();
    assert_eq!(hold.release(&view, &known(&view, &["a"]), &but(&[]), 0), None);
    assert_eq!(hold.held_since_ms(), None);
}

#[test]
fn the_first_list_is_released_at_once() {
    let news = list(1, FIVE, &[]);
    let nobody = Snapshot::new(View::default());
    assert!(HoldBack::default().release(&news, &nobody, &but(&[]), 0).is_some());
}

#[test]
fn a_version_that_lists_nowhere_who_still_answers_waits_five_seconds() {
    let known = known(&list(1, FIVE, &[]), FIVE);
    let news = list(2, &["a", "b", "c", "d"], &[]);
    let mut hold = HoldBack::default();
    assert_eq!(hold.release(&news, &known, &but(&[]), 1000), None);
    assert_eq!(hold.held_since_ms(), Some(1000));
    assert_eq!(hold.waits_for().map(Uid::as_str).collect::<Vec<_>>(), ["e"]);
    assert_eq!(hold.release(&news, &known, &but(&[]), 5999), None);
    assert!(hold.release(&news, &known, &but(&[]), 6000).is_some());
    assert_eq!((hold.held_since_ms(), hold.waits_for().count()), (None, 0));
}

#[test]
fn it_waits_for_nobody_who_left_or_does_not_answer() {
    let view = list(1, FIVE, &[]);
    let news = list(2, &["a", "b", "c", "d"], &[]);
    let left = known(&view.with_boot(&id("e")).with_left(&id("e")), &[]);
    assert!(HoldBack::default().release(&news, &left, &but(&[]), 0).is_some());
    let leaving = known(&view.with_boot(&id("e")).with_leaving(&id("e")), &[]);
    assert!(HoldBack::default().release(&news, &leaving, &but(&[]), 0).is_none());
    assert!(HoldBack::default().release(&news, &leaving, &but(&["e"]), 0).is_some());
}

#[test]
fn an_endpoint_that_moves_between_slices_is_never_unlisted() {
    let slice = |name: &str, version, uids: &[&str]| {
        let endpoint = |uid: &&str| Endpoint {
            uid: Uid::new(uid),
            address: format!("{uid}:1").into(),
            peer: format!("{uid}:2").into(),
            serves: true,
        };
        View::of_slice(name, version, uids.iter().map(endpoint).collect())
    };
    let before = slice("one", 1, &["a", "b"]).merge(&slice("two", 2, &["c"]));
    let known = known(&before, &["a", "b", "c"]);
    let mut hold = HoldBack::default();
    let removed = before.merge(&slice("one", 3, &["a"]));
    assert_eq!(hold.release(&Arc::new(removed.clone()), &known, &but(&[]), 0), None);
    let moved = Arc::new(removed.merge(&slice("two", 4, &["b", "c"])));
    assert_eq!(hold.release(&moved, &known, &but(&[]), 100), Some(moved.clone()));
}

#[test]
fn a_version_that_takes_more_than_half_of_the_ring_waits_until_each_says_so() {
    let view = list(1, FIVE, &[]);
    let news = list(2, &["a", "b"], &["c", "d", "e"]);
    let mut hold = HoldBack::default();
    let (mut marked, mut now) = (known(&view, FIVE).view().as_ref().clone(), 0);
    for uid in ["c", "d", "e"] {
        // No time is enough; nor is it that what is still to go is less than half of what is left.
        now += 3_600_000;
        assert_eq!(hold.release(&news, &Snapshot::new(marked.clone()), &but(&[]), now), None, "without {uid}");
        marked = marked.with_leaving(&id(uid));
    }
    assert!(hold.release(&news, &Snapshot::new(marked), &but(&[]), now).is_some());
}

#[test]
fn an_empty_list_never_takes_the_ring_while_its_members_answer() {
    let known = known(&list(1, FIVE, &[]), FIVE);
    let empty = list(2, &[], &[]);
    let mut hold = HoldBack::default();
    for now in (0..3_600_000).step_by(60_000) {
        assert_eq!(hold.release(&empty, &known, &but(&[]), now), None);
        assert_eq!(hold.release(&empty, &known, &but(&["a", "b", "c", "d"]), now), None, "one is left");
    }
    // The API server has come to its senses.
    let news = list(3, &["a", "b", "c", "d", "e", "f"], &[]);
    assert!(hold.release(&news, &known, &but(&[]), 3_600_001).is_some());
    assert!(HoldBack::default().release(&empty, &known, &|_| false, 0).is_some(), "all are dead");
}

#[test]
fn half_of_the_ring_may_go_unasked() {
    let known = known(&list(1, &["a", "b", "c", "d"], &[]), &["a", "b", "c", "d"]);
    assert!(HoldBack::default().release(&list(2, &["a", "b"], &["c", "d"]), &known, &but(&[]), 0).is_some());
    assert!(HoldBack::default().release(&list(2, &["a"], &["b", "c", "d"]), &known, &but(&[]), 0).is_none());
}
