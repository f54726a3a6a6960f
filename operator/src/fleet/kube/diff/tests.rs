//! What is due in each situation, as lines.

use std::collections::BTreeMap;

use planner::FleetPlan;

use super::*;
use crate::fleet::{
    ProxyReport,
    kube::{
        child_kind::ChildId,
        pods::Pod,
        store::Wanted,
        testing::{live, settings, settled, small, wanting},
    },
    nothing,
};

fn lines(state: &Store, plan: &FleetPlan) -> Vec<String> {
    let line = |(task, job): (Task, Job)| match job {
        Job::Apply { child, .. } => format!("{task:?}: apply {child:?}"),
        Job::Create { child, replicas, .. } if child == ChildKind::Deployment => {
            format!("create {child:?} with {replicas}")
        }
        Job::Create { child, .. } => format!("create {child:?}"),
        Job::Scale { replicas, marks } => format!("scale to {replicas} {marks:?}"),
        Job::Replace { pods } => format!("replace {pods:?}"),
        Job::Remove { objects } => format!("remove {}", objects.len()),
    };
    due(&plan.fleet, &state.fleets[&plan.fleet], state, Instant::now()).into_iter().map(line).collect()
}

fn wanted<'a>(state: &'a mut Store, plan: &FleetPlan) -> &'a mut Wanted {
    state.fleets.get_mut(&plan.fleet).unwrap()
}

fn change<'a>(
    state: &'a mut Store,
    plan: &FleetPlan,
    child: ChildKind,
) -> &'a mut crate::fleet::kube::live_object::LiveObject {
    state.objects.get_mut(&ChildId::new(child, &plan.fleet)).unwrap()
}

#[test]
fn a_new_fleet() {
    let plan = small(3);
    let mut state = wanting(&plan);
    let first =
        ["create ServiceAccount", "create ConfigMap", "create Service", "create Budget", "create NetworkPolicy"];
    assert_eq!(lines(&state, &plan), first);
    for child in [ChildKind::ServiceAccount, ChildKind::ConfigMap] {
        state.objects.insert(ChildId::new(child, &plan.fleet), live(&plan.fleet, child));
    }
    assert!(lines(&state, &plan).contains(&"create Deployment with 3".to_owned()), "{:?}", lines(&state, &plan));
    // Created by the scaler: until the operator has applied it, the scaler may not let go of the rest.
    let mut made = live(&plan.fleet, ChildKind::Deployment);
    made.details.scale =
        Some(crate::fleet::kube::live_object::Scale { replicas: 3, is_applied: false, is_scalers: false });
    state.objects.insert(ChildId::new(ChildKind::Deployment, &plan.fleet), made);
    let now = lines(&state, &plan);
    assert!(now.contains(&"Object(Deployment): apply Deployment".to_owned()), "{now:?}");
    assert!(!now.iter().any(|line| line.starts_with("scale")), "{now:?}");
    change(&mut state, &plan, ChildKind::Deployment).details.scale.as_mut().unwrap().is_applied = true;
    assert!(lines(&state, &plan).contains(&"scale to 3 []".to_owned()), "{:?}", lines(&state, &plan));
}

#[test]
fn nothing_when_all_is_well() {
    let plan = small(2);
    assert_eq!(lines(&settled(&plan), &plan), [""; 0]);
}

#[test]
fn a_new_operator_applies_everything_once() {
    let plan = small(2);
    let mut state = settled(&plan);
    wanted(&mut state, &plan).tasks.clear();
    assert_eq!(lines(&state, &plan).len(), 6);
    assert!(!lines(&state, &plan).iter().any(|line| line.contains("create") || line.contains("scale")));
}

#[test]
fn what_others_change_is_restored() {
    let plan = small(2);
    let mut state = settled(&plan);
    change(&mut state, &plan, ChildKind::Service).fingerprint = snapshot::Hash::of(b"edited");
    assert_eq!(lines(&state, &plan), ["Object(Service): apply Service"]);
    change(&mut state, &plan, ChildKind::Service).leaving = true;
    assert_eq!(lines(&state, &plan), [""; 0], "someone's finalizer keeps it: made again once it is gone");
    state.objects.remove(&ChildId::new(ChildKind::Service, &plan.fleet));
    assert_eq!(lines(&state, &plan), ["create Service"]);
    // Under way, or failed a moment ago.
    wanted(&mut state, &plan).tasks.get_mut(&Task::Object(ChildKind::Service)).unwrap().busy = true;
    assert_eq!(lines(&state, &plan), [""; 0]);
    let progress = wanted(&mut state, &plan).tasks.get_mut(&Task::Object(ChildKind::Service)).unwrap();
    progress.busy = false;
    progress.reapply.failed(Instant::now());
    assert_eq!(lines(&state, &plan), [""; 0]);
}

#[test]
fn replicas_are_the_scalers() {
    let plan = small(2);
    let mut state = settled(&plan);
    let mut scale = |replicas, is_scalers| {
        let scale = change(&mut state, &plan, ChildKind::Deployment).details.scale.as_mut().unwrap();
        (scale.replicas, scale.is_scalers) = (replicas, is_scalers);
        lines(&state, &plan)
    };
    assert_eq!(scale(1, true), ["scale to 2 []"]);
    assert_eq!(scale(2, false), ["scale to 2 []"], "what a hand set to the same number is taken back all the same");
    // One too many, set by hand: it goes as any other.
    assert_eq!(scale(3, true), [r#"scale to 2 [("p1", Some(-1))]"#]);
}

#[test]
fn the_least_loaded_leaves() {
    let plan = small(1);
    let mut state = settled(&plan);
    let report = |connections| ProxyReport { ready: true, connections, ..ProxyReport::default() };
    let reports = BTreeMap::from([("p1".to_owned(), report(9)), ("p2".to_owned(), report(1))]);
    state.want(&plan, &reports, &settings());
    assert_eq!(lines(&state, &plan), [r#"scale to 1 [("p2", Some(-1))]"#]);
    // It leaves already, or has ended: the other one is all there is.
    let leaves: fn(&mut Pod) = |pod| pod.leaving = true;
    let ended: fn(&mut Pod) = |pod| pod.living = false;
    for change in [leaves, ended] {
        let mut state = settled(&plan);
        state.want(&plan, &reports, &settings());
        change(state.pods.get_mut(&("edge".into(), "p2".into())).unwrap());
        assert_eq!(lines(&state, &plan), [r#"scale to 1 [("p1", Some(-1))]"#]);
    }
}

#[test]
fn a_pod_that_is_held_back_is_replaced() {
    let plan = small(2);
    let mut state = settled(&plan);
    let key = |name: &str| ("edge".to_owned(), name.to_owned());
    for name in ["p1", "p2"] {
        let pod = state.pods.get_mut(&key(name)).unwrap();
        (pod.held_back, pod.ready, pod.uid) = (true, false, format!("{name}-1"));
    }
    assert_eq!(lines(&state, &plan), [r#"replace [("p1", "p1-1"), ("p2", "p2-1")]"#]);
    // Those that leave, or are no more, are replaced by others already.
    state.pods.get_mut(&key("p1")).unwrap().leaving = true;
    assert_eq!(lines(&state, &plan), [r#"replace [("p2", "p2-1")]"#]);
    // So many are enough for now.
    wanted(&mut state, &plan).replacements.take(7, Instant::now());
    assert_eq!(lines(&state, &plan), [""; 0]);
    // Nothing is made for a fleet that is to be no more.
    wanted(&mut state, &plan).replacements = Default::default();
    let end = nothing(&plan.fleet, plan.drain);
    state.want(&end, &BTreeMap::new(), &settings());
    assert_eq!(lines(&state, &end), ["remove 6"]);
}

#[test]
fn the_end_of_a_fleet() {
    let plan = small(2);
    let mut state = settled(&plan);
    let end = nothing(&plan.fleet, plan.drain);
    // What is under way would come after its deletion.
    wanted(&mut state, &plan).tasks.get_mut(&Task::Object(ChildKind::Service)).unwrap().busy = true;
    state.want(&end, &BTreeMap::new(), &settings());
    assert_eq!(lines(&state, &end), [""; 0]);
    wanted(&mut state, &plan).tasks.get_mut(&Task::Object(ChildKind::Service)).unwrap().busy = false;
    assert_eq!(lines(&state, &end), ["remove 6"]);
    state.objects.values_mut().for_each(|live| live.leaving = true);
    assert_eq!(lines(&state, &end), [""; 0]);
    // Wanted again in the midst of it.
    wanted(&mut state, &plan).tasks.entry(Task::Removal).or_default().busy = true;
    state.objects.clear();
    state.want(&plan, &BTreeMap::new(), &settings());
    assert_eq!(lines(&state, &plan), [""; 0]);
    wanted(&mut state, &plan).tasks.get_mut(&Task::Removal).unwrap().busy = false;
    assert_eq!(lines(&state, &plan).len(), 5);
}

/// Where the operator may not look, everything would seem to be missing.
#[test]
fn nothing_where_it_is_not_known_what_there_is() {
    let plan = small(3);
    let mut state = Store::of(Some(&["edge".to_owned(), "other".to_owned()].into()));
    state.want(&plan, &BTreeMap::new(), &settings());
    assert_eq!(lines(&state, &plan), [""; 0]);
    assert!(state.refused("edge", "pods", Some("pods is forbidden".into())));
    let problems = crate::fleet::kube::observe::observe(&state).remove(&plan.fleet).unwrap();
    let said: Vec<_> = problems.problems.iter().map(|problem| (problem.reason, problem.message.as_str())).collect();
    assert!(problems.unknown && said[0].0 == "Forbidden" && said[0].1.contains("pods is forbidden"), "{said:?}");
    // The right is given: everything is listed, and there is nothing.
    state.refused("edge", "pods", None);
    for kind in crate::fleet::kube::watch::KINDS {
        state.known("edge", kind);
    }
    assert_eq!(lines(&state, &plan).len(), 5);
    let seen = crate::fleet::kube::observe::observe(&state).remove(&plan.fleet).unwrap();
    assert!(!seen.unknown && seen.problems.is_empty(), "{seen:?}");
    // What is listed of one namespace says nothing of another.
    let object = live(&plan.fleet, ChildKind::Service);
    state.listed(ChildKind::Service, Some("edge"), vec![(ChildId::new(ChildKind::Service, &plan.fleet), object)]);
    assert!(!state.listed(ChildKind::Service, Some("other"), vec![]));
    assert!(state.live(ChildKind::Service, &plan.fleet).is_some());
    assert!(state.listed(ChildKind::Service, Some("edge"), vec![]));
    assert!(state.live(ChildKind::Service, &plan.fleet).is_none());
}
