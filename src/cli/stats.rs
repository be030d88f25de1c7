//! `larder stats`.

use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;

use super::connect::Connect;
use super::exit::{self, Problem};
use crate::rpc::proto::v1::StatsResponse;

/// Say what the account uses and may use, and how the replica that answers is doing
#[derive(Args, Debug)]
pub struct Stats {
    #[command(flatten)]
    connect: Connect,
}

impl Stats {
    pub async fn run(self) -> Result<(), Problem> {
        let stats = self.connect.client()?.stats().await?;
        for (name, value) in lines(&stats) {
            exit::say(&format_args!("{name:<24} {value}"))?;
        }
        Ok(())
    }
}

fn lines(stats: &StatsResponse) -> Vec<(&'static str, String)> {
    let replica = stats.replica.clone().unwrap_or_default();
    let limit = |limit: u64| if limit == 0 { "no limit".to_owned() } else { format!("at most {limit}") };
    let bytes = |bytes: u64| format!("{bytes} ({})", ByteSize(bytes));
    let asked = replica.hits + replica.misses;
    #[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
    let ratio = if asked == 0 { 0.0 } else { replica.hits as f64 * 100.0 / asked as f64 };
    let byte_limit = if stats.max_bytes == 0 { limit(0) } else { format!("at most {}", bytes(stats.max_bytes)) };
    let mut lines = vec![
        ("account", stats.account_id.clone()),
        ("keys", format!("{}, {}", stats.keys, limit(stats.max_cache_keys))),
        ("bytes", format!("{}, {byte_limit}", bytes(stats.bytes))),
        ("guaranteed bytes", bytes(stats.guaranteed_bytes)),
        ("requests per second", limit(stats.requests_per_second)),
        ("replica version", replica.version),
        ("replica uptime", humantime::format_duration(Duration::from_millis(replica.uptime_ms)).to_string()),
        ("replica entries", replica.entries.to_string()),
        ("replica memory", format!("{} of {}", bytes(replica.memory_bytes), bytes(replica.capacity_bytes))),
        ("replica hits", format!("{} of {asked} ({ratio:.1} %)", replica.hits)),
        ("replica evicted", replica.evicted.to_string()),
        ("replica expired", replica.expired.to_string()),
        ("replica connections", replica.connections.to_string()),
    ];
    if !stats.missing_replicas.is_empty() {
        let missing = format!("without {}, which did not answer", stats.missing_replicas.join(", "));
        lines.insert(3, ("", missing));
    }
    lines
}
