//! The namespace of one test in a real cluster: a namespace, an identity with the rights that the module names, and a node of
//! which the test is the kubelet, so that it says which pods are Ready.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Namespace, Node, Pod},
    rbac::v1::{ClusterRole, ClusterRoleBinding},
};
use kube::{
    Api, Client, Config, ResourceExt as _,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::fleet::{contract::Ready, kube::child_kind::ChildKind};

/// Whose objects tests make.
const TESTER: &str = "sluice-fleet-test";

/// A namespace with what belongs to it; gone when it is dropped.
pub(super) struct TestNamespace {
    /// May do anything.
    pub(super) admin: Client,
    /// May do what the operator may.
    pub(super) operator: Client,
    pub(super) namespace: String,
}

impl TestNamespace {
    pub(super) async fn new(test: &str) -> Self {
        let config = Config::infer().await.expect("KUBECONFIG names no cluster");
        let admin = Client::try_from(config.clone()).unwrap();
        let namespace = format!("sluice-fleet-{test}");
        remove(&admin, &namespace).await;
        let namespaces = Api::<Namespace>::all(admin.clone());
        while namespaces.get_opt(&namespace).await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        apply::<Namespace>(
            &namespaces,
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
        )
        .await;
        rights(&admin, &namespace).await;
        let mut config = config;
        config.auth_info.impersonate = Some(format!("system:serviceaccount:{namespace}:operator"));
        let operator = Client::try_from(config).unwrap();
        Self { admin, operator, namespace }
    }

    /// A node for this namespace's pods, on which every pod is Ready that shall be.
    pub(super) async fn node(&self, ready: Ready) -> Kubelet {
        let nodes = Api::<Node>::all(self.admin.clone());
        let name = &self.namespace;
        apply(
            &nodes,
            json!({
                "apiVersion": "v1", "kind": "Node",
                "metadata": {"name": name, "labels": {"test": name, "kubernetes.io/hostname": name}},
                // Nobody else's pods.
                "spec": {"taints": [{"key": "test", "value": name, "effect": "NoSchedule"}]},
            }),
        )
        .await;
        let kubelet = kubelet(self.admin.clone(), self.namespace.clone(), ready);
        let task = tokio::spawn(kubelet);
        Kubelet(task)
    }

    /// What pods need to be on that node.
    pub(super) fn on_node(&self) -> Value {
        let toleration = json!({"key": "test", "value": self.namespace, "effect": "NoSchedule"});
        json!({"nodeSelector": {"test": self.namespace}, "tolerations": [toleration]})
    }

    pub(super) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.admin.clone(), &self.namespace)
    }
}

impl Drop for TestNamespace {
    fn drop(&mut self) {
        let (admin, namespace) = (self.admin.clone(), self.namespace.clone());
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async move { remove(&admin, &namespace).await });
        });
    }
}

/// Plays the kubelet until it is dropped.
pub(super) struct Kubelet(tokio::task::JoinHandle<()>);

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn remove(admin: &Client, namespace: &str) {
    // Those on the node have nobody else to end them.
    let pods = Api::<Pod>::namespaced(admin.clone(), namespace);
    let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    let now = DeleteParams::default();
    // A test that failed may have left finalizers.
    for child in ChildKind::ALL {
        let api = Api::<DynamicObject>::namespaced_with(admin.clone(), namespace, &child.resource());
        for object in api.list(&ListParams::default()).await.into_iter().flatten() {
            let none = Patch::Merge(json!({"metadata": {"finalizers": null}}));
            let _ = api.patch_metadata(&object.name_any(), &PatchParams::default(), &none).await;
        }
    }
    let _ = Api::<Namespace>::all(admin.clone()).delete(namespace, &now).await;
    let _ = pods.delete_collection(&at_once, &ListParams::default()).await;
    let _ = Api::<Node>::all(admin.clone()).delete(namespace, &now).await;
    let _ = Api::<Lease>::namespaced(admin.clone(), "kube-node-lease").delete(namespace, &now).await;
    let _ = Api::<ClusterRole>::all(admin.clone()).delete(namespace, &now).await;
    let _ = Api::<ClusterRoleBinding>::all(admin.clone()).delete(namespace, &now).await;
}

/// As the module's table says.
async fn rights(admin: &Client, name: &str) {
    let own = json!(["get", "list", "watch", "create", "patch", "delete"]);
    let rules = json!([
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": own},
        {"apiGroups": [""], "resources": ["services", "serviceaccounts", "configmaps"], "verbs": own},
        {"apiGroups": ["policy"], "resources": ["poddisruptionbudgets"], "verbs": own},
        {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": own},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch", "patch", "delete"]},
        {"apiGroups": ["sluice.dev"], "resources": ["gatewayfleets"], "verbs": ["get"]},
    ]);
    let group = "rbac.authorization.k8s.io";
    let version = format!("{group}/v1");
    let meta = json!({"name": name});
    let role = json!({"apiVersion": version, "kind": "ClusterRole", "metadata": meta, "rules": rules});
    apply(&Api::<ClusterRole>::all(admin.clone()), role).await;
    let binding = json!({
        "apiVersion": version, "kind": "ClusterRoleBinding", "metadata": meta,
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": "operator", "namespace": name}],
    });
    apply(&Api::<ClusterRoleBinding>::all(admin.clone()), binding).await;
}

/// Applies an object as the test.
pub(super) async fn apply<K>(api: &Api<K>, object: Value) -> K
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    api.patch(&name, &PatchParams::apply(TESTER).force(), &Patch::Apply(object)).await.unwrap()
}

async fn kubelet(client: Client, namespace: String, ready: Ready) {
    let nodes = Api::<Node>::all(client.clone());
    let pods = Api::<Pod>::namespaced(client.clone(), &namespace);
    let leases = Api::<Lease>::namespaced(client, "kube-node-lease");
    let mut renew = tokio::time::interval(Duration::from_secs(5));
    let mut look = tokio::time::interval(Duration::from_millis(50));
    loop {
        tokio::select! {
            _ = renew.tick() => {
                let now = now();
                let lease = json!({
                    "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                    "metadata": {"name": namespace, "namespace": "kube-node-lease"},
                    "spec": {"holderIdentity": namespace, "leaseDurationSeconds": 40, "renewTime": now},
                });
                apply(&leases, lease).await;
                let room = json!({"cpu": "64", "memory": "64Gi", "pods": "110"});
                let condition = json!({"type": "Ready", "status": "True", "reason": "Test", "message": "",
                    "lastHeartbeatTime": now, "lastTransitionTime": now});
                let status = json!({"status": {"capacity": room, "allocatable": room, "conditions": [condition]}});
                nodes.patch_status(&namespace, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
            }
            _ = look.tick() => {
                let only = ready.lock().unwrap().clone();
                let on_node = ListParams::default().fields(&format!("spec.nodeName={namespace}"));
                for pod in pods.list(&on_node).await.unwrap() {
                    attend(&pods, &pod, only.as_ref()).await;
                }
            }
        }
    }
}

fn now() -> String {
    format!("{:.6}", jiff::Timestamp::now())
}

/// Ends a pod that is told to, and makes it as Ready as it shall be.
async fn attend(pods: &Api<Pod>, pod: &Pod, only: Option<&BTreeSet<String>>) {
    let name = pod.metadata.name.as_deref().unwrap();
    if pod.metadata.deletion_timestamp.is_some() {
        let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        let _ = pods.delete(name, &at_once).await;
        return;
    }
    let wanted = if only.is_none_or(|only| only.contains(name)) { "True" } else { "False" };
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    if conditions.iter().any(|c| c.type_ == "Ready" && c.status == wanted) {
        return;
    }
    let now = now();
    let condition = |type_: &str| json!({"type": type_, "status": wanted, "lastTransitionTime": now});
    let status = json!({"status": {
        "phase": "Running",
        "conditions": [condition("Ready"), condition("ContainersReady")],
        "containerStatuses": [{
            "name": "proxy", "ready": wanted == "True", "started": true, "restartCount": 0,
            "image": "none", "imageID": "none", "state": {"running": {"startedAt": now}},
        }],
    }});
    // Gone in the meantime, or changed: the next look tells.
    let _ = pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await;
}
