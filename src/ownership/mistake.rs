//! Deliberate mistakes: each switches one rule off, so that the simulation can show that it would notice. They exist only in
//! builds with the feature `simulation`; elsewhere the switch is a constant.

/// The deliberate mistakes of PROTOCOL §10.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// Rule 1: the view heard of last wins, not the newer one.
    OlderViewWins,
    /// Rule 1: an older mark hides one that was put before the boot was heard of.
    OlderMarkHides,
    /// Rule 2: a claim is cleared without merging its view first.
    ClearWithoutSealing,
    /// Rule 5: what is gained is served before everybody cleared it.
    ServeBeforeCleared,
    /// Rule 4, at the responder and for claims only: rules 2 and 3 cover it.
    ClearUnderOtherView,
    /// Rule 3: answers of another view are counted.
    StaleAnswerCounts,
    /// Rules 3 and 4: neither side checks the view.
    NeitherFence,
    /// Rule 5: only those are asked who owned what I gain before.
    AskOnlyPreviousOwner,
    /// Rule 7: a fetch that timed out counts as "none".
    TimeoutMeansNone,
    /// Rule 7: the first answer is the truth.
    FirstAnswerWins,
    /// Rule 7: one's own copy is the truth.
    OwnCopyIsTruth,
    /// Rule 9: pulled from a source before all have cleared.
    PullBeforeHeld,
    /// Rule 9: dropped when sent, not when stored.
    DropBeforeStored,
    /// Rule 4: `Done` counts under any view.
    LateDoneAccepted,
    /// Rule 8: a removal leaves no tombstone.
    NoTombstone,
    /// Rule 19: the clock is not in the messages.
    ClockNotCarried,
    /// Rule 6: a forward that may have been applied is tried again.
    RetryAfterTimeout,
    /// Rule 6: a forward is forwarded on.
    ForwardForEver,
    /// Rule 12: the leaver ends while it holds copies.
    ExitWithCopies,
    /// Rule 13: the leaver ends without a word.
    ExitUnannounced,
    /// Rule 15: copies sent to a crashed member are kept.
    KeepCopiesOfCrashed,
    /// Rule 15: copies sent to a crashed member are dropped, and leave no tombstone.
    DropCopiesOfCrashed,
    /// Rule 16: a replica that was declared gone goes on.
    NoFence,
    /// Rule 14: the first list may be older than what others know.
    StaleFirstList,
    /// Quotas: a lease is kept over a view change.
    LeaseOverViews,
    /// Quotas: a home grants before all have been counted.
    GrantBeforeCounted,
    /// Quotas: a member that was not counted in time has nothing.
    UncountedIsNothing,
    /// Quotas: what is held is added up as if nothing moved.
    CountUnsettled,
    /// Quotas: refused after one round, in which others could still create.
    OneRoundOnly,
    /// Quotas: refused for a round that began before the ask.
    RefuseFromOldRound,
    /// Quotas: what comes free while the home counts is used again.
    UsedAgainWhileCounted,
    /// Quotas: a grant counts that a later count did not see.
    OvertakenGrantCounts,
    /// Quotas: a copy that is dropped gives room.
    DroppedCopyGivesRoom,
}

/// Which mistake is being made, if any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mistakes {
    #[cfg(feature = "simulation")]
    made: Option<Mistake>,
}

impl Mistakes {
    #[cfg(feature = "simulation")]
    #[must_use]
    pub fn only(mistake: Mistake) -> Self {
        Self { made: Some(mistake) }
    }

    #[cfg(feature = "simulation")]
    #[must_use]
    pub fn make(self, mistake: Mistake) -> bool {
        self.made == Some(mistake)
    }

    #[cfg(not(feature = "simulation"))]
    #[must_use]
    pub const fn make(self, _: Mistake) -> bool {
        false
    }
}
