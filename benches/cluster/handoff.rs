//! What it costs to hand entries over: everything that one replica has goes to another, as fast as that goes.

use std::time::Instant;

use crate::replicas::Replicas;
use crate::value::Values;
use crate::{Options, judge};

/// Entries handed over per kind, and the bytes of each value.
const KINDS: [Values; 5] = [
    Values { keys: 500_000, bytes: 64 },
    Values { keys: 500_000, bytes: 256 },
    Values { keys: JUDGED_KEYS, bytes: JUDGED_BYTES },
    Values { keys: 16 * 1024, bytes: 16 * 1024 },
    Values { keys: 1024, bytes: 256 * 1024 },
];

/// The kind that is judged: 1 GiB.
const JUDGED_KEYS: usize = 1024 * 1024;
const JUDGED_BYTES: usize = 1024;

/// Megabytes of keys and values per second of the sender's CPU.
const MIN_SPEED: f64 = 300.0;

/// Prints a table, and judges one row.
pub fn speed(options: &Options) -> Result<bool, String> {
    println!("\nHand-off of everything from one replica to another; CPU of either process, all threads\n");
    println!(
        "| value | entries | sender us per entry | receiver us per entry | MB per sender's CPU s | MB/s | limit |\n|--:|--:|--:|--:|--:|--:|---|"
    );
    let mut met = true;
    for values in KINDS.into_iter().filter(|kind| options.bytes.is_none_or(|bytes| bytes == kind.bytes)) {
        let mut replicas = Replicas::start(&options.larder, 1, &["--handoff-rate", "0", "--linger", "1m"])?;
        let from = replicas.names().next().ok_or("there is no replica")?.to_owned();
        replicas.fill(values)?;
        let to = replicas.start_one()?;
        let (sent, taken, began) = (replicas.cpu_of(&from)?, replicas.cpu_of(&to)?, Instant::now());
        replicas.serve(&to)?;
        replicas.terminate(&from)?;
        replicas.took(&to, values.keys)?;
        let lasted = began.elapsed().as_secs_f64();
        let sent = replicas.cpu_of(&from)?.saturating_sub(sent).as_secs_f64();
        let taken = replicas.cpu_of(&to)?.saturating_sub(taken).as_secs_f64();
        let megabytes = replicas.metric(&to, "larder_handoff_bytes_in_total")? / 1e6;
        let (speed, each) = (megabytes / sent, 1e6 / values.keys as f64);
        let limit = if values.bytes == JUDGED_BYTES {
            format!("{MIN_SPEED} MB: {}", judge(speed >= MIN_SPEED, &mut met))
        } else {
            String::new()
        };
        println!(
            "| {} B | {} | {:.2} | {:.2} | {speed:.0} | {:.0} | {limit} |",
            values.bytes,
            values.keys,
            sent * each,
            taken * each,
            megabytes / lasted
        );
    }
    Ok(met)
}
