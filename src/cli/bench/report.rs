//! What a run came to: for people, and as JSON.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

use bytesize::ByteSize;
use serde::Serialize;

use super::ledger::Found;
use super::mix::Operation;
use super::run::Measured;
use super::tally::{Latencies, Tally};

/// The part of its plan that an open loop must have begun; one that did less tested something else.
const MIN_ACHIEVED: f64 = 0.99;

/// A run, told whole.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub verdict: Verdict,
    /// What was asked for, in words.
    pub plan: String,
    pub seconds: f64,
    /// Calls per second that were planned; none in a closed loop.
    pub planned_rate: Option<f64>,
    /// Calls per second that were begun.
    pub rate: f64,
    /// In percent of what was planned.
    pub achieved_percent: Option<f64>,
    pub calls: u64,
    pub succeeded: u64,
    pub failed: u64,
    #[serde(flatten)]
    pub latency: Quantiles,
    pub hits: u64,
    pub misses: u64,
    /// Of values, stored and read.
    pub bytes: u64,
    pub longest_gap_ms: f64,
    pub longest_gap_at_s: f64,
    /// Of this process, while it measured.
    pub cpu_seconds: f64,
    pub errors: BTreeMap<String, u64>,
    /// Present when answers were verified.
    #[serde(flatten)]
    pub verified: Option<Verified>,
    pub operations: BTreeMap<&'static str, OfOperation>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub series: Vec<Second>,
    /// Failures and findings in words.
    #[serde(skip)]
    told: Vec<String>,
}

/// Whether a run is good for anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Passed,
    /// It was below its planned rate: it tested something else.
    Void,
    /// A verified promise was broken, or nothing succeeded at all.
    Failed,
}

/// Latencies, in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[expect(clippy::struct_field_names, reason = "they are names in JSON, and a name there says its unit")]
pub struct Quantiles {
    pub mean_us: f64,
    pub p50_us: u64,
    pub p90_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
    pub max_us: u64,
}

/// Calls of one kind.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct OfOperation {
    pub succeeded: u64,
    pub failed: u64,
    #[serde(flatten)]
    pub latency: Quantiles,
}

/// What verifying found.
#[derive(Clone, Debug, Serialize)]
pub struct Verified {
    pub keys: u64,
    pub lost: u64,
    pub stale: u64,
    pub corrupt: u64,
    /// Keys that could not be read at the end.
    pub unread: u64,
    /// Writes whose answer was lost, and which were applied after later ones. No broken promise.
    pub late: u64,
    /// Keys with a write of which nobody knows whether it was applied.
    pub in_doubt: u64,
}

/// A second of a run.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Second {
    /// Since the part that counts began, at the end of this second.
    pub at_s: f64,
    pub succeeded: u64,
    pub failed: u64,
    pub p50_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
}

/// A latency as people read it.
pub fn millis(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} us"),
        1_000..100_000 => format!("{:.2} ms", us as f64 / 1e3),
        100_000..1_000_000 => format!("{:.0} ms", us as f64 / 1e3),
        _ => format!("{:.2} s", us as f64 / 1e6),
    }
}

impl Report {
    /// `verified`: how many keys, what was found, and how many of them are in doubt.
    pub fn new(plan: String, measured: Measured, verified: Option<(u64, Found, u64)>) -> Self {
        let Measured { tally, seconds: series, time, planned, gap, cpu, mut told } = measured;
        let seconds = time.as_secs_f64().max(1e-3);
        let found = verified.as_ref().map(|(_, found, _)| found.clone());
        if let Some(found) = &found {
            told.extend(found.told.iter().cloned());
        }
        let achieved = planned.map(|planned| tally.begun as f64 / (planned as f64).max(1.0));
        Self {
            verdict: Verdict::of(&tally, achieved, found.as_ref()),
            plan,
            seconds,
            planned_rate: planned.map(|planned| planned as f64 / seconds),
            rate: tally.begun as f64 / seconds,
            achieved_percent: achieved.map(|part| part * 100.0),
            calls: tally.begun,
            succeeded: tally.succeeded_calls(),
            failed: tally.failed_calls(),
            latency: Quantiles::of(&tally.all()),
            hits: tally.hits,
            misses: tally.misses,
            bytes: tally.bytes,
            longest_gap_ms: gap.length.as_secs_f64() * 1e3,
            longest_gap_at_s: gap.at.as_secs_f64(),
            cpu_seconds: cpu.as_secs_f64(),
            operations: operations(&tally),
            errors: tally.errors,
            verified: verified.map(|(keys, found, in_doubt)| Verified::of(keys, &found, in_doubt)),
            series,
            told,
        }
    }

    /// One line for scripts, without the series.
    pub fn summary(&self) -> String {
        json(&Self { series: Vec::new(), ..self.clone() })
    }

    pub fn json(&self) -> String {
        json(self)
    }
}

impl Verdict {
    fn of(tally: &Tally, achieved: Option<f64>, found: Option<&Found>) -> Self {
        let broken = found.is_some_and(|found| !found.is_clean() || tally.failed_calls() > 0);
        let nothing = tally.succeeded_calls() == 0;
        match achieved {
            _ if broken || (nothing && tally.failed_calls() > 0) => Self::Failed,
            Some(achieved) if achieved < MIN_ACHIEVED => Self::Void,
            _ if nothing => Self::Failed,
            _ => Self::Passed,
        }
    }
}

impl Quantiles {
    fn of(latencies: &Latencies) -> Self {
        if latencies.count() == 0 {
            return Self::default();
        }
        Self {
            mean_us: latencies.mean(),
            p50_us: latencies.quantile(0.5),
            p90_us: latencies.quantile(0.9),
            p99_us: latencies.quantile(0.99),
            p999_us: latencies.quantile(0.999),
            max_us: latencies.max(),
        }
    }
}

impl Verified {
    fn of(keys: u64, found: &Found, in_doubt: u64) -> Self {
        let Found { lost, stale, corrupt, late, unread, .. } = *found;
        Self { keys, lost, stale, corrupt, unread, late, in_doubt }
    }
}

impl Second {
    pub fn of(at: Duration, latencies: &Latencies, failed: u64) -> Self {
        let Quantiles { p50_us, p99_us, max_us, .. } = Quantiles::of(latencies);
        Self { at_s: at.as_secs_f64(), succeeded: latencies.count(), failed, p50_us, p99_us, max_us }
    }
}

fn operations(tally: &Tally) -> BTreeMap<&'static str, OfOperation> {
    let of = |operation: Operation| {
        let (latencies, failed) = (&tally.latencies[operation.index()], tally.failed[operation.index()]);
        let latency = Quantiles::of(latencies);
        (operation.name(), OfOperation { succeeded: latencies.count(), failed, latency })
    };
    Operation::ALL.into_iter().map(of).filter(|(_, its)| its.succeeded + its.failed > 0).collect()
}

fn json(report: &Report) -> String {
    // Only maps with keys that are no text fail, and there are none.
    serde_json::to_string(report).unwrap_or_default()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.plan)?;
        writeln!(f, "{}", row("", ["calls", "failed", "p50", "p90", "p99", "p99.9", "slowest"].map(str::to_owned)))?;
        for (name, its) in &self.operations {
            writeln!(f, "{}", row(name, columns(its)))?;
        }
        let all = OfOperation { succeeded: self.succeeded, failed: self.failed, latency: self.latency };
        if self.operations.len() > 1 {
            writeln!(f, "{}", row("all", columns(&all)))?;
        }
        writeln!(f, "\n{} calls in {:.1} s: {}", self.calls, self.seconds, self.rate_in_words())?;
        if self.hits + self.misses > 0 {
            writeln!(f, "{} of {} gets found a value", self.hits, self.hits + self.misses)?;
        }
        let (values, cpu) = (ByteSize(self.bytes), self.cpu_seconds);
        writeln!(f, "{values} of values; {cpu:.2} s of this process's CPU time")?;
        let (gap, at) = (self.longest_gap_ms, self.longest_gap_at_s);
        writeln!(f, "longest time without a success: {gap:.1} ms, from {at:.2} s on")?;
        for (kind, count) in &self.errors {
            writeln!(f, "failed {count} times: {kind}")?;
        }
        for told in &self.told {
            writeln!(f, "  {told}")?;
        }
        if let Some(verified) = &self.verified {
            writeln!(f, "{}", verified.in_words(self.failed))?;
        }
        match self.verdict {
            Verdict::Passed => Ok(()),
            Verdict::Void => writeln!(f, "void: the run was below its planned rate, so it tested something else"),
            Verdict::Failed => writeln!(f, "failed"),
        }
    }
}

impl Report {
    fn rate_in_words(&self) -> String {
        let mut text = format!("{:.1} calls/s", self.rate);
        if let (Some(planned), Some(percent)) = (self.planned_rate, self.achieved_percent) {
            let _ = write!(text, " of {planned:.1} planned ({percent:.2} %)");
        }
        text
    }
}

impl Verified {
    fn in_words(&self, failed: u64) -> String {
        let Self { keys, lost, stale, corrupt, unread, late, in_doubt } = self;
        let mut text = format!("verified {keys} keys: {failed} failed, {lost} lost, {stale} stale, {corrupt} corrupt");
        for (count, what) in [
            (unread, "could not be read at the end"),
            (in_doubt, "have a write of which nobody knows whether it was applied"),
            (late, "answers show such a write applied after a later one"),
        ] {
            if *count > 0 {
                let _ = write!(text, "; {count} {what}");
            }
        }
        text
    }
}

fn row(name: &str, columns: [String; 7]) -> String {
    let columns: String = columns.iter().map(|column| format!("{column:>12}")).collect();
    format!("{name:<8}{columns}")
}

fn columns(its: &OfOperation) -> [String; 7] {
    let Quantiles { p50_us, p90_us, p99_us, p999_us, max_us, .. } = its.latency;
    let times = [p50_us, p90_us, p99_us, p999_us, max_us].map(millis);
    let [p50, p90, p99, p999, max] = times;
    [its.succeeded.to_string(), its.failed.to_string(), p50, p90, p99, p999, max]
}

#[cfg(test)]
mod tests {
    use super::super::gap::Gap;
    use super::super::tally::Call;
    use super::*;

    fn measured(begun: u64, planned: Option<u64>, failed: u64) -> Measured {
        let mut tally = Tally { begun, ..Tally::default() };
        for _ in failed..begun {
            let took = Duration::from_millis(2);
            tally.succeeded(Call { operation: Operation::Get, took, bytes: 100, hit: Some(true) });
        }
        (0..failed).for_each(|_| tally.failed(Operation::Get, "DEADLINE_EXCEEDED"));
        let (time, gap, cpu) = (Duration::from_secs(10), Gap::default(), Duration::from_secs(1));
        Measured { tally, seconds: Vec::new(), time, planned, gap, cpu, told: Vec::new() }
    }

    #[test]
    fn a_run_below_its_planned_rate_is_void_and_a_broken_promise_is_worse() {
        let verdict = |begun, planned, failed, found: Option<Found>| {
            Report::new(String::new(), measured(begun, planned, failed), found.map(|found| (1, found, 0))).verdict
        };
        let clean = || Some(Found::default());
        let lost = || Some(Found { lost: 1, ..Found::default() });
        let late = || Some(Found { late: 1, ..Found::default() });
        for (name, got, expected) in [
            ("closed", verdict(100, None, 0, None), Verdict::Passed),
            ("as planned", verdict(100, Some(100), 0, clean()), Verdict::Passed),
            ("99 %", verdict(99, Some(100), 0, clean()), Verdict::Passed),
            ("98 %", verdict(98, Some(100), 0, clean()), Verdict::Void),
            ("nothing was begun", verdict(0, Some(100), 0, clean()), Verdict::Void),
            ("98 %, and one lost", verdict(98, Some(100), 0, lost()), Verdict::Failed),
            ("one failed, to whom verifies", verdict(100, Some(100), 1, clean()), Verdict::Failed),
            ("one failed, to others", verdict(100, Some(100), 1, None), Verdict::Passed),
            ("all failed", verdict(100, Some(100), 100, None), Verdict::Failed),
            ("a write applied late", verdict(100, Some(100), 0, late()), Verdict::Passed),
        ] {
            assert_eq!(got, expected, "{name}");
        }
    }

    #[test]
    fn the_summary_is_one_line_that_a_script_can_read() {
        let found = Found { stale: 2, ..Found::default() };
        let report = Report::new("plan".to_owned(), measured(1000, Some(1000), 3), Some((50, found, 4)));
        let summary = report.summary();
        assert!(!summary.contains('\n'));
        let read: serde_json::Value = serde_json::from_str(&summary).unwrap();
        for (name, value) in [
            ("failed", 3),
            ("lost", 0),
            ("stale", 2),
            ("corrupt", 0),
            ("unread", 0),
            ("keys", 50),
            ("in_doubt", 4),
            ("calls", 1000),
        ] {
            assert_eq!(read[name], value, "{name} in {summary}");
        }
        assert_eq!(read["verdict"], "failed");
        assert_eq!(read["rate"], 100.0);
        assert_eq!(read["achieved_percent"], 100.0);
        assert_eq!(read["errors"]["DEADLINE_EXCEEDED"], 3);
        assert!(report.to_string().contains("3 failed, 0 lost, 2 stale, 0 corrupt"), "{report}");
    }
}
