//! A pod of a fleet, as far as decisions need it.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod as ApiPod, PodCondition};
use kube::{Resource as _, ResourceExt as _};

use super::{labels, pod_deletion_cost::COST_ANNOTATION};
use crate::reason;

/// Most that is quoted of what a proxy or the kubelet says.
const MAX_QUOTED_CHARS: usize = 400;

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pod {
    /// The label that names its fleet.
    pub(super) fleet: String,
    /// Whether the pod was deleted, and still drains.
    pub(super) leaving: bool,
    /// Neither failed nor completed.
    pub(super) living: bool,
    /// Kubernetes sends it requests.
    pub(super) ready: bool,
    /// Which of those of its name it is.
    pub(super) uid: String,
    /// Whether the pod ended again, and the kubelet waits longer and longer before it starts it once more.
    pub(super) held_back: bool,
    /// Its deletion cost, if it has one.
    pub(super) cost: Option<i32>,
    /// Why it does not run.
    pub(super) failure: Option<PodFailure>,
}

/// Why a pod does not run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PodFailure {
    pub(super) reason: &'static str,
    /// The message of the kubelet, or of the proxy.
    pub(super) said: String,
}

/// Reads a pod; `None` when it is no fleet's: not made by a ReplicaSet, or without label.
pub(super) fn read(pod: &ApiPod) -> Option<((String, String), Pod)> {
    let meta = pod.meta();
    let id = (meta.namespace.clone()?, meta.name.clone()?);
    let fleet = pod.labels().get(labels::FLEET)?.clone();
    pod.owner_references().iter().find(|o| o.controller == Some(true) && o.kind == "ReplicaSet")?;
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let pod = Pod {
        fleet,
        leaving: meta.deletion_timestamp.is_some(),
        living: !matches!(phase, "Succeeded" | "Failed"),
        ready: conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True"),
        uid: meta.uid.clone().unwrap_or_default(),
        held_back: containers(pod).iter().any(|container| waits_for(container) == "CrashLoopBackOff"),
        cost: pod.annotations().get(COST_ANNOTATION).and_then(|cost| cost.parse().ok()),
        failure: failure(pod, conditions),
    };
    Some((id, pod))
}

fn failure(pod: &ApiPod, conditions: &[PodCondition]) -> Option<PodFailure> {
    let unschedulable = conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False");
    if let Some(condition) = unschedulable {
        let said = quote(condition.message.as_deref().unwrap_or_default());
        return Some(PodFailure { reason: reason::UNSCHEDULABLE, said });
    }
    containers(pod).iter().filter(|container| !container.ready).find_map(container)
}

fn containers(pod: &ApiPod) -> &[ContainerStatus] {
    pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default()
}

/// Why a container does not run yet, in the kubelet's word.
fn waits_for(status: &ContainerStatus) -> &str {
    let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref());
    waiting.and_then(|waiting| waiting.reason.as_deref()).unwrap_or_default()
}

fn container(status: &ContainerStatus) -> Option<PodFailure> {
    let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref());
    let reason = waits_for(status);
    let said = || quote(waiting.and_then(|waiting| waiting.message.as_deref()).unwrap_or_default());
    match reason {
        "ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull" | "InvalidImageName" | "RegistryUnavailable" => {
            // What the two alternate in saying differs; that it can't be had does not.
            return Some(PodFailure { reason: reason::IMAGE_PULL_FAILED, said: format!("image {:?}", status.image) });
        }
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
            return Some(PodFailure { reason: reason::PROXY_NOT_STARTED, said: said() });
        }
        _ => {}
    }
    // Also while it runs once more: it has not become Ready since.
    let now = status.state.as_ref().and_then(|state| state.terminated.as_ref());
    let ended = now.or_else(|| status.last_state.as_ref().and_then(|state| state.terminated.as_ref()))?;
    let killed = ended.reason.as_deref().filter(|reason| *reason == "OOMKilled");
    let how = killed.map_or_else(
        || format!("exited with code {}", ended.exit_code),
        |_| "needed more memory than its limit".into(),
    );
    let last = quote(ended.message.as_deref().unwrap_or_default());
    let said = if last.is_empty() { how } else { format!("{how}: {last}") };
    Some(PodFailure { reason: reason::PROXY_CRASHES, said })
}

/// The end of it, on one line: the last words say most.
fn quote(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let length = line.chars().count();
    match length > MAX_QUOTED_CHARS {
        true => format!("…{}", line.chars().skip(length - MAX_QUOTED_CHARS).collect::<String>()),
        false => line,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(status: &Value) -> Pod {
        let value = json!({
            "metadata": {
                "namespace": "ns", "name": "p", "labels": {"sluice.dev/fleet": "f"},
                "annotations": {"controller.kubernetes.io/pod-deletion-cost": "-1"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u", "controller": true}],
            },
            "status": status,
        });
        read(&serde_json::from_value(value).unwrap()).unwrap().1
    }

    fn waiting(reason: &str, last: &Value) -> Option<PodFailure> {
        let status = json!({
            "name": "proxy", "image": "i:1", "imageID": "", "ready": false, "restartCount": 1,
            "state": {"waiting": {"reason": reason, "message": "says  the\nkubelet"}}, "lastState": last,
        });
        let pod = pod(&json!({"phase": "Pending", "containerStatuses": [status]}));
        assert_eq!(pod.held_back, reason == "CrashLoopBackOff");
        pod.failure
    }

    #[track_caller]
    fn check(failure: Option<PodFailure>, reason: &str, said: &str) {
        let failure = failure.unwrap();
        assert_eq!((failure.reason, failure.said.as_str()), (reason, said));
    }

    #[test]
    fn states() {
        let ready = pod(&json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}));
        assert!(ready.ready && ready.living && !ready.leaving && ready.cost == Some(-1) && ready.failure.is_none());
        assert!(!pod(&json!({"phase": "Failed"})).living);
        let bare = json!({"metadata": {"namespace": "ns", "name": "p", "labels": {"sluice.dev/fleet": "f"}}});
        assert!(read(&serde_json::from_value(bare).unwrap()).is_none(), "made by hand");
    }

    #[test]
    fn troubles() {
        let condition =
            json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"});
        check(pod(&json!({"phase": "Pending", "conditions": [condition]})).failure, "Unschedulable", "0/1 nodes");
        check(waiting("ImagePullBackOff", &json!({})), "ImagePullFailed", "image \"i:1\"");
        check(waiting("CreateContainerConfigError", &json!({})), "ProxyNotStarted", "says the kubelet");
        let ended = json!({"terminated": {"exitCode": 2, "message": "--fleet: bad\n"}});
        check(waiting("CrashLoopBackOff", &ended), "ProxyCrashes", "exited with code 2: --fleet: bad");
        let killed = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
        check(waiting("CrashLoopBackOff", &killed), "ProxyCrashes", "needed more memory than its limit");
        assert_eq!(waiting("ContainerCreating", &json!({})), None);
        let long = json!({"terminated": {"exitCode": 1, "message": "é".repeat(1000)}});
        assert!(waiting("", &long).unwrap().said.chars().count() < 450);
    }
}
