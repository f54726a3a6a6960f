//! Plans and live objects for tests.

use std::{collections::BTreeMap, sync::Arc};

use planner::{Cluster, FleetPlan, FleetRef, Kind, ObjectRef, World, WorldObject};
use snapshot::Hash;

use super::{
    Settings,
    child_kind::{ChildId, ChildKind},
    live_object::{Details, LiveObject, Scale},
    pods::Pod,
    store::{Applied, Store, Task},
};
use crate::{fleet, identity::pods::Pods};

pub(super) const CA: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";

pub(super) fn settings() -> Settings {
    Settings {
        image: "registry.example/sluice-proxy:1.2.3".into(),
        image_pull_policy: "IfNotPresent".into(),
        image_pull_secrets: vec!["registry".into()],
        namespaces: None,
        control: "https://sluice-operator.sluice-system.svc:9443".into(),
        // Without its sender it stays as it is.
        ca: tokio::sync::watch::channel(Arc::from(CA)).1,
        metrics_from: serde_json::from_str(
            r#"[{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]"#,
        )
        .unwrap(),
        pods: Pods::default(),
        recorder: crate::events::recorder::EventRecorder::nowhere(),
    }
}

/// The plan of the one fleet of a manifest, as the planner makes it in a cluster.
#[track_caller]
pub(super) fn plan(manifest: &str, replicas: u32) -> FleetPlan {
    let object = crds::admit(serde_yaml::from_str(manifest).unwrap()).unwrap();
    let id = ObjectRef { kind: Kind::GatewayFleet, namespace: "edge".into(), name: "f".into() };
    let entry = WorldObject {
        current: Ok(Arc::new(object)),
        raw: None,
        accepted: None,
        accepted_at: None,
        generation: 1,
        created: None,
        origin: None,
    };
    let cluster = Cluster { operator_namespace: "sluice-system".into(), ..Cluster::default() };
    let world = World { objects: [(id, entry)].into(), cluster: Some(cluster), ..World::default() };
    let plan = planner::plan(&world);
    let (_, planned) = plan.fleets.iter().next().unwrap_or_else(|| panic!("{:?}", plan.problems));
    let crds::Object::GatewayFleet(object) = &**world.objects.values().next().unwrap().current.as_ref().unwrap() else {
        panic!("no GatewayFleet");
    };
    let meta = &object.metadata;
    let fleet = FleetRef { namespace: meta.namespace.clone().unwrap(), name: meta.name.clone().unwrap() };
    fleet::plan(&fleet, &planned.settings, replicas)
}

/// Fleet `edge/f` with one listener.
pub(super) fn small(replicas: u32) -> FleetPlan {
    let manifest = "
        apiVersion: sluice.dev/v1alpha1
        kind: GatewayFleet
        metadata: {name: f, namespace: edge, uid: 0e9bedc7}
        spec: {listeners: [{name: http, protocol: HTTP, port: 80}]}
    ";
    plan(manifest, replicas)
}

/// A state in which a plan is wanted, and nothing exists.
pub(super) fn wanting(plan: &FleetPlan) -> Store {
    let mut state = Store::default();
    assert!(state.want(plan, &BTreeMap::new(), &settings()));
    state
}

/// An object that is as it was applied.
pub(super) fn live(fleet: &FleetRef, child: ChildKind) -> LiveObject {
    let scale = Scale { replicas: 2, is_applied: true, is_scalers: true };
    LiveObject {
        fleet: fleet.clone(),
        uid: format!("{child:?}"),
        version: 1,
        fingerprint: Hash::of(b"as applied"),
        leaving: false,
        others: vec![],
        details: Details { scale: (child == ChildKind::Deployment).then_some(scale), ..Details::default() },
    }
}

/// A state in which everything is as it should be, with two replicas.
pub(super) fn settled(plan: &FleetPlan) -> Store {
    let mut state = wanting(plan);
    for child in ChildKind::ALL {
        let live = live(&plan.fleet, child);
        let wanted = state.fleets.get_mut(&plan.fleet).unwrap();
        let applied = Applied { desired: wanted.objects[&child].hash, fingerprint: live.fingerprint };
        wanted.tasks.entry(Task::Object(child)).or_default().applied = Some(applied);
        state.objects.insert(ChildId::new(child, &plan.fleet), live);
    }
    for name in ["p1", "p2"] {
        let pod = Pod { fleet: "f".into(), living: true, ready: true, ..Pod::default() };
        state.pods.insert(("edge".into(), name.into()), pod);
    }
    state
}
