//! Threads carry operations out at the stores of three members, while views change and keys move between them: the hand-off's
//! state machine and the shards' own views as the server has them, without its sockets. To each key everything must look as
//! if it happened at one moment, at one place (PROTOCOL §7).
//!
//! Three kinds of keys: *own* ones, which one thread alone changes and so knows exactly; *registers*, which all write, and whose
//! versions must say the order; *counters*, whose sums must.

mod history;
mod members;
mod worker;

use std::sync::mpsc;

use self::history::History;
use self::members::{Members, World};
use self::worker::Worker;

const THREADS: usize = 3;

/// Commands, or verdicts, that may wait; a thread has one operation under way.
const QUEUE: usize = 64;

/// After these the threads end.
const VIEWS: u64 = 80;

const OWN_KEYS: u64 = 40;
const REGISTERS: u64 = 12;
const COUNTERS: u64 = 4;

#[test]
fn while_views_change_each_operation_is_one_step_at_one_member() {
    let world = World::new();
    let histories = History::of(REGISTERS, COUNTERS);
    let (commands, received) = mpsc::sync_channel(QUEUE);
    let (members, owned) = std::thread::scope(|scope| {
        let members = scope.spawn(|| Members::new(&world, received).run());
        let workers: Vec<_> = (0..THREADS)
            .map(|number| {
                let worker = Worker::new(number, &world, commands.clone(), &histories);
                scope.spawn(move || worker.run())
            })
            .collect();
        drop(commands);
        let owned: usize = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
        (members.join().unwrap(), owned)
    });
    histories.iter().for_each(History::check);
    // What the threads met: without these the rest shows nothing.
    assert!(members.moved > 100, "{} keys moved", members.moved);
    assert!(members.waited > 10, "{} operations waited", members.waited);
    let used = histories.iter().filter(|history| history.is_used()).count();
    let entries: u64 = world.stores.iter().map(|store| store.stats().entries).sum();
    assert_eq!(entries, (owned + used) as u64, "no copy is left");
    for store in &world.stores {
        assert_eq!(store.stats().tombstones, 0);
        assert_eq!(store.shards.iter().map(|shard| shard.0.lock().marks()).sum::<u64>(), 0, "no mark is left");
    }
}
