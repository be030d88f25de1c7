//! When calls begin. In an open loop each has its moment by the plan, whatever became of those before it, and its latency is
//! counted from that moment: waiting for a slow server is part of it (Gil Tene, "How NOT to Measure Latency": leaving that out
//! is coordinated omission). In a closed loop a call begins when the one before it has ended.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant as SystemInstant};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::time::Instant;

use super::stop::Stop;

/// Calls that are due and not begun, of each thread. When so many are, the plan waits; what is not begun when the run ends
/// never is, and the run is void.
pub const MAX_DUE: usize = 65_536;

/// How long the plan waits for room.
const ROOM_PAUSE: Duration = Duration::from_millis(1);

/// How long the plan sleeps at most, so that it hears when it is to stop.
const LONGEST_SLEEP: Duration = Duration::from_millis(50);

/// The moments of an open loop: `rate` a second, evenly.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    pub from: SystemInstant,
    /// Calls per second, at least 1.
    pub rate: u32,
}

impl Schedule {
    /// When the `number`-th call is due, counted from 0.
    pub fn due(&self, number: u64) -> SystemInstant {
        let nanos = u128::from(number) * 1_000_000_000 / u128::from(self.rate.max(1));
        self.from + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How many calls are due within a time.
    pub fn within(&self, time: Duration) -> u64 {
        let count = (time.as_nanos() * u128::from(self.rate)).div_ceil(1_000_000_000);
        u64::try_from(count).unwrap_or(u64::MAX)
    }

    /// Hands out the first `count` moments, each when it has come, in turn to each of `to`; while there is no room, until
    /// `until` at most. Blocks its thread, since the timer of a runtime has a grain of a millisecond.
    pub fn follow(&self, count: u64, until: Option<Instant>, to: &[Sender<Instant>], stop: &Stop) {
        let over = || stop.is_said() || until.is_some_and(|until| Instant::now() >= until);
        for number in 0..count {
            let due = self.due(number);
            while let Some(left) = due.checked_duration_since(SystemInstant::now()).filter(|left| !left.is_zero()) {
                if stop.is_said() {
                    return;
                }
                thread::park_timeout(left.min(LONGEST_SLEEP));
            }
            let at = usize::try_from(number).unwrap_or(usize::MAX) % to.len();
            while let Err(TrySendError::Full(_)) = to[at].try_send(Instant::from_std(due)) {
                if over() {
                    return;
                }
                thread::park_timeout(ROOM_PAUSE);
            }
            if stop.is_said() {
                return;
            }
        }
    }
}

/// Makes the calls of an open loop, each as soon as it is due and fewer than `window` are under way. `call` is given the moment
/// that was planned. After `over` nothing that waits is begun any more; what is under way is waited for.
pub async fn open<F: Future<Output = ()>>(
    mut due: Receiver<Instant>,
    window: usize,
    over: &AtomicBool,
    call: impl Fn(Instant) -> F,
) {
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(()) = under_way.next() => {}
            planned = due.recv(), if under_way.len() < window => match planned {
                Some(planned) if !over.load(Ordering::Acquire) => under_way.push(call(planned)),
                Some(_) => {}
                None => break,
            }
        }
    }
    while under_way.next().await.is_some() {}
}

/// Makes the calls of a closed loop: `window` at a time while there is `more`.
pub async fn closed<F: Future<Output = ()>>(window: usize, more: impl Fn() -> bool, call: impl Fn(Instant) -> F) {
    let one_by_one = async || {
        while more() {
            call(Instant::now()).await;
        }
    };
    futures::future::join_all((0..window).map(|_| one_by_one())).await;
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use tokio::sync::mpsc;
    use tokio::time::sleep;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn calls_are_due_evenly_and_the_last_second_is_as_full_as_the_first() {
        let from = SystemInstant::now();
        let schedule = Schedule { from, rate: 3 };
        let due = |number| schedule.due(number) - from;
        assert_eq!(
            (due(0), due(3), due(3_000_000)),
            (Duration::ZERO, Duration::from_secs(1), Duration::from_secs(1_000_000))
        );
        assert_eq!(due(1).as_millis(), 333);
        assert_eq!(schedule.within(Duration::from_secs(10)), 30);
        assert_eq!(schedule.within(Duration::from_millis(400)), 2);
    }

    #[test]
    fn the_plan_is_followed_and_no_call_comes_early() {
        let (to, mut due) = mpsc::channel(100);
        let schedule = Schedule { from: SystemInstant::now(), rate: 10_000 };
        schedule.follow(50, None, &[to], &Stop::default());
        assert!(SystemInstant::now() >= schedule.due(49));
        let moments: Vec<_> = std::iter::from_fn(|| due.try_recv().ok()).map(Instant::into_std).collect();
        assert_eq!(moments, (0..50).map(|number| schedule.due(number)).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn latency_of_an_open_loop_counts_the_wait() {
        let (to, due) = mpsc::channel(100);
        let began = Instant::now();
        for number in 0..5 {
            to.try_send(began + MS * number).unwrap();
        }
        drop(to);
        // A server that takes 10 ms for each call, where one is planned every millisecond.
        let took = RefCell::new(Vec::new());
        let call = |planned: Instant| {
            let took = &took;
            async move {
                sleep(10 * MS).await;
                took.borrow_mut().push(planned.elapsed());
            }
        };
        open(due, 1, &AtomicBool::new(false), call).await;
        assert_eq!(took.take(), [10, 19, 28, 37, 46].map(|ms| MS * ms));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_begun_when_the_run_is_over_never_is() {
        let (to, due) = mpsc::channel(100);
        for _ in 0..5 {
            to.try_send(Instant::now()).unwrap();
        }
        drop(to);
        let (over, begun) = (AtomicBool::new(false), Cell::new(0));
        let call = |_| {
            begun.set(begun.get() + 1);
            async {
                sleep(MS).await;
                over.store(true, Ordering::Release);
            }
        };
        open(due, 2, &over, call).await;
        assert_eq!(begun.get(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_loop_has_as_many_calls_under_way_as_its_window() {
        let (began, left) = (Instant::now(), Cell::new(10_u32));
        let more = || left.replace(left.get().saturating_sub(1)) > 0;
        closed(2, more, |_| sleep(10 * MS)).await;
        assert_eq!(began.elapsed(), 50 * MS);
    }
}
