//! What limits and policies decided, counted by each worker.

use crate::telemetry::{Counter, Sharded};

/// Decisions of one limit.
pub(super) type Counters = Sharded<DecisionCounters>;
/// Decisions of one policy.
pub(super) type PolicyCounters = Sharded<PolicyCounter>;

#[derive(Default)]
pub(crate) struct DecisionCounters {
    pub(super) allowed: Counter,
    pub(super) limited: Counter,
    pub(super) audited: Counter,
}

#[derive(Default)]
pub(crate) struct PolicyCounter {
    pub(super) checked: Counter,
    pub(super) limited: Counter,
}

/// Decisions of one limit at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Decisions {
    pub(crate) allowed: u64,
    pub(crate) limited: u64,
    pub(crate) audited: u64,
}
