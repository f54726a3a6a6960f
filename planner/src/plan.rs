//! World → (Model, Problems) → Snapshot.

use std::collections::{BTreeMap, BTreeSet};

use snapshot::{Key, Snapshot};

use crate::{
    compile,
    fleet::FleetSettings,
    model,
    problem::{Problem, Problems},
    world::{FleetRef, ObjectRef, World},
};

/// What should be, as derived from a world.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Every fleet whose content is or was accepted.
    pub fleets: BTreeMap<FleetRef, PlannedFleet>,
    /// Everything that is wrong, in the order of objects.
    pub problems: Vec<Problem>,
    /// Objects whose `current` content was accepted as a whole: the caller stores it as `accepted`.
    pub accepted: BTreeSet<ObjectRef>,
}

/// One fleet, its settings and what its proxies should run.
#[derive(Clone, Debug)]
pub struct PlannedFleet {
    /// Scaling, drain, template, ports.
    pub settings: FleetSettings,
    /// What its proxies should run.
    pub snapshot: Snapshot,
    /// The object that each resource comes from, to name it when a proxy nacks. A Cluster comes from its Service, or
    /// from the route that names an address.
    pub sources: BTreeMap<Key, ObjectRef>,
}

/// Validates and compiles a world.
pub fn plan(world: &World) -> Plan {
    let mut problems = Problems::new(world);
    let (model, accepted) = model::validate(world, &mut problems);
    let fleets = compile::compile(&model, &mut problems);
    Plan { fleets, problems: problems.into_sorted(), accepted }
}
