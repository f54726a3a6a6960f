//! The pure core of Sluice: what the operator decides, without I/O, clock, async or logging. `now` is an argument.
//!
//! ```text
//!  World ──validate──► Model ──compile──► Plan                 world.rs, model/, compile/, plan.rs
//!    (each object alone)    (references)   { snapshots, problems, accepted }
//!  desired Snapshot + Ledger ──publish──► Snapshot to push     publish.rs (what the fleet refuses, rolled back)
//!  Plan.holds ──► World.holds of the next                     holds.rs (who has which hostname)
//!  Units of namespaces ──allot──► those that fit        share/ (with a README)
//!  revision + acks ──step(now)──► canaries, then all          rollout.rs
//!  LoadWindows ──► Signals ──decide(now)──► Decision           scale/ (with a README)
//!  LoadWindows ──► excess share of each proxy                  rebalance.rs
//!  Object ──► the Secrets to be read for it                   references.rs
//!  Secret ──► digests of its API keys                         credentials.rs
//!  World + Plan + FleetViews ──► statuses                      status/
//! ```

mod compile;
pub mod credentials;
pub mod fleet;
pub mod holds;
mod last_ready;
mod model;
mod object;
pub mod plan;
pub mod problem;
pub mod publish;
pub mod rebalance;
pub mod references;
pub mod rollout;
pub mod scale;
pub mod share;
pub mod status;
pub mod world;

pub use fleet::{FleetPlan, FleetView, ProxyView};
pub use holds::Holds;
pub use last_ready::LastReady;
pub use model::quantity;
pub use plan::{Plan, Planner, plan};
pub use problem::{Problem, Severity};
pub use publish::{Ledger, ProxyId, publish};
pub use status::{Status, statuses, unready};
pub use world::{Absent, Cluster, FleetRef, Kind, ObjectRef, Origin, Unreadable, World, WorldObject};

/// A moment, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// Time since `earlier`, 0 when that is later.
    pub fn since(self, earlier: Millis) -> std::time::Duration {
        std::time::Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl std::fmt::Display for Millis {
    /// Whole seconds, as Kubernetes writes times.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = i64::try_from(self.0 / 1000).unwrap_or(i64::MAX);
        write!(f, "{}", jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX))
    }
}
