//! Shows that each deliberate mistake is caught, and by which seed.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use larder::ownership::mistake::Mistake::{
    self, AskOnlyPreviousOwner, ClearUnderOtherView, ClearWithoutSealing, ClockNotCarried, CountUnsettled,
    DropBeforeStored, DropCopiesOfCrashed, DroppedCopyGivesRoom, ExitUnannounced, ExitWithCopies, FirstAnswerWins,
    ForwardForEver, GrantBeforeCounted, KeepCopiesOfCrashed, LateDoneAccepted, LeaseOverViews, NeitherFence, NoFence,
    NoTombstone, OlderMarkHides, OlderViewWins, OneRoundOnly, OvertakenGrantCounts, OwnCopyIsTruth, PullBeforeHeld,
    RefuseFromOldRound, RetryAfterTimeout, ServeBeforeCleared, StaleAnswerCounts, StaleFirstList, TimeoutMeansNone,
    UncountedIsNothing, UsedAgainWhileCounted,
};
use larder::ownership::mistake::Mistakes;
use parking_lot::Mutex;

use crate::world::Kind::{self, Calm, Rough};
use crate::world::World;

/// Seeds that a search tries for a mistake.
const TRIES: u64 = 4000;

/// Each mistake, the kind of seed that it takes to show, and the first that shows it.
const ALL: &[(Mistake, Kind, u64)] = &[
    (OlderViewWins, Calm, 0),
    (ClearWithoutSealing, Calm, 0),
    (ServeBeforeCleared, Calm, 0),
    (StaleAnswerCounts, Calm, 1),
    (NeitherFence, Calm, 0),
    (AskOnlyPreviousOwner, Calm, 0),
    (TimeoutMeansNone, Calm, 480),
    (FirstAnswerWins, Calm, 3),
    (OwnCopyIsTruth, Calm, 7),
    (PullBeforeHeld, Calm, 20),
    (DropBeforeStored, Calm, 0),
    (LateDoneAccepted, Calm, 439),
    (NoTombstone, Calm, 3),
    (ClockNotCarried, Calm, 12),
    (RetryAfterTimeout, Calm, 0),
    (ForwardForEver, Calm, 0),
    (ExitWithCopies, Calm, 13),
    (ExitUnannounced, Calm, 0),
    (KeepCopiesOfCrashed, Rough, 9),
    (DropCopiesOfCrashed, Rough, 253),
    (NoFence, Rough, 2),
    (StaleFirstList, Rough, 10),
    (LeaseOverViews, Calm, 0),
    (GrantBeforeCounted, Calm, 0),
    (UncountedIsNothing, Calm, 0),
    (CountUnsettled, Calm, 0),
    (OneRoundOnly, Calm, 10),
    (RefuseFromOldRound, Calm, 0),
    (UsedAgainWhileCounted, Calm, 9),
    (OvertakenGrantCounts, Calm, 5),
    (DroppedCopyGivesRoom, Calm, 0),
];

pub fn by_name(name: &str) -> Option<Mistake> {
    let all = ALL.iter().map(|(mistake, ..)| *mistake).chain([ClearUnderOtherView, OlderMarkHides]);
    all.into_iter().find(|mistake| format!("{mistake:?}") == name)
}

/// Makes each mistake under its seed; when it is not caught there, searches for the first seed that catches it.
pub fn catch_all(jobs: usize) -> ExitCode {
    let next = AtomicUsize::new(0);
    let found = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(case) = ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let line = catch(case);
                    println!("{}", line.0);
                    found.lock().insert(format!("{:?}", case.0), line);
                }
            });
        }
    });
    let found = found.into_inner();
    println!();
    for (mistake, ..) in ALL {
        println!("{}", found[&format!("{mistake:?}")].0);
    }
    if found.values().all(|(_, as_named)| *as_named) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The line of the table, and whether the named seed catches it.
fn catch(&(mistake, kind, named): &(Mistake, Kind, u64)) -> (String, bool) {
    let caught = |seed: u64| {
        let mut world = World::new(seed, kind, Mistakes::only(mistake), false);
        world.play();
        world.violation
    };
    let as_named = caught(named).map(|violation| (named, violation));
    let is_as_named = as_named.is_some();
    let first = || (0..TRIES).find_map(|seed| Some((seed, caught(seed)?)));
    let kind = match kind {
        Calm => "calm",
        Rough => "rough",
        Kind::Torn => "torn",
    };
    let line = match as_named.or_else(first) {
        Some((seed, violation)) => format!("| `{mistake:?}` | {kind} | {seed} | {violation} |"),
        None => format!("| `{mistake:?}` | {kind} | not caught in {TRIES} seeds | |"),
    };
    (line, is_as_named)
}
