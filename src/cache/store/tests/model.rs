//! Random calls, each answered by the store and by a map with a clock; the answers must be the same.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::cache::limits::{REMEMBER_REQUEST_ID_MS, REMEMBERED_REQUEST_IDS};
use crate::cache::quota::Budget;

const SPACES: [&str; 2] = ["team-a", "team-b"];
const KEYS: [&str; 6] = ["a", "a/b", "a/\u{e4}", "50%", "counter", "a/counter"];

type At = (usize, &'static str);

#[derive(Clone, Debug)]
enum Op {
    Read,
    Store { value: Vec<u8>, ttl: Option<u64>, condition: u8 },
    Delete { version: u8 },
    Touch { ttl: Option<u64>, mode: TouchMode },
    Increment { delta: i64, id: u8, ttl: Option<u64> },
    Clear { prefix: &'static str, limit: usize },
    Dump { prefix: &'static str, max_bytes: usize },
    Budget { keys: Option<u64>, bytes: Option<u64> },
    Expire { limit: usize },
    Wait { ms: u64 },
}

/// An operation, where, for whom, and whether in earnest.
#[derive(Clone, Debug)]
struct Call {
    at: At,
    charge: Option<usize>,
    dry: bool,
    op: Op,
}

#[derive(Clone, Debug)]
struct Entry {
    value: Vec<u8>,
    version: Version,
    expires: Option<u64>,
    charged: Option<usize>,
    requests: Vec<(u8, i64, Version, u64)>,
}

struct Model {
    now: u64,
    /// Never with entries whose time is over.
    entries: BTreeMap<At, Entry>,
    budgets: [Budget; 2],
    last: Version,
}

impl Model {
    fn wait(&mut self, ms: u64) {
        self.now += ms;
        let now = self.now;
        self.entries.retain(|_, entry| entry.expires.is_none_or(|expires| expires > now));
    }

    fn usage(&self, payer: usize) -> (u64, u64) {
        let mine = self.entries.iter().filter(|(_, entry)| entry.charged == Some(payer));
        mine.fold((0, 0), |(keys, bytes), ((_, key), entry)| (keys + 1, bytes + (key.len() + entry.value.len()) as u64))
    }

    fn check(&self, at: At, condition: Condition) -> Result<(), StoreError> {
        let version = self.entries.get(&at).map_or(Version::NONE, |entry| entry.version);
        match condition {
            Condition::IfAbsent if version != Version::NONE => Err(StoreError::AlreadyExists),
            Condition::IfPresent if version == Version::NONE => Err(StoreError::NotFound),
            Condition::IfVersion(expected) if expected != version => {
                Err(StoreError::VersionMismatch { current: version })
            }
            _ => Ok(()),
        }
    }

    /// Who pays for a value of this length, if there is quota.
    fn payer(&self, call: &Call, value_len: usize) -> Result<Option<usize>, StoreError> {
        let old = self.entries.get(&call.at);
        let payer = old.map_or(call.charge, |entry| entry.charged);
        let Some(index) = payer else { return Ok(None) };
        let (keys, bytes) = self.usage(index);
        let account = AccountId::new(SPACES[index]).unwrap();
        let more = value_len + if old.is_none() { call.at.1.len() } else { 0 };
        let more = more.saturating_sub(old.map_or(0, |entry| entry.value.len())) as u64;
        match self.budgets[index] {
            Budget { max_keys: Some(limit), .. } if old.is_none() && keys + 1 > limit => {
                Err(StoreError::QuotaKeys { limit, account })
            }
            Budget { max_bytes: Some(limit), .. } if more > 0 && bytes + more > limit => {
                Err(StoreError::QuotaBytes { limit, account })
            }
            _ => Ok(payer),
        }
    }

    fn increment(&self, call: &Call, delta: i64, id: u8) -> Result<(i64, Option<Version>), StoreError> {
        let old = self.entries.get(&call.at);
        let known = old.and_then(|entry| {
            entry.requests.iter().find(|(known, _, _, until)| id != 0 && *known == id && *until > self.now)
        });
        let text = old.map_or("0", |entry| std::str::from_utf8(&entry.value).unwrap_or("no"));
        let before: i64 = text.parse().map_err(|_| StoreError::NotACounter)?;
        if let Some((_, value, version, _)) = known {
            return Ok((*value, Some(*version)));
        }
        let value = before.checked_add(delta).ok_or(StoreError::CounterOverflow)?;
        self.payer(call, value.to_string().len())?;
        Ok((value, None))
    }

    fn write(&mut self, call: &Call, entry: Entry) {
        assert!(entry.version > self.last, "versions grow");
        self.last = entry.version;
        self.entries.insert(call.at, entry);
    }

    /// Entries of a space in the order of a dump.
    fn ordered(&self, space: usize, prefix: &str) -> Vec<(&'static str, &Entry)> {
        let mine = self.entries.iter().filter(|((of, key), _)| *of == space && key.starts_with(prefix));
        let mut found: Vec<_> = mine.map(|((_, key), entry)| (*key, entry)).collect();
        let id = AccountId::new(SPACES[space]).unwrap();
        found.sort_by_key(|(name, _)| (crate::cache::route::route_hash(&id, key(name)), *name));
        found
    }
}

struct Pair {
    store: Store,
    tenants: [Tenant; 2],
    model: Model,
}

impl Pair {
    fn new() -> Self {
        let store = store_of(1 << 30, 4);
        let tenants = SPACES.map(|id| tenant(&store, id));
        let model = Model { now: 1000, entries: BTreeMap::new(), budgets: [Budget::default(); 2], last: Version::NONE };
        Self { store, tenants, model }
    }

    fn apply(&mut self, call: &Call) {
        let now = at(self.model.now);
        let tenants = self.tenants.clone();
        let mode = if call.dry { Mode::DryRun } else { Mode::Apply };
        let scope = Scope { space: &tenants[call.at.0], charge: call.charge.map(|index| &tenants[index]), mode };
        let name = key(call.at.1);
        match &call.op {
            Op::Read => self.read(call, now),
            Op::Store { value, ttl, condition } => {
                let condition = self.condition(call.at, *condition);
                let expected = self.model.check(call.at, condition).and_then(|()| self.model.payer(call, value.len()));
                let got = self.store.store(scope, name, value, *ttl, condition, now);
                assert_eq!(got.clone().map(|_| ()), expected.clone().map(|_| ()));
                if let (Ok(version), Ok(charged), false) = (got, expected, call.dry) {
                    let expires = ttl.map(|ttl| self.model.now.saturating_add(ttl.max(1)));
                    let entry = Entry { value: value.clone(), version, expires, charged, requests: Vec::new() };
                    self.model.write(call, entry);
                }
            }
            Op::Delete { version } => {
                let condition = self.condition(call.at, *version);
                let if_version = if let Condition::IfVersion(version) = condition { Some(version) } else { None };
                let expected = self.model.check(call.at, if_version.map_or(Condition::Always, Condition::IfVersion));
                let expected = expected.map(|()| self.model.entries.contains_key(&call.at));
                assert_eq!(self.store.delete(scope, name, if_version, now), expected);
                if expected.is_ok() && !call.dry {
                    self.model.entries.remove(&call.at);
                }
            }
            Op::Touch { ttl, mode } => self.touch(call, scope, *ttl, *mode, now),
            Op::Increment { delta, id, ttl } => self.increment(call, scope, *delta, *id, *ttl, now),
            Op::Clear { prefix, limit } => self.clear(call, scope, prefix, *limit, now),
            Op::Dump { prefix, max_bytes } => self.dump(call.at.0, prefix, *max_bytes, now),
            Op::Budget { keys, bytes } => {
                let budget = Budget { max_keys: *keys, max_bytes: *bytes, guaranteed_bytes: 0 };
                self.model.budgets[call.at.0] = budget;
                tenants[call.at.0].set_budget(budget);
            }
            Op::Expire { limit } => assert!(self.store.expire_due(now, *limit) <= *limit),
            Op::Wait { ms } => self.model.wait(*ms),
        }
    }

    fn condition(&self, at: At, which: u8) -> Condition {
        let current = self.model.entries.get(&at).map_or(Version::NONE, |entry| entry.version);
        match which {
            0 => Condition::IfAbsent,
            1 => Condition::IfPresent,
            2 => Condition::IfVersion(current),
            3 => Condition::IfVersion(Version::from_u64(current.as_u64() + 1)),
            _ => Condition::Always,
        }
    }

    fn read(&self, call: &Call, now: Now) {
        let got = self.store.read(&self.tenants[call.at.0], key(call.at.1), now, |entry| {
            let mut copied = Vec::new();
            entry.copy_value_to(&mut copied);
            assert_eq!(copied, entry.value());
            assert_eq!(copied.len(), entry.value_len());
            (copied, entry.version(), entry.remaining_ttl_ms(now))
        });
        let expected =
            self.model.entries.get(&call.at).map(|entry| {
                (entry.value.clone(), entry.version, entry.expires.map(|expires| expires - self.model.now))
            });
        assert_eq!(got, Ok(expected));
    }

    fn touch(&mut self, call: &Call, scope: Scope<'_>, ttl: Option<u64>, mode: TouchMode, now: Now) {
        let got = self.store.touch(scope, key(call.at.1), ttl, mode, now);
        let Some(entry) = self.model.entries.get(&call.at).cloned() else {
            assert_eq!(got, Err(StoreError::NotFound));
            return;
        };
        let got = got.unwrap();
        let new = ttl.map(|ttl| self.model.now.saturating_add(ttl.max(1)));
        let far = |time: Option<u64>| time.map_or((1, 0), |time| (0, time));
        let expires = match mode {
            TouchMode::Overwrite => new,
            TouchMode::ExtendOnly => std::cmp::max_by_key(entry.expires, new, |time| far(*time)),
            TouchMode::ShortenOnly => std::cmp::min_by_key(entry.expires, new, |time| far(*time)),
        };
        assert_eq!(got.changed, expires != entry.expires);
        assert_eq!(got.remaining_ttl_ms, expires.map(|expires| expires - self.model.now));
        if call.dry {
            assert_eq!(got.version, Version::NONE);
        } else if got.changed {
            self.model.write(call, Entry { expires, version: got.version, ..entry });
        } else {
            assert_eq!(got.version, entry.version);
        }
    }

    fn increment(&mut self, call: &Call, scope: Scope<'_>, delta: i64, id: u8, ttl: Option<u64>, now: Now) {
        let request = if id == 0 { String::new() } else { format!("request-{id}") };
        let expected = self.model.increment(call, delta, id);
        let got = self.store.increment(scope, key(call.at.1), delta, &request, ttl, now);
        assert_eq!(got.clone().map(|counted| counted.value), expected.clone().map(|(value, _)| value));
        let (Ok(counted), Ok((value, known))) = (got, expected) else { return };
        if call.dry {
            assert_eq!(counted.version, Version::NONE);
            return;
        }
        if let Some(version) = known {
            assert_eq!(counted.version, version);
            return;
        }
        let (version, time) = (counted.version, self.model.now);
        let charged = self.model.payer(call, value.to_string().len()).unwrap();
        let mut entry = self.model.entries.get(&call.at).cloned().unwrap_or(Entry {
            value: Vec::new(),
            version,
            expires: ttl.map(|ttl| time.saturating_add(ttl.max(1))),
            charged,
            requests: Vec::new(),
        });
        entry.requests.retain(|(_, _, _, until)| *until > time);
        if id != 0 {
            entry.requests.push((id, value, version, time + REMEMBER_REQUEST_ID_MS));
            let surplus = entry.requests.len().saturating_sub(REMEMBERED_REQUEST_IDS);
            entry.requests.drain(..surplus);
        }
        self.model.write(call, Entry { value: value.to_string().into_bytes(), version, ..entry });
    }

    fn clear(&mut self, call: &Call, scope: Scope<'_>, prefix: &str, limit: usize, now: Now) {
        let doomed: Vec<_> =
            self.model.ordered(call.at.0, prefix).iter().take(limit).map(|(name, _)| (call.at.0, *name)).collect();
        let removed = self.store.remove_page(scope, prefix, None, limit, now).unwrap();
        assert_eq!(removed.removed, doomed.len() as u64);
        if !call.dry {
            self.model.entries.retain(|at, _| !doomed.contains(at));
        }
    }

    fn dump(&self, space: usize, prefix: &str, max_bytes: usize, now: Now) {
        let got = dump(&self.store, &self.tenants[space], prefix, max_bytes, now);
        let got: Vec<_> =
            got.into_iter().map(|item| (item.key, item.value.to_vec(), item.version, item.remaining_ttl_ms)).collect();
        let expected: Vec<_> = self.model.ordered(space, prefix);
        let expected: Vec<_> = expected
            .into_iter()
            .map(|(name, entry)| {
                let ttl = entry.expires.map(|expires| expires - self.model.now);
                (name.to_owned(), entry.value.clone(), entry.version, ttl)
            })
            .collect();
        assert_eq!(got, expected);
    }

    /// That nothing is counted that is not there.
    fn finish(&self) {
        let now = at(self.model.now);
        self.store.expire_due(now, usize::MAX);
        for (index, tenant) in self.tenants.iter().enumerate() {
            let usage = tenant.usage();
            assert_eq!((usage.keys, usage.bytes), self.model.usage(index));
            assert_eq!(tenant.budget(), self.model.budgets[index]);
        }
        let stats = self.store.stats();
        assert_eq!(stats.entries, self.model.entries.len() as u64);
        assert_eq!(stats.tombstones, 0);
        assert_eq!(stats.evicted, 0);
        assert_eq!(stats.memory_bytes, self.store.used.load(Ordering::Relaxed));
        for (space, tenant) in self.tenants.iter().enumerate() {
            let call = Call { at: (space, ""), charge: None, dry: false, op: Op::Read };
            let everything = Scope { space: tenant, charge: None, mode: Mode::Apply };
            let removed = self.store.remove_page(everything, call.at.1, None, usize::MAX, now).unwrap();
            assert_eq!(removed.next, None);
        }
        let stats = self.store.stats();
        assert_eq!((stats.entries, stats.tombstones, stats.memory_bytes), (0, 0, 0));
        assert_eq!(self.store.used.load(Ordering::Relaxed), 0);
        for tenant in &self.tenants {
            assert_eq!(tenant.usage(), crate::cache::quota::Usage::default());
        }
    }
}

fn ttls() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![
        3 => Just(None),
        4 => (0_u64..200).prop_map(Some),
        1 => Just(Some(60_000)),
        1 => Just(Some(u64::MAX)),
    ]
}

fn values() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        2 => Just(b"7".to_vec()),
        1 => Just(b"-9223372036854775808".to_vec()),
        1 => Just(Vec::new()),
        4 => (0_usize..300).prop_map(|len| vec![b'v'; len]),
        1 => (3900_usize..9000).prop_map(|len| vec![b'l'; len]),
    ]
}

fn ops() -> impl Strategy<Value = Op> {
    let modes = prop_oneof![Just(TouchMode::Overwrite), Just(TouchMode::ExtendOnly), Just(TouchMode::ShortenOnly)];
    let prefixes = || prop_oneof![Just(""), Just("a"), Just("a/"), Just("none")];
    let budgets = |max: u64| prop_oneof![Just(None), (0..max).prop_map(Some)];
    prop_oneof![
        8 => Just(Op::Read),
        12 => (values(), ttls(), 0_u8..10).prop_map(|(value, ttl, condition)| Op::Store { value, ttl, condition }),
        4 => (0_u8..8).prop_map(|version| Op::Delete { version }),
        5 => (ttls(), modes).prop_map(|(ttl, mode)| Op::Touch { ttl, mode }),
        8 => (-3_i64..4, 0_u8..24, ttls()).prop_map(|(delta, id, ttl)| Op::Increment { delta, id, ttl }),
        1 => (prefixes(), 1_usize..5).prop_map(|(prefix, limit)| Op::Clear { prefix, limit }),
        3 => (prefixes(), 0_usize..400).prop_map(|(prefix, max_bytes)| Op::Dump { prefix, max_bytes }),
        1 => (budgets(5), budgets(2000)).prop_map(|(keys, bytes)| Op::Budget { keys, bytes }),
        1 => (0_usize..4).prop_map(|limit| Op::Expire { limit }),
        4 => prop_oneof![4 => 0_u64..120, 1 => Just(59_999), 1 => Just(60_000)].prop_map(|ms| Op::Wait { ms }),
    ]
}

fn calls() -> impl Strategy<Value = Call> {
    let keys = prop_oneof![4 => 0..KEYS.len(), 2 => Just(4)].prop_map(|index| KEYS[index]);
    let charges = prop_oneof![Just(None), Just(Some(0)), Just(Some(1))];
    (0..SPACES.len(), keys, charges, prop::bool::weighted(0.15), ops()).prop_map(|(space, key, charge, dry, op)| Call {
        at: (space, key),
        charge,
        dry,
        op,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_store_answers_as_a_map_with_a_clock_does(calls in prop::collection::vec(calls(), 1..200)) {
        let mut pair = Pair::new();
        for call in &calls {
            pair.apply(call);
        }
        pair.finish();
    }
}
