//! Promises that are about one case.

use super::*;
use crate::cache::quota::Budget;

#[test]
fn an_entry_with_a_ttl_is_there_until_the_last_millisecond_and_not_at_its_end() {
    let store = store_of(1 << 20, 1);
    let space = tenant(&store, "a");
    for (ttl, last) in [(1, 1000), (0, 1000), (500, 1499)] {
        store.store(scope(&space), key("k"), b"v", Some(ttl), Condition::Always, at(1000)).unwrap();
        assert_eq!(store.read(&space, key("k"), at(last), |entry| entry.remaining_ttl_ms(at(last))), Ok(Some(Some(1))));
        assert_eq!(get(&store, &space, "k", at(last + 1)), None);
    }
}

#[test]
fn a_ttl_that_overflows_the_clock_never_comes() {
    let store = store_of(1 << 20, 1);
    let space = tenant(&store, "a");
    store.store(scope(&space), key("k"), b"v", Some(u64::MAX), Condition::Always, at(1000)).unwrap();
    let far = Now { monotonic_ms: u64::MAX - 1, wall_us: 0 };
    store.expire_due(far, usize::MAX);
    assert!(get(&store, &space, "k", far).is_some());
}

#[test]
fn a_dry_run_counts_nothing_and_changes_nothing() {
    let store = store_of(1 << 20, 1);
    let space = tenant(&store, "a");
    let version = put(&store, &space, "k", b"5").unwrap();
    let (stats, usage) = (store.stats(), space.usage());
    let dry = Scope { mode: Mode::DryRun, ..scope(&space) };
    let touched = store.touch(dry, key("k"), Some(5), TouchMode::Overwrite, at(0)).unwrap();
    assert_eq!(touched, Touched { version: Version::NONE, remaining_ttl_ms: Some(5), changed: true });
    let counted = store.increment(dry, key("k"), 2, "id", None, at(0)).unwrap();
    assert_eq!(counted, Counted { value: 7, version: Version::NONE });
    assert_eq!(store.store(dry, key("k"), b"other", None, Condition::Always, at(0)), Ok(Version::NONE));
    assert_eq!(store.delete(dry, key("k"), Some(version), at(0)), Ok(true));
    assert_eq!((store.stats(), space.usage()), (stats, usage));
    assert_eq!(get(&store, &space, "k", at(0)).as_deref(), Some(&b"5"[..]));
}

#[test]
fn a_quota_is_not_refused_while_what_expired_has_not_been_reclaimed() {
    let store = store_of(1 << 20, 4);
    let space = tenant(&store, "a");
    space.set_budget(Budget { max_keys: Some(100), max_bytes: None, guaranteed_bytes: 0 });
    let fill = |prefix: &str, now| {
        for number in 0..100 {
            let name = format!("{prefix}-{number}");
            store.store(scope(&space), key(&name), b"v", Some(10), Condition::Always, now).unwrap();
        }
    };
    fill("first", at(0));
    let extra = store.store(scope(&space), key("extra"), b"v", None, Condition::Always, at(9));
    assert_eq!(extra, Err(StoreError::QuotaKeys { limit: 100, account: space.id().clone() }));
    fill("second", at(10));
}

#[test]
fn a_plain_store_over_a_counter_forgets_its_requests_and_their_bytes() {
    let store = store_of(1 << 20, 1);
    let space = tenant(&store, "a");
    store.increment(scope(&space), key("n"), 5, "id", None, at(0)).unwrap();
    let with_request = space.usage().memory;
    put(&store, &space, "n", b"5").unwrap();
    assert!(space.usage().memory < with_request);
    assert_eq!(store.increment(scope(&space), key("n"), 5, "id", None, at(0)).unwrap().value, 10);
}

#[test]
fn an_entry_stays_charged_to_who_created_it() {
    let store = store_of(1 << 20, 1);
    let [shared, first, second] = ["tutorial", "first", "second"].map(|id| tenant(&store, id));
    let by = |payer: Option<&Tenant>, value: &[u8]| {
        let scope = Scope { space: &shared, charge: payer, mode: Mode::Apply };
        store.store(scope, key("k"), value, None, Condition::Always, at(0)).unwrap();
    };
    by(Some(&first), b"12");
    by(Some(&second), b"1234");
    assert_eq!((first.usage().keys, first.usage().bytes, second.usage().keys), (1, 5, 0));
    assert_eq!(first.usage().memory, entry_charge(1, 4, false, true));
    store.delete(Scope { space: &shared, charge: None, mode: Mode::Apply }, key("k"), None, at(0)).unwrap();
    assert_eq!(first.usage(), crate::cache::quota::Usage::default());
    by(None, b"1");
    assert_eq!(store.stats().memory_bytes, entry_charge(1, 1, false, true));
}

#[test]
fn each_size_of_value_around_the_edges_comes_back() {
    let store = store_of(1 << 30, 2);
    let space = tenant(&store, "a");
    let long = "k".repeat(4096);
    for name in ["k", &long] {
        for len in (0..64).chain(3900..4200).chain([65_536, 4_000_000]) {
            let value: Vec<u8> = (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect();
            put(&store, &space, name, &value).unwrap();
            assert!(get(&store, &space, name, at(0)) == Some(value), "{len}");
            let charge = entry_charge(name.len(), len, false, false);
            assert_eq!(
                store.stats().memory_bytes - if name == "k" { 0 } else { entry_charge(1, 4_000_000, false, false) },
                charge
            );
        }
    }
}
