//! Hit ratio of the store's eviction beside quick_cache's and plain LRU's, on three kinds of access at capacities of 1 % and
//! 10 % of the keys. Prints a table and exits 1 when a criterion is missed. Deterministic but for the stores' random hashes.
//!
//! `cargo bench --bench hit_ratio`

use std::collections::HashMap;
use std::process::ExitCode;

use larder::cache::key::{AccountId, Key};
use larder::cache::quota::Tenant;
use larder::cache::store::{Condition, Mode, Scope, Store, StoreConfig, entry_charge};
use larder::cache::version::Now;

const KEYS: u32 = 1_000_000;
const REQUESTS: usize = 6_000_000;
/// Requests before hits are counted: the cache fills.
const WARM_UP: usize = REQUESTS / 6;
const VALUE: [u8; 64] = [7; 64];
const NOW: Now = Now { monotonic_ms: 0, wall_us: 1 };

/// Points of hit ratio, see the section on the store.
const MAX_BELOW_QUICK_CACHE: f64 = 1.5;
const MIN_ABOVE_LRU_AT_1_PERCENT: f64 = 3.0;

/// A cache that is read, and on a miss written: whether it was a hit.
trait Cache {
    fn access(&mut self, key: u32) -> bool;
}

struct Larder {
    store: Store,
    tenant: Tenant,
}

struct QuickCache(quick_cache::sync::Cache<u32, ()>);

/// Plain LRU: a list through a vector; `usize::MAX` ends it.
struct Lru {
    capacity: usize,
    places: HashMap<u32, usize>,
    nodes: Vec<Node>,
    first: usize,
    last: usize,
}

struct Node {
    key: u32,
    prev: usize,
    next: usize,
}

const NONE: usize = usize::MAX;

impl Larder {
    fn new(entries: usize) -> Self {
        let charge = entry_charge(name(0).len(), VALUE.len(), false, false);
        let capacity_bytes = charge * entries as u64;
        let store = Store::new(StoreConfig { capacity_bytes, shards: StoreConfig::DEFAULT_SHARDS, replica: 0 });
        let tenant = store.tenant(&AccountId::new("bench").expect("an id"));
        Self { store, tenant }
    }
}

impl Cache for Larder {
    fn access(&mut self, key: u32) -> bool {
        let name = name(key);
        let key = Key::new(&name).expect("a key");
        if self.store.read(&self.tenant, key, NOW, |_| ()).is_ok_and(|found| found.is_some()) {
            return true;
        }
        let scope = Scope { space: &self.tenant, charge: Some(&self.tenant), mode: Mode::Apply };
        self.store.store(scope, key, &VALUE, None, Condition::Always, NOW).expect("there is room");
        false
    }
}

impl Cache for QuickCache {
    fn access(&mut self, key: u32) -> bool {
        let hit = self.0.get(&key).is_some();
        if !hit {
            self.0.insert(key, ());
        }
        hit
    }
}

impl Lru {
    fn new(capacity: usize) -> Self {
        Self { capacity, places: HashMap::new(), nodes: Vec::new(), first: NONE, last: NONE }
    }

    fn unlink(&mut self, at: usize) {
        let Node { prev, next, .. } = self.nodes[at];
        *(if prev == NONE { &mut self.first } else { &mut self.nodes[prev].next }) = next;
        *(if next == NONE { &mut self.last } else { &mut self.nodes[next].prev }) = prev;
    }

    fn link(&mut self, at: usize) {
        self.nodes[at].prev = NONE;
        self.nodes[at].next = self.first;
        *(if self.first == NONE { &mut self.last } else { &mut self.nodes[self.first].prev }) = at;
        self.first = at;
    }
}

impl Cache for Lru {
    fn access(&mut self, key: u32) -> bool {
        if let Some(&at) = self.places.get(&key) {
            self.unlink(at);
            self.link(at);
            return true;
        }
        let at = if self.nodes.len() < self.capacity {
            self.nodes.push(Node { key, prev: NONE, next: NONE });
            self.nodes.len() - 1
        } else {
            let at = self.last;
            self.unlink(at);
            self.places.remove(&self.nodes[at].key);
            self.nodes[at].key = key;
            at
        };
        self.link(at);
        self.places.insert(key, at);
        false
    }
}

fn name(key: u32) -> String {
    format!("key-{key:012}")
}

/// SplitMix64 (Steele et al. 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// 0 to less than 1.
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Draws ranks, 0 the most frequent.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(exponent: f64) -> Self {
        let mut sum = 0.0;
        let sums = (1..=KEYS).map(|rank| {
            sum += f64::from(rank).powf(-exponent);
            sum
        });
        Self(sums.collect())
    }

    fn draw(&self, random: &mut Random) -> u32 {
        let at = random.fraction() * self.0[self.0.len() - 1];
        u32::try_from(self.0.partition_point(|&sum| sum < at)).expect("a rank") % KEYS
    }
}

/// Zipf 0.99, as YCSB has it.
fn zipf() -> Vec<u32> {
    let (zipf, mut random) = (Zipf::new(0.99), Random(1));
    (0..REQUESTS).map(|_| zipf.draw(&mut random)).collect()
}

/// Zipf 0.9, and every fifth request is of a scan over a million other keys.
fn scan() -> Vec<u32> {
    let (zipf, mut random) = (Zipf::new(0.9), Random(2));
    let mut scanned = 0;
    let mut next = || {
        if random.fraction() >= 0.2 {
            return zipf.draw(&mut random);
        }
        scanned = (scanned + 1) % KEYS;
        KEYS + scanned
    };
    (0..REQUESTS).map(|_| next()).collect()
}

/// Zipf 0.99 whose keys are others by 5 % of all every 500,000 requests: what was hottest becomes cold at once.
fn shift() -> Vec<u32> {
    let (zipf, mut random) = (Zipf::new(0.99), Random(3));
    let phase = |request: usize| u32::try_from(request / 500_000).expect("a few") * (KEYS / 20);
    (0..REQUESTS).map(|request| (zipf.draw(&mut random) + phase(request)) % KEYS).collect()
}

/// Hit ratio in percent.
fn run(cache: &mut dyn Cache, requests: &[u32]) -> f64 {
    let hits = requests.iter().enumerate().filter(|&(number, &key)| cache.access(key) && number >= WARM_UP).count();
    100.0 * hits as f64 / (requests.len() - WARM_UP) as f64
}

fn main() -> ExitCode {
    let kinds =
        [("zipf 0.99", zipf as fn() -> Vec<u32>), ("zipf 0.9 + 20 % scan", scan), ("shifting working set", shift)];
    println!("| access | capacity | Larder | quick_cache | LRU | above quick_cache | above LRU |");
    println!("|---|---|---|---|---|---|---|");
    let (mut missed, mut above_quick) = (Vec::new(), Vec::new());
    for (kind, make) in kinds {
        let requests = make();
        for percent in [1, 10] {
            let entries = KEYS as usize * percent / 100;
            let [larder, quick, lru] = std::thread::scope(|scope| {
                let runs = [
                    scope.spawn(|| run(&mut Larder::new(entries), &requests)),
                    scope.spawn(|| run(&mut QuickCache(quick_cache::sync::Cache::new(entries)), &requests)),
                    scope.spawn(|| run(&mut Lru::new(entries), &requests)),
                ];
                runs.map(|run| run.join().expect("a run"))
            });
            println!(
                "| {kind} | {percent} % | {larder:.2} | {quick:.2} | {lru:.2} | {:+.2} | {:+.2} |",
                larder - quick,
                larder - lru
            );
            above_quick.push(larder - quick);
            if larder < quick - MAX_BELOW_QUICK_CACHE {
                missed
                    .push(format!("{kind} at {percent} %: more than {MAX_BELOW_QUICK_CACHE} points below quick_cache"));
            }
            if percent == 1 && larder < lru + MIN_ABOVE_LRU_AT_1_PERCENT {
                missed.push(format!("{kind} at 1 %: less than {MIN_ABOVE_LRU_AT_1_PERCENT} points above LRU"));
            }
        }
    }
    let average = above_quick.iter().sum::<f64>() / above_quick.len() as f64;
    println!("\naverage above quick_cache: {average:+.2} points");
    if average < 0.0 {
        missed.push("on average below quick_cache".to_owned());
    }
    for line in &missed {
        println!("missed: {line}");
    }
    if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
