//! parentRefs → the listeners that serve a route, and under which hostnames.

use std::collections::BTreeMap;

use crds::common::ParentRef;

use crate::{
    model::{Fleet, Hostname, Listener, Model, Route, RoutesFrom, hostname},
    plan::Parent,
    problem::{Problems, reason},
    world::{Cluster, FleetRef, Kind, ObjectRef},
};

/// Listener name → hostnames (none: any).
pub(super) type Attached = BTreeMap<String, Vec<Hostname>>;

/// The fleet that a route without parentRefs attaches to.
const DEFAULT_FLEET: &str = "default";

/// The reason why a parentRef attaches to nothing.
#[derive(Debug, thiserror::Error)]
enum Detached {
    #[error("no GatewayFleet {0} exists: create it, or correct the name and namespace")]
    NoFleet(String),
    #[error("GatewayFleet {0} is not valid, and never was")]
    InvalidFleet(String),
    #[error("no GatewayFleet named \"default\" exists: create one, or name another in spec.parentRefs")]
    NoDefault,
    #[error(
        "no GatewayFleet named \"default\" exists in namespace {own:?}, nor in that of the operator, {operator:?}: create one, or name another in spec.parentRefs"
    )]
    NoDefaultHere { own: String, operator: String },
    #[error("several GatewayFleets are named \"default\" ({0}): name one in spec.parentRefs")]
    ManyDefaults(String),
    #[error("GatewayFleet {fleet} has no listener {listener:?}; it has: {has}")]
    NoListener { fleet: String, listener: String, has: String },
    #[error(
        "the listeners of GatewayFleet {fleet} allow routes of its own namespace only, and this one is in {namespace:?}: set allowedRoutes.namespaces.from: All there"
    )]
    NotAllowed { fleet: String, namespace: String },
    #[error(
        "the labels of namespace {namespace:?} fit no selector in allowedRoutes.namespaces of the listeners of GatewayFleet {fleet}: label the namespace, or change the selector there"
    )]
    NotSelected { fleet: String, namespace: String },
    #[error("no hostname of this route is one that a listener of GatewayFleet {fleet} serves ({has})")]
    NoHostname { fleet: String, has: String },
}

impl Detached {
    fn reason(&self) -> &'static str {
        match self {
            Self::NoFleet(_)
            | Self::InvalidFleet(_)
            | Self::NoDefault
            | Self::NoDefaultHere { .. }
            | Self::ManyDefaults(_)
            | Self::NoListener { .. } => reason::NO_MATCHING_PARENT,
            Self::NotAllowed { .. } | Self::NotSelected { .. } => reason::NOT_ALLOWED_BY_LISTENERS,
            Self::NoHostname { .. } => reason::NO_MATCHING_LISTENER_HOSTNAME,
        }
    }
}

/// The listeners that a route attaches to, by fleet, and what became of each parentRef.
pub(super) fn attach<'m>(
    model: &'m Model,
    object: &ObjectRef,
    route: &Route,
    problems: &mut Problems<'_>,
) -> (BTreeMap<&'m ObjectRef, Attached>, Vec<Parent>) {
    let (mut attached, mut parents): (BTreeMap<&ObjectRef, Attached>, _) = (BTreeMap::new(), vec![]);
    let default = ParentRef { name: DEFAULT_FLEET.into(), namespace: None, section_name: None };
    let refs = if route.parents.is_empty() { std::slice::from_ref(&default) } else { &route.parents };
    for (i, parent_ref) in refs.iter().enumerate() {
        let (field, fleet) = match route.parents.is_empty() {
            true => ("spec.parentRefs".to_owned(), default_fleet(model, object)),
            false => (format!("spec.parentRefs[{i}]"), named_fleet(model, object, parent_ref)),
        };
        let mut parent = Parent { parent_ref: parent_ref.clone(), fleet: None, detached: None };
        let listeners = fleet.and_then(|(name, fleet)| {
            parent.parent_ref.namespace = Some(name.namespace.clone());
            let listeners = listeners(model, object, route, name, fleet, parent_ref.section_name.as_deref())?;
            Ok((name, listeners))
        });
        match listeners {
            Ok((fleet, listeners)) => {
                parent.fleet = Some(FleetRef::from(fleet));
                // Two parentRefs may lead to one listener; both say the same of it.
                attached.entry(fleet).or_default().extend(listeners);
            }
            Err(why) => {
                let field = match why {
                    Detached::NoHostname { .. } => "spec.hostnames".to_owned(),
                    Detached::NoListener { .. } => format!("{field}.sectionName"),
                    _ => field,
                };
                parent.detached = Some((why.reason(), format!("{field}: {why}")));
                problems.degraded(object, field, why.reason(), why.to_string());
            }
        }
        parents.push(parent);
    }
    (attached, parents)
}

fn named_fleet<'m>(
    model: &'m Model,
    route: &ObjectRef,
    parent: &ParentRef,
) -> Result<(&'m ObjectRef, &'m Fleet), Detached> {
    let namespace = parent.namespace.as_ref().unwrap_or(&route.namespace);
    let fleet = fleet_ref(namespace, &parent.name);
    find(model, &fleet).ok_or_else(|| match model.invalid.contains_key(&fleet) {
        true => Detached::InvalidFleet(fleet.path()),
        false => Detached::NoFleet(fleet.path()),
    })
}

/// The fleet named `default`: that of the route's namespace, else in a cluster that of the operator's, and standalone the
/// only one. What other namespaces of a cluster have does not count: whoever may create a fleet in one would take the
/// routes of all others, or detach them.
fn default_fleet<'m>(model: &'m Model, route: &ObjectRef) -> Result<(&'m ObjectRef, &'m Fleet), Detached> {
    let own = fleet_ref(&route.namespace, DEFAULT_FLEET);
    let Some(Cluster { operator_namespace, .. }) = &model.cluster else {
        return find(model, &own).map_or_else(|| only_default(model), Ok);
    };
    let shared = fleet_ref(operator_namespace, DEFAULT_FLEET);
    find(model, &own).or_else(|| find(model, &shared)).ok_or_else(|| {
        match [&own, &shared].into_iter().find(|fleet| model.invalid.contains_key(*fleet)) {
            Some(invalid) => Detached::InvalidFleet(invalid.path()),
            None => Detached::NoDefaultHere { own: own.namespace.clone(), operator: operator_namespace.clone() },
        }
    })
}

fn only_default(model: &Model) -> Result<(&ObjectRef, &Fleet), Detached> {
    let is_default = |object: &&ObjectRef| object.kind == Kind::GatewayFleet && object.name == DEFAULT_FLEET;
    let found: Vec<&ObjectRef> = model.fleets.keys().filter(is_default).collect();
    match found.as_slice() {
        [] => Err(match model.invalid.keys().find(is_default) {
            Some(invalid) => Detached::InvalidFleet(invalid.path()),
            None => Detached::NoDefault,
        }),
        [one] => find(model, one).ok_or(Detached::NoDefault),
        several => Err(Detached::ManyDefaults(several.iter().map(|f| f.path()).collect::<Vec<_>>().join(", "))),
    }
}

fn fleet_ref(namespace: &str, name: &str) -> ObjectRef {
    ObjectRef { kind: Kind::GatewayFleet, namespace: namespace.to_owned(), name: name.to_owned() }
}

fn find<'m>(model: &'m Model, fleet: &ObjectRef) -> Option<(&'m ObjectRef, &'m Fleet)> {
    model.fleets.get_key_value(fleet).map(|(name, fleet)| (name, fleet.as_ref()))
}

/// The listeners of one fleet that serve a route. In Gateway API's order: named, then allowed, then of a common hostname.
fn listeners(
    model: &Model,
    object: &ObjectRef,
    route: &Route,
    name: &ObjectRef,
    fleet: &Fleet,
    wanted: Option<&str>,
) -> Result<Attached, Detached> {
    let mut listeners: Vec<&Listener> = fleet.listeners.iter().collect();
    if let Some(wanted) = wanted {
        let has = listeners.iter().map(|l| l.name.as_str()).collect::<Vec<_>>().join(", ");
        listeners.retain(|listener| listener.name == wanted);
        if listeners.is_empty() {
            return Err(Detached::NoListener { fleet: name.path(), listener: wanted.to_owned(), has });
        }
    }
    let selects = listeners.iter().any(|listener| matches!(listener.from, RoutesFrom::Selector(_)));
    let labels = model.namespaces.get(&object.namespace).map(AsRef::as_ref);
    listeners.retain(|listener| match &listener.from {
        RoutesFrom::All => true,
        RoutesFrom::Same => object.namespace == name.namespace,
        RoutesFrom::Selector(selector) => selector.fits_namespace(&object.namespace, labels),
    });
    if listeners.is_empty() {
        let (fleet, namespace) = (name.path(), object.namespace.clone());
        return Err(match selects {
            true => Detached::NotSelected { fleet, namespace },
            false => Detached::NotAllowed { fleet, namespace },
        });
    }
    let meets = |l: &&Listener| Some((l.name.clone(), hostname::intersection(l.hostname.as_ref(), &route.hostnames)?));
    let attached: Attached = listeners.iter().filter_map(meets).collect();
    if attached.is_empty() {
        let has: Vec<_> = listeners.iter().filter_map(|l| l.hostname.as_ref().map(Hostname::as_str)).collect();
        return Err(Detached::NoHostname { fleet: name.path(), has: has.join(", ") });
    }
    Ok(attached)
}
