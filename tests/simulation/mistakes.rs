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

use crate::world::{Kind, World};

/// Seeds that a search tries for a mistake.
const TRIES: u64 = 4000;

/// Each mistake, whether it takes a crash or a long pause to show, and the first seed that shows it.
const ALL: &[(Mistake, bool, u64)] = &[
    (OlderViewWins, false, 0),
    (ClearWithoutSealing, false, 0),
    (ServeBeforeCleared, false, 0),
    (StaleAnswerCounts, false, 1),
    (NeitherFence, false, 0),
    (AskOnlyPreviousOwner, false, 0),
    (TimeoutMeansNone, false, 480),
    (FirstAnswerWins, false, 3),
    (OwnCopyIsTruth, false, 7),
    (PullBeforeHeld, false, 20),
    (DropBeforeStored, false, 0),
    (LateDoneAccepted, false, 439),
    (NoTombstone, false, 3),
    (ClockNotCarried, false, 12),
    (RetryAfterTimeout, false, 0),
    (ForwardForEver, false, 0),
    (ExitWithCopies, false, 13),
    (ExitUnannounced, false, 0),
    (KeepCopiesOfCrashed, true, 9),
    (DropCopiesOfCrashed, true, 253),
    (NoFence, true, 2),
    (StaleFirstList, true, 10),
    (LeaseOverViews, false, 0),
    (GrantBeforeCounted, false, 0),
    (UncountedIsNothing, false, 0),
    (CountUnsettled, false, 0),
    (OneRoundOnly, false, 10),
    (RefuseFromOldRound, false, 0),
    (UsedAgainWhileCounted, false, 9),
    (OvertakenGrantCounts, false, 5),
    (DroppedCopyGivesRoom, false, 0),
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
fn catch(&(mistake, rough, named): &(Mistake, bool, u64)) -> (String, bool) {
    let kind = if rough { Kind::Rough } else { Kind::Calm };
    let caught = |seed: u64| {
        let mut world = World::new(seed, kind, Mistakes::only(mistake), false);
        world.play();
        world.violation
    };
    let as_named = caught(named).map(|violation| (named, violation));
    let is_as_named = as_named.is_some();
    let first = || (0..TRIES).find_map(|seed| Some((seed, caught(seed)?)));
    let kind = if rough { "rough" } else { "calm" };
    let line = match as_named.or_else(first) {
        Some((seed, violation)) => format!("| `{mistake:?}` | {kind} | {seed} | {violation} |"),
        None => format!("| `{mistake:?}` | {kind} | not caught in {TRIES} seeds | |"),
    };
    (line, is_as_named)
}
