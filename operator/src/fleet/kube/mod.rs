//! Proxies as pods of a Kubernetes cluster. For each GatewayFleet there are, in its namespace and under one name: a
//! ServiceAccount, a ConfigMap with what proxies trust the operator by, a Deployment, a Service, a PodDisruptionBudget
//! and a NetworkPolicy.
//!
//! ```text
//!  ensure(plan, reports) ─► Store.fleets ──┐          render/: plan → objects (pure)
//!                                          ├─► diff.rs: what is to be done now (pure) ─► reconcile.rs ─► apply.rs
//!  API server ─► watch.rs ─► Store.objects ┘                                                               │
//!      ▲                             └─► observe.rs: Observation (pure) ─► observe()                       │
//!      └───────────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Objects are applied server-side by two field managers: [`MANAGER`] has everything but `spec.replicas` of the
//! Deployment, which [`SCALER`] has alone. Every object is watched; one that is not as it was when it was last applied
//! is applied again, so that edits of our fields are undone and what others added stays. An Event on the GatewayFleet says
//! who had changed what, and an annotation on each object where to change it.
//!
//! A fleet that is to be no more loses its objects; but never as long as its GatewayFleet exists: then it is broken, and
//! what runs goes on running.
//!
//! # What the operator must be allowed to do
//!
//! | group | resource | verbs |
//! |---|---|---|
//! | `apps` | `deployments` | get, list, watch, create, patch, delete |
//! | (core) | `services`, `serviceaccounts`, `configmaps` | get, list, watch, create, patch, delete |
//! | `policy` | `poddisruptionbudgets` | get, list, watch, create, patch, delete |
//! | `networking.k8s.io` | `networkpolicies` | get, list, watch, create, patch, delete |
//! | (core) | `pods` | list, watch, patch, delete |
//! | `sluice.dev` | `gatewayfleets` | get |
//!
//! In the namespaces where it may run fleets ([`Settings::namespaces`]), each watched by itself; else in all. One in which
//! it lacks a right says so on its fleets, and stays as it is: what is not known there is not taken for nothing.

mod apply;
mod child_kind;
#[cfg(test)]
#[cfg(feature = "cluster")]
mod cluster_tests;
mod diff;
mod labels;
mod live_object;
mod namespaces;
mod observe;
mod pod_deletion_cost;
mod pods;
mod problems;
mod reconcile;
mod render;
mod replacement_budget;
mod store;
#[cfg(test)]
mod testing;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use planner::{FleetPlan, FleetRef};

use self::store::Shared;
use super::{Fleet, Observation, ProxyReport};
use crate::{events::recorder::EventRecorder, identity::pods::Pods};

/// Field manager of everything but `spec.replicas`.
pub const MANAGER: &str = "sluice-operator";
/// Field manager of `spec.replicas` of Deployments.
pub const SCALER: &str = "sluice-scaler";

/// Called when something of a fleet has changed; what, the next look at it tells.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Settings that pods are made of, besides their fleet's spec.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The proxies' image.
    pub image: String,
    /// `Always`, `IfNotPresent` or `Never`.
    pub image_pull_policy: String,
    /// Secrets, in each fleet's namespace, to pull it with.
    pub image_pull_secrets: Vec<String>,
    /// The namespaces where fleets may be run; `None`: every one.
    pub namespaces: Option<Arc<BTreeSet<String>>>,
    /// Where proxies attach: `https://sluice-operator.NAMESPACE.svc:9443`.
    pub control: String,
    /// The certificates, as PEM, that proxies know the operator by. Empty: not known yet, and no proxy is started.
    pub ca: tokio::sync::watch::Receiver<Arc<str>>,
    /// Peers that may reach the metrics of proxies.
    pub metrics_from: Vec<NetworkPolicyPeer>,
    /// The register of living pods.
    pub pods: Pods,
    /// The recorder of edits by hand that were undone.
    pub recorder: EventRecorder,
}

/// The fleets of a cluster.
pub struct KubeFleet {
    shared: Arc<Shared>,
    /// Ends with it.
    _tasks: tokio::task::JoinSet<()>,
}

impl KubeFleet {
    /// Begins to watch, and returns once it knows what there is: before that, a fleet that runs would be taken for none.
    pub async fn start(client: kube::Client, settings: Settings, wake: Wake) -> Self {
        let shared = Arc::new(Shared::new(client, settings, wake));
        let mut tasks = tokio::task::JoinSet::new();
        watch::start(&shared, &mut tasks).await;
        tasks.spawn(reconcile::run(Arc::clone(&shared)));
        Self { shared, _tasks: tasks }
    }
}

impl Fleet for KubeFleet {
    fn ensure(&mut self, plan: &FleetPlan, reports: &BTreeMap<String, ProxyReport>) {
        if self.shared.state().want(plan, reports, &self.shared.settings) {
            self.shared.changed.notify_one();
        }
    }

    fn observe(&self) -> BTreeMap<FleetRef, Observation> {
        observe::observe(&self.shared.state())
    }

    fn outlives_operator(&self) -> bool {
        true
    }
}
