//! The end of a server as a protocol: trigger, watcher, deadline, force (the shape of istio/ztunnel's `src/drain.rs`).
//!
//! [`Trigger`] starts it, once, with a deadline. Whoever serves something has a [`Watch`], and takes a [`Hold`] for each
//! thing that must come to an end by itself (a connection, a stream). At the deadline the trigger forces: watchers drop
//! what is left. So the end takes at most the deadline and [`FORCE_GRACE`], whatever the clients do.
//!
//! Not here: what "draining" means to a connection (`connection`), and readiness, which goes away before.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

/// How long what is left may take to let go once it is forced.
pub const FORCE_GRACE: Duration = Duration::from_secs(1);

/// How far the end has come. Only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Serve.
    Running,
    /// Take nothing new, end by the deadline.
    Draining {
        /// When the rest is cut.
        deadline: Instant,
    },
    /// Drop everything.
    Forced,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything ended by itself before the deadline.
    Clean,
    /// Some holders had to be cut at the deadline.
    Forced {
        /// Held at the deadline.
        cut: usize,
        /// Still held [`FORCE_GRACE`] later; they are abandoned.
        stuck: usize,
    },
}

/// Starts the end. Dropping it does not.
#[derive(Debug)]
pub struct Trigger {
    phase: watch::Sender<Phase>,
    holds: Arc<Holds>,
}

/// Sees the end coming. Cheap to clone; does not keep the end waiting.
#[derive(Clone, Debug)]
pub struct Watch {
    phase: watch::Receiver<Phase>,
    holds: Arc<Holds>,
}

/// Keeps a drain waiting until it is dropped.
#[derive(Debug)]
pub struct Hold(Arc<Holds>);

#[derive(Debug, Default)]
struct Holds {
    count: AtomicUsize,
    gone: Notify,
}

/// A trigger and the watch that hears it.
pub fn channel() -> (Trigger, Watch) {
    let (sender, receiver) = watch::channel(Phase::Running);
    let holds = Arc::new(Holds::default());
    (Trigger { phase: sender, holds: Arc::clone(&holds) }, Watch { phase: receiver, holds })
}

impl Trigger {
    /// Starts the end without waiting for it, nor forcing it: [`Trigger::drain`] does. A second call may bring the
    /// deadline forward, never put it off.
    pub fn start(&self, within: Duration) {
        let asked = Instant::now() + within;
        self.phase.send_if_modified(|phase| match *phase {
            Phase::Draining { deadline } if deadline <= asked => false,
            Phase::Forced => false,
            Phase::Running | Phase::Draining { .. } => {
                *phase = Phase::Draining { deadline: asked };
                true
            }
        });
    }

    /// Cuts what is left, now.
    pub fn force(&self) {
        self.phase.send_replace(Phase::Forced);
    }

    /// Starts the end and waits for it: at most `within` + [`FORCE_GRACE`].
    pub async fn drain(&self, within: Duration) -> Outcome {
        self.start(within);
        let deadline = match *self.phase.borrow() {
            Phase::Draining { deadline } => deadline,
            Phase::Running | Phase::Forced => Instant::now(),
        };
        if timeout_at(deadline, self.holds.none()).await.is_ok() {
            return Outcome::Clean;
        }
        let cut = self.holds.count();
        self.force();
        let _ = timeout_at(Instant::now() + FORCE_GRACE, self.holds.none()).await;
        Outcome::Forced { cut, stuck: self.holds.count() }
    }

    /// How many things the end would wait for now.
    pub fn held(&self) -> usize {
        self.holds.count()
    }

    /// Another watch.
    pub fn watch(&self) -> Watch {
        Watch { phase: self.phase.subscribe(), holds: Arc::clone(&self.holds) }
    }
}

impl Watch {
    /// Makes the end wait for the returned value's drop.
    pub fn hold(&self) -> Hold {
        self.holds.count.fetch_add(1, Ordering::AcqRel);
        Hold(Arc::clone(&self.holds))
    }

    /// Where the end stands.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Waits until draining has begun; answers the deadline (now, when it is already forced). Cancel-safe.
    pub async fn started(&mut self) -> Instant {
        match self.wait(|phase| *phase != Phase::Running).await {
            Phase::Draining { deadline } => deadline,
            Phase::Running | Phase::Forced => Instant::now(),
        }
    }

    /// Waits until the rest is to be cut. Cancel-safe.
    pub async fn forced(&mut self) {
        self.wait(|phase| *phase == Phase::Forced).await;
    }

    /// Waits until the phase is another than `seen`; answers it. Cancel-safe.
    pub async fn changed(&mut self, seen: Phase) -> Phase {
        self.wait(|phase| *phase != seen).await
    }

    /// Waits for a phase. A trigger that is gone without having started will never start: waits for ever.
    async fn wait(&mut self, reached: impl FnMut(&Phase) -> bool) -> Phase {
        let seen = self.phase.wait_for(reached).await.map(|phase| *phase);
        match seen {
            Ok(phase) => phase,
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.gone.notify_waiters();
        }
    }
}

impl Holds {
    fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    async fn none(&self) {
        loop {
            let gone = self.gone.notified();
            tokio::pin!(gone);
            // Registered before the count is read, so that a drop in between is not missed.
            gone.as_mut().enable();
            if self.count() == 0 {
                return;
            }
            gone.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    #[tokio::test(start_paused = true)]
    async fn nothing_held_ends_at_once() {
        let (trigger, watch) = channel();
        let began = Instant::now();
        assert_eq!(trigger.drain(DEADLINE).await, Outcome::Clean);
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_ne!(watch.phase(), Phase::Running);
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_that_lets_go_in_time_makes_a_clean_end() {
        let (trigger, mut watch) = channel();
        let hold = watch.hold();
        tokio::spawn(async move {
            watch.started().await;
            tokio::time::sleep(Duration::from_secs(3)).await;
            drop(hold);
        });
        assert_eq!(trigger.drain(DEADLINE).await, Outcome::Clean);
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_that_obeys_only_force_is_cut_at_the_deadline() {
        let (trigger, mut watch) = channel();
        let hold = watch.hold();
        tokio::spawn(async move {
            watch.forced().await;
            drop(hold);
        });
        let began = Instant::now();
        assert_eq!(trigger.drain(DEADLINE).await, Outcome::Forced { cut: 1, stuck: 0 });
        assert_eq!(began.elapsed(), DEADLINE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_that_never_lets_go_is_abandoned() {
        let (trigger, watch) = channel();
        let _hold = watch.hold();
        let began = Instant::now();
        assert_eq!(trigger.drain(DEADLINE).await, Outcome::Forced { cut: 1, stuck: 1 });
        assert_eq!(began.elapsed(), DEADLINE + FORCE_GRACE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_start_may_only_bring_the_deadline_forward() {
        let (trigger, mut watch) = channel();
        trigger.start(DEADLINE);
        trigger.start(DEADLINE * 2);
        assert_eq!(watch.started().await, Instant::now() + DEADLINE);
        trigger.start(DEADLINE / 2);
        assert_eq!(watch.started().await, Instant::now() + DEADLINE / 2);
    }
}
