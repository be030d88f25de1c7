//! One replica in the table of `larder stats`.

use std::time::Duration;

use bytesize::ByteSize;
use serde::Serialize;

use crate::client::MemberState;
use crate::rpc::proto::v1::{MemberStats, ReplicaStats, StatsResponse};

/// What is said of a figure that is not known.
const UNKNOWN: &str = "?";

/// A replica, and what it says of itself.
#[derive(Debug, Serialize)]
pub struct Member {
    /// Empty when the replica is alone.
    pub address: String,
    pub uid: String,
    pub state: &'static str,
    pub in_ring: bool,
    /// Of all keys: 0 to 1.
    pub share: f64,
    /// Of the account, there.
    pub keys: u64,
    pub bytes: u64,
    /// Since the last look.
    pub requests_per_second: Option<f64>,
    /// None: it did not answer.
    #[serde(flatten)]
    pub figures: Option<Figures>,
}

/// What a replica says of itself: all accounts together, since it began.
#[derive(Debug, Serialize)]
pub struct Figures {
    pub version: String,
    pub uptime_ms: u64,
    pub entries: u64,
    pub memory_bytes: u64,
    pub capacity_bytes: u64,
    pub hits: u64,
    pub misses: u64,
    pub evicted: u64,
    pub expired: u64,
    pub connections: u64,
    pub calls: u64,
    pub handing_off: bool,
    pub arcs_gaining: u64,
    pub arcs_held: u64,
}

/// Reads that found a value, of all, for people.
pub fn ratio(hits: u64, misses: u64) -> String {
    match hits + misses {
        0 => "no reads yet".to_owned(),
        all => format!("{:.1} % of {all}", hits as f64 * 100.0 / all as f64),
    }
}

impl Member {
    /// Of an answer. An older server names nobody but itself.
    pub fn all(stats: &StatsResponse) -> Vec<Self> {
        if !stats.members.is_empty() {
            return stats.members.iter().map(Self::of).collect();
        }
        let (keys, bytes, replica) = (stats.keys, stats.bytes, stats.replica.clone());
        vec![Self::of(&MemberStats { keys, bytes, replica, share: 1.0, ..MemberStats::default() })]
    }

    /// What it is known by from look to look.
    pub fn name(&self) -> String {
        format!("{} {}", self.uid, self.address)
    }

    pub fn head() -> String {
        row(["replica", "state", "share", "keys", "entries", "memory", "hits", "calls/s", "evicted", "up", "hand-off"]
            .map(str::to_owned))
    }

    pub fn row(&self) -> String {
        let address = if self.address.is_empty() { "alone" } else { &self.address };
        let share = format!("{:.1} %", self.share * 100.0);
        let state = self.state.to_owned();
        let Some(its) = &self.figures else {
            let unknown = || UNKNOWN.to_owned();
            let columns = [address.to_owned(), state, share, unknown(), unknown(), unknown(), unknown(), unknown()];
            let [address, state, share, keys, entries, memory, hits, calls] = columns;
            return row([address, state, share, keys, entries, memory, hits, calls, unknown(), unknown(), unknown()]);
        };
        let rate = self.requests_per_second.map_or_else(|| UNKNOWN.to_owned(), |rate| format!("{rate:.0}"));
        row([
            address.to_owned(),
            state,
            share,
            self.keys.to_string(),
            its.entries.to_string(),
            format!("{} of {}", ByteSize(its.memory_bytes), ByteSize(its.capacity_bytes)),
            percent(its.hits, its.misses),
            rate,
            its.evicted.to_string(),
            humantime::format_duration(Duration::from_secs(its.uptime_ms / 1000)).to_string(),
            its.hand_off(),
        ])
    }

    fn of(stats: &MemberStats) -> Self {
        let member = stats.member.clone().unwrap_or_default();
        let state = MemberState::from(member.state()).name();
        Self {
            address: member.address,
            uid: member.uid,
            state,
            in_ring: member.in_ring,
            share: stats.share,
            keys: stats.keys,
            bytes: stats.bytes,
            requests_per_second: None,
            figures: stats.replica.clone().map(Figures::of),
        }
    }
}

impl Figures {
    fn of(replica: ReplicaStats) -> Self {
        Self {
            version: replica.version,
            uptime_ms: replica.uptime_ms,
            entries: replica.entries,
            memory_bytes: replica.memory_bytes,
            capacity_bytes: replica.capacity_bytes,
            hits: replica.hits,
            misses: replica.misses,
            evicted: replica.evicted,
            expired: replica.expired,
            connections: replica.connections,
            calls: replica.calls,
            handing_off: replica.handing_off,
            arcs_gaining: replica.arcs_gaining,
            arcs_held: replica.arcs_held,
        }
    }

    fn hand_off(&self) -> String {
        match (self.handing_off, self.arcs_gaining, self.arcs_held) {
            (false, ..) => "-".to_owned(),
            (true, 0, 0) => "gives".to_owned(),
            (true, 0, held) => format!("takes, {held} arcs to settle"),
            (true, gaining, _) => format!("takes, {gaining} arcs to clear"),
        }
    }
}

fn percent(hits: u64, misses: u64) -> String {
    match hits + misses {
        0 => "-".to_owned(),
        all => format!("{:.1} %", hits as f64 * 100.0 / all as f64),
    }
}

fn row(columns: [String; 11]) -> String {
    let [replica, state, share, keys, entries, memory, hits, calls, evicted, up, hand_off] = columns;
    format!(
        "{replica:<22} {state:<11} {share:>7} {keys:>10} {entries:>10} {memory:>23} {hits:>7} {calls:>8} {evicted:>9} {up:>14}  {hand_off}"
    )
}
