//! Calls of the API server, each a whole step that may be repeated.

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, Pod, Service, ServiceAccount},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
    },
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, PropagationPolicy},
    core::PartialObjectMeta,
};
use planner::FleetRef;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    MANAGER, SCALER,
    child_kind::{ChildId, ChildKind},
    diff::Job,
    labels,
    live_object::{self, ChildObject, LiveObject},
    pod_deletion_cost::{COST_ANNOTATION, Change},
    problems::Error,
};

/// Pods that are marked at once.
const MAX_CONCURRENT_MARKS: usize = 8;

/// Does a job; gives back the object that came of it.
pub(super) async fn run(client: Client, fleet: FleetRef, job: Job) -> Result<Option<(ChildId, LiveObject)>, Error> {
    match job {
        Job::Apply { child, desired, .. } => apply(&client, &fleet, child, &desired.body, MANAGER).await,
        Job::Create { child, desired, replicas } => create(&client, &fleet, child, &desired.body, replicas).await,
        Job::Scale { replicas, marks } => {
            mark(&client, &fleet, marks).await;
            scale(&client, &fleet, replicas).await
        }
        Job::Replace { pods } => replace(&client, &fleet, pods).await.map(|()| None),
        Job::Remove { objects } => remove(&client, &fleet, objects).await.map(|()| None),
    }
}

async fn apply(
    client: &Client,
    fleet: &FleetRef,
    child: ChildKind,
    body: &Value,
    manager: &str,
) -> Result<Option<(ChildId, LiveObject)>, Error> {
    match child {
        ChildKind::ServiceAccount => apply_as::<ServiceAccount>(client, fleet, body, manager).await,
        ChildKind::ConfigMap => apply_as::<ConfigMap>(client, fleet, body, manager).await,
        ChildKind::Deployment => apply_as::<Deployment>(client, fleet, body, manager).await,
        ChildKind::Service => apply_as::<Service>(client, fleet, body, manager).await,
        ChildKind::Budget => apply_as::<PodDisruptionBudget>(client, fleet, body, manager).await,
        ChildKind::NetworkPolicy => apply_as::<NetworkPolicy>(client, fleet, body, manager).await,
    }
}

async fn apply_as<K>(
    client: &Client,
    fleet: &FleetRef,
    body: &Value,
    manager: &str,
) -> Result<Option<(ChildId, LiveObject)>, Error>
where
    K: ChildObject + Resource<Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let api = Api::<K>::namespaced(client.clone(), &fleet.namespace);
    let params = PatchParams::apply(manager).force();
    let object = api.patch(&K::CHILD.name(fleet), &params, &Patch::Apply(body)).await?;
    Ok(live_object::read(&object))
}

/// Makes an object that the watch does not show; it may be there without our labels. The Deployment is first applied by
/// the scaler, whole and with its replicas: it begins with as many as are wanted, not with the one that the API server
/// would put there. After that the operator applies it, and then the scaler keeps nothing but the replicas.
async fn create(
    client: &Client,
    fleet: &FleetRef,
    child: ChildKind,
    body: &Value,
    replicas: u32,
) -> Result<Option<(ChildId, LiveObject)>, Error> {
    let api = Api::<DynamicObject>::namespaced_with(client.clone(), &fleet.namespace, &child.resource());
    if let Some(there) = api.get_metadata_opt(&child.name(fleet)).await? {
        if !is_ours(&there, fleet) {
            return Err(Error::Occupied);
        }
        return apply(client, fleet, child, body, MANAGER).await;
    }
    if child != ChildKind::Deployment {
        return apply(client, fleet, child, body, MANAGER).await;
    }
    let mut whole = body.clone();
    whole["spec"]["replicas"] = json!(replicas);
    apply(client, fleet, child, &whole, SCALER).await
}

/// Labels may have been taken from it by hand; who applied it stays known.
fn is_ours(object: &PartialObjectMeta<DynamicObject>, fleet: &FleetRef) -> bool {
    let has_labels = object.labels().get(labels::MANAGED_BY).is_some_and(|by| by == MANAGER)
        && object.labels().get(labels::FLEET).is_some_and(|name| *name == labels::value(&fleet.name));
    has_labels || object.managed_fields().iter().any(|entry| entry.manager.as_deref() == Some(MANAGER))
}

/// Marks pods by their deletion cost. A pod that can't be marked leaves later than it should, or earlier: no reason to
/// keep the fleet as large as it is.
async fn mark(client: &Client, fleet: &FleetRef, marks: Vec<Change>) {
    let pods = Api::<Pod>::namespaced(client.clone(), &fleet.namespace);
    let mark = |(name, cost): Change| {
        let pods = pods.clone();
        async move {
            let cost = cost.map(|cost| cost.to_string());
            let patch = json!({"metadata": {"annotations": {COST_ANNOTATION: cost}}});
            let params = PatchParams { field_manager: Some(SCALER.into()), ..PatchParams::default() };
            match pods.patch_metadata(&name, &params, &Patch::Merge(patch)).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => tracing::warn!(pod = name, %error, "can't say whether it is to leave first"),
            }
        }
    };
    futures::stream::iter(marks).map(mark).buffer_unordered(MAX_CONCURRENT_MARKS).collect::<()>().await;
}

async fn scale(client: &Client, fleet: &FleetRef, replicas: u32) -> Result<Option<(ChildId, LiveObject)>, Error> {
    let body = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": ChildKind::Deployment.name(fleet)},
        "spec": {"replicas": replicas},
    });
    apply(client, fleet, ChildKind::Deployment, &body, SCALER).await
}

/// Deletes pods of which the containers do not run: the Deployment makes others.
async fn replace(client: &Client, fleet: &FleetRef, pods: Vec<(String, String)>) -> Result<(), Error> {
    let api = Api::<Pod>::namespaced(client.clone(), &fleet.namespace);
    for (name, uid) in pods {
        tracing::info!(%fleet, pod = name, "ended again, and the kubelet would wait: another takes its place");
        match api.delete(&name, &of_uid(uid)).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(Error::Api(error)),
        }
    }
    Ok(())
}

fn of_uid(uid: String) -> DeleteParams {
    let preconditions = Some(Preconditions { uid: Some(uid), resource_version: None });
    DeleteParams { preconditions, propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() }
}

/// Deletes a fleet's objects, if its GatewayFleet is gone: one that exists and is not planned is broken, and must not
/// lose what runs. (Owned objects are collected without us; this is sooner, and takes those whose owner was removed.)
async fn remove(client: &Client, fleet: &FleetRef, objects: Vec<(ChildKind, String)>) -> Result<(), Error> {
    let owners = Api::<crds::GatewayFleet>::namespaced(client.clone(), &fleet.namespace);
    let owner = owners.get_metadata_opt(&fleet.name).await?;
    if owner.is_some_and(|owner| owner.metadata.deletion_timestamp.is_none()) {
        return Err(Error::StillThere);
    }
    let delete = |(child, uid): (ChildKind, String)| {
        let api = Api::<DynamicObject>::namespaced_with(client.clone(), &fleet.namespace, &child.resource());
        let name = child.name(fleet);
        async move {
            match api.delete(&name, &of_uid(uid)).await {
                Ok(_) => Ok(()),
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                Err(error) => Err(Error::Api(error)),
            }
        }
    };
    futures::stream::iter(objects).then(delete).try_collect::<()>().await
}
