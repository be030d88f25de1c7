//! What a replica may still create of an account, when the account's budget is the whole cluster's: its *lease*.
//!
//! Two numbers per resource. *Free* is what was leased and is not used: creating takes from it, removing as the authority gives
//! to it. *Bound* is this replica's part of an upper bound of all that exists: what it held when the view changed, and what was
//! leased since, without what was called in. It may be negative: what was installed here since is in another's part.
//! What was leased for an operation that waits is *promised* to it for a moment, and not called in meanwhile; else two who ask
//! for the last room could take it from each other for ever.
//! Moving keys between replicas touches neither, so it needs no permission and gives nothing away.
//! Not here: who leases, and how much (`ownership::quota`).

/// Keys, and bytes of keys and values together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    pub keys: u64,
    pub bytes: u64,
}

/// What a replica has of an account, as the account's home counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// By all entries here, copies for others too, and what is promised.
    pub used: Amount,
    pub bound_keys: i64,
    pub bound_bytes: i64,
    /// Nothing is free, and nothing comes free.
    pub closed: bool,
}

/// How the home counts.
#[derive(Clone, Copy, Debug)]
pub struct Counting {
    pub round: u64,
    /// Nothing that comes free from now on is used again, until the next grant.
    pub close: bool,
    /// Monotonic milliseconds.
    pub now_ms: u64,
}

/// Milliseconds for which a promise holds: a worker that was told that it may go on does so within some microseconds.
const PROMISE_MS: u64 = 20;

/// One account's lease at one replica, under one view.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lease {
    keys: Part,
    bytes: Part,
    /// What comes free is not used again: so that usage only falls while the home counts.
    closed: bool,
    /// The last round of counting that was answered.
    round: u64,
    promised_until_ms: u64,
}

/// One resource.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    free: u64,
    /// Of what is free.
    promised: u64,
    bound: i64,
}

impl Lease {
    /// A new view: nothing is leased under it, and what is here is here.
    pub(super) fn of_new_view(used: Amount) -> Self {
        let part = |used: u64| Part { bound: signed(used), ..Part::default() };
        Self { keys: part(used.keys), bytes: part(used.bytes), ..Self::default() }
    }

    /// Whether so much may be created. Of what is not limited, anything.
    pub(super) fn has(&self, need: Amount, limited: Limited) -> bool {
        let fits = |part: Part, need: u64, limited: bool| !limited || need <= part.free;
        fits(self.keys, need.keys, limited.keys) && fits(self.bytes, need.bytes, limited.bytes)
    }

    /// Takes what [`Self::has`] said is there.
    pub(super) fn take(&mut self, need: Amount, limited: Limited) {
        self.keys.take(need.keys, limited.keys);
        self.bytes.take(need.bytes, limited.bytes);
    }

    /// The authority removed something.
    pub(super) fn give_back(&mut self, back: Amount, limited: Limited) {
        self.keys.give_back(back.keys, limited.keys, self.closed);
        self.bytes.give_back(back.bytes, limited.bytes, self.closed);
    }

    /// The home leased more, knowing what was counted in `round`. Answers whether it counts: not if a later round was answered
    /// before this came, as that round did not see it.
    pub(super) fn grant(&mut self, more: Amount, round: u64) -> bool {
        if round < self.round {
            return false;
        }
        self.keys.grant(more.keys);
        self.bytes.grant(more.bytes);
        self.closed = false;
        true
    }

    /// Of what is free, so much is for operations that are about to run.
    pub(super) fn promise(&mut self, need: Amount, now_ms: u64) {
        self.keys.promised = self.keys.promised.saturating_add(need.keys).min(self.keys.free);
        self.bytes.promised = self.bytes.promised.saturating_add(need.bytes).min(self.bytes.free);
        self.promised_until_ms = now_ms + PROMISE_MS;
    }

    /// The home counts: what is free and not promised is given back.
    pub(super) fn count(&mut self, used: Amount, counting: Counting) -> Holding {
        let Counting { round, close, now_ms } = counting;
        if self.promised_until_ms <= now_ms {
            (self.keys.promised, self.bytes.promised) = (0, 0);
        }
        self.keys.call_in();
        self.bytes.call_in();
        let free = self.free();
        self.closed = (self.closed || close) && free == Amount::default();
        self.round = self.round.max(round);
        Holding {
            used: Amount { keys: used.keys + free.keys, bytes: used.bytes + free.bytes },
            bound_keys: self.keys.bound,
            bound_bytes: self.bytes.bound,
            closed: self.closed,
        }
    }

    pub(super) fn free(&self) -> Amount {
        Amount { keys: self.keys.free, bytes: self.bytes.free }
    }
}

/// Which resources of an account have a limit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limited {
    pub keys: bool,
    pub bytes: bool,
}

impl Part {
    fn take(&mut self, need: u64, limited: bool) {
        if limited {
            self.free -= need;
            self.promised = self.promised.saturating_sub(need);
        } else {
            // Nobody is asked for what has no limit; should it get one, this is what there is.
            self.bound += signed(need);
        }
    }

    fn give_back(&mut self, back: u64, limited: bool, closed: bool) {
        match (limited, closed) {
            (false, _) => self.bound -= signed(back),
            (true, false) => self.free += back,
            (true, true) => {}
        }
    }

    fn grant(&mut self, more: u64) {
        self.free = self.free.saturating_add(more);
        self.bound = self.bound.saturating_add(signed(more));
    }

    fn call_in(&mut self) {
        self.bound = self.bound.saturating_sub(signed(self.free - self.promised));
        self.free = self.promised;
    }
}

/// No machine has more.
fn signed(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Limited = Limited { keys: true, bytes: true };

    const OPEN: Counting = Counting { round: 1, close: false, now_ms: 1000 };
    const CLOSE: Counting = Counting { close: true, ..OPEN };

    fn amount(keys: u64, bytes: u64) -> Amount {
        Amount { keys, bytes }
    }

    #[test]
    fn what_is_leased_may_be_created_and_no_more() {
        let mut lease = Lease::of_new_view(amount(3, 30));
        assert!(!lease.has(amount(1, 0), BOTH), "what was here is no lease");
        assert!(lease.grant(amount(2, 20), 0));
        assert!(lease.has(amount(2, 20), BOTH) && !lease.has(amount(2, 21), BOTH) && !lease.has(amount(3, 0), BOTH));
        lease.take(amount(2, 15), BOTH);
        assert_eq!(lease.free(), amount(0, 5));
        let holding = lease.count(amount(5, 45), OPEN);
        assert_eq!((holding.bound_keys, holding.bound_bytes), (5, 45), "what was not used is given back");
    }

    #[test]
    fn what_comes_free_is_used_again_unless_the_home_counts() {
        let mut lease = Lease::of_new_view(amount(2, 20));
        lease.give_back(amount(1, 10), BOTH);
        assert_eq!(lease.free(), amount(1, 10));
        assert!(lease.count(amount(1, 10), CLOSE).closed);
        lease.give_back(amount(1, 10), BOTH);
        assert_eq!(lease.free(), amount(0, 0));
        assert!(lease.grant(amount(1, 10), 1));
        lease.give_back(amount(1, 1), BOTH);
        assert_eq!(lease.free(), amount(2, 11), "a grant opens it again");
    }

    #[test]
    fn a_grant_that_a_count_overtook_does_not_count() {
        let mut lease = Lease::of_new_view(amount(0, 0));
        lease.count(amount(0, 0), Counting { round: 2, ..OPEN });
        assert!(!lease.grant(amount(5, 5), 1));
        assert_eq!(lease.free(), amount(0, 0));
    }

    #[test]
    fn what_is_promised_to_an_operation_is_not_called_in_until_it_ran_or_a_moment_passed() {
        let mut lease = Lease::of_new_view(amount(0, 0));
        assert!(lease.grant(amount(3, 30), 0));
        lease.promise(amount(2, 20), 1000);
        let holding = lease.count(amount(0, 0), CLOSE);
        assert_eq!((holding.used, holding.bound_keys, holding.closed), (amount(2, 20), 2, false));
        lease.take(amount(1, 10), BOTH);
        assert_eq!(lease.count(amount(1, 10), CLOSE).used, amount(2, 20));
        let holding = lease.count(amount(1, 10), Counting { now_ms: 1000 + PROMISE_MS, ..CLOSE });
        assert_eq!((holding.used, holding.bound_keys, holding.closed), (amount(1, 10), 1, true));
    }

    #[test]
    fn the_bound_follows_what_has_no_limit() {
        let mut lease = Lease::of_new_view(amount(1, 10));
        let limited = Limited { keys: true, bytes: false };
        assert!(lease.has(amount(0, 1000), limited));
        lease.take(amount(0, 1000), limited);
        lease.give_back(amount(0, 500), limited);
        assert_eq!(lease.count(amount(1, 510), OPEN).bound_bytes, 510);
    }

    #[test]
    fn what_is_removed_here_and_was_counted_elsewhere_makes_the_bound_negative() {
        let mut lease = Lease::of_new_view(amount(0, 0));
        // A copy was installed, and its key deleted.
        lease.give_back(amount(1, 10), BOTH);
        let holding = lease.count(amount(0, 0), OPEN);
        assert_eq!((holding.bound_keys, holding.bound_bytes), (-1, -10));
    }
}
