//! `larder stats`: the cluster at a glance, once or again and again.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use super::connect::{Connect, duration};
use super::exit::{self, Problem};
use crate::client::{Client, MemberState};
use crate::rpc::proto::v1::StatsResponse;

mod member;

use member::Member;

/// Between the two looks that a rate needs.
const RATE_TIME: Duration = Duration::from_secs(1);

/// The shortest time between two looks: each asks every replica.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// To the upper left corner, and all below cleared (ECMA-48).
const HOME: &str = "\x1b[H\x1b[J";

/// Say what the account uses and may use, and how each replica is doing
#[derive(Args, Debug)]
pub struct Stats {
    /// Go on until interrupted, and look again each second, or as often as it says
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "1s", value_parser = interval)]
    watch: Option<Duration>,

    /// Write JSON, a line for each look
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    connect: Connect,
}

/// The cluster at one moment.
#[derive(Debug, Serialize)]
struct Glance {
    account: String,
    keys: u64,
    bytes: u64,
    /// Limits; none: unlimited.
    max_keys: Option<u64>,
    max_bytes: Option<u64>,
    max_requests_per_second: Option<u64>,
    guaranteed_bytes: u64,
    /// Of all replicas that answered, since each began.
    hits: u64,
    misses: u64,
    /// Calls per second of all replicas since the last look; none at the first.
    requests_per_second: Option<f64>,
    /// Whether a hand-off is under way anywhere.
    handing_off: bool,
    missing_replicas: Vec<String>,
    members: Vec<Member>,
}

/// The last look, for rates: calls by member, and when that was.
#[derive(Debug, Default)]
struct Before {
    calls: HashMap<String, u64>,
    at: Option<Instant>,
}

fn interval(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        short if short < MIN_INTERVAL => Err("every look asks every replica; give it 100ms or more".to_owned()),
        time => Ok(time),
    }
}

impl Stats {
    pub async fn run(self) -> Result<(), Problem> {
        let client = self.connect.client()?;
        let mut before = Before::default();
        let Some(interval) = self.watch else {
            let mut glance = look(&client, &mut before).await?;
            if !self.json {
                sleep_until(Instant::now() + RATE_TIME).await;
                glance = look(&client, &mut before).await?;
            }
            return say(&glance, self.json, "");
        };
        let home = if std::io::stdout().is_terminal() && !self.json { HOME } else { "" };
        loop {
            let next = Instant::now() + interval;
            match look(&client, &mut before).await {
                Ok(glance) => say(&glance, self.json, home)?,
                // Whoever watches wants to see it come back.
                Err(error) if error.temporary() => exit::note(&format_args!("larder: {error}")),
                Err(error) => return Err(error.into()),
            }
            sleep_until(next).await;
        }
    }
}

async fn look(client: &Client, before: &mut Before) -> Result<Glance, crate::client::Error> {
    let stats = client.stats().await?;
    Ok(Glance::of(stats, before, Instant::now()))
}

fn say(glance: &Glance, json: bool, home: &str) -> Result<(), Problem> {
    if json {
        // Only maps with keys that are no text fail, and there are none.
        return exit::say(&serde_json::to_string(glance).unwrap_or_default());
    }
    exit::say(&format_args!("{home}{}", glance.text()))
}

impl Glance {
    fn of(stats: StatsResponse, before: &mut Before, now: Instant) -> Self {
        let passed = before.at.map(|at| now.saturating_duration_since(at).as_secs_f64());
        let mut members = Member::all(&stats);
        for member in &mut members {
            let last = before.calls.get(&member.name());
            member.requests_per_second = passed.zip(last).and_then(|(passed, last)| {
                let calls = member.figures.as_ref()?.calls.checked_sub(*last)?;
                Some(calls as f64 / passed.max(1e-3))
            });
        }
        let calls = |member: &Member| Some((member.name(), member.figures.as_ref()?.calls));
        *before = Before { calls: members.iter().filter_map(calls).collect(), at: Some(now) };
        let figures = || members.iter().filter_map(|member| member.figures.as_ref());
        let rates: Vec<f64> = members.iter().filter_map(|member| member.requests_per_second).collect();
        let limit = |limit: u64| (limit != 0).then_some(limit);
        Self {
            account: stats.account_id,
            keys: stats.keys,
            bytes: stats.bytes,
            max_keys: limit(stats.max_cache_keys),
            max_bytes: limit(stats.max_bytes),
            max_requests_per_second: limit(stats.requests_per_second),
            guaranteed_bytes: stats.guaranteed_bytes,
            hits: figures().map(|its| its.hits).sum(),
            misses: figures().map(|its| its.misses).sum(),
            requests_per_second: (!rates.is_empty()).then(|| rates.iter().sum()),
            handing_off: figures().any(|its| its.handing_off),
            missing_replicas: stats.missing_replicas,
            members,
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (name, value) in self.lines() {
            // Writing to a `String` cannot fail.
            let _ = writeln!(text, "{name:<24} {value}");
        }
        let _ = write!(text, "\n{}", Member::head());
        for member in &self.members {
            let _ = write!(text, "\n{}", member.row());
        }
        text
    }

    fn lines(&self) -> Vec<(&'static str, String)> {
        let at_most = |limit: Option<u64>, text: &dyn Fn(u64) -> String| {
            limit.map_or_else(|| "no limit".to_owned(), |limit| format!("at most {}", text(limit)))
        };
        let count = |count: u64| count.to_string();
        let bytes = |bytes: u64| format!("{bytes} ({})", ByteSize(bytes));
        let ring = self.members.iter().filter(|member| member.in_ring).count();
        let serving = self.members.iter().filter(|member| member.state == MemberState::Serving.name()).count();
        let rate = self.requests_per_second.map_or_else(|| "?".to_owned(), |rate| format!("{rate:.0}"));
        let limit = at_most(self.max_requests_per_second, &|limit| format!("{limit} of the account at each replica"));
        let mut lines = vec![
            ("account", self.account.clone()),
            ("keys", format!("{}, {}", self.keys, at_most(self.max_keys, &count))),
            ("bytes", format!("{}, {}", bytes(self.bytes), at_most(self.max_bytes, &bytes))),
            ("guaranteed bytes", bytes(self.guaranteed_bytes)),
            ("requests per second", format!("{rate} of all accounts; {limit}")),
            ("hits", member::ratio(self.hits, self.misses)),
            ("members", format!("{}, of these {serving} serve and {ring} own keys", self.members.len())),
            ("hand-off", if self.handing_off { "under way".to_owned() } else { "none".to_owned() }),
        ];
        if !self.missing_replicas.is_empty() {
            let missing = self.missing_replicas.join(", ");
            lines.insert(3, ("", format!("without {missing}, which did not answer")));
        }
        lines
    }
}

#[cfg(test)]
mod tests;
