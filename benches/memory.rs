//! Overhead of the store in bytes per entry beside key and value, as the process's resident memory says it, with the server's
//! allocator. Each case runs in a child process, so that none starts with what another left. Exits 1 when a criterion is missed.
//!
//! `cargo bench --bench memory`

use std::process::{Command, ExitCode};

use larder::cache::key::{AccountId, Key};
use larder::cache::store::{Condition, Mode, Scope, Store, StoreConfig};
use larder::cache::version::Now;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ENTRIES: u64 = 1_000_000;
const MAX_OVERHEAD: f64 = 48.0;
const NOW: Now = Now { monotonic_ms: 0, wall_us: 1 };

/// What is stored: a name, the least and greatest length of values, their time to live, and rounds of overwriting and
/// deleting after the first.
struct Case {
    name: &'static str,
    values: (u64, u64),
    ttl_ms: Option<u64>,
    churn: u64,
    /// Whether the limit holds for it; the others are for information.
    limited: bool,
}

const CASES: [Case; 5] = [
    Case { name: "32 B + 16..=1,024 B at random", values: (16, 1024), ttl_ms: None, churn: 0, limited: true },
    Case { name: "32 B + 64 B", values: (64, 64), ttl_ms: None, churn: 0, limited: true },
    Case {
        name: "the first, each overwritten three times",
        values: (16, 1024),
        ttl_ms: None,
        churn: 3,
        limited: false,
    },
    Case { name: "the first, with a TTL", values: (16, 1024), ttl_ms: Some(3_600_000), churn: 0, limited: false },
    Case { name: "32 B + 16 B", values: (16, 16), ttl_ms: None, churn: 0, limited: false },
];

/// SplitMix64 (Steele et al. 2014).
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// Resident bytes of this process.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1024
}

/// Stores everything and answers what a child prints: resident bytes and charged bytes per entry, beside key and value.
fn measure(case: &Case) -> (f64, f64) {
    let config = StoreConfig { capacity_bytes: 1 << 40, shards: StoreConfig::DEFAULT_SHARDS, replica: 0 };
    let store = Store::new(config);
    let tenant = store.tenant(&AccountId::new("bench").expect("an id"));
    let scope = Scope { space: &tenant, charge: Some(&tenant), mode: Mode::Apply };
    let value = vec![7; usize::try_from(case.values.1).expect("small")];
    // Touched once, so that its pages are in the first figure too.
    let before = resident() + std::hint::black_box(&value).len() as u64 / 4096;
    for round in 0..=case.churn {
        for number in 0..ENTRIES {
            let name = format!("key-{:028}", mix(number));
            let len = case.values.0 + mix(number ^ round << 32) % (case.values.1 - case.values.0 + 1);
            let value = &value[..usize::try_from(len).expect("small")];
            let key = Key::new(&name).expect("a key");
            store.store(scope, key, value, case.ttl_ms, Condition::Always, NOW).expect("there is room");
        }
    }
    let (resident, usage) = (resident() - before, tenant.usage());
    assert_eq!(usage.keys, ENTRIES);
    let per_entry = |bytes: u64| (bytes as f64 - usage.bytes as f64) / ENTRIES as f64;
    (per_entry(resident), per_entry(usage.memory))
}

fn main() -> ExitCode {
    let child = std::env::args().skip_while(|argument| argument != "--case").nth(1);
    if let Some(case) = child.and_then(|number| number.parse::<usize>().ok()) {
        let (resident, charged) = measure(&CASES[case]);
        println!("{resident} {charged}");
        return ExitCode::SUCCESS;
    }
    println!("| 1,000,000 entries | resident, bytes per entry | charged, bytes per entry |");
    println!("|---|---|---|");
    let mut missed = false;
    for (number, case) in CASES.iter().enumerate() {
        let this = std::env::current_exe().expect("this program");
        let output = Command::new(this).args(["--case", &number.to_string()]).output().expect("a child");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let figures: Vec<f64> = text.split_whitespace().filter_map(|figure| figure.parse().ok()).collect();
        let [resident, charged] = figures[..] else {
            println!("failed: {}: {}", case.name, String::from_utf8_lossy(&output.stderr));
            return ExitCode::FAILURE;
        };
        println!("| {} | {resident:.1} | {charged:.1} |", case.name);
        missed |= case.limited && resident > MAX_OVERHEAD;
    }
    if missed {
        println!("\nmissed: more than {MAX_OVERHEAD} bytes beside key and value");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
