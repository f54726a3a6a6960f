//! Follows what there is: every object and pod of fleets, in all namespaces or in those where the operator may run fleets,
//! each of these by watches of its own. Where it has no right to, that namespace alone is not known.

use std::{fmt::Debug, pin::pin, sync::Arc, time::Duration};

use futures::StreamExt as _;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Service, ServiceAccount},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};
use kube::{Api, Resource, runtime::watcher};
use serde::de::DeserializeOwned;
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    labels::OURS,
    live_object::{self, ChildObject},
    pods,
    store::{Shared, Store},
};
use crate::{
    identity::pods::{Pod, Pods},
    kube::{
        backoff::{self, Bounds},
        watch::{self, Change},
    },
};

/// The resources that are watched in each scope.
pub(super) const KINDS: [&str; 7] =
    ["serviceaccounts", "configmaps", "deployments", "services", "poddisruptionbudgets", "networkpolicies", "pods"];
/// Pauses between attempts, short ones: who gives the operator a right looks whether that helped.
const PAUSES: Bounds = backoff::WATCH.up_to(Duration::from_secs(10));

/// The scope of a watch: one namespace, or all.
#[derive(Clone)]
struct WatchScope {
    shared: Arc<Shared>,
    namespace: Option<Arc<str>>,
    /// A signal, sent once, that the objects are known, or that they can't be.
    known: mpsc::Sender<()>,
}

/// Starts the watches; returns when each has listed what there is, or may not.
pub(super) async fn start(shared: &Arc<Shared>, tasks: &mut JoinSet<()>) {
    let namespaces: Vec<Option<Arc<str>>> = match &shared.settings.namespaces {
        Some(namespaces) => namespaces.iter().map(|namespace| Some(namespace.as_str().into())).collect(),
        None => vec![None],
    };
    let watches = namespaces.len() * KINDS.len();
    let (known, mut all_known) = mpsc::channel(watches.max(1));
    for namespace in namespaces {
        let scope = || WatchScope { shared: Arc::clone(shared), namespace: namespace.clone(), known: known.clone() };
        tasks.spawn(objects::<ServiceAccount>(scope()));
        tasks.spawn(objects::<ConfigMap>(scope()));
        tasks.spawn(objects::<Deployment>(scope()));
        tasks.spawn(objects::<Service>(scope()));
        tasks.spawn(objects::<PodDisruptionBudget>(scope()));
        tasks.spawn(objects::<NetworkPolicy>(scope()));
        tasks.spawn(all_pods(scope()));
    }
    for _ in 0..watches {
        all_known.recv().await;
    }
}

async fn objects<K>(scope: WatchScope)
where
    K: ChildObject + Resource<Scope = k8s_openapi::NamespaceResourceScope>,
    K: Clone + Debug + DeserializeOwned + Send + 'static,
{
    scope
        .follow(live_object::read::<K>, |state, namespace, change| match change {
            Change::Listed(all) => state.listed(K::CHILD, namespace, all),
            Change::Appeared((id, live)) => state.appeared(id, live),
            Change::Vanished((id, live)) => state.vanished(&id, &live),
            Change::NotRead | Change::Failing(_) => false,
        })
        .await;
}

async fn all_pods(scope: WatchScope) {
    let living = scope.shared.settings.pods.clone();
    scope
        .follow(pods::read, |state, namespace, change| {
            tell(&living, namespace, &change);
            match change {
                Change::Listed(all) => state.pods_listed(namespace, all),
                Change::Appeared((id, pod)) => state.pods.insert(id, pod.clone()).is_none_or(|former| former != pod),
                Change::Vanished((id, _)) => state.pods.remove(&id).is_some(),
                Change::NotRead | Change::Failing(_) => false,
            }
        })
        .await;
}

/// Tells those who let proxies in which pods live. One that has failed or completed runs nothing any more.
fn tell(living: &Pods, namespace: Option<&str>, change: &Change<((String, String), pods::Pod)>) {
    let pod = |pod: &pods::Pod| Pod { fleet: pod.fleet.clone(), uid: pod.uid.clone() };
    match change {
        Change::Listed(all) => {
            let all = all.iter().filter(|(_, pod)| pod.living);
            living.listed(namespace, all.map(|(id, of)| (id.clone(), pod(of))));
        }
        Change::Appeared((id, of)) if of.living => living.lives(id.clone(), pod(of)),
        Change::Appeared((id, _)) | Change::Vanished((id, _)) => living.ended(id),
        Change::NotRead | Change::Failing(_) => {}
    }
}

impl WatchScope {
    /// Follows one kind for ever: what fails is tried again, later and later.
    async fn follow<K, F>(
        self,
        read: impl Fn(&K) -> Option<F>,
        mut take: impl FnMut(&mut Store, Option<&str>, Change<F>) -> bool,
    ) where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
        K: Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let (client, namespace) = (self.shared.client.clone(), self.namespace.as_deref());
        let api: Api<K> = namespace.map_or_else(|| Api::all(client.clone()), |n| Api::namespaced(client.clone(), n));
        let which = watcher::Config::default().labels(OURS);
        let changes = watch::changes(api, which, PAUSES, |object| read(&object));
        let (mut changes, kind, mut fails) = (pin!(changes), K::plural(&()), false);
        while let Some(change) = changes.next().await {
            let refused = match &change {
                Change::Failing(error) => {
                    if !std::mem::replace(&mut fails, true) {
                        tracing::warn!(%kind, namespace, %error, "can't be watched; tried again (the operator needs get, list and watch)");
                    }
                    match watch::refusal(error) {
                        Some(said) => Some(said.to_owned()),
                        None => continue,
                    }
                }
                _ => None,
            };
            fails = refused.is_some();
            // A namespace that may not be read is waited for no longer. That nothing may be, is: it can't be told from nothing.
            let is_known = match &change {
                Change::Listed(_) => true,
                Change::Failing(_) => namespace.is_some(),
                _ => false,
            };
            let mut state = self.shared.state();
            let mut is_changed = namespace.is_some_and(|namespace| state.refused(namespace, &kind, refused));
            if let (Change::Listed(_), Some(namespace)) = (&change, namespace) {
                is_changed |= state.known(namespace, &kind);
            }
            is_changed |= take(&mut state, namespace, change);
            drop(state);
            if is_changed {
                self.shared.notify();
            }
            if is_known {
                // Only the first time is waited for.
                let _ = self.known.try_send(());
            }
        }
    }
}
