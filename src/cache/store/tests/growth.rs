//! Many entries: buckets split, chunks move, memory comes and goes.

use std::collections::HashMap;

use super::*;

#[test]
fn entries_that_are_there_all_the_while_are_dumped_exactly_once() {
    let store = store_of(1 << 30, 4);
    let space = tenant(&store, "a");
    for number in 0..20_000 {
        put(&store, &space, &format!("stays-{number}"), b"s").unwrap();
    }
    let mut seen: HashMap<String, u32> = HashMap::new();
    let (mut after, mut round) = (None, 0);
    loop {
        let page = store.page(&space, "", after.as_ref(), 4000, at(0)).unwrap();
        for item in page.items {
            *seen.entry(item.key).or_default() += 1;
        }
        // Between two pages the store grows, shrinks and moves what stays.
        for number in 0..100 {
            put(&store, &space, &format!("comes-{round}-{number}"), &vec![0; number]).unwrap();
            store.delete(scope(&space), key(&format!("comes-{}-{number}", round / 2)), None, at(0)).unwrap();
            put(&store, &space, &format!("stays-{}", round * 7 + number), &vec![1; number]).ok();
        }
        round += 1;
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert!(round > 20);
    assert!((0..20_000).all(|number| seen.get(&format!("stays-{number}")) == Some(&1)));
    assert!(seen.values().all(|&times| times == 1));
}

#[test]
fn a_dump_goes_in_the_order_of_route_hashes_whatever_the_shards() {
    let names: Vec<String> = (0..3000).map(|number| format!("key-{number}")).collect();
    let order = |shards| {
        let store = store_of(1 << 30, shards);
        let space = tenant(&store, "a");
        for name in &names {
            put(&store, &space, name, b"").unwrap();
        }
        dump(&store, &space, "", 1 << 16, at(0)).into_iter().map(|item| item.key).collect::<Vec<_>>()
    };
    let mut expected = names.clone();
    let id = AccountId::new("a").unwrap();
    expected.sort_by_key(|name| crate::cache::route::route_hash(&id, key(name)));
    assert_eq!(order(1), expected);
    assert_eq!(order(16), expected);
}

#[test]
fn a_page_of_an_account_with_little_is_bounded_work_among_much_of_others() {
    let store = store_of(1 << 30, 1);
    let [large, small] = [tenant(&store, "large"), tenant(&store, "small")];
    for number in 0..50_000 {
        put(&store, &large, &format!("key-{number}"), b"").unwrap();
    }
    put(&store, &small, "only", b"").unwrap();
    let mut calls = 0;
    let (mut after, mut found) = (None, 0);
    loop {
        let page = store.page(&small, "", after.as_ref(), 1 << 20, at(0)).unwrap();
        calls += 1;
        found += page.items.len();
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!(found, 1);
    assert!(calls > 5, "{calls} calls looked at 50,000 entries");
}

#[test]
fn a_clear_in_steps_removes_the_prefix_and_nothing_else() {
    let store = store_of(1 << 30, 4);
    let space = tenant(&store, "a");
    for number in 0..5000 {
        put(&store, &space, &format!("gone/{number}"), &vec![0; number % 300]).unwrap();
        put(&store, &space, &format!("stays/{number}"), &vec![0; number % 300]).unwrap();
    }
    let dry = Scope { mode: Mode::DryRun, ..scope(&space) };
    for (scope, left) in [(dry, 10_000), (scope(&space), 5000)] {
        let (mut removed, mut after) = (0, None);
        loop {
            let step = store.remove_page(scope, "gone/", after.as_ref(), 100, at(0)).unwrap();
            assert!(step.removed <= 100);
            removed += step.removed;
            match step.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!(removed, 5000);
        assert_eq!(store.stats().entries, left);
    }
    assert_exact(&store, &[&space], at(0));
}

#[test]
fn a_million_milliseconds_of_expiry_are_exact_and_reclaim_everything() {
    let store = store_of(1 << 30, 2);
    let space = tenant(&store, "a");
    for number in 0..20_000_u64 {
        let ttl = number * number % 1_000_003 + 1;
        let name = format!("key-{number}");
        store.store(scope(&space), key(&name), b"v", Some(ttl), Condition::Always, at(5)).unwrap();
    }
    for now in (0..=1_000_008).step_by(33_333) {
        store.expire_due(at(now), usize::MAX);
        let expected = (0..20_000_u64).filter(|number| 5 + number * number % 1_000_003 + 1 > now).count();
        assert_eq!(store.stats().entries, expected as u64, "at {now}");
        assert_eq!(space.usage().keys, expected as u64);
    }
    store.expire_due(at(1_000_009), usize::MAX);
    assert_eq!(store.stats().memory_bytes, 0);
}

#[test]
fn keys_that_were_chosen_to_share_a_bucket_neither_blow_up_the_directory_nor_get_lost() {
    let mut index = index::Index::new(4);
    let hashes = |number: u32| Hashes {
        route: 0x1234_5678_9ABC_0000 | u64::from(number & 0xFFFF),
        keyed: u64::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15),
    };
    let chunk = |number: u32| slab::ChunkRef::from_raw(number);
    for number in 0..20_000 {
        index.insert(chunk(number), hashes(number), |at| hashes(at.raw()), |_| 0);
    }
    assert!((0..20_000).all(|number| index.find(hashes(number), |at| at == chunk(number)).is_some()));
    assert!(index.directory_slots() <= 2048, "{}", index.directory_slots());
}
