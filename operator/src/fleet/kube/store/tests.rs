//! What comes late, twice or out of order.

use super::*;
use crate::fleet::{
    kube::{
        reconcile::forget_solved,
        testing::{live, settings, settled, small, wanting},
    },
    nothing,
};

#[test]
fn a_plan_is_taken_up_once() {
    let plan = small(2);
    let mut state = wanting(&plan);
    let mut want = |plan: &FleetPlan| state.want(plan, &BTreeMap::new(), &settings());
    assert!(!want(&plan));
    let more = FleetPlan { replicas: 3, ..plan.clone() };
    assert!(want(&more));
    assert!(!want(&more));
}

#[test]
fn only_what_changed_is_tried_at_once() {
    let mut plan = small(2);
    let mut state = wanting(&plan);
    let now = Instant::now();
    let wanted = state.fleets.get_mut(&plan.fleet).unwrap();
    for child in ChildKind::ALL {
        wanted.tasks.entry(Task::Object(child)).or_default().reapply.failed(now);
    }
    plan.ports = vec![81];
    state.want(&plan, &BTreeMap::new(), &settings());
    let wanted = &state.fleets[&plan.fleet];
    let over: Vec<ChildKind> =
        ChildKind::ALL.into_iter().filter(|child| wanted.tasks[&Task::Object(*child)].reapply.over(now)).collect();
    assert_eq!(over, [ChildKind::NetworkPolicy]);
    assert!(wanted.next_try(now).is_some());
}

#[test]
fn a_problem_goes_with_what_it_came_from() {
    let plan = small(2);
    let mut state = settled(&plan);
    let other = FleetPlan { ports: vec![81], ..plan.clone() };
    state.want(&other, &BTreeMap::new(), &settings());
    let task = Task::Object(ChildKind::NetworkPolicy);
    let refused = Problem { port: None, reason: "Refused", message: String::new() };
    state.fleets.get_mut(&plan.fleet).unwrap().tasks.get_mut(&task).unwrap().problem = Some(refused);
    forget_solved(&mut state, &plan.fleet);
    assert!(state.fleets[&plan.fleet].tasks[&task].problem.is_some());
    // Undone, there is nothing to do that could succeed.
    state.want(&plan, &BTreeMap::new(), &settings());
    forget_solved(&mut state, &plan.fleet);
    assert!(state.fleets[&plan.fleet].tasks[&task].problem.is_none());
}

#[test]
fn a_fleet_that_is_to_be_no_more_is_forgotten_when_nothing_is_left() {
    let plan = small(2);
    let mut state = settled(&plan);
    let end = nothing(&plan.fleet, plan.drain);
    assert!(state.want(&end, &BTreeMap::new(), &settings()));
    assert!(state.fleets[&plan.fleet].objects.is_empty());
    state.objects.clear();
    state.want(&end, &BTreeMap::new(), &settings());
    assert!(state.fleets.contains_key(&plan.fleet), "its pods drain");
    state.pods.clear();
    assert!(!state.want(&end, &BTreeMap::new(), &settings()));
    assert!(state.fleets.is_empty());
}

fn at(version: u64) -> LiveObject {
    LiveObject { version, ..live(&small(1).fleet, ChildKind::Service) }
}

fn id() -> ChildId {
    ChildId::new(ChildKind::Service, &small(1).fleet)
}

#[test]
fn answers_and_watch_cross() {
    // An answer that comes before the watch shows it, and after.
    let mut state = Store::default();
    state.answered(id(), at(5));
    assert!(!state.appeared(id(), at(4)), "older than what is known");
    assert_eq!(state.objects[&id()].version, 5);
    assert!(state.appeared(id(), at(6)));
    state.answered(id(), at(5));
    assert_eq!(state.objects[&id()].version, 6);
    // Applied, then deleted by someone, and the watch was faster than the answer.
    assert!(state.vanished(&id(), &at(8)));
    state.answered(id(), at(7));
    assert!(state.objects.is_empty(), "it would be taken to exist for ever");
    // Made again under the same name, an end that comes late is the former's.
    assert!(state.appeared(id(), LiveObject { uid: "new".into(), ..at(9) }));
    assert!(!state.vanished(&id(), &at(8)));
    assert_eq!(state.objects[&id()].uid, "new");
}

#[test]
fn a_list_is_all_there_is_of_a_kind() {
    let fleet = small(1).fleet;
    let mut state = Store::default();
    state.appeared(id(), at(1));
    let other = ChildId::new(ChildKind::ConfigMap, &fleet);
    state.appeared(other.clone(), live(&fleet, ChildKind::ConfigMap));
    assert!(
        !state.listed(ChildKind::Service, None, vec![(id(), at(1))]),
        "the watch began anew, and nothing had happened"
    );
    assert!(state.listed(ChildKind::Service, None, vec![]));
    assert_eq!(state.objects.keys().collect::<Vec<_>>(), [&other]);
}

#[test]
fn pods_by_fleet() {
    let state = settled(&small(2));
    let names = |fleet: &str, namespace: &str| {
        let fleet = FleetRef { namespace: namespace.into(), name: fleet.into() };
        state.pods_of(&fleet).map(|(name, _)| name.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("f", "edge"), ["p1", "p2"]);
    assert!(names("g", "edge").is_empty() && names("f", "edgf").is_empty() && names("f", "edg").is_empty());
}
