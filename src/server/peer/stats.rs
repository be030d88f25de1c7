//! What the peer service counts, for metrics. Counted per message, not per forward, so that workers do not fight for it.

use std::sync::atomic::AtomicU64;

/// What this replica says to others.
#[derive(Debug, Default)]
pub struct PeersStats {
    /// Operations that were forwarded.
    pub forwards: AtomicU64,
    /// Messages in which they went: with `forwards`, how many share one.
    pub messages: AtomicU64,
    /// Forwards that were turned away here, because as much was under way to their owner as may be.
    pub full: AtomicU64,
    /// Connections for forwards that broke.
    pub broken: AtomicU64,
    /// Connections that did not come about.
    pub not_connected: AtomicU64,
    /// Conversations that the other turned down: another cluster, or another process at its address.
    pub turned_down: AtomicU64,
    /// Messages of the hand-off.
    pub calls: AtomicU64,
    /// Messages of the hand-off without an answer.
    pub calls_lost: AtomicU64,
}

/// What others say to this replica.
#[derive(Debug, Default)]
pub struct ServiceStats {
    /// Operations carried out for others.
    pub forwards: AtomicU64,
    /// Messages in which they came.
    pub messages: AtomicU64,
    /// Of them, those that came after their deadline.
    pub late: AtomicU64,
    /// Of them, those that were turned away, because as much waits here as may.
    pub overloaded: AtomicU64,
    /// Streams of forwards that are open.
    pub streams: AtomicU64,
    /// Messages of the hand-off.
    pub exchanges: AtomicU64,
    /// Whoever is of another cluster, or speaks no protocol known here.
    pub strangers: AtomicU64,
    /// Messages that were refused: for another process, with a clock far ahead, after the end.
    pub refused: AtomicU64,
    /// Messages that make no sense.
    pub malformed: AtomicU64,
}
