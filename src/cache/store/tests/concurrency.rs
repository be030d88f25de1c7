//! Promises under several threads.

use super::*;
use crate::cache::quota::{Budget, Usage};

const THREADS: usize = 4;

fn on_threads(f: impl Fn(usize) + Sync) {
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let f = &f;
            scope.spawn(move || f(thread));
        }
    });
}

#[test]
fn a_quota_is_reached_exactly_by_threads_that_race_for_it() {
    let store = store_of(1 << 30, 4);
    let space = tenant(&store, "a");
    space.set_budget(Budget { max_keys: Some(1000), ..Budget::default() });
    let stored = AtomicU64::new(0);
    on_threads(|thread| {
        for number in 0..1000 {
            if put(&store, &space, &format!("{thread}-{number}"), b"v").is_ok() {
                stored.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    assert_eq!((stored.load(Ordering::Relaxed), space.usage().keys, store.stats().entries), (1000, 1000, 1000));
}

#[test]
fn everything_is_accounted_for_after_threads_stored_evicted_expired_and_cleared() {
    let capacity = 200_000;
    let store = store_of(capacity, 4);
    let spaces = [tenant(&store, "a"), tenant(&store, "b")];
    spaces[0].set_budget(Budget { max_keys: Some(300), max_bytes: Some(50_000), guaranteed_bytes: 20_000 });
    on_threads(|thread| {
        let mut random = thread as u64 + 1;
        for step in 0..8000_u64 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let space = &spaces[(random >> 40) as usize % 2];
            let name = format!("key-{}", (random >> 33) % 1500);
            let (name, now) = (key(&name), at(step / 10));
            let ttl = random.is_multiple_of(3).then_some(random >> 58);
            match (random >> 50) % 10 {
                0 | 3 => drop(store.delete(scope(space), name, None, now)),
                1 => drop(store.touch(scope(space), name, ttl, TouchMode::Overwrite, now)),
                2 => drop(store.increment(scope(space), name, 1, "id", ttl, now)),
                4 => drop(store.expire_due(now, 10)),
                5 => drop(store.read(space, name, now, |entry| entry.value().len())),
                _ => {
                    let len = (random >> 20) as usize % 600;
                    drop(store.store(scope(space), name, &vec![0; len], ttl, Condition::Always, now));
                }
            }
            assert!(spaces[0].usage().keys <= 300 && spaces[0].usage().bytes <= 50_000);
            assert!(store.used.load(Ordering::Relaxed) <= capacity);
        }
    });
    let stats = store.stats();
    assert_eq!(stats.memory_bytes, store.used.load(Ordering::Relaxed));
    assert!(stats.evicted > 0 && stats.expired > 0);
    for space in &spaces {
        let mut after = None;
        loop {
            let step = store.remove_page(scope(space), "", after.as_ref(), 50, at(0)).unwrap();
            match step.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
    }
    store.expire_due(at(10_000), usize::MAX);
    let stats = store.stats();
    assert_eq!((stats.entries, stats.tombstones, stats.memory_bytes), (0, 0, 0));
    assert_eq!(store.used.load(Ordering::Relaxed), 0);
    assert_eq!(spaces.map(|space| space.usage()), [Usage::default(); 2]);
}

#[test]
fn increments_with_request_ids_that_are_repeated_by_other_threads_count_once() {
    let store = store_of(1 << 20, 1);
    let space = tenant(&store, "a");
    on_threads(|_| {
        for number in 0..16 {
            store.increment(scope(&space), key("n"), 1, &format!("id-{number}"), None, at(0)).unwrap();
        }
    });
    let value = get(&store, &space, "n", at(0)).unwrap();
    // Threads may be apart by more than the 16 ids that are remembered only if each is new to the counter: there are 16.
    assert_eq!(value, b"16");
}
