//! The end of a replica, in order and in bounded time: health says NOT_SERVING, and the other members are told that this one
//! leaves; calls are taken as before for a while, the time that the news needs, and keys are handed over; then every connection gets its GOAWAY and calls in progress end; what is left at the deadline is cut.
//! Health is answered to the last.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::HEALTH_DRAIN;
use super::cluster::Members;
use super::exporters::Exporters;
use super::ready_file::ReadyFile;
use crate::server::accept::WireHandle;
use crate::server::drain::{Outcome, Trigger};
use crate::server::health::Health;
use crate::server::workers::Workers;

/// Ends a replica.
#[derive(Debug)]
pub struct Shutdown {
    pub(super) delay: Duration,
    pub(super) timeout: Duration,
    pub(super) health: Health,
    pub(super) trigger: Trigger,
    pub(super) wire: WireHandle,
    /// This replica's part in a cluster.
    pub(super) members: Option<Members>,
    pub(super) workers: Workers,
    pub(super) health_trigger: Trigger,
    pub(super) health_wire: WireHandle,
    pub(super) prober: Workers,
    pub(super) tasks: JoinSet<()>,
    /// Last: spans and figures of the end go out too.
    pub(super) exporters: Exporters,
    /// Removed with this.
    pub(super) _ready_file: Option<ReadyFile>,
}

/// The signals that end a replica. Listened to from before it serves, so that none is missed.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Shutdown {
    /// Ends the replica as SIGTERM does.
    pub async fn now(self) -> Outcome {
        self.end(std::future::pending()).await
    }

    /// The same; a second signal ends the waiting.
    pub(super) async fn run(self, signals: &mut Signals) -> Outcome {
        self.end(signals.terminated()).await
    }

    /// Waits until the replica cannot go on, which its log explains. A replica that is alone always can.
    pub(super) async fn broken(&self) {
        match &self.members {
            Some(members) => members.broken().await,
            None => std::future::pending().await,
        }
    }

    async fn end(mut self, hurry: impl Future<Output = ()>) -> Outcome {
        tracing::info!(connections = self.wire.connections(), "draining");
        self.health.set_draining();
        if let Some(members) = &self.members {
            members.leave().await;
        }
        let linger = self.members.as_ref().map_or(Duration::ZERO, |members| members.linger);
        let (delay, timeout) = (self.delay.max(linger), self.timeout);
        let (trigger, members) = (&self.trigger, &mut self.members);
        let drain = async {
            tokio::time::sleep(delay).await;
            let deadline = Instant::now() + timeout;
            let left = async {
                if let Some(members) = members {
                    members.left_by(deadline).await;
                }
            };
            tokio::join!(trigger.drain(timeout), left).0
        };
        let outcome = tokio::select! {
            outcome = drain => outcome,
            () = hurry => {
                tracing::warn!("a second signal: what is in progress is cut");
                self.trigger.drain(Duration::ZERO).await
            }
        };
        if let Some(members) = self.members {
            members.end().await;
        }
        self.health_trigger.drain(HEALTH_DRAIN).await;
        self.tasks.shutdown().await;
        self.exporters.end().await;
        tracing::info!(?outcome, probes = self.health_wire.connections(), "ended");
        let (workers, prober) = (self.workers, self.prober);
        // A worker may be in the middle of something long; its thread is joined away from this one.
        let stopped = tokio::task::spawn_blocking(move || {
            workers.stop();
            prober.stop();
        });
        if stopped.await.is_err() {
            tracing::error!("a worker panicked while it stopped");
        }
        outcome
    }
}

impl Signals {
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next of them.
    pub(super) async fn terminated(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
