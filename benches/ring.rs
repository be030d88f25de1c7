//! What placement costs: `cargo bench --bench ring --no-default-features`. Prints nanoseconds per look-up (the hash of a
//! 20-byte route included) and microseconds per ring, each the best of five runs.

use std::hint::black_box;
use std::time::{Duration, Instant};

use larder::ring::{Ring, diff};

const LOOKUPS: u32 = 1_000_000;
const RINGS: u32 = 50;

fn best(mut run: impl FnMut()) -> Duration {
    let once = |run: &mut dyn FnMut()| {
        let start = Instant::now();
        run();
        start.elapsed()
    };
    (0..5).map(|_| once(&mut run)).min().unwrap_or_default()
}

fn main() {
    let routes: Vec<String> = (0..4096).map(|n| format!("account-{}/key-{n:07}", n % 10)).collect();
    println!("members  owner ns  successor ns  build us  diff us");
    for members in [1, 3, 10, 32, 100, 1000] {
        let addresses: Vec<String> = (0..members).map(|n| format!("10.0.{}.{}:7070", n / 250, n % 250)).collect();
        let ring = Ring::new(&addresses);
        let smaller = Ring::new(&addresses[1..]);
        let route = |n: u32| routes[n as usize % routes.len()].as_bytes();
        let owner = best(|| (0..LOOKUPS).for_each(|n| _ = black_box(ring.owner(black_box(route(n))))));
        let successor = best(|| (0..LOOKUPS).for_each(|n| _ = black_box(ring.successor(black_box(route(n))))));
        let build = best(|| (0..RINGS).for_each(|_| drop(black_box(Ring::new(black_box(&addresses))))));
        let diffs = best(|| (0..RINGS).for_each(|_| drop(black_box(diff(black_box(&smaller), &ring)))));
        let nanoseconds = |time: Duration, runs: u32| time.as_secs_f64() * 1e9 / f64::from(runs);
        println!(
            "{members:>7}  {:>8.1}  {:>12.1}  {:>8.1}  {:>7.1}",
            nanoseconds(owner, LOOKUPS),
            nanoseconds(successor, LOOKUPS),
            nanoseconds(build, RINGS) / 1e3,
            nanoseconds(diffs, RINGS) / 1e3,
        );
    }
}
