//! What policies decided, counted by each worker.

use std::sync::{Arc, OnceLock};

use crate::telemetry::{Counter, Sharded};

/// What became of a request at a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Allowed,
    /// No rule allows it.
    Denied,
    /// It has a credential that is none.
    Invalid,
    /// It has no credential.
    Missing,
    /// Its client presented too many wrong ones before.
    Limited,
}

/// How often each outcome came about.
#[derive(Default)]
pub(super) struct Outcomes([Counter; Outcome::ALL.len()]);

/// The counts of one provider, or of requests without a credential. They are there once there is something to count.
pub(super) type Counters = OnceLock<Sharded<Outcomes>>;

/// The counts of a policy.
pub(super) struct PolicyCounters {
    /// Of requests without a credential.
    pub(super) nobody: Arc<Counters>,
    /// By number.
    pub(super) providers: Box<[Arc<Counters>]>,
}

impl Outcome {
    pub(super) const ALL: [Self; 5] = [Self::Allowed, Self::Denied, Self::Invalid, Self::Missing, Self::Limited];

    /// The word for metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Invalid => "invalid",
            Self::Missing => "missing",
            Self::Limited => "limited",
        }
    }
}

impl Outcomes {
    /// How often it came about, over all workers.
    pub(super) fn sum(counters: &Counters, outcome: Outcome) -> u64 {
        counters.get().map_or(0, |counters| counters.sum(|outcomes| &outcomes.0[outcome as usize]))
    }
}

impl PolicyCounters {
    pub(super) fn count(&self, provider: Option<usize>, outcome: Outcome) {
        let counters = provider.and_then(|number| self.providers.get(number)).unwrap_or(&self.nobody);
        counters.get_or_init(Sharded::default).own().0[outcome as usize].count();
    }
}
