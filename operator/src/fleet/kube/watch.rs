//! Follows what there is: every object and pod of fleets, in all namespaces.

use std::{fmt::Debug, pin::pin, sync::Arc};

use futures::StreamExt as _;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Pod, Service, ServiceAccount},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, Resource,
    runtime::{WatchStreamExt as _, watcher},
};
use serde::de::DeserializeOwned;
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    labels::OURS,
    live::{self, Kind},
    pods,
    state::Shared,
};

/// How many kinds are watched.
const WATCHES: usize = 7;

/// What a watch says.
enum Change<F> {
    /// These are all.
    Listed(Vec<F>),
    /// One is new, or changed.
    Appeared(F),
    /// One is gone; as it last was.
    Vanished(F),
}

/// Starts the watches; returns when each has listed what there is.
pub(super) async fn start(shared: &Arc<Shared>, tasks: &mut JoinSet<()>) {
    let (listed, mut lists) = mpsc::channel(WATCHES);
    tasks.spawn(objects::<ServiceAccount>(Arc::clone(shared), listed.clone()));
    tasks.spawn(objects::<ConfigMap>(Arc::clone(shared), listed.clone()));
    tasks.spawn(objects::<Deployment>(Arc::clone(shared), listed.clone()));
    tasks.spawn(objects::<Service>(Arc::clone(shared), listed.clone()));
    tasks.spawn(objects::<PodDisruptionBudget>(Arc::clone(shared), listed.clone()));
    tasks.spawn(objects::<NetworkPolicy>(Arc::clone(shared), listed.clone()));
    tasks.spawn(all_pods(Arc::clone(shared), listed));
    for _ in 0..WATCHES {
        lists.recv().await;
    }
}

async fn objects<K>(shared: Arc<Shared>, listed: mpsc::Sender<()>)
where
    K: Kind + Resource<Scope = k8s_openapi::NamespaceResourceScope>,
    K: Clone + Debug + DeserializeOwned + Send + 'static,
{
    follow(Api::<K>::all(shared.client.clone()), live::read, |change| {
        let mut state = shared.state();
        let is_first = matches!(change, Change::Listed(_));
        let is_news = match change {
            Change::Listed(all) => state.listed(K::PART, all),
            Change::Appeared((id, live)) => state.appeared(id, live),
            Change::Vanished((id, live)) => state.vanished(&id, &live),
        };
        drop(state);
        if is_news {
            shared.news();
        }
        if is_first {
            // Only the first time is waited for.
            let _ = listed.try_send(());
        }
    })
    .await;
}

async fn all_pods(shared: Arc<Shared>, listed: mpsc::Sender<()>) {
    follow(Api::<Pod>::all(shared.client.clone()), pods::read, |change| {
        let mut state = shared.state();
        let is_first = matches!(change, Change::Listed(_));
        let is_news = match change {
            Change::Listed(all) => {
                let all = all.into_iter().collect();
                let former = std::mem::replace(&mut state.pods, all);
                former != state.pods
            }
            Change::Appeared((id, pod)) => state.pods.insert(id, pod.clone()).is_none_or(|former| former != pod),
            Change::Vanished((id, _)) => state.pods.remove(&id).is_some(),
        };
        drop(state);
        if is_news {
            shared.news();
        }
        if is_first {
            let _ = listed.try_send(());
        }
    })
    .await;
}

/// Follows one kind for ever: what fails is tried again, later and later.
async fn follow<K, F>(api: Api<K>, read: impl Fn(&K) -> Option<F>, mut take: impl FnMut(Change<F>))
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut events = pin!(watcher(api, watcher::Config::default().labels(OURS)).default_backoff());
    let mut list = vec![];
    let mut fails = false;
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                if !std::mem::replace(&mut fails, true) {
                    let kind = K::plural(&());
                    tracing::warn!(%kind, %error, "can't be watched; tried again (the operator needs get, list and watch)");
                }
                continue;
            }
        };
        fails = false;
        match event {
            watcher::Event::Init => list.clear(),
            watcher::Event::InitApply(object) => list.extend(read(&object)),
            watcher::Event::InitDone => take(Change::Listed(std::mem::take(&mut list))),
            watcher::Event::Apply(object) => read(&object).into_iter().for_each(|fact| take(Change::Appeared(fact))),
            watcher::Event::Delete(object) => read(&object).into_iter().for_each(|fact| take(Change::Vanished(fact))),
        }
    }
}
