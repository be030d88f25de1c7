//! The stores of three members: keys move between them, page by page, while operations, evictions and crashes come between.
//! A plain map says what may be read. The hand-off here is the shortest that keeps the rules: everybody has a view at once,
//! and who gains claims at once.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::cache::store::shard::Shard;
use crate::cache::store::slab::ChunkRef;
use crate::ownership::Arcs;
use crate::ownership::copies::{Copies, Frozen};
use crate::ownership::member::{Endpoint, MemberId};
use crate::ownership::mistake::Mistakes;
use crate::ownership::snapshot::Snapshot;
use crate::ownership::view::View;
use crate::ring::Stretch;

const MEMBERS: usize = 3;
const KEYS: u64 = 40;
const PAYERS: [&str; 2] = ["tutorial", "team-a"];

#[derive(Clone, Debug)]
enum Op {
    Store {
        key: u64,
        len: usize,
        ttl: Option<u64>,
        payer: usize,
    },
    Increment {
        key: u64,
        id: u8,
    },
    Delete {
        key: u64,
    },
    Read {
        key: u64,
    },
    /// Which members serve from now on, as bits.
    View {
        serving: u8,
    },
    Pull {
        member: usize,
        max_bytes: usize,
    },
    Settle,
    Evict {
        member: usize,
        keep: u64,
    },
    Expire {
        member: usize,
    },
    Wait {
        ms: u64,
    },
    Crash {
        member: usize,
    },
}

/// What a key's value may be.
#[derive(Clone, Debug)]
struct Known {
    value: Vec<u8>,
    expires: Option<u64>,
    /// It may have been evicted, or lost with a member.
    may_be_missing: bool,
}

struct Node {
    id: MemberId,
    store: Arc<Store>,
    copies: StoreCopies,
    arcs: Arc<Arcs>,
    /// Who has copies for it, and how far they were pulled.
    sources: BTreeMap<usize, Option<Place>>,
    /// Settled below this hash; none: everything.
    settled_to: Option<u64>,
}

struct World {
    nodes: Vec<Node>,
    snapshot: Arc<Snapshot>,
    version: u64,
    now: u64,
    /// So little memory that any write may evict anything.
    scarce: bool,
    model: BTreeMap<u64, Known>,
    /// What increments with a request id were answered.
    answers: BTreeMap<(u64, u8), i64>,
}

impl Node {
    fn new(number: usize, boot: u64, capacity: u64) -> Self {
        let id = MemberId::new(&format!("pod-{number}"), boot);
        let store = Arc::new(store_of(capacity, 4));
        store.join(&id, Mistakes::default());
        let copies = store.copies();
        Self { id, store, copies, arcs: Arc::default(), sources: BTreeMap::new(), settled_to: None }
    }

    /// All entries and tombstones, each with its shard.
    fn each(&self, mut f: impl FnMut(&Shard, Hashes, ChunkRef)) {
        let mut from = Some(0);
        while let Some(first) = from {
            let shard = self.store.lock_at(first);
            let (found, next) = shard.bucket(Stretch { first, last: u64::MAX });
            found.for_each(|(hashes, at)| f(&shard, hashes, at));
            from = next;
        }
    }

    /// What is counted is what is there, to the byte.
    fn check_accounts(&self) {
        let (mut memory, mut usage) = (0, BTreeMap::<String, (u64, u64, u64)>::new());
        self.each(|shard, _, at| {
            memory += shard.charge(at);
            let entry = shard.entry(at);
            if let (false, Some(payer)) = (entry.meta().is_tombstone(), shard.charged(&entry)) {
                let sums = usage.entry(payer.id().to_string()).or_default();
                *sums = (sums.0 + 1, sums.1 + entry.quota_bytes(), sums.2 + shard.charge(at));
            }
        });
        memory += self.store.shards.iter().map(|shard| shard.0.lock().marks()).sum::<u64>();
        assert_eq!(self.store.stats().memory_bytes, memory);
        assert_eq!(self.store.used.load(Ordering::Relaxed), memory);
        for id in PAYERS {
            let counted = tenant(&self.store, id).usage();
            let there = usage.get(id).copied().unwrap_or_default();
            assert_eq!((counted.keys, counted.bytes, counted.memory), there, "{id} at {:?}", self.id);
        }
    }
}

impl World {
    fn new(capacity: u64) -> Self {
        let nodes: Vec<Node> = (0..MEMBERS).map(|number| Node::new(number, 1, capacity)).collect();
        let snapshot = Arc::new(Snapshot::new(View::default()));
        let mut world = Self {
            nodes,
            snapshot,
            version: 0,
            now: 1000,
            scarce: capacity < 1 << 20,
            model: BTreeMap::new(),
            answers: BTreeMap::new(),
        };
        world.view(0b001, &[]);
        world.settle();
        world
    }

    fn time(&self) -> Now {
        at(self.now)
    }

    /// Rules 3 and 5, for all at once.
    fn view(&mut self, serving: u8, lost: &[MemberId]) {
        self.version += 1;
        let endpoint = |(number, node): (usize, &Node)| Endpoint {
            uid: node.id.uid.clone(),
            address: format!("10.0.0.{number}:7070").into(),
            peer: format!("10.0.0.{number}:7071").into(),
            serves: serving >> number & 1 == 1,
        };
        let view = View::of_slice("a", self.version, self.nodes.iter().enumerate().map(endpoint).collect());
        let view = self.nodes.iter().fold(view, |view, node| view.with_boot(&node.id));
        let old = std::mem::replace(&mut self.snapshot, Arc::new(Snapshot::new(view)));
        for node in &mut self.nodes {
            let arcs = node.arcs.after_change(&old.stretches_of(&node.id), &self.snapshot.stretches_of(&node.id));
            node.arcs = Arc::new(arcs);
            node.copies.set_now(at(self.now));
            node.copies.change(&self.snapshot, &node.arcs, lost);
        }
        for number in 0..MEMBERS {
            let id = &self.nodes[number].id;
            let has = |other: &usize| {
                let has = self.nodes[*other].copies.has_copies(id);
                let mut found = false;
                self.nodes[*other].each(|_, hashes, _| found |= self.snapshot.owns(id, hashes.route));
                assert_eq!(has, found, "a claim is answered by what is there");
                has
            };
            let others = (0..MEMBERS).filter(|other| *other != number);
            let sources = others.filter(has).map(|other| (other, None)).collect();
            let node = &mut self.nodes[number];
            node.sources = sources;
            node.arcs = Arc::new(node.arcs.held());
            node.copies.advance(&node.arcs);
            node.settled_to = Some(0);
            self.settle_confirmed(number);
        }
    }

    /// Rule 9: what all sources have confirmed is settled.
    fn settle_confirmed(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        let Some(first) = node.settled_to else { return };
        let confirmed = |after: &Option<Place>| after.as_ref().map_or(0, |place| place.hash);
        let to = node.sources.values().map(confirmed).min();
        let last = match to {
            Some(to) if to <= first => return,
            Some(to) => to - 1,
            None => u64::MAX,
        };
        node.settled_to = to;
        let settled = Stretch { first, last };
        node.arcs = Arc::new(node.arcs.without(settled));
        node.copies.settle_below(&node.arcs, settled);
    }

    /// Rule 7.
    fn resolve(&mut self, number: usize, place: &Place) {
        let to = self.nodes[number].id.clone();
        let sources: Vec<usize> = self.nodes[number].sources.keys().copied().collect();
        let lent = sources.into_iter().map(|source| self.nodes[source].copies.lend(place, &to));
        let best = lent.fold(None, Frozen::newer);
        if let Some(best) = &best {
            self.nodes[number].store.clock().observe(best.version);
        }
        self.nodes[number].copies.resolve(place, best);
        assert_eq!(self.nodes[number].copies.standing(place), Standing::Authority);
    }

    /// The owner of a key, which is its authority now: the key is resolved if need be.
    fn authority(&mut self, name: &str) -> usize {
        let space = tenant(&self.nodes[0].store, "tutorial");
        let place = self.nodes[0].store.place(&space, key(name));
        let owner = self.snapshot.owner(place.hash).unwrap();
        let owner = self.nodes.iter().position(|node| node.id == *owner).unwrap();
        for (number, node) in self.nodes.iter().enumerate() {
            let read = node.store.peek(&tenant(&node.store, "tutorial"), key(name), self.time(), |_| ());
            assert!(number == owner || matches!(read, Err(Standing::Other(_))));
        }
        if self.nodes[owner].copies.standing(&place) == Standing::Unresolved {
            self.resolve(owner, &place);
        }
        owner
    }

    fn forget_miss(&mut self, owner: usize, name: &str) {
        let space = tenant(&self.nodes[owner].store, "tutorial");
        let place = self.nodes[owner].store.place(&space, key(name));
        self.nodes[owner].copies.forget_miss(&place);
    }

    fn pull(&mut self, number: usize, max_bytes: usize) {
        let to = self.nodes[number].id.clone();
        let sources: Vec<_> = self.nodes[number].sources.iter().map(|(of, after)| (*of, after.clone())).collect();
        for (source, after) in sources {
            let (items, last) = self.nodes[source].copies.lend_page(&to, after.as_ref(), max_bytes);
            assert!(
                items.is_sorted_by(|(a, _), (b, _)| a < b)
                    && items.iter().all(|(place, _)| Some(place) > after.as_ref())
            );
            for (place, _) in &items {
                if self.nodes[number].copies.standing(place) == Standing::Unresolved {
                    self.resolve(number, place);
                }
            }
            if let Some((through, _)) = items.last() {
                self.nodes[source].copies.drop_through(&to, through);
                self.nodes[number].sources.insert(source, Some(through.clone()));
            }
            if last {
                self.nodes[number].sources.remove(&source);
            }
        }
        self.settle_confirmed(number);
    }

    fn settle(&mut self) {
        for number in 0..MEMBERS {
            while !self.nodes[number].sources.is_empty() {
                self.pull(number, 2000);
            }
        }
        for node in &self.nodes {
            assert!(node.arcs.is_empty());
            node.each(|shard, hashes, at| {
                assert!(self.snapshot.owns(&node.id, hashes.route), "no copy is left");
                assert!(!shard.entry(at).meta().is_tombstone(), "no tombstone is left");
            });
            assert_eq!(node.store.shards.iter().map(|shard| shard.0.lock().marks()).sum::<u64>(), 0, "no mark is left");
            assert_eq!(node.store.stats().tombstones, 0);
        }
    }

    fn doubt(&mut self) {
        self.model.values_mut().for_each(|known| known.may_be_missing = true);
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Store { key: number, len, ttl, payer } => {
                let (name, value) = (name(*number), vec![u8::try_from(self.version % 251).unwrap(); *len]);
                let value = [format!("{}-", self.now).as_bytes(), &value].concat();
                let owner = self.authority(&name);
                let store = Arc::clone(&self.nodes[owner].store);
                let (space, payer) = (tenant(&store, "tutorial"), tenant(&store, PAYERS[*payer]));
                let scope = Scope { space: &space, charge: Some(&payer), mode: Mode::Apply };
                let stored = store.store(scope, key(&name), &value, *ttl, Condition::Always, self.time());
                if stored.is_ok() {
                    let expires = ttl.map(|ttl| self.now + ttl);
                    self.model.insert(*number, Known { value, expires, may_be_missing: false });
                }
                self.forget_miss(owner, &name);
            }
            Op::Increment { key: number, id } => self.increment(KEYS + number % 4, *id),
            Op::Delete { key: number } => {
                let name = name(*number);
                let owner = self.authority(&name);
                let store = Arc::clone(&self.nodes[owner].store);
                store.delete(scope(&tenant(&store, "tutorial")), key(&name), None, self.time()).unwrap();
                self.model.remove(number);
                self.forget_miss(owner, &name);
            }
            Op::Read { key: number } => self.read(*number),
            Op::View { serving } => self.view(*serving, &[]),
            Op::Pull { member, max_bytes } => self.pull(*member, *max_bytes),
            Op::Settle => self.settle(),
            Op::Evict { member, keep } => {
                let store = &self.nodes[*member].store;
                let capacity = store.capacity.load(Ordering::Relaxed);
                store.set_capacity(store.used.load(Ordering::Relaxed) * keep / 8, self.time());
                store.set_capacity(capacity, self.time());
                self.doubt();
            }
            Op::Expire { member } => _ = self.nodes[*member].store.expire_due(self.time(), usize::MAX),
            Op::Wait { ms } => {
                self.now += ms;
                let now = self.now;
                self.model.retain(|_, known| known.expires.is_none_or(|expires| expires > now));
                self.nodes.iter_mut().for_each(|node| node.copies.set_now(at(now)));
            }
            Op::Crash { member } => {
                let capacity = self.nodes[*member].store.capacity.load(Ordering::Relaxed);
                let next = Node::new(*member, self.nodes[*member].id.boot + 1, capacity);
                let lost = std::mem::replace(&mut self.nodes[*member], next).id;
                self.doubt();
                self.view(0b111, &[lost]);
            }
        }
        self.nodes.iter().for_each(Node::check_accounts);
    }

    fn increment(&mut self, number: u64, id: u8) {
        let name = name(number);
        let owner = self.authority(&name);
        let store = Arc::clone(&self.nodes[owner].store);
        let space = tenant(&store, "tutorial");
        let again = |now| store.increment(scope(&space), key(&name), 1, &format!("id-{id}"), None, now).unwrap();
        let counted = again(self.time());
        assert_eq!(again(self.time()), counted, "a repeated request is counted once");
        let before = self.model.get(&number);
        let sure = before.is_none_or(|known| !known.may_be_missing) && !self.scarce;
        let before = before.map_or(0, |known| std::str::from_utf8(&known.value).unwrap().parse::<i64>().unwrap());
        let expected = self.answers.get(&(number, id)).copied().unwrap_or(before + 1);
        let value = store.read(&space, key(&name), self.time(), |entry| entry.value().to_vec()).unwrap().unwrap();
        let after: i64 = std::str::from_utf8(&value).unwrap().parse().unwrap();
        if sure {
            assert_eq!(counted.value, expected, "a counter grows by one, and a request that it knows gets its answer");
        } else if after < before.max(expected) {
            assert_eq!(after, 1, "it began again");
            self.answers.retain(|(of, _), _| *of != number);
        }
        self.answers.insert((number, id), counted.value);
        self.model.insert(number, Known { value, expires: None, may_be_missing: false });
    }

    fn read(&mut self, number: u64) {
        let name = name(number);
        let owner = self.authority(&name);
        let got = get(&self.nodes[owner].store, &tenant(&self.nodes[owner].store, "tutorial"), &name, self.time());
        match (got, self.model.get_mut(&number)) {
            (Some(got), Some(known)) => assert_eq!(got, known.value, "what was written last is read"),
            (Some(got), None) => panic!("{name} is back: {got:?}"),
            (None, Some(known)) => {
                assert!(known.may_be_missing || self.scarce, "{name} is lost");
                self.model.remove(&number);
                self.answers.retain(|(of, _), _| *of != number);
            }
            (None, None) => {}
        }
        self.forget_miss(owner, &name);
    }

    fn finish(&mut self) {
        self.settle();
        (0..KEYS + 4).for_each(|number| self.read(number));
        self.nodes.iter().for_each(Node::check_accounts);
    }
}

fn name(number: u64) -> String {
    if number < KEYS { format!("key-{number}") } else { format!("counter-{number}") }
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let (key, member) = (|| 0..KEYS, || 0..MEMBERS);
    let lens = prop_oneof![8 => 0_usize..200, 1 => 4000_usize..6000];
    let ttls = prop_oneof![3 => Just(None), 1 => (1_u64..60).prop_map(Some)];
    let store = (key(), lens, ttls, 0..PAYERS.len());
    let op = prop_oneof![
        12 => store.prop_map(|(key, len, ttl, payer)| Op::Store { key, len, ttl, payer }),
        3 => (key(), 0_u8..4).prop_map(|(key, id)| Op::Increment { key, id }),
        4 => key().prop_map(|key| Op::Delete { key }),
        6 => key().prop_map(|key| Op::Read { key }),
        3 => (1_u8..8).prop_map(|serving| Op::View { serving }),
        5 => (member(), 1_usize..3000).prop_map(|(member, max_bytes)| Op::Pull { member, max_bytes }),
        1 => Just(Op::Settle),
        1 => (member(), 0_u64..8).prop_map(|(member, keep)| Op::Evict { member, keep }),
        2 => member().prop_map(|member| Op::Expire { member }),
        3 => (1_u64..30).prop_map(|ms| Op::Wait { ms }),
        1 => member().prop_map(|member| Op::Crash { member }),
    ];
    prop::collection::vec(op, 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn keys_move_between_members_and_none_is_lost_or_comes_back(ops in ops()) {
        let mut world = World::new(1 << 30);
        for op in &ops {
            world.apply(op);
        }
        world.finish();
    }

    #[test]
    fn what_is_taken_over_never_exceeds_the_capacity(ops in ops()) {
        let mut world = World::new(12_000);
        for op in &ops {
            world.apply(op);
            let over = world.nodes.iter().find(|node| node.store.stats().memory_bytes > 12_000);
            prop_assert!(over.is_none(), "{op:?}");
        }
        world.finish();
    }
}

#[test]
fn who_takes_an_entry_over_knows_what_its_payer_may_use_until_the_payer_says_so_itself() {
    use crate::cache::quota::Budget;
    let budget = |max_bytes| Budget { max_bytes: Some(max_bytes), ..Budget::default() };
    let mut world = World::new(1 << 30);
    let first = &world.nodes[0].store;
    let (space, payer) = (tenant(first, "tutorial"), tenant(first, "team-a"));
    payer.set_budget(budget(100));
    let here = Scope { space: &space, charge: Some(&payer), mode: Mode::Apply };
    assert!(payer.grant(crate::cache::quota::Amount { keys: 1, bytes: 100 }, 1));
    first.store(here, key("k"), b"small", None, Condition::Always, world.time()).unwrap();
    world.view(0b010, &[]);
    world.settle();
    let second = &world.nodes[1].store;
    let (space, other, payer) = (tenant(second, "tutorial"), tenant(second, "team-b"), tenant(second, "team-a"));
    let by_other = Scope { space: &space, charge: Some(&other), mode: Mode::Apply };
    let grow = |now| second.store(by_other, key("k"), &[b'x'; 200], None, Condition::Always, now);
    assert_eq!(payer.budget(), budget(100));
    assert!(
        matches!(grow(world.time()), Err(StoreError::NeedsLease { .. })),
        "an entry that the payer never stored here"
    );
    payer.set_budget(budget(300));
    payer.hear_budget(budget(100));
    assert_eq!(payer.budget(), budget(300), "what it says itself is newer than what others know");
}
