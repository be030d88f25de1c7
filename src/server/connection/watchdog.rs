//! When a live connection has to go: a pure judgement of what was seen of it.

use std::time::Duration;

use tokio::time::Instant;

use crate::server::accept::{Ended, WireConfig};

/// How long an idle connection may take to close after its GOAWAY: a round trip to a client that has nothing to do.
const IDLE_GRACE: Duration = Duration::from_secs(5);

/// The deadlines of one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watchdog {
    idle_timeout: Duration,
    silence_timeout: Duration,
    stall_timeout: Duration,
    header_timeout: Duration,
    age_grace: Duration,
    old_at: Instant,
    /// A GOAWAY has been sent.
    is_leaving: bool,
    /// After a GOAWAY for age or idleness: when what is left is cut.
    cut: Option<Instant>,
    /// The GOAWAY was for idleness, and no call has come since.
    is_idle: bool,
}

/// What is known of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) now: Instant,
    /// The client was last known to be there.
    pub(super) alive_at: Instant,
    pub(super) stalled_since: Option<Instant>,
    pub(super) partial_since: Option<Instant>,
    pub(super) idle_since: Option<Instant>,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing before this time.
    Wait(Instant),
    /// Say GOAWAY, once.
    GoAway(Cause),
    /// Close now.
    Cut(Ended),
}

/// Why a GOAWAY is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Age,
    Idleness,
}

impl Watchdog {
    /// `chance` is a random number in 0.0..1.0 that spreads the ages.
    pub(super) fn new(config: &WireConfig, began: Instant, chance: f64) -> Self {
        let spread = 1.0 + config.connection_age_jitter.clamp(0.0, 1.0) * (2.0 * chance - 1.0);
        Self {
            idle_timeout: config.idle_timeout,
            silence_timeout: config.silence_timeout,
            stall_timeout: config.stall_timeout,
            header_timeout: config.header_timeout,
            age_grace: config.connection_age_grace,
            old_at: began + config.connection_age.mul_f64(spread),
            is_leaving: false,
            cut: None,
            is_idle: false,
        }
    }

    /// A drain has begun, and GOAWAY has been sent. The drain's owner cuts what is left, not this.
    pub(super) fn draining(&mut self) {
        self.is_leaving = true;
    }

    /// Judges; after [`Verdict::GoAway`] it expects that one was sent.
    pub(super) fn judge(&mut self, seen: &Seen) -> Verdict {
        if self.is_idle && seen.idle_since.is_none() {
            // A call was on its way as the GOAWAY was: it may take its time.
            self.is_idle = false;
            self.cut = Some(seen.now + self.age_grace);
        }
        let gone = [
            (Some(seen.alive_at), self.silence_timeout, Ended::Silent),
            (seen.stalled_since, self.stall_timeout, Ended::Stalled),
            (seen.partial_since, self.header_timeout, Ended::SlowHeaders),
        ];
        let gone = gone.into_iter().filter_map(|(since, limit, ended)| Some((since? + limit, ended)));
        let mut next = seen.now + self.shortest();
        for (at, ended) in gone.chain(self.cut.map(|at| (at, Ended::Grace))) {
            if at <= seen.now {
                return Verdict::Cut(ended);
            }
            next = next.min(at);
        }
        if self.is_leaving {
            return Verdict::Wait(next);
        }
        if self.old_at <= seen.now {
            self.is_leaving = true;
            self.cut = Some(seen.now + self.age_grace);
            return Verdict::GoAway(Cause::Age);
        }
        let idle_at = seen.idle_since.map(|since| since + self.idle_timeout);
        if idle_at.is_some_and(|at| at <= seen.now) {
            self.is_leaving = true;
            self.cut = Some(seen.now + IDLE_GRACE);
            self.is_idle = true;
            return Verdict::GoAway(Cause::Idleness);
        }
        Verdict::Wait(next.min(self.old_at).min(idle_at.unwrap_or(self.old_at)))
    }

    /// What has not begun yet cannot be over before the shortest of its limits.
    fn shortest(&self) -> Duration {
        self.stall_timeout.min(self.header_timeout).min(self.silence_timeout).min(self.idle_timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn config() -> WireConfig {
        WireConfig {
            idle_timeout: SECOND * 100,
            silence_timeout: SECOND * 9,
            stall_timeout: SECOND * 8,
            header_timeout: SECOND * 7,
            connection_age: SECOND * 1000,
            connection_age_jitter: 0.1,
            connection_age_grace: SECOND * 60,
            ..WireConfig::default()
        }
    }

    /// A busy and healthy connection at `now`.
    fn healthy(now: Instant) -> Seen {
        Seen { now, alive_at: now, stalled_since: None, partial_since: None, idle_since: None }
    }

    #[test]
    fn a_healthy_connection_goes_on_to_its_age_and_its_grace() {
        let began = Instant::now();
        let mut watchdog = Watchdog::new(&config(), began, 0.5);
        assert!(matches!(watchdog.judge(&healthy(began + SECOND * 999)), Verdict::Wait(_)));
        assert_eq!(watchdog.judge(&healthy(began + SECOND * 1000)), Verdict::GoAway(Cause::Age));
        assert!(matches!(watchdog.judge(&healthy(began + SECOND * 1059)), Verdict::Wait(_)));
        assert_eq!(watchdog.judge(&healthy(began + SECOND * 1060)), Verdict::Cut(Ended::Grace));
    }

    #[test]
    fn the_age_is_spread_by_a_tenth_to_both_sides() {
        let began = Instant::now();
        let age = |chance| Watchdog::new(&config(), began, chance).old_at - began;
        assert_eq!(age(0.0), SECOND * 900);
        assert_eq!(age(0.5), SECOND * 1000);
        assert_eq!(age(1.0), SECOND * 1100);
    }

    #[test]
    fn an_idle_connection_is_sent_away_and_a_busy_one_is_not() {
        let began = Instant::now();
        let mut watchdog = Watchdog::new(&config(), began, 0.5);
        let now = began + SECOND * 150;
        assert!(matches!(watchdog.judge(&healthy(now)), Verdict::Wait(_)));
        let idle = Seen { idle_since: Some(now - SECOND * 100), ..healthy(now) };
        assert_eq!(watchdog.judge(&idle), Verdict::GoAway(Cause::Idleness));
        let later = now + IDLE_GRACE;
        assert_eq!(watchdog.judge(&Seen { now: later, alive_at: later, ..idle }), Verdict::Cut(Ended::Grace));
    }

    #[test]
    fn a_call_that_comes_as_an_idle_connection_is_sent_away_may_take_its_time() {
        let began = Instant::now();
        let mut watchdog = Watchdog::new(&config(), began, 0.5);
        let now = began + SECOND * 100;
        let idle = Seen { idle_since: Some(began), ..healthy(now) };
        assert_eq!(watchdog.judge(&idle), Verdict::GoAway(Cause::Idleness));
        assert!(matches!(watchdog.judge(&healthy(now + IDLE_GRACE)), Verdict::Wait(_)));
        assert_eq!(watchdog.judge(&healthy(now + IDLE_GRACE + SECOND * 60)), Verdict::Cut(Ended::Grace));
    }

    #[test]
    fn silent_stalled_and_dripping_clients_are_cut() {
        let began = Instant::now();
        let now = began + SECOND * 50;
        let mut watchdog = Watchdog::new(&config(), began, 0.5);
        for (seen, ended) in [
            (Seen { alive_at: now - SECOND * 9, ..healthy(now) }, Ended::Silent),
            (Seen { stalled_since: Some(now - SECOND * 8), ..healthy(now) }, Ended::Stalled),
            (Seen { partial_since: Some(now - SECOND * 7), ..healthy(now) }, Ended::SlowHeaders),
        ] {
            assert_eq!(watchdog.judge(&seen), Verdict::Cut(ended));
        }
    }

    #[test]
    fn it_looks_again_before_anything_can_be_over() {
        let began = Instant::now();
        let mut watchdog = Watchdog::new(&config(), began, 0.5);
        assert_eq!(watchdog.judge(&healthy(began)), Verdict::Wait(began + SECOND * 7));
        let silent = Seen { alive_at: began - SECOND * 5, ..healthy(began) };
        assert_eq!(watchdog.judge(&silent), Verdict::Wait(began + SECOND * 4));
    }

    #[test]
    fn while_draining_neither_age_nor_idleness_says_goaway_again() {
        let began = Instant::now();
        let mut watchdog = Watchdog::new(&config(), began, 0.5);
        watchdog.draining();
        let old = Seen { idle_since: Some(began), ..healthy(began + SECOND * 2000) };
        assert!(matches!(watchdog.judge(&old), Verdict::Wait(_)));
    }
}
