//! Against a real API server, with its controllers: `KUBECONFIG=… cargo test -p operator --lib --features cluster kube::`.
//! No other operator may run in that cluster.

mod kept;
mod replicas;
mod test_namespace;
mod told;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::{ConfigMap, Event, ResourceQuota, Service},
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
};
use planner::FleetPlan;
use serde_json::{Value, json};

use self::test_namespace::{TestNamespace, apply};
use super::{KubeFleet, Settings, child_kind::ChildKind, render, testing};
use crate::fleet::{
    Fleet as _, Observation, ProxyReport,
    contract::{self, Bench},
    nothing,
};

/// What exists is `sluice-f`, and `sluice-f-ca`.
const NAME: &str = "sluice-f";
const LIMIT: Duration = Duration::from_secs(30);

/// A fleet and what is wanted of it.
struct Run {
    fleet: KubeFleet,
    plan: FleetPlan,
}

impl Run {
    async fn new(space: &TestNamespace, spec: &Value, replicas: u32) -> Self {
        Self::with(space, testing::settings(), spec, replicas).await
    }

    async fn with(space: &TestNamespace, settings: Settings, spec: &Value, replicas: u32) -> Self {
        let fleet = KubeFleet::start(space.operator.clone(), settings, Arc::new(|| {})).await;
        Self { fleet, plan: plan(space, spec, replicas) }
    }

    fn observe(&self) -> Observation {
        self.fleet.observe().remove(&self.plan.fleet).unwrap_or_default()
    }

    /// Turns of the loop, until something holds.
    #[track_caller]
    #[allow(clippy::needless_pass_by_value)] // a closure
    fn until(&mut self, what: &str, holds: impl AsyncFn(&Self) -> bool) {
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                let start = Instant::now();
                loop {
                    self.fleet.ensure(&self.plan, &BTreeMap::new());
                    if holds(self).await {
                        return;
                    }
                    assert!(start.elapsed() < LIMIT, "{what}: {:#?}", self.observe());
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
        });
    }

    /// Everything is as applied, and nothing is due.
    #[track_caller]
    fn settle(&mut self) {
        self.until("everything is made", async |run: &Self| {
            let state = run.fleet.shared.state();
            let wanted = &state.fleets[&run.plan.fleet];
            let is_made = ChildKind::ALL.iter().all(|child| state.live(*child, &run.plan.fleet).is_some());
            let idle = wanted.tasks.values().all(|progress| !progress.busy);
            is_made && idle && super::diff::due(&run.plan.fleet, wanted, &state, Instant::now()).is_empty()
        });
    }

    fn reasons(&self) -> BTreeSet<&'static str> {
        self.observe().problems.iter().map(|problem| problem.reason).collect()
    }

    #[track_caller]
    fn until_problem(&mut self, reason: &str, says: &str) {
        self.until(reason, async |run: &Self| {
            run.observe().problems.iter().any(|problem| problem.reason == reason && problem.message.contains(says))
        });
    }
}

fn plan(space: &TestNamespace, spec: &Value, replicas: u32) -> FleetPlan {
    let mut whole =
        json!({"listeners": [{"name": "http", "protocol": "HTTP", "port": 80}], "service": {"type": "ClusterIP"}});
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    let manifest = json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "GatewayFleet",
        "metadata": {"name": "f", "namespace": space.namespace}, "spec": whole,
    });
    // Without owner: one that does not exist would have everything collected at once.
    testing::plan(&manifest.to_string(), replicas)
}

async fn deployment(space: &TestNamespace) -> Deployment {
    space.api::<Deployment>().get(NAME).await.unwrap()
}

fn dynamic(space: &TestNamespace, child: ChildKind) -> Api<DynamicObject> {
    Api::namespaced_with(space.admin.clone(), &space.namespace, &child.resource())
}

/// Another than the operator changes something.
async fn edit(space: &TestNamespace, child: ChildKind, patch: Value) {
    let name = if child == ChildKind::ConfigMap { "sluice-f-ca" } else { NAME };
    let params = PatchParams { field_manager: Some("hand".into()), ..PatchParams::default() };
    dynamic(space, child).patch(name, &params, &Patch::Merge(patch)).await.unwrap();
}
