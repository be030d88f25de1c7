//! The accept loop of one listener, and what may pass it.
//!
//! One task accepts, checks the limits and hands each connection to the worker with the fewest (ADR 3). It never spins:
//! when the system has no file descriptor left, it waits, longer each time, and says so at most once a second.
//!
//! Not here: what happens on a connection (`connection`), and when to stop (`drain` and its owner).

pub mod config;
pub(super) mod gate;
mod listen;
pub mod stats;

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

pub use self::config::WireConfig;
use self::gate::Gate;
pub use self::listen::bind;
use self::listen::{Accept, SystemListener};
pub use self::stats::{Ended, WireStats};
use super::connection::{Connection, Make};
use super::drain;
use super::tls::Tls;
use super::workers::Workers;

/// The first wait after a failed accept; doubles up to [`MAX_BACKOFF`].
const MIN_BACKOFF: Duration = Duration::from_millis(5);
/// The longest wait after a failed accept.
const MAX_BACKOFF: Duration = Duration::from_millis(500);
/// Failed accepts are logged once in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Starts listeners.
#[derive(Debug)]
pub struct Wire;

/// A running listener. Dropping it changes nothing: it ends with its drain.
#[derive(Clone, Debug)]
pub struct WireHandle {
    address: SocketAddr,
    gate: Gate,
    stats: Arc<WireStats>,
    stop: watch::Sender<bool>,
}

/// What the accept loop needs beside its listener.
struct Acceptor<M> {
    workers: Workers,
    config: Arc<WireConfig>,
    tls: Option<Tls>,
    make: M,
    drain: drain::Watch,
    gate: Gate,
    stats: Arc<WireStats>,
}

impl Wire {
    /// Serves `listener` on `workers` until `drain` begins. With `tls`, only TLS is spoken.
    ///
    /// # Errors
    /// When the listener cannot be made non-blocking or registered.
    pub fn start<M: Make>(
        workers: &Workers,
        listener: TcpListener,
        config: WireConfig,
        tls: Option<Tls>,
        make: M,
        drain: drain::Watch,
    ) -> io::Result<WireHandle> {
        let stats = Arc::new(WireStats::default());
        let gate = Gate::new(config.max_connections, config.max_handshaking, Arc::clone(&stats));
        let (stop, stopped) = watch::channel(false);
        let handle =
            WireHandle { address: listener.local_addr()?, gate: gate.clone(), stats: Arc::clone(&stats), stop };
        let runtime = workers.handle(0).clone();
        let listener = {
            let _entered = runtime.enter();
            SystemListener::new(listener)?
        };
        if let Some(tls) = tls.clone() {
            runtime.spawn(tls.keep_fresh(drain.clone()));
        }
        let acceptor = Acceptor { workers: workers.clone(), config: Arc::new(config), tls, make, drain, gate, stats };
        runtime.spawn(acceptor.run(listener, stopped));
        Ok(handle)
    }
}

impl WireHandle {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections that are being served.
    pub fn connections(&self) -> usize {
        self.gate.open()
    }

    /// Counters for metrics.
    pub fn stats(&self) -> &Arc<WireStats> {
        &self.stats
    }

    /// Closes the listener; connections go on. To be called some time before the drain, or not at all: the drain's
    /// begin closes it too.
    pub fn stop_accepting(&self) {
        self.stop.send_replace(true);
    }
}

impl<M: Make> Acceptor<M> {
    async fn run(self, listener: impl Accept, mut stop: watch::Receiver<bool>) {
        let mut drain = self.drain.clone();
        // Until the listener is closed somebody may come.
        let _open = drain.hold();
        let stopped = async {
            tokio::select! {
                // All handles gone: only the drain can stop it.
                Ok(_) = stop.wait_for(|stop| *stop) => {}
                _ = drain.started() => {}
            }
        };
        accept_until(stopped, listener, &self.stats, |socket, address| self.hand_over(socket, address)).await;
    }

    /// Gives the connection to a worker, or closes it.
    fn hand_over(&self, socket: TcpStream, address: SocketAddr) {
        let Ok(entering) = self.gate.enter() else {
            self.stats.count_ended(Ended::Full);
            return;
        };
        let seat = self.workers.least_loaded();
        let runtime = seat.handle().clone();
        let connection = Connection {
            socket,
            address,
            seat,
            entering,
            config: Arc::clone(&self.config),
            tls: self.tls.clone(),
            make: self.make.clone(),
            drain: self.drain.clone(),
            hold: self.drain.hold(),
            stats: Arc::clone(&self.stats),
        };
        runtime.spawn(connection.run());
    }
}

/// Accepts until `stopped`, then those who have come by then, and closes the listener.
async fn accept_until(
    stopped: impl Future<Output = ()>,
    listener: impl Accept,
    stats: &WireStats,
    mut hand_over: impl FnMut(TcpStream, SocketAddr),
) {
    tokio::pin!(stopped);
    let mut trouble = Trouble::default();
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stopped => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, address)) => {
                trouble.pause = Duration::ZERO;
                stats.count_accepted();
                hand_over(socket, address);
            }
            Err(error) if is_of_the_client(&error) => {}
            Err(error) => {
                stats.count_accept_error();
                let pause = trouble.next(&error);
                tokio::select! {
                    () = &mut stopped => break,
                    () = sleep(pause) => {}
                }
            }
        }
    }
    for (socket, address) in listener.close() {
        stats.count_accepted();
        hand_over(socket, address);
    }
}

/// The wait after failed accepts, and whether it is time to say so.
#[derive(Debug, Default)]
struct Trouble {
    pause: Duration,
    logged: Option<Instant>,
}

impl Trouble {
    fn next(&mut self, error: &io::Error) -> Duration {
        self.pause = (self.pause * 2).clamp(MIN_BACKOFF, MAX_BACKOFF);
        if self.logged.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
            self.logged = Some(Instant::now());
            tracing::error!(%error, "cannot accept connections; check the limit of open files (ulimit -n)");
        }
        self.pause
    }
}

/// The connection died before it was accepted: the next one may be fine.
fn is_of_the_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMFILE: i32 = 24;
    const ECONNABORTED: i32 = 103;

    /// Fails a number of times with an error, then never answers again.
    struct Failing {
        errno: i32,
        left: std::sync::atomic::AtomicU64,
    }

    impl Accept for Failing {
        async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
            let left = self.left.load(std::sync::atomic::Ordering::Relaxed);
            if left == 0 {
                std::future::pending::<()>().await;
            }
            self.left.store(left - 1, std::sync::atomic::Ordering::Relaxed);
            Err(io::Error::from_raw_os_error(self.errno))
        }

        fn close(self) -> impl Iterator<Item = (TcpStream, SocketAddr)> + Send {
            std::iter::empty()
        }
    }

    async fn errors_in_10_s(errno: i32, left: u64) -> u64 {
        let stats = WireStats::default();
        let listener = Failing { errno, left: left.into() };
        accept_until(sleep(Duration::from_secs(10)), listener, &stats, |_, _| {}).await;
        stats.accept_errors()
    }

    #[tokio::test(start_paused = true)]
    async fn without_file_descriptors_it_waits_longer_each_time() {
        // 5 + 10 + .. + 320 ms, then every 500 ms.
        assert_eq!(errors_in_10_s(EMFILE, u64::MAX).await, 7 + 19);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_died_in_the_queue_costs_no_wait() {
        assert_eq!(errors_in_10_s(ECONNABORTED, 1000).await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn trouble_is_told_at_most_once_a_second() {
        let mut trouble = Trouble::default();
        let mut told = 0;
        for _ in 0..100 {
            let before = trouble.logged;
            trouble.next(&io::Error::from_raw_os_error(EMFILE));
            told += usize::from(trouble.logged != before);
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        assert_eq!(told, 10);
    }
}
