//! The threads of a bench: each has a runtime, and a client with connections of its own, for the whole run.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tokio::runtime::{Builder, Runtime};

use crate::cli::exit::Problem;
use crate::client::{Client, Config};

/// A thread's place: threads come and go with the phases of a run, the connections stay.
#[derive(Debug)]
pub struct Seat {
    runtime: Runtime,
    client: Client,
}

/// How many threads are at work.
#[derive(Debug)]
pub struct Working(AtomicUsize);

/// A thread at work; one that breaks is not at work either.
struct Worker<'a>(&'a Working);

/// Makes so many.
pub fn seats(config: &Config, count: usize) -> Result<Vec<Seat>, Problem> {
    let seat = |_| {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Problem::failure(&format!("cannot start: {error}")))?;
        let client = runtime.block_on(async { Client::new(config.clone()) })?;
        Ok(Seat { runtime, client })
    };
    (0..count).map(seat).collect()
}

/// Does the same in every thread, and something beside it here meanwhile; answers what came of each.
pub fn each<R: Send>(
    seats: &[Seat],
    work: impl AsyncFn(usize, Client) -> R + Sync,
    beside: impl FnOnce(&Working),
) -> Result<Vec<R>, Problem> {
    let working = Working(AtomicUsize::new(seats.len()));
    thread::scope(|scope| {
        let (work, working) = (&work, &working);
        let threads: Vec<_> = (seats.iter().enumerate())
            .map(|(number, seat)| {
                scope.spawn(move || {
                    let _worker = Worker(working);
                    seat.runtime.block_on(work(number, seat.client.clone()))
                })
            })
            .collect();
        beside(working);
        let broken = |_| Problem::failure(&"a thread of the bench broke; what is said above this is why");
        threads.into_iter().map(|thread| thread.join().map_err(broken)).collect()
    })
}

impl Working {
    pub fn is_over(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }
}

impl Drop for Worker<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}
