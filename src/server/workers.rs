//! One `current_thread` runtime per core. A connection lives on one of them to its end, so that its streams, its timers
//! and its socket never cross cores; a shared multi-threaded runtime costs 2 to 4 times the CPU on small multiplexed
//! calls, mostly because it writes after every single response.
//!
//! Connections are balanced, not requests: the accept loop asks [`Workers::least_loaded`]. Not here: what runs on them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;

/// Worker threads at most, whatever the machine has.
pub const MAX_WORKERS: usize = 256;
/// How long the tasks of a stopped worker may take to be dropped.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// The worker threads. Cheap to clone; they end when [`Workers::stop`] is called or the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Workers(Arc<Inner>);

/// One connection's place on a worker; counted until dropped.
#[derive(Debug)]
pub struct Seat {
    workers: Workers,
    index: usize,
}

#[derive(Debug)]
struct Inner {
    workers: Vec<Worker>,
    next: AtomicUsize,
    stop: watch::Sender<bool>,
    threads: parking_lot::Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Worker {
    handle: Handle,
    seats: AtomicUsize,
}

impl Workers {
    /// Starts `count` threads; 0 means one per core that this process may use.
    ///
    /// # Errors
    /// When the system gives no thread or no event queue.
    pub fn start(count: usize) -> io::Result<Self> {
        let count = if count == 0 { std::thread::available_parallelism().map_or(1, usize::from) } else { count };
        let (stop, stopped) = watch::channel(false);
        let mut workers = Vec::new();
        let mut threads = Vec::new();
        for index in 0..count.clamp(1, MAX_WORKERS) {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            workers.push(Worker { handle: runtime.handle().clone(), seats: AtomicUsize::new(0) });
            let mut stopped = stopped.clone();
            threads.push(std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                // An error means that all `Workers` are gone: the same as a stop.
                runtime.block_on(async { drop(stopped.wait_for(|stop| *stop).await) });
                runtime.shutdown_timeout(STOP_GRACE);
            })?);
        }
        let threads = parking_lot::Mutex::new(threads);
        Ok(Self(Arc::new(Inner { workers, next: AtomicUsize::new(0), stop, threads })))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.workers.len()
    }

    /// The runtime of one of them; the index wraps around.
    pub fn handle(&self, index: usize) -> &Handle {
        &self.0.workers[index % self.count()].handle
    }

    /// Connections on each.
    pub fn loads(&self) -> Vec<usize> {
        self.0.workers.iter().map(|worker| worker.seats.load(Ordering::Relaxed)).collect()
    }

    /// Takes a seat on the worker with the fewest connections; the search begins at another one each time, so that
    /// equals take turns.
    pub fn least_loaded(&self) -> Seat {
        let count = self.count();
        let first = self.0.next.fetch_add(1, Ordering::Relaxed);
        let load = |index: &usize| self.0.workers[*index].seats.load(Ordering::Relaxed);
        let index = (0..count).map(|step| first.wrapping_add(step) % count).min_by_key(load).unwrap_or(0);
        self.0.workers[index].seats.fetch_add(1, Ordering::Relaxed);
        Seat { workers: self.clone(), index }
    }

    /// Stops all threads and waits for them: their tasks are dropped. Must not be called on a worker.
    pub fn stop(&self) {
        self.0.stop.send_replace(true);
        for thread in self.0.threads.lock().drain(..) {
            // A worker that panicked has told so itself.
            drop(thread.join());
        }
    }
}

impl Seat {
    /// Which worker.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Its runtime.
    pub fn handle(&self) -> &Handle {
        self.workers.handle(self.index)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.workers.0.workers[self.index].seats.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_connections_spread_evenly() {
        let workers = Workers::start(4).unwrap();
        let seats: Vec<Seat> = (0..8).map(|_| workers.least_loaded()).collect();
        assert_eq!(workers.loads(), [2, 2, 2, 2]);
        drop(seats);
        assert_eq!(workers.loads(), [0, 0, 0, 0]);
        workers.stop();
    }

    #[test]
    fn a_freed_seat_is_taken_next() {
        let workers = Workers::start(3).unwrap();
        let mut seats: Vec<Seat> = (0..9).map(|_| workers.least_loaded()).collect();
        let freed = seats.swap_remove(4).index();
        assert_eq!(workers.least_loaded().index(), freed);
        workers.stop();
    }

    #[test]
    fn a_task_runs_on_the_thread_of_its_worker() {
        let workers = Workers::start(2).unwrap();
        for index in 0..2 {
            let (sender, receiver) = std::sync::mpsc::sync_channel(1);
            workers.handle(index).spawn(async move {
                sender.send(std::thread::current().name().map(str::to_owned)).unwrap();
            });
            let name = receiver.recv_timeout(Duration::from_secs(10)).unwrap();
            assert_eq!(name, Some(format!("worker-{index}")));
        }
        workers.stop();
    }
}
