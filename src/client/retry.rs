//! Doing a call again: how often, and within which budget.

/// How much is done again after a failure. Only what is temporary is, and only calls that may run twice or surely did not
/// run; see [`super::Error::may_be_retried`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// Attempts of one call, the first included; 1: never again.
    pub attempts: u32,
    /// Retries of all calls together, in percent of the calls. Keeps clients from finishing off a cluster that is overloaded.
    pub percent: u32,
    /// And so many per second on top, so that a client with few calls can retry at all.
    pub per_second: u32,
}

impl Retries {
    /// No retries.
    pub const NONE: Self = Self { attempts: 1, percent: 0, per_second: 0 };
}

impl Default for Retries {
    /// Eight attempts, 20 percent and 10 per second, as Finagle and linkerd do.
    fn default() -> Self {
        Self { attempts: 8, percent: 20, per_second: 10 }
    }
}
