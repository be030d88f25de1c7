//! What a replica may still create of an account, when the account's budget is the whole cluster's: its *lease*.
//!
//! Two numbers per resource. *Free* is what was leased and is not used: creating takes from it, removing as the authority gives
//! to it. *Bound* is this replica's part of an upper bound of all that exists: what it held when the view changed, and what was
//! leased since, without what was called in. It may be negative: what was installed here since is in another's part.
//! Moving keys between replicas touches neither, so it needs no permission and gives nothing away.
//! Not here: who leases, and how much (`ownership::quota`).

/// Keys, and bytes of keys and values together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    pub keys: u64,
    pub bytes: u64,
}

/// What a replica has of an account, as the account's home counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// Of all entries here, copies for others too.
    pub used: Amount,
    pub bound_keys: i64,
    pub bound_bytes: i64,
}

/// One account's lease at one replica, under one view.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lease {
    keys: Part,
    bytes: Part,
    /// What comes free is not used again: so that usage only falls while the home counts.
    closed: bool,
    /// The last round of counting that was answered.
    round: u64,
}

/// One resource.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    free: u64,
    bound: i64,
}

impl Lease {
    /// A new view: nothing is leased under it, and what is here is here.
    pub(super) fn of_new_view(used: Amount) -> Self {
        let part = |used: u64| Part { free: 0, bound: signed(used) };
        Self { keys: part(used.keys), bytes: part(used.bytes), closed: false, round: 0 }
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

    /// The home counts: what is free is given back. With `close`, what comes free from now on as well, until the next grant.
    pub(super) fn count(&mut self, used: Amount, round: u64, close: bool) -> Holding {
        self.round = self.round.max(round);
        self.closed |= close;
        self.keys.call_in();
        self.bytes.call_in();
        Holding { used, bound_keys: self.keys.bound, bound_bytes: self.bytes.bound }
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
        self.bound = self.bound.saturating_sub(signed(self.free));
        self.free = 0;
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
        let holding = lease.count(amount(5, 45), 1, false);
        assert_eq!((holding.bound_keys, holding.bound_bytes), (5, 45), "what was not used is given back");
    }

    #[test]
    fn what_comes_free_is_used_again_unless_the_home_counts() {
        let mut lease = Lease::of_new_view(amount(2, 20));
        lease.give_back(amount(1, 10), BOTH);
        assert_eq!(lease.free(), amount(1, 10));
        lease.count(amount(1, 10), 1, true);
        lease.give_back(amount(1, 10), BOTH);
        assert_eq!(lease.free(), amount(0, 0));
        assert!(lease.grant(amount(1, 10), 1));
        lease.give_back(amount(1, 1), BOTH);
        assert_eq!(lease.free(), amount(2, 11), "a grant opens it again");
    }

    #[test]
    fn a_grant_that_a_count_overtook_does_not_count() {
        let mut lease = Lease::of_new_view(amount(0, 0));
        lease.count(amount(0, 0), 2, false);
        assert!(!lease.grant(amount(5, 5), 1));
        assert_eq!(lease.free(), amount(0, 0));
    }

    #[test]
    fn the_bound_follows_what_has_no_limit() {
        let mut lease = Lease::of_new_view(amount(1, 10));
        let limited = Limited { keys: true, bytes: false };
        assert!(lease.has(amount(0, 1000), limited));
        lease.take(amount(0, 1000), limited);
        lease.give_back(amount(0, 500), limited);
        assert_eq!(lease.count(amount(1, 510), 1, false).bound_bytes, 510);
    }

    #[test]
    fn what_is_removed_here_and_was_counted_elsewhere_makes_the_bound_negative() {
        let mut lease = Lease::of_new_view(amount(0, 0));
        // A copy was installed, and its key deleted.
        lease.give_back(amount(1, 10), BOTH);
        let holding = lease.count(amount(0, 0), 1, false);
        assert_eq!((holding.bound_keys, holding.bound_bytes), (-1, -10));
    }
}
