//! The tables and the verdict. Ratios are taken round by round, between neighbours in time, and their median is printed.

use std::time::Duration;

use crate::load::{Job, Sample};
use crate::peers::Peer;

/// What was measured of one peer in one cell: a sample per round.
#[derive(Debug)]
pub struct Row {
    pub peer: Peer,
    pub samples: Vec<Sample>,
}

/// What must hold in a cell.
#[derive(Clone, Copy, Debug)]
pub struct Criterion {
    /// Whom it is about.
    pub of: Peer,
    pub against: Peer,
    /// Items per server CPU second, at least this many times those of the other.
    pub at_least: f64,
}

/// Prints one cell as a Markdown table; `base` is the peer that ratios are taken against.
pub fn print_cell(job: Job, rows: &[Row]) {
    let shape = job.shape;
    // With the no-op peers against the bare one; Larder beside itself against itself.
    let bare = [Peer::Bare, Peer::Larder].into_iter().find_map(|peer| rows.iter().find(|row| row.peer == peer));
    println!(
        "\n{} {} B, {} connections x {} in flight\n\n\
         | server | items/s | items per CPU s | spread | p50 | p99 | against {} |\n|---|--:|--:|--:|--:|--:|--:|",
        job.verb.name(),
        job.values.bytes,
        shape.connections,
        shape.in_flight,
        bare.map_or("-", |row| if row.peer == Peer::Bare { "bare" } else { row.peer.name() }),
    );
    for row in rows {
        let per_cpu = row.sorted(|sample| sample.per_cpu_second);
        let spread = (per_cpu[per_cpu.len() - 1] - per_cpu[0]) / median(&per_cpu) * 100.0;
        println!(
            "| {} | {} | {} | {spread:.0} % | {} | {} | {} |",
            row.peer.name(),
            thousands(median(&row.sorted(|sample| sample.per_second))),
            thousands(median(&per_cpu)),
            micros(median(&row.sorted(|sample| sample.p50.as_secs_f64()))),
            micros(median(&row.sorted(|sample| sample.p99.as_secs_f64()))),
            bare.map_or_else(|| "-".into(), |bare| format!("x{:.2}", ratio(row, bare))),
        );
    }
}

/// Says whether a cell meets a criterion. One that cannot be judged, because `--only` left a server out, is not missed.
pub fn judge(job: Job, rows: &[Row], criterion: Criterion) -> bool {
    let row = |peer| rows.iter().find(|row| row.peer == peer);
    let (verdict, met, found) = match (row(criterion.of), row(criterion.against)) {
        (Some(larder), Some(other)) => {
            let ratio = ratio(larder, other);
            let met = ratio >= criterion.at_least;
            (if met { "pass" } else { "FAIL" }, met, format!("x{ratio:.2}"))
        }
        _ => ("----", true, "not measured".to_owned()),
    };
    println!(
        "{verdict}  {} {} B {}x{}: {} against {}: {found} (at least x{:.2})",
        job.verb.name(),
        job.values.bytes,
        job.shape.connections,
        job.shape.in_flight,
        criterion.of.name(),
        criterion.against.name(),
        criterion.at_least,
    );
    met
}

/// The middle of sorted numbers.
pub fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
}

impl Row {
    fn sorted(&self, field: impl Fn(&Sample) -> f64) -> Vec<f64> {
        let mut numbers: Vec<f64> = self.samples.iter().map(field).collect();
        numbers.sort_by(f64::total_cmp);
        numbers
    }
}

/// The median over the rounds of items per CPU second against the other's in the same round.
fn ratio(row: &Row, base: &Row) -> f64 {
    let pairs = row.samples.iter().zip(&base.samples);
    let mut ratios: Vec<f64> = pairs.map(|(mine, theirs)| mine.per_cpu_second / theirs.per_cpu_second).collect();
    ratios.sort_by(f64::total_cmp);
    median(&ratios)
}

fn micros(seconds: f64) -> String {
    format!("{} us", Duration::from_secs_f64(seconds).as_micros())
}

fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
