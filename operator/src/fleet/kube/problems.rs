//! Problems that keep a fleet from being as planned, in words: the object, the fault and the fix.

use std::time::Duration;

use planner::FleetRef;

use super::{
    child_kind::ChildKind,
    pods::{Pod, PodFailure},
};
use crate::{fleet::Problem, reason};

/// How the operator gets rights in a namespace.
const GRANT: &str = "see that the chart's value `fleetNamespaces` and the Roles that come of it have namespace";

/// Why something could not be done to an object.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The API server refused it, or was not reached.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// The API server did not answer within this time.
    #[error("no answer within {} s", .0.as_secs())]
    Slow(Duration),
    /// An object of that name is not the fleet's.
    #[error("it exists and is not of this fleet")]
    Occupied,
    /// The fleet is not planned any more, but its GatewayFleet exists.
    #[error("its GatewayFleet exists")]
    StillThere,
}

/// A failure, for people.
pub(super) fn failed(fleet: &FleetRef, what: &str, error: &Error) -> Problem {
    let namespace = &fleet.namespace;
    let (reason, message) = match error {
        Error::Occupied => {
            let fix = "delete or rename it, or rename the fleet";
            (reason::NAME_OCCUPIED, format!("{what} exists and is not of this fleet: {fix}"))
        }
        Error::StillThere => {
            let message = "the GatewayFleet exists but can't be used, so its proxies go on running as they are: \
                           correct it, or delete it to end them";
            (reason::NOT_REMOVED, message.to_owned())
        }
        Error::Api(kube::Error::Api(status)) => {
            let said = &status.message;
            let (reason, fix) = match (status.code, status.reason.as_str()) {
                (403, _) if said.contains("exceeded quota") => {
                    (reason::QUOTA_EXCEEDED, format!("raise the quota of namespace {namespace}"))
                }
                (403, _) if said.contains("being terminated") => {
                    (reason::NAMESPACE_TERMINATING, "nothing: the fleet goes with its namespace".to_owned())
                }
                (401 | 403, _) => {
                    let fix = format!("{GRANT} {namespace}, or ask whoever runs the admission policy that is named");
                    (reason::FORBIDDEN, fix)
                }
                (422 | 400, _) if said.contains("immutable") || said.contains("may not change once set") => (
                    reason::IMMUTABLE,
                    format!("undo the change, or delete the {what}: it is made again as it should be"),
                ),
                (422 | 400, _) => {
                    (reason::REFUSED, "correct the field of the GatewayFleet that it comes from".to_owned())
                }
                (404, _) => (reason::NOT_FOUND, format!("see that namespace {namespace} exists")),
                _ => (reason::API_SERVER_FAILS, "nothing, if it passes: it is tried again".to_owned()),
            };
            (reason, format!("{what} can't be applied: {said}; to fix it: {fix}"))
        }
        Error::Api(_) | Error::Slow(_) => (
            reason::API_SERVER_FAILS,
            format!("{what} can't be applied: {error}; it is tried again, see that the API server runs"),
        ),
    };
    Problem { port: None, reason, message }
}

/// The problem that the fleet's objects can't be watched.
pub(super) fn unseen(fleet: &FleetRef, kind: &str, said: &str) -> Problem {
    let namespace = &fleet.namespace;
    let message = format!(
        "the operator may not watch {kind} in namespace {namespace}, so that it changes nothing there: {said}; to fix it: \
         {GRANT} {namespace}"
    );
    Problem { port: None, reason: reason::FORBIDDEN, message }
}

/// Something undoes what is applied, time and again.
pub(super) fn contested(fleet: &FleetRef, child: ChildKind) -> Problem {
    let (kind, name, namespace) = (child.kind(), child.name(fleet), &fleet.namespace);
    let message = format!(
        "something changes {kind} {namespace}/{name} time and again: find its field manager by `kubectl get {kind} \
         {name} --namespace {namespace} --show-managed-fields --output yaml`, and stop it",
    );
    Problem { port: None, reason: reason::CONTESTED, message }
}

/// A Deployment that can't make pods.
pub(super) fn no_pods(fleet: &FleetRef, said: &str) -> Problem {
    let what = format!("Deployment {}/{}", fleet.namespace, ChildKind::Deployment.name(fleet));
    let fix = if said.contains("exceeded quota") {
        format!("raise the quota of namespace {}, or lower spec.template.resources", fleet.namespace)
    } else {
        format!("change what refuses its pods (`kubectl describe replicasets --namespace {}`)", fleet.namespace)
    };
    Problem {
        port: None,
        reason: reason::PODS_REFUSED,
        message: format!("{what} can't make pods: {said}; to fix it: {fix}"),
    }
}

/// The problems of pods: one for each reason, however many pods have it.
pub(super) fn pods<'a>(fleet: &FleetRef, pods: impl Iterator<Item = (&'a str, &'a Pod)>) -> Vec<Problem> {
    let mut by_reason: std::collections::BTreeMap<&str, Vec<(&str, &PodFailure)>> = Default::default();
    for (name, pod) in pods.filter(|(_, pod)| pod.living && !pod.leaving) {
        if let Some(failure) = &pod.failure {
            by_reason.entry(failure.reason).or_default().push((name, failure));
        }
    }
    let problem = |(_, troubled): (&str, Vec<(&str, &PodFailure)>)| {
        let (name, failure) = *troubled.first()?;
        let namespace = &fleet.namespace;
        let others = match troubled.len() {
            1 => String::new(),
            n => format!(" and {} more", n - 1),
        };
        let fix = match failure.reason {
            reason::UNSCHEDULABLE => {
                "add nodes, lower spec.template.resources.requests or spec.scaling.maxReplicas, or change what \
                 spec.template says of nodes"
                    .to_owned()
            }
            reason::IMAGE_PULL_FAILED => format!(
                "see that the operator's --proxy-image exists, that nodes reach its registry, and that its pull secret \
                 is in namespace {namespace} (`kubectl describe pod {name} --namespace {namespace}` says more)"
            ),
            reason::PROXY_NOT_STARTED => format!("`kubectl describe pod {name} --namespace {namespace}` says more"),
            _ => format!("`kubectl logs {name} --namespace {namespace} --previous` says more"),
        };
        let does = match failure.reason {
            reason::UNSCHEDULABLE => "can't be scheduled",
            reason::IMAGE_PULL_FAILED => "can't pull its image",
            reason::PROXY_NOT_STARTED => "can't be started",
            _ => "crashes",
        };
        let message = format!("pod {namespace}/{name}{others} {does}: {}; to fix it: {fix}", failure.said);
        Some(Problem { port: None, reason: failure.reason, message })
    };
    by_reason.into_iter().filter_map(problem).collect()
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn fleet() -> FleetRef {
        FleetRef { namespace: "ns".into(), name: "f".into() }
    }

    #[track_caller]
    fn check(code: u16, said: &str, reason: &str, fix: &str) {
        let status = Status { code, message: said.into(), ..Status::success() };
        let problem = failed(&fleet(), "Service ns/sluice-f", &Error::Api(kube::Error::Api(status.boxed())));
        assert_eq!(problem.reason, reason);
        let m = &problem.message;
        assert!(m.contains("Service ns/sluice-f") && m.contains(said) && m.contains(fix), "{m}");
    }

    #[test]
    fn refusals() {
        check(
            403,
            "services \"x\" is forbidden: User cannot patch",
            "Forbidden",
            "`fleetNamespaces` and the Roles that come of it have namespace ns",
        );
        check(403, "exceeded quota: q", "QuotaExceeded", "raise the quota of namespace ns");
        check(422, "spec.loadBalancerClass: may not change once set", "Immutable", "delete the Service ns/sluice-f");
        check(422, "spec.ports[0]: Invalid value", "Refused", "GatewayFleet");
        check(404, "namespaces \"ns\" not found", "NotFound", "namespace ns exists");
        check(503, "etcd is away", "ApiServerFails", "tried again");
    }

    #[test]
    fn pods_are_summed_up() {
        let troubled =
            |reason| Pod { living: true, failure: Some(PodFailure { reason, said: "why".into() }), ..Pod::default() };
        let (a, b, c) =
            (troubled(reason::UNSCHEDULABLE), troubled(reason::UNSCHEDULABLE), troubled(reason::PROXY_CRASHES));
        let gone = Pod { leaving: true, ..troubled(reason::IMAGE_PULL_FAILED) };
        let problems = pods(&fleet(), [("a", &a), ("b", &b), ("c", &c), ("d", &gone)].into_iter());
        let reasons: Vec<_> = problems.iter().map(|p| p.reason).collect();
        assert_eq!(reasons, [reason::PROXY_CRASHES, reason::UNSCHEDULABLE]);
        assert!(problems[1].message.starts_with("pod ns/a and 1 more can't be scheduled: why; "), "{problems:?}");
        assert!(problems[0].message.contains("kubectl logs c --namespace ns --previous"), "{problems:?}");
    }
}
