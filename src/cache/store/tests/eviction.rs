//! What happens at the capacity.

use proptest::prelude::*;

use super::*;
use crate::cache::quota::{Budget, Usage};

const CAPACITY: u64 = 40_000;

#[derive(Clone, Debug)]
struct Write {
    space: usize,
    key: u8,
    len: usize,
    ttl: Option<u64>,
    wait: u64,
}

fn writes() -> impl Strategy<Value = Write> {
    let lens = prop_oneof![6 => 0_usize..1500, 1 => 4000_usize..12_000];
    let ttls = prop_oneof![3 => Just(None), 1 => (1_u64..50).prop_map(Some)];
    (0_usize..2, any::<u8>(), lens, ttls, 0_u64..3).prop_map(|(space, key, len, ttl, wait)| Write {
        space,
        key,
        len,
        ttl,
        wait,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn memory_is_exact_and_never_over_the_capacity(writes in prop::collection::vec(writes(), 1..300), shards in 1_usize..5) {
        let store = store_of(CAPACITY, shards);
        let spaces = [tenant(&store, "a"), tenant(&store, "b")];
        let mut time = 0;
        for write in &writes {
            time += write.wait;
            let space = &spaces[write.space];
            let name = format!("key-{}", write.key);
            store.store(scope(space), key(&name), &vec![0; write.len], write.ttl, Condition::Always, at(time)).unwrap();
            prop_assert!(store.stats().memory_bytes <= CAPACITY);
            prop_assert_eq!(store.stats().memory_bytes, store.used.load(Ordering::Relaxed));
            prop_assert_eq!(get(&store, space, &name, at(time)).map(|value| value.len()), Some(write.len));
        }
        assert_exact(&store, &[&spaces[0], &spaces[1]], at(time));
        store.set_capacity(CAPACITY / 4, at(time));
        prop_assert!(store.stats().memory_bytes <= CAPACITY / 4);
        assert_exact(&store, &[&spaces[0], &spaces[1]], at(time));
    }

    #[test]
    fn no_account_is_evicted_below_its_guarantee(lens in prop::collection::vec(0_usize..600, 100..400), guaranteed in 0_u64..15_000) {
        let store = store_of(CAPACITY, 4);
        let [quiet, loud] = [tenant(&store, "quiet"), tenant(&store, "loud")];
        quiet.set_budget(Budget { guaranteed_bytes: guaranteed, ..Budget::default() });
        for number in 0..100 {
            put(&store, &quiet, &format!("key-{number}"), &[7; 100]).unwrap();
        }
        let before = quiet.usage().memory;
        for (number, len) in lens.iter().enumerate() {
            put(&store, &loud, &format!("key-{number}"), &vec![0; *len]).unwrap();
        }
        prop_assert!(quiet.usage().memory >= guaranteed.min(before));
        assert_exact(&store, &[&quiet, &loud], at(0));
    }
}

#[test]
fn an_entry_larger_than_the_capacity_is_refused_and_nothing_is_lost() {
    let store = store_of(10_000, 4);
    let space = tenant(&store, "a");
    put(&store, &space, "small", b"kept").unwrap();
    assert_eq!(put(&store, &space, "large", &[0; 10_000]), Err(StoreError::NoRoom));
    assert_eq!(put(&store, &space, "small", &[0; 10_000]), Err(StoreError::NoRoom));
    assert_eq!(get(&store, &space, "small", at(0)).as_deref(), Some(&b"kept"[..]));
    assert_exact(&store, &[&space], at(0));
}

#[test]
fn when_all_memory_is_guaranteed_to_others_a_store_is_refused_and_a_dry_run_says_so() {
    let store = store_of(20_000, 2);
    let [owner, other] = [tenant(&store, "owner"), tenant(&store, "other")];
    owner.set_budget(Budget { guaranteed_bytes: 20_000, ..Budget::default() });
    let mut number = 0;
    while store.stats().evicted == 0 {
        put(&store, &owner, &format!("key-{number}"), &[0; 200]).unwrap();
        number += 1;
    }
    let usage = owner.usage();
    let dry = Scope { mode: Mode::DryRun, ..scope(&other) };
    assert_eq!(store.store(dry, key("k"), &[0; 400], None, Condition::Always, at(0)), Err(StoreError::NoRoom));
    assert_eq!(put(&store, &other, "k", &[0; 400]), Err(StoreError::NoRoom));
    assert_eq!(owner.usage(), usage);
    // Its own entries it may push out itself.
    put(&store, &owner, "more", &[0; 400]).unwrap();
    assert_exact(&store, &[&owner, &other], at(0));
}

#[test]
fn spare_memory_that_is_less_than_an_entry_is_not_searched_for() {
    let store = store_of(1 << 20, 2);
    let [owner, other] = [tenant(&store, "owner"), tenant(&store, "other")];
    for number in 0..100 {
        put(&store, &owner, &format!("key-{number}"), &[0; 200]).unwrap();
    }
    let Usage { memory, keys, .. } = owner.usage();
    let guarantee = |guaranteed_bytes| owner.set_budget(Budget { guaranteed_bytes, ..Budget::default() });
    guarantee(memory - memory / keys + 1);
    assert!(!store.may_evict_anything(Some(&other)));
    assert!(store.may_evict_anything(Some(&owner)));
    guarantee(memory - memory / keys - 1);
    assert!(store.may_evict_anything(Some(&other)));
}

#[test]
fn the_one_entry_that_may_go_is_found_among_very_many_that_may_not() {
    let store = store_of(4_000_000, 1);
    let [owner, other] = [tenant(&store, "owner"), tenant(&store, "other")];
    put(&store, &other, "first", &[0; 100]).unwrap();
    owner.set_budget(Budget { guaranteed_bytes: 4_000_000, ..Budget::default() });
    for number in 0.. {
        if store.stats().memory_bytes + 200 > 4_000_000 {
            break;
        }
        put(&store, &owner, &format!("key-{number}"), &[0; 100]).unwrap();
    }
    let owned = owner.usage();
    put(&store, &other, "second", &[0; 100]).unwrap();
    put(&store, &other, "third", &[0; 100]).unwrap();
    assert_eq!(owner.usage(), owned);
    assert!(other.usage().keys <= 2);
}

#[test]
fn a_scan_does_not_push_out_what_is_read() {
    let store = store_of(1_000_000, 4);
    let space = tenant(&store, "a");
    let hot: Vec<String> = (0..2000).map(|number| format!("hot-{number}")).collect();
    for name in &hot {
        put(&store, &space, name, &[0; 100]).unwrap();
        get(&store, &space, name, at(0));
    }
    for number in 0..50_000 {
        put(&store, &space, &format!("cold-{number}"), &[0; 100]).unwrap();
    }
    let left = hot.iter().filter(|name| get(&store, &space, name, at(0)).is_some()).count();
    assert!(left > 1900, "{left}");
}

#[test]
fn a_large_value_that_is_evicted_stays_whole_for_who_reads_it() {
    let store = store_of(100_000, 1);
    let space = tenant(&store, "a");
    put(&store, &space, "large", &vec![9; 50_000]).unwrap();
    let mut value = bytes::Bytes::new();
    store.read(&space, key("large"), at(0), |entry| value = entry.value()).unwrap();
    store.set_capacity(0, at(0));
    assert!(get(&store, &space, "large", at(0)).is_none());
    assert!(value == vec![9; 50_000]);
}
