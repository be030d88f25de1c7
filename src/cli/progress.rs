//! What a bulk command shows while it runs: a bar, when somebody looks; what failed, always; a rate, at the end.

use std::fmt::Display;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::exit;

/// How often the bar is drawn.
const DRAWS_PER_SECOND: u8 = 8;

/// A bar on standard error, hidden unless that is a terminal, and the counts for the last line.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    started: Instant,
    entries: u64,
    bytes: u64,
    /// Of the failures: values over the limit.
    too_large: u64,
    failed: u64,
}

impl Progress {
    /// `total` entries, if that is known.
    pub fn new(total: Option<u64>) -> Self {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND));
        let template = match total {
            Some(_) => "{bar:30} {human_pos}/{human_len} entries, {per_sec}, {msg}, {eta} left",
            None => "{spinner} {human_pos} entries, {per_sec}, {msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { bar, started: Instant::now(), entries: 0, bytes: 0, too_large: 0, failed: 0 }
    }

    pub fn done(&mut self, bytes: usize) {
        self.entries += 1;
        self.bytes += bytes as u64;
        self.bar.set_message(ByteSize(self.bytes).to_string());
        self.bar.inc(1);
    }

    /// Says at once what failed and why, so that any number of failures takes no memory.
    pub fn failed(&mut self, name: &str, why: &impl Display, too_large: bool) {
        self.failed += 1;
        self.too_large += u64::from(too_large);
        // Control characters of a name must not reach the terminal.
        let line = format!("{}: {why}", name.escape_debug());
        if self.bar.is_hidden() {
            exit::note(&line);
        } else {
            self.bar.println(line);
        }
    }

    /// Takes the bar away and says how it went; `verb`: what was done with the entries.
    pub fn finish(&self, verb: &str) {
        self.bar.finish_and_clear();
        let time = self.started.elapsed();
        let rate = rate_of(self.entries, time);
        let bytes = ByteSize(self.bytes);
        let speed = ByteSize(rate_of(self.bytes, time));
        let seconds = time.as_secs_f64();
        let entries = entries(self.entries);
        exit::note(&format_args!("{verb} {entries}, {bytes}, in {seconds:.1} s ({rate}/s, {speed}/s)"));
        if self.failed > 0 {
            let which = format!("{} over the limit", self.too_large);
            exit::note(&format_args!("not {verb}: {}, of these {which}", self.failed));
        }
    }

    /// Failures, those over the limit included.
    pub fn failures(&self) -> u64 {
        self.failed
    }

    /// Failures other than values over the limit.
    pub fn other_failures(&self) -> u64 {
        self.failed - self.too_large
    }
}

/// A number of entries, for people.
pub fn entries(count: u64) -> String {
    if count == 1 { "1 entry".to_owned() } else { format!("{count} entries") }
}

/// Per second, of times down to a millisecond.
fn rate_of(count: u64, time: Duration) -> u64 {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
    count.saturating_mul(1000) / millis
}
