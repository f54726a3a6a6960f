//! Results of compiling, as a plan has them: of fleets, routes and consumers.

use std::{collections::BTreeMap, sync::Arc};

use crds::common::ParentRef;
use snapshot::{Key, Snapshot};

use super::EncodedRoutes;
use crate::{
    fleet::FleetSettings,
    world::{FleetRef, ObjectRef},
};

/// The Secret of each credential of a consumer that is one.
pub type Known = Vec<ObjectRef>;

/// The outcome of one parentRef of a route.
#[derive(Clone, Debug, PartialEq)]
pub struct Parent {
    /// As written, with the namespace filled in when the fleet exists.
    pub parent_ref: ParentRef,
    /// The fleet, when the route is attached to it.
    pub fleet: Option<FleetRef>,
    /// The reason and message, when it is not.
    pub detached: Option<(&'static str, String)>,
}

/// The settings of one fleet, and the snapshot that its proxies should run.
#[derive(Clone, Debug)]
pub struct PlannedFleet {
    /// Scaling, drain, template, ports.
    pub settings: FleetSettings,
    /// The snapshot that its proxies should run.
    pub snapshot: Snapshot,
    /// The object that each resource comes from, to name it when a proxy nacks. A Cluster comes from its Service, or
    /// from the route that names an address.
    pub sources: BTreeMap<Key, ObjectRef>,
    /// The routes in it: what a status says of one, it reads of these.
    pub(crate) routes: Arc<EncodedRoutes>,
}
