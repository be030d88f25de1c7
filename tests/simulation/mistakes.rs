//! Shows that each deliberate mistake is caught, and by which seed.

use std::process::ExitCode;

use larder::ownership::mistake::Mistake::{
    self, AskOnlyPreviousOwner, ClearUnderOtherView, ClearWithoutSealing, ClockNotCarried, CountUnsettled,
    DropBeforeStored, DropCopiesOfCrashed, DroppedCopyGivesRoom, ExitUnannounced, ExitWithCopies, FirstAnswerWins,
    ForwardForEver, GrantBeforeCounted, KeepCopiesOfCrashed, LateDoneAccepted, LeaseOverViews, NeitherFence, NoFence,
    NoTombstone, OlderViewWins, OneRoundOnly, OvertakenGrantCounts, OwnCopyIsTruth, PullBeforeHeld, RefuseFromOldRound,
    RetryAfterTimeout, ServeBeforeCleared, StaleAnswerCounts, StaleFirstList, TimeoutMeansNone, UncountedIsNothing,
    UsedAgainWhileCounted,
};
use larder::ownership::mistake::Mistakes;

use crate::world::{Kind, World};

/// Seeds that a search tries for a mistake.
const TRIES: u64 = 4000;

/// Each mistake, whether it takes a crash or a long pause to show, and the first seed that shows it.
const ALL: &[(Mistake, bool, u64)] = &[
    (OlderViewWins, false, 0),
    (ClearWithoutSealing, false, 0),
    (ServeBeforeCleared, false, 0),
    (StaleAnswerCounts, false, 167),
    (NeitherFence, false, 0),
    (AskOnlyPreviousOwner, false, 0),
    (TimeoutMeansNone, false, 118),
    (FirstAnswerWins, false, 0),
    (OwnCopyIsTruth, false, 8),
    (PullBeforeHeld, false, 9),
    (DropBeforeStored, false, 0),
    (LateDoneAccepted, false, 6),
    (NoTombstone, false, 1),
    (ClockNotCarried, false, 1),
    (RetryAfterTimeout, false, 0),
    (ForwardForEver, false, 0),
    (ExitWithCopies, false, 1),
    (ExitUnannounced, false, 0),
    (KeepCopiesOfCrashed, true, 2),
    (DropCopiesOfCrashed, true, 1200),
    (NoFence, true, 3),
    (StaleFirstList, true, 1),
    (LeaseOverViews, false, 1),
    (GrantBeforeCounted, false, 0),
    (UncountedIsNothing, false, 0),
    (CountUnsettled, false, 1),
    (OneRoundOnly, false, 26),
    (RefuseFromOldRound, false, 0),
    (UsedAgainWhileCounted, false, 19),
    (OvertakenGrantCounts, false, 8),
    (DroppedCopyGivesRoom, false, 0),
];

pub fn by_name(name: &str) -> Option<Mistake> {
    let all = ALL.iter().map(|(mistake, ..)| *mistake).chain([ClearUnderOtherView]);
    all.into_iter().find(|mistake| format!("{mistake:?}") == name)
}

/// Makes each mistake under its seed; when it is not caught there, searches for the first seed that catches it.
pub fn catch_all() -> ExitCode {
    let mut moved = 0;
    for &(mistake, rough, named) in ALL {
        let caught = |seed: &u64| {
            let mut world =
                World::new(*seed, if rough { Kind::Rough } else { Kind::Calm }, Mistakes::only(mistake), false);
            world.play();
            world.violation
        };
        let seed = Some(named)
            .filter(|seed| caught(seed).is_some())
            .or_else(|| (0..TRIES).find(|seed| caught(seed).is_some()));
        let kind = if rough { "rough" } else { "calm" };
        match seed.and_then(|seed| Some((seed, caught(&seed)?))) {
            Some((seed, violation)) => println!("| `{mistake:?}` | {kind} | {seed} | {violation} |"),
            None => println!("| `{mistake:?}` | {kind} | not caught in {TRIES} seeds | |"),
        }
        moved += u32::from(seed != Some(named));
    }
    if moved == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
