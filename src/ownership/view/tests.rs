use proptest::prelude::*;

use super::*;

fn endpoint(uid: &str, serves: bool) -> Endpoint {
    Endpoint {
        uid: Uid::new(uid),
        address: format!("{uid}.pod:7070").into(),
        peer: format!("{uid}.pod:7071").into(),
        serves,
    }
}

fn names(view: &View) -> Vec<&str> {
    view.endpoints().into_keys().map(Uid::as_str).collect()
}

/// Bits of `number` from the `at`-th on, spread as a hash spreads them.
fn bits(number: u64, at: u64) -> u64 {
    xxhash_rust::xxh64::xxh64(&number.to_le_bytes(), at)
}

/// What a truthful source can have told, and members can have said: slices whose uids live once and without a gap; a list
/// names all slices that were not deleted by then.
fn heard(choice: u64) -> View {
    const SLICES: u64 = 3;
    const AGES: u64 = 6;
    // Slice s has versions 10 * age + s; it is made at age 0 and deleted at age 5 if s is 0. Uid u of it lives from age u on,
    // for three ages.
    let at = |slice: u64, age: u64| {
        let version = 10 * age + slice + 1;
        let name = format!("slice-{slice}");
        if slice == 0 && age >= 5 {
            return View::of_deleted_slice(&name, 51);
        }
        let lives = (age.saturating_sub(2)..=age)
            .map(|uid| endpoint(&format!("s{slice}u{uid}"), (uid + age).is_multiple_of(2)));
        View::of_slice(&name, version, lives.collect())
    };
    let listed = bits(choice, 0) % AGES;
    let mut view = View { floor: 10 * listed + 9, ..View::default() };
    for slice in 0..SLICES {
        let age = listed + bits(choice, 1 + slice) % (AGES - listed);
        let told = at(slice, age);
        view.slices.extend(told.slices.clone());
    }
    if choice.is_multiple_of(3) {
        // One that listed nothing, and heard of one slice only.
        view.floor = 0;
        view.slices.retain(|name, _| **name == format!("slice-{}", bits(choice, 9) % SLICES));
    }
    view.normalise();
    for n in 0..6 {
        let by = MemberId::new(&format!("s{}u0", bits(choice, 50 + n) % 2), 1);
        let id = MemberId::new(
            &format!("s{}u{}", bits(choice, 10 + n) % 3, bits(choice, 20 + n) % 6),
            bits(choice, 30 + n) % 3,
        );
        view = match bits(choice, 40 + n) % 7 {
            0 => view.with_boot(&id),
            1 => view.with_leaving(&id),
            2 => view.with_left(&id),
            3 => view.with_gone(&id, &by),
            4 => view.with_gone(&MemberId { boot: 0, ..id }, &by),
            5 => view.answers(&id).map_or(view.clone(), |answers| view.merge(&answers)),
            _ => view,
        };
    }
    view
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn views_merge_in_any_order_and_any_number_of_times(a in any::<u64>(), b in any::<u64>(), c in any::<u64>()) {
        let (a, b, c) = (heard(a), heard(b), heard(c));
        prop_assert_eq!(a.merge(&a), a.clone());
        prop_assert_eq!(a.merge(&b), b.merge(&a));
        prop_assert_eq!(a.merge(&b).merge(&c), a.merge(&b.merge(&c)));
        prop_assert_eq!(a.merge(&b).merge(&b), a.merge(&b));
    }

    #[test]
    fn a_view_comes_back_from_its_bytes(choice in any::<u64>()) {
        let view = heard(choice);
        prop_assert_eq!(View::from_bytes(&view.to_bytes()), Ok(view));
    }

    #[test]
    fn a_damaged_view_is_refused_or_is_another(choice in any::<u64>(), at in any::<prop::sample::Index>(), flip in 1..=255_u8) {
        let view = heard(choice);
        let mut bytes = view.to_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        if let Ok(other) = View::from_bytes(&bytes) {
            prop_assert_ne!(other.digest(), view.digest());
        }
        prop_assert!(View::from_bytes(&bytes[..at]).is_err());
    }
}

#[test]
fn the_encoding_and_the_digest_are_frozen() {
    let view = View::of_list(7, [("s".into(), 5, vec![endpoint("a", true), endpoint("b", false)])])
        .merge(&View::of_deleted_slice("t", 9))
        .with_boot(&MemberId::new("a", 3))
        .with_gone(&MemberId::new("b", 2), &MemberId::new("a", 3))
        .with_gone(&MemberId::new("b", 0), &MemberId::new("a", 3));
    let bytes = b"\x01\0\0\0\0\0\0\0\x07\0\0\0\x02\0\x01s\0\0\0\0\0\0\0\x05\x01\0\0\0\x02\
        \0\x01a\0\x0aa.pod:7070\0\x0aa.pod:7071\x01\0\x01b\0\x0ab.pod:7070\0\x0ab.pod:7071\0\
        \0\x01t\0\0\0\0\0\0\0\x09\0\
        \0\0\0\x01\0\x01a\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\0\0\0\0\x01\0\x01b\0\0\0\0\0\0\0\x02\
        \0\0\0\x01\0\x01b\0\x01a\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\0";
    assert_eq!(view.to_bytes(), bytes);
    assert_eq!(format!("{:?}", view.digest()), "364660bc1675f821abcf4923c1d7e3c8");
    assert_eq!(format!("{:?}", View::default().digest()), "cf00572d9fa162fb39c9166f64681b7f");
}

#[test]
fn a_list_buries_what_it_lacks() {
    let old =
        View::of_list(3, [("a".into(), 1, vec![endpoint("x", true)]), ("b".into(), 2, vec![endpoint("y", true)])]);
    let list = View::of_list(9, [("b".into(), 2, vec![endpoint("y", true)])]);
    assert_eq!(names(&old.merge(&list)), ["y"]);
    let newer = View::of_slice("a", 10, vec![endpoint("z", true)]);
    assert_eq!(names(&old.merge(&list).merge(&newer)), ["y", "z"], "made again after the list");
    assert_eq!(
        old.merge(&View::of_deleted_slice("a", 4)).merge(&list),
        list,
        "the list replaces the memory of a deletion"
    );
}

#[test]
fn a_slice_that_came_and_went_leaves_another_view() {
    let before = View::of_list(3, [("a".into(), 1, vec![endpoint("x", true)])]);
    let after = before.merge(&View::of_slice("b", 4, vec![endpoint("y", true)])).merge(&View::of_deleted_slice("b", 5));
    assert_eq!(names(&after), names(&before));
    assert_ne!(after.digest(), before.digest());
}

#[test]
fn a_mark_belongs_to_one_boot() {
    let (first, second) = (MemberId::new("a", 1), MemberId::new("a", 2));
    let view = View::of_slice("s", 1, vec![endpoint("a", true)])
        .with_boot(&first)
        .with_leaving(&first)
        .with_gone(&first, &second);
    assert!(view.is_gone(&first) && view.is_leaving(&first));
    let restarted = view.with_boot(&second);
    assert!(!restarted.is_gone(&second) && !restarted.is_leaving(&second));
    assert!(restarted.is_gone(&first), "a lower boot counts as gone");
    let left = view.with_left(&first);
    assert!(left.has_left(&first) && !left.is_gone(&first), "`left` beats `gone`");
    assert!(left.with_gone(&second, &second).is_gone(&second), "but only of its own boot");
}

#[test]
fn one_declared_gone_before_its_boot_was_known_is_gone_until_a_process_answers_that_declarer() {
    let id = |boot| MemberId::new("a", boot);
    let (one, other) = (MemberId::new("b", 1), MemberId::new("c", 1));
    let view = View::of_slice("s", 1, vec![endpoint("a", true)]);
    let declared = view.with_gone(&id(0), &one);
    assert!(declared.with_boot(&id(5)).is_gone(&id(5)));
    for hidden in [view.with_gone(&id(4), &other), view.with_left(&id(4))] {
        let hidden = hidden.with_boot(&id(5)).merge(&declared);
        assert!(hidden.is_gone(&id(5)), "whatever was said of an older boot");
    }
    let answered = declared.with_boot(&id(6)).merge(&declared.answers(&id(6)).unwrap());
    assert!(!answered.is_gone(&id(6)) && answered.answers(&id(6)).is_none());
    assert_eq!(answered.merge(&declared), answered, "once for all");
    assert!(answered.merge(&view.with_gone(&id(0), &other)).is_gone(&id(6)), "another declarer's is another");
}

#[test]
fn declarers_of_one_member_are_bounded() {
    let view = View::of_slice("s", 1, vec![endpoint("a", true)]);
    let declare = |view: View, boot| view.with_gone(&MemberId::new("a", 0), &MemberId::new("b", boot));
    let view = (1..=100).fold(view, declare);
    assert_eq!(view.unheard.iter().count(), MAX_DECLARERS);
    assert!(view.unheard.iter().all(|(_, by, _)| by.boot > 36), "the least are forgotten");
}

#[test]
fn marks_of_uids_that_are_no_endpoint_are_dropped() {
    let id = MemberId::new("a", 1);
    let view = View::of_slice("s", 1, vec![endpoint("a", true)])
        .with_boot(&id)
        .with_gone(&id, &id)
        .with_gone(&MemberId::new("a", 0), &id);
    let without = view.merge(&View::of_slice("s", 2, vec![]));
    assert_eq!(without, View::of_slice("s", 2, vec![]));
    assert_eq!(without.with_boot(&id), without);
}

#[test]
fn the_memory_of_deleted_slices_is_bounded() {
    let mut view = View::default();
    for n in 0..2000 {
        view = view.merge(&View::of_deleted_slice(&format!("s{n}"), n + 1));
    }
    assert_eq!(view.slices.len(), MAX_DELETED_SLICES);
    assert!(view.slices.values().all(|slice| slice.version > 2000 - 1024));
}

#[test]
fn an_endpoint_in_two_slices_is_one() {
    let moved =
        View::of_slice("a", 1, vec![endpoint("x", true)]).merge(&View::of_slice("b", 2, vec![endpoint("x", false)]));
    assert_eq!(moved.endpoints().into_values().collect::<Vec<_>>(), [&endpoint("x", false)]);
}

/// What is sent to somebody who has the past does what the whole does, also where he has more; and it is short.
#[test]
fn a_part_merged_is_the_whole_merged() {
    let uids: Vec<String> = (0..40).map(|number| format!("u{number:02}")).collect();
    let slice = |version, serving: usize| {
        let endpoints = uids.iter().enumerate().map(|(number, uid)| endpoint(uid, number < serving));
        View::of_slice("s", version, endpoints.collect())
    };
    let id = |uid: &str| MemberId { uid: Uid::new(uid), boot: 1 };
    let past = slice(1, 39).merge(&View::of_boot(&id("u01")));
    let whole = past.merge(&slice(2, 40)).with_leaving(&id("u01")).with_boot(&id("u02"));
    let part = whole.since(&past).expect("the floor is the same");
    assert_eq!(past.merge(&part), whole);
    assert_eq!(View::from_bytes(&part.to_bytes()), Ok(part.clone()));
    assert!(part.to_bytes().len() * 10 < whole.to_bytes().len(), "{} bytes", part.to_bytes().len());
    assert!(whole.includes(&part) && whole.includes(&past) && !past.includes(&part));
    let more = past.with_gone(&id("u03"), &id("u04"));
    assert_eq!(more.merge(&part), more.merge(&whole));
    let declared = whole.with_gone(&MemberId::new("u07", 0), &id("u01"));
    assert_eq!(past.merge(&declared.since(&past).expect("as before")), declared);
    let later = whole.merge(&slice(3, 20));
    assert_eq!(later.merge(&part), later, "a part of an older version says nothing");
    let listed = View::of_list(9, [("s".into(), 3, vec![endpoint("u01", true)])]);
    assert_eq!(whole.merge(&listed).since(&whole), None, "under a greater floor only the whole will do");
}
