//! World → (Model, Problems) → Snapshot.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub use crate::compile::{Known, Parent, PlannedFleet};
use crate::{
    LastReady, Millis,
    compile::{self, Compiled, Former},
    holds::Holds,
    model::{self, Memo, Validated},
    problem::{Problem, Problems},
    world::{FleetRef, ObjectRef, World},
};

/// The state that should be, as derived from a world.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Every fleet whose content is or was accepted.
    pub fleets: BTreeMap<FleetRef, PlannedFleet>,
    /// Everything that is wrong, in the order of objects.
    pub problems: Vec<Problem>,
    /// Objects whose `current` content was accepted as a whole: the caller stores it as `accepted`.
    pub accepted: BTreeSet<ObjectRef>,
    /// The outcome of the parentRefs of each route whose content is in force.
    pub parents: BTreeMap<ObjectRef, Vec<Parent>>,
    /// Objects with content that waits for the next plan of the same world: their expressions are still to be looked at.
    pub waiting: BTreeSet<ObjectRef>,
    /// The number of targets of each policy that exist.
    pub targets: BTreeMap<ObjectRef, u32>,
    /// The credentials of each consumer whose content is in force.
    pub consumers: BTreeMap<ObjectRef, Known>,
    /// The endpoints that were ready last, for the next world.
    pub last_ready: Arc<LastReady>,
    /// The time from which on the same world gives another plan.
    pub changes_at: Option<Millis>,
    /// The holders of hostnames: the caller gives them to the next world.
    pub holds: Arc<Holds>,
}

impl Plan {
    /// Whether the next plan of the same world may say more.
    pub fn is_unfinished(&self) -> bool {
        !self.waiting.is_empty()
    }
}

/// Plans world after world: what did not change since the last is not validated again.
#[derive(Clone, Debug, Default)]
pub struct Planner {
    memo: Memo,
    former: Former,
}

impl Planner {
    /// Validates and compiles a world.
    pub fn plan(&mut self, world: &World) -> Plan {
        let mut problems = Problems::new(world);
        let Validated { model, accepted, waiting } = model::validate(world, &mut self.memo, &mut problems);
        let compiled = compile::compile(&model, world, &self.former, &mut problems);
        let Compiled { fleets, encoded, parents, targets, consumers, last_ready, changes_at, holds } = compiled;
        self.former = encoded;
        let absences = world.absent.values().map(|gone| gone.until);
        let changes_at = changes_at.into_iter().chain(absences).chain(holds.next_end()).min();
        let (problems, last_ready, holds) = (problems.into_sorted(), Arc::new(last_ready), Arc::new(holds));
        Plan { fleets, problems, accepted, waiting, parents, targets, consumers, last_ready, changes_at, holds }
    }
}

/// Validates and compiles one world, whatever that takes.
pub fn plan(world: &World) -> Plan {
    let mut planner = Planner::default();
    loop {
        let plan = planner.plan(world);
        if !plan.is_unfinished() {
            return plan;
        }
    }
}
