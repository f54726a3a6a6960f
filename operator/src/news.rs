//! What is new since the turn before, for the log and for Events.

use std::collections::{BTreeMap, HashSet};

use k8s_openapi::api::core::v1::ObjectReference;
use planner::{FleetRef, Kind, ObjectRef, Plan, Problem, scale::Decision};
use snapshot::{Key, proto::Nack};

use crate::{events::Happening, source::Observed};

/// The problems that were not there before; they go into the log, too.
pub fn problems<'p>(before: Option<&Plan>, after: &'p Plan) -> Vec<&'p Problem> {
    let before = before.map(|plan| plan.problems.as_slice()).unwrap_or_default();
    let known: HashSet<String> = before.iter().map(ToString::to_string).collect();
    let new: Vec<&Problem> = after.problems.iter().filter(|problem| !known.contains(&problem.to_string())).collect();
    for problem in &new {
        tracing::warn!("{problem}");
    }
    if !before.is_empty() && after.problems.is_empty() {
        tracing::info!("no problems any more");
    }
    new
}

/// A problem of an object.
pub fn of_problem(observed: &Observed, problem: &Problem) -> Option<Happening> {
    let Problem { object, field, reason, message, .. } = problem;
    let separator = if field.is_empty() { "" } else { ": " };
    Some(Happening {
        regarding: reference(observed, object.as_ref()?),
        warning: true,
        reason,
        action: "Plan",
        note: format!("{field}{separator}{message}"),
    })
}

/// A fleet is to have another number of replicas; `None`: it stays.
pub fn of_decision(
    observed: &Observed,
    fleet: &FleetRef,
    former: Option<&Decision>,
    now: &Decision,
) -> Option<Happening> {
    let from = former.map_or(now.current, |former| former.desired);
    let Decision { desired, reason, .. } = now;
    (from != *desired).then(|| Happening {
        regarding: reference(observed, &fleet_object(fleet)),
        warning: false,
        reason: "Scaled",
        action: "Scale",
        note: format!("from {from} to {desired} replicas: {reason}"),
    })
}

/// Proxies refused resources that they did not refuse before.
pub fn of_refusals(
    observed: &Observed,
    fleet: &FleetRef,
    sources: &BTreeMap<Key, ObjectRef>,
    before: &BTreeMap<Key, Nack>,
    after: &BTreeMap<Key, Nack>,
) -> Vec<Happening> {
    let new = after.iter().filter(|(key, _)| !before.contains_key(key));
    let happening = |(key, nack): (&Key, &Nack)| {
        let Nack { field, message, .. } = nack;
        let source = sources.get(key).cloned().unwrap_or_else(|| fleet_object(fleet));
        Happening {
            regarding: reference(observed, &source),
            warning: true,
            reason: "ProxyRejected",
            action: "RollBack",
            note: format!("{key} {field}: {message}; a proxy of {fleet} refuses it, what was good before runs instead"),
        }
    };
    new.map(happening).collect()
}

fn fleet_object(fleet: &FleetRef) -> ObjectRef {
    ObjectRef { kind: Kind::GatewayFleet, namespace: fleet.namespace.clone(), name: fleet.name.clone() }
}

fn reference(observed: &Observed, id: &ObjectRef) -> ObjectReference {
    let uid = observed.objects.get(id).and_then(|object| object.birth.as_ref()).map(|birth| birth.uid.to_string());
    ObjectReference {
        api_version: id.kind.api_versions().first().map(|version| (*version).to_owned()),
        kind: Some(format!("{:?}", id.kind)),
        namespace: Some(id.namespace.clone()),
        name: Some(id.name.clone()),
        uid,
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use planner::Severity;

    use super::*;

    fn decision(desired: u32, current: u32) -> Decision {
        Decision { desired, current, driven_by: None, reason: "why".into(), signals: vec![] }
    }

    #[test]
    fn a_scale_is_news_once() {
        let fleet = FleetRef { namespace: "sys".into(), name: "default".into() };
        let note = |former: Option<Decision>, now: Decision| {
            of_decision(&Observed::default(), &fleet, former.as_ref(), &now).map(|happening| happening.note)
        };
        assert_eq!(note(None, decision(3, 3)), None, "taken over as it is");
        assert_eq!(note(None, decision(2, 0)).as_deref(), Some("from 0 to 2 replicas: why"));
        assert_eq!(note(Some(decision(2, 1)), decision(2, 2)), None);
        assert_eq!(note(Some(decision(2, 2)), decision(5, 2)).as_deref(), Some("from 2 to 5 replicas: why"));
    }

    #[test]
    fn a_problem_names_its_object_and_field() {
        let object = ObjectRef { kind: Kind::ApiRoute, namespace: "shop".into(), name: "r".into() };
        let problem = Problem {
            object: Some(object),
            origin: None,
            field: "spec.x".into(),
            reason: "BackendNotFound",
            message: "no Service".into(),
            severity: Severity::Degraded,
        };
        let plan = Plan { problems: vec![problem], ..Plan::default() };
        assert_eq!(problems(Some(&plan), &plan), Vec::<&Problem>::new());
        let new = problems(None, &plan);
        let happening = of_problem(&Observed::default(), new[0]).unwrap();
        assert_eq!(happening.note, "spec.x: no Service");
        assert_eq!(happening.regarding.api_version.as_deref(), Some("sluice.dev/v1alpha1"));
        assert_eq!(
            (happening.regarding.kind.as_deref(), happening.regarding.name.as_deref()),
            (Some("ApiRoute"), Some("r"))
        );
    }
}
