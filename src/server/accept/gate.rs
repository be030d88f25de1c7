//! The two limits of a listener: how many connections may be open, and how many may be on their way there.
//!
//! They are apart so that clients that connect and say nothing cannot take the places of those that speak: when too many
//! are on their way, the one that has been so for longest goes first, however many come.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::stats::WireStats;

/// Admits connections. Cheap to clone.
#[derive(Clone, Debug)]
pub(in crate::server) struct Gate {
    state: Arc<Mutex<State>>,
    stats: Arc<WireStats>,
}

/// A connection that is not through TLS and preface.
#[derive(Debug)]
pub(in crate::server) struct Entering {
    gate: Gate,
    number: u64,
    displaced: oneshot::Receiver<()>,
}

/// A connection that is served.
#[derive(Debug)]
pub(in crate::server) struct Inside(Gate);

/// The connection limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) struct Full;

#[derive(Debug)]
struct State {
    max_open: usize,
    max_entering: usize,
    open: usize,
    /// By arrival: the first is the oldest.
    entering: BTreeMap<u64, oneshot::Sender<()>>,
    arrivals: u64,
}

impl Gate {
    pub(super) fn new(max_open: usize, max_entering: usize, stats: Arc<WireStats>) -> Self {
        let state =
            State { max_open, max_entering: max_entering.max(1), open: 0, entering: BTreeMap::new(), arrivals: 0 };
        Self { state: Arc::new(Mutex::new(state)), stats }
    }

    /// Lets a connection begin its handshake; displaces the oldest when there are too many.
    pub(super) fn enter(&self) -> Result<Entering, Full> {
        let mut state = self.state.lock();
        if state.open >= state.max_open {
            return Err(Full);
        }
        let mut oldest = None;
        if state.entering.len() >= state.max_entering {
            oldest = state.entering.pop_first();
        }
        let number = state.arrivals;
        state.arrivals += 1;
        let (displace, displaced) = oneshot::channel();
        state.entering.insert(number, displace);
        self.publish(&state);
        drop(state);
        if let Some((_, displace)) = oldest {
            // Its task may have ended in between.
            let _ = displace.send(());
        }
        Ok(Entering { gate: self.clone(), number, displaced })
    }

    pub(super) fn open(&self) -> usize {
        self.state.lock().open
    }

    fn publish(&self, state: &State) {
        self.stats.set_gauges(state.open, state.entering.len());
    }
}

impl Entering {
    /// Waits until a newer connection has taken this one's place. Cancel-safe.
    pub(in crate::server) async fn displaced(&mut self) {
        // The sender goes away only when it is used, or with this value.
        let _ = (&mut self.displaced).await;
    }

    /// TLS and preface are done.
    pub(in crate::server) fn inside(self) -> Result<Inside, Full> {
        let mut state = self.gate.state.lock();
        if state.open >= state.max_open {
            return Err(Full);
        }
        state.open += 1;
        self.gate.publish(&state);
        drop(state);
        Ok(Inside(self.gate.clone()))
    }
}

impl Drop for Entering {
    fn drop(&mut self) {
        let mut state = self.gate.state.lock();
        state.entering.remove(&self.number);
        self.gate.publish(&state);
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.open -= 1;
        self.0.publish(&state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(max_open: usize, max_entering: usize) -> (Gate, Arc<WireStats>) {
        let stats = Arc::new(WireStats::default());
        (Gate::new(max_open, max_entering, Arc::clone(&stats)), stats)
    }

    #[tokio::test]
    async fn one_too_many_handshakes_displace_the_oldest() {
        let (gate, stats) = gate(10, 2);
        let mut first = gate.enter().unwrap();
        let mut second = gate.enter().unwrap();
        let _third = gate.enter().unwrap();
        first.displaced().await;
        assert!(second.displaced.try_recv().is_err());
        assert_eq!(stats.handshaking(), 2);
    }

    #[test]
    fn a_finished_handshake_frees_its_place_and_takes_one_inside() {
        let (gate, stats) = gate(1, 2);
        let inside = gate.enter().unwrap().inside().unwrap();
        assert_eq!((stats.open(), stats.handshaking()), (1, 0));
        assert_eq!(gate.enter().unwrap_err(), Full);
        drop(inside);
        assert_eq!(stats.open(), 0);
        assert!(gate.enter().is_ok());
    }

    #[test]
    fn the_limit_holds_for_those_that_were_already_on_their_way() {
        let (gate, _) = gate(1, 2);
        let first = gate.enter().unwrap();
        let second = gate.enter().unwrap();
        let _inside = first.inside().unwrap();
        assert_eq!(second.inside().unwrap_err(), Full);
    }
}
