//! What the loop sees in each situation.

use super::*;
use crate::fleet::{
    kube::{
        child_kind::ChildId,
        pods::Pod,
        testing::{settings, settled, small, wanting},
    },
    nothing,
};

#[test]
fn a_fleet_that_runs() {
    let plan = small(3);
    let mut state = settled(&plan);
    state.objects.get_mut(&ChildId::new(ChildKind::Service, &plan.fleet)).unwrap().details.addresses =
        vec!["203.0.113.10".into()];
    let leaving = Pod { fleet: "f".into(), living: true, leaving: true, ..Pod::default() };
    state.pods.insert(("edge".into(), "p3".into()), leaving);
    let ended = Pod { fleet: "f".into(), ..Pod::default() };
    state.pods.insert(("edge".into(), "p4".into()), ended);
    let all = observe(&state);
    assert_eq!(all.len(), 1);
    let proxy = |name: &str, draining, ready| (name.to_owned(), Proxy { pid: None, draining, pod_ready: Some(ready) });
    let expect = Observation {
        replicas: 2,
        proxies: [proxy("p1", false, true), proxy("p2", false, true), proxy("p3", true, false)].into(),
        addresses: vec!["203.0.113.10".into()],
        problems: vec![],
        unknown: false,
    };
    assert_eq!(all[&plan.fleet], expect);
}

#[test]
fn a_fleet_of_which_a_new_operator_knows_only_what_there_is() {
    let plan = small(2);
    let mut state = settled(&plan);
    state.fleets.clear();
    assert_eq!(observe(&state)[&plan.fleet].replicas, 2);
    // All that is left are pods that drain.
    state.objects.clear();
    assert_eq!(observe(&state)[&plan.fleet].proxies.len(), 2);
    state.pods.clear();
    assert!(observe(&state).is_empty());
}

#[test]
fn a_deployment_that_was_deleted_did_not_shrink() {
    let plan = small(7);
    let mut state = settled(&plan);
    state.objects.remove(&ChildId::new(ChildKind::Deployment, &plan.fleet));
    assert_eq!(observe(&state)[&plan.fleet].replicas, 7);
    state.want(&nothing(&plan.fleet, plan.drain), &BTreeMap::new(), &settings());
    assert_eq!(observe(&state)[&plan.fleet].replicas, 0);
}

#[test]
fn everything_that_is_wrong_is_told() {
    let plan = small(2);
    let mut state = settled(&plan);
    state.objects.get_mut(&ChildId::new(ChildKind::Deployment, &plan.fleet)).unwrap().details.failure =
        Some("no".into());
    let failure = super::super::pods::PodFailure { reason: "ProxyCrashes", said: "exited with code 1".into() };
    state.pods.get_mut(&("edge".into(), "p1".into())).unwrap().failure = Some(failure);
    let wanted = state.fleets.get_mut(&plan.fleet).unwrap();
    let failed = problems::failed(&plan.fleet, "Service edge/sluice-f", &problems::Error::Occupied);
    wanted.tasks.get_mut(&super::super::store::Task::Object(ChildKind::Service)).unwrap().problem = Some(failed);
    let reapply = &mut wanted.tasks.get_mut(&super::super::store::Task::Object(ChildKind::Budget)).unwrap().reapply;
    for _ in 0..5 {
        reapply.done(true, std::time::Instant::now());
    }
    let reasons = |state: &Store| {
        let problems = observe(state).remove(&plan.fleet).unwrap().problems;
        problems.into_iter().map(|p| p.reason).collect::<Vec<_>>()
    };
    assert_eq!(reasons(&state), ["NameOccupied", "Contested", "PodsRefused", "ProxyCrashes"]);
    assert!(reasons(&wanting(&plan)).is_empty());
}
