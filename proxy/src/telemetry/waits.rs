//! Waits of filters for others: how many there were, how they ended, how long they took, and what those decided who were
//! asked.

use std::time::Duration;

use super::sharded::{Counter, Sharded};

/// The filters that wait for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiter {
    /// External authorization.
    ExternalAuth,
}

impl Waiter {
    /// Every one.
    pub(super) const ALL: [Self; 1] = [Self::ExternalAuth];

    /// The word for metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ExternalAuth => "external_auth",
        }
    }
}

/// The waits of one filter, as one thread counts them.
#[derive(Default)]
pub(super) struct Counters {
    /// Those after which the filter went on.
    pub(super) resumed: Counter,
    /// Those that were given up: the client left, or the request's time was over.
    pub(super) abandoned: Counter,
    /// Microseconds of all.
    pub(super) time_us: Counter,
}

/// The decisions of external authorization, as one thread counts them.
#[derive(Default)]
pub(crate) struct AuthDecisions {
    /// Requests that the service let go on.
    pub(crate) allowed: Counter,
    /// Requests that it refused.
    pub(crate) denied: Counter,
    /// Requests that were refused because it could not be asked.
    pub(crate) failed: Counter,
    /// Requests that went on although it could not be asked.
    pub(crate) unchecked: Counter,
}

/// The waits of all filters, in the order of [`Waiter::ALL`].
#[derive(Default)]
pub(super) struct Waits(Sharded<[Counters; Waiter::ALL.len()]>);

impl Waits {
    /// A wait is over; `resumed`: the filter went on.
    pub(super) fn ended(&self, filter: Waiter, time: Duration, resumed: bool) {
        let counters = &self.0.own()[filter as usize];
        if resumed { &counters.resumed } else { &counters.abandoned }.count();
        counters.time_us.add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// The sum of one counter of a filter over all threads.
    pub(super) fn sum(&self, filter: Waiter, counter: impl Fn(&Counters) -> &Counter) -> u64 {
        self.0.sum(|filters| counter(&filters[filter as usize]))
    }
}
