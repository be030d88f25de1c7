use proptest::prelude::*;

use super::*;

const PLACEMENT: &str = include_str!("../../tests/fixtures/placement_v1.csv");

fn addresses(members: usize) -> Vec<String> {
    (1..=members).map(|member| format!("10.0.{}.{}:7070", member / 250, member % 250 + 1)).collect()
}

/// A route hash that is as good as random.
fn spread(number: u64) -> u64 {
    hash::of_route(&number.to_le_bytes())
}

#[test]
fn placement_is_what_its_1850_vectors_say() {
    let mut checked = 0;
    for line in PLACEMENT.lines().skip(1) {
        let [members, per_member, minimum, route, at, owner, successor] =
            line.split(',').collect::<Vec<_>>().try_into().unwrap();
        let addresses: Vec<String> = match members.strip_prefix("ipv6-") {
            Some(count) => (1..=count.parse().unwrap()).map(|n: usize| format!("[fd00::{n:x}]:5051")).collect(),
            None => (1..=members.parse().unwrap()).map(|n: usize| format!("10.0.0.{n}:5051")).collect(),
        };
        let ring = Ring::new(&addresses);
        assert_eq!(entries_per_member(addresses.len()).to_string(), per_member, "{line}");
        assert_eq!(minimum_ring_size(addresses.len()).to_string(), minimum, "{line}");
        assert_eq!(hash::of_route(route.as_bytes()).to_string(), at, "{line}");
        assert_eq!(ring.owner(route.as_bytes()), Some(owner), "{line}");
        assert_eq!(ring.successor(route.as_bytes()).unwrap_or_default(), successor, "{line}");
        checked += 1;
    }
    assert_eq!(checked, 1850);
}

#[test]
fn every_member_has_the_same_number_of_entries() {
    for members in 1..=600 {
        let ring = Ring::new(addresses(members));
        assert_eq!(ring.entries(), entries_per_member(members) * members, "{members} members");
    }
}

#[test]
fn an_empty_ring_has_no_owner_and_a_ring_of_one_no_successor() {
    let empty = Ring::new::<&str>([]);
    assert_eq!((empty.owner(b"a/b"), empty.successor(b"a/b")), (None, None));
    assert_eq!(empty.placement("a/b").split('\t').skip(2).collect::<Vec<_>>(), ["-", "-"]);
    let one = Ring::new(["10.0.0.1:7070", "10.0.0.1:7070"]);
    assert_eq!((one.owner(b"a/b"), one.successor(b"a/b")), (Some("10.0.0.1:7070"), None));
    assert_eq!(one.stretches_of(0), [Stretch::ALL]);
}

#[test]
fn a_line_says_route_hash_owner_and_successor() {
    let ring = Ring::new(["10.0.0.1:5051", "10.0.0.2:5051"]);
    let line = ring.placement("acct-2/key-187");
    assert_eq!(line, "acct-2/key-187\t7062867951693311305\t10.0.0.1:5051\t10.0.0.2:5051");
}

#[test]
fn shares_are_balanced() {
    println!("members  largest share / mean");
    for (members, limit) in [(1, 1.01), (2, 1.2), (3, 1.3), (5, 1.4), (10, 1.4), (32, 1.5), (100, 1.8), (1000, 3.8)] {
        let ring = Ring::new(addresses(members));
        let share = |member| ring.stretches_of(member).iter().map(|stretch| stretch.width()).sum::<u128>();
        let shares: Vec<u128> = (0..members).map(share).collect();
        assert_eq!(shares.iter().sum::<u128>(), 1 << 64, "every hash has one owner");
        #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
        let ratio = *shares.iter().max().unwrap() as f64 * members as f64 / 2_f64.powi(64);
        println!("{members:>7}  {ratio:.3}");
        assert!(ratio < limit, "{members} members: {ratio}");
    }
}

fn some_members(most: usize) -> impl Strategy<Value = Vec<String>> {
    prop::collection::btree_set(0..60_000_u32, 1..most)
        .prop_map(|set| set.into_iter().map(|n| format!("10.1.{}.{}:7070", n / 250, n % 250)).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn up_to_32_members_a_join_or_leave_moves_only_to_or_from_that_member(mut members in some_members(32)) {
        let joiner = "10.2.0.1:7070".to_owned();
        let without = Ring::new(&members);
        members.push(joiner.clone());
        let with = Ring::new(&members);
        for step in diff(&without, &with) {
            prop_assert_eq!(step.to, Some(joiner.as_str()));
        }
        for step in diff(&with, &without) {
            prop_assert_eq!(step.from, Some(joiner.as_str()));
        }
    }

    #[test]
    fn a_hash_changes_hands_exactly_where_diff_says(old in some_members(80), new in some_members(80), seed in any::<u64>()) {
        let (old, new) = (Ring::new(&old), Ring::new(&new));
        let moves = diff(&old, &new);
        prop_assert!(moves.is_sorted_by(|a, b| a.stretch.last < b.stretch.first));
        let edges = moves.iter().flat_map(|step| [step.stretch.first, step.stretch.last]);
        let beyond = moves.iter().flat_map(|s| [s.stretch.first.wrapping_sub(1), s.stretch.last.wrapping_add(1)]);
        for hash in (0..500).map(|n| spread(seed ^ n)).chain(edges).chain(beyond) {
            let step = moves.get(moves.partition_point(|step| step.stretch.last < hash));
            let step = step.filter(|step| step.stretch.contains(hash));
            let expected = step.map_or((old.owner_of(hash), old.owner_of(hash)), |step| (step.from, step.to));
            prop_assert_eq!((old.owner_of(hash), new.owner_of(hash)), expected);
        }
    }

    #[test]
    fn a_member_owns_exactly_its_stretches(members in some_members(80), seed in any::<u64>()) {
        let ring = Ring::new(&members);
        for member in 0..members.len() {
            let stretches = ring.stretches_of(member);
            prop_assert!(stretches.is_sorted_by(|a, b| a.last < b.first));
            let edges = stretches.iter().flat_map(|s| [s.first, s.last, s.last.wrapping_add(1)]);
            for hash in (0..20).map(|n| spread(seed ^ n)).chain(edges) {
                prop_assert_eq!(ring.owner_index(hash) == Some(member), stretches.iter().any(|s| s.contains(hash)));
            }
        }
    }
}
