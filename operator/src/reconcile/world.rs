//! From what the source has to what the planner reads, and what is remembered of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crds::Object;
use jiff::{SignedDuration, Timestamp};
use planner::{
    Absent, FleetRef, Holds, Kind, Millis, ObjectRef, Plan, Problem, Severity, World, WorldObject, credentials,
};

use crate::{
    default_fleet,
    reconcile::fleet_state::FleetState,
    source::{Observed, SourceObject},
    state::objects::ObjectRecord,
};

/// The time for which a deleted object counts that others refer to: it is often made again within seconds, by a tool
/// that replaces it, or by someone who mends a mistake.
const ABSENCE_GRACE: SignedDuration = SignedDuration::from_secs(30);

/// Joins the source's objects with the content accepted before, and with the holders of hostnames. Objects without a
/// record count as created at `now`; `None`: at an unknown time.
pub fn world(
    observed: &Observed,
    records: &BTreeMap<ObjectRef, ObjectRecord>,
    holds: &Arc<Holds>,
    now: Option<Timestamp>,
) -> World {
    let object = |(id, object): (&ObjectRef, &SourceObject)| {
        let known = records.get(id);
        let accepted = known.and_then(|r| r.accepted.clone());
        let accepted = accepted.filter(|accepted| same(id, accepted, object) && !observed.left_out.contains(id));
        let accepted_at = known.and_then(|r| r.accepted_at).filter(|_| accepted.is_some()).map(millis);
        let creation = object.creation.as_ref().map(|creation| creation.created);
        let created = creation.or_else(|| known.map(|r| r.created)).or(now).map(millis);
        let SourceObject { current, raw, generation, origin, .. } = object.clone();
        (id.clone(), WorldObject { current, raw, accepted, accepted_at, generation, created, origin })
    };
    let gone = records.iter().filter(|(id, _)| !observed.objects.contains_key(*id));
    let absent = gone.filter_map(|(id, known)| {
        let (accepted, until) = (known.accepted.clone()?, absent_until(id, known, now.unwrap_or_default())?);
        let accepted_at = known.accepted_at.map(millis);
        Some((id.clone(), Absent { accepted, accepted_at, until: millis(until) }))
    });
    World {
        objects: observed.objects.iter().map(object).collect(),
        absent: absent.collect(),
        now: millis(now.unwrap_or_default()),
        last_ready: None,
        left_out: observed.left_out.clone(),
        strays: observed.document_problems.clone(),
        cluster: observed.cluster.clone(),
        holds: Arc::clone(holds),
    }
}

/// The records from now on: of objects the content that the plan accepted; of those that are gone, for a while, the
/// content that others still refer to.
pub fn records(
    observed: &Observed,
    plan: &Plan,
    before: &BTreeMap<ObjectRef, ObjectRecord>,
    now: Timestamp,
) -> BTreeMap<ObjectRef, ObjectRecord> {
    let records = |(id, object): (&ObjectRef, &SourceObject)| {
        let former = before.get(id);
        let kept = || former.and_then(|r| r.accepted.clone()).filter(|accepted| same(id, accepted, object));
        let accepted = match &object.current {
            Ok(current) if plan.accepted.contains(id) => Some(remembered(current, object, former)),
            // What it was is not held either, or nothing were gained.
            _ if observed.left_out.contains(id) => None,
            _ => kept(),
        };
        let accepted_at = accepted.as_ref().filter(|_| outlives(id.kind)).map(|accepted| {
            let known =
                former.filter(|r| r.accepted.as_ref().is_some_and(|a| Arc::ptr_eq(a, accepted) || a == accepted));
            known.and_then(|r| r.accepted_at).unwrap_or(now)
        });
        let creation = object.creation.as_ref().map(|creation| creation.created);
        let created = creation.or_else(|| former.map(|r| r.created)).unwrap_or(now);
        let (generation, content) = (object.generation, object.content);
        (id.clone(), ObjectRecord { generation, content, created, accepted, accepted_at, gone: None })
    };
    let mut records: BTreeMap<_, _> = observed.objects.iter().map(records).collect();
    let sources = plan.fleets.values().flat_map(|fleet| fleet.sources.values());
    let referred: BTreeSet<&ObjectRef> = sources.chain(plan.consumers.values().flatten()).collect();
    for (id, known) in before.iter().filter(|(id, _)| !observed.objects.contains_key(*id) && referred.contains(id)) {
        if absent_until(id, known, now).is_some_and(|until| until > now) {
            let gone = Some(known.gone.map_or(now, |gone| gone.min(now)));
            records.insert(id.clone(), ObjectRecord { gone, ..known.clone() });
        }
    }
    records
}

/// The content that is remembered of one that was accepted: of credentials their digests, which are not computed again for the
/// same content.
fn remembered(current: &Arc<Object>, object: &SourceObject, former: Option<&ObjectRecord>) -> Arc<Object> {
    let uid = |content: &Object| content.metadata().uid.clone();
    let known = former.filter(|former| former.content == object.content).and_then(|former| former.accepted.as_ref());
    match known.filter(|known| credentials::is_digested(known) && uid(known) == uid(current)) {
        Some(known) => Arc::clone(known),
        None => credentials::digested(current).map_or_else(|| Arc::clone(current), Arc::new),
    }
}

/// Until when an object counts that the source has no more; `None`: it does not.
fn absent_until(id: &ObjectRef, known: &ObjectRecord, now: Timestamp) -> Option<Timestamp> {
    // A clock that went back is no reason for a longer time.
    let gone = known.gone.map_or(now, |gone| gone.min(now));
    let until = gone.checked_add(ABSENCE_GRACE).ok()?;
    (outlives(id.kind) && known.accepted.is_some() && until > now).then_some(until)
}

/// Whether an object is referred to by its name, for what it holds: then a name counts for more than an object. What permits
/// something (ReferenceGrants, labels of namespaces) permits nothing from the moment that it is gone; what users route by is
/// theirs to take away.
fn outlives(kind: Kind) -> bool {
    matches!(kind, Kind::Secret | Kind::Service)
}

fn millis(at: Timestamp) -> Millis {
    Millis(u64::try_from(at.as_millisecond()).unwrap_or_default())
}

/// Whether a content is that of this very object, and not of one of the same name that was deleted.
fn same(id: &ObjectRef, content: &Object, object: &SourceObject) -> bool {
    match (&content.metadata().uid, &object.creation) {
        (Some(uid), Some(creation)) => outlives(id.kind) || **uid == *creation.uid,
        _ => true,
    }
}

/// A plan with what keeps fleets from being as planned, for status and for people. Made anew only when either changed.
#[derive(Debug, Default)]
pub struct EffectivePlan(Option<(Arc<Plan>, Vec<Problem>, Arc<Plan>)>);

impl EffectivePlan {
    /// Adds the fleets' problems to those of the plan; and whether anything is new.
    pub fn of(
        &mut self,
        plan: &Arc<Plan>,
        world: &World,
        states: &BTreeMap<FleetRef, FleetState>,
        default_fleet: &default_fleet::State,
    ) -> (Arc<Plan>, bool) {
        let problems = states.iter().flat_map(|(fleet, state)| {
            state.observation.problems.iter().map(|problem| fleet_problem(plan, world, fleet, problem))
        });
        let problems: Vec<Problem> = problems.chain(not_as_defined(plan, world, default_fleet)).collect();
        if let Some((base, known, effective)) = &self.0
            && Arc::ptr_eq(base, plan)
            && *known == problems
        {
            return (Arc::clone(effective), false);
        }
        let effective = if problems.is_empty() {
            Arc::clone(plan)
        } else {
            let mut effective = Plan::clone(plan);
            effective.problems.extend_from_slice(&problems);
            Arc::new(effective)
        };
        self.0 = Some((Arc::clone(plan), problems, Arc::clone(&effective)));
        (effective, true)
    }
}

/// The problem that the running fleet is not as its manifest says.
fn not_as_defined(plan: &Plan, world: &World, state: &default_fleet::State) -> Option<Problem> {
    let default_fleet::State::NotAsDefined { fleet: Some(fleet), why } = state else { return None };
    plan.fleets.contains_key(fleet).then(|| {
        let message = format!("{why}; this fleet runs on as it is");
        let problem = crate::fleet::Problem { reason: crate::reason::MANIFEST_REFUSED, message, port: None };
        fleet_problem(plan, world, fleet, &problem)
    })
}

fn fleet_problem(plan: &Plan, world: &World, fleet: &FleetRef, problem: &crate::fleet::Problem) -> Problem {
    let id = ObjectRef { kind: Kind::GatewayFleet, namespace: fleet.namespace.clone(), name: fleet.name.clone() };
    let listeners = plan.fleets.get(fleet).map(|f| f.settings.spec.listeners.as_slice()).unwrap_or_default();
    let listener = problem.port.and_then(|port| listeners.iter().position(|l| l.port == port));
    Problem {
        origin: world.objects.get(&id).and_then(|o| o.origin.clone()),
        object: Some(id),
        field: listener.map(|i| format!("spec.listeners[{i}].port")).unwrap_or_default(),
        reason: problem.reason,
        message: problem.message.clone(),
        severity: Severity::Degraded,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::source::CreationMeta;

    const BORN: &str = "2026-01-02T03:04:05Z";

    fn now() -> Timestamp {
        "2026-06-01T00:00:00Z".parse().unwrap()
    }

    fn id() -> ObjectRef {
        ObjectRef { kind: Kind::ApiRoute, namespace: "shop".into(), name: "r".into() }
    }

    fn observed(uid: Option<&str>, broken: bool) -> Observed {
        let metadata = json!({"name": "r", "namespace": "shop", "uid": uid});
        let spec = json!({"rules": [{"backendRefs": [{"name": "a", "port": 80}]}]});
        let value =
            json!({"apiVersion": "sluice.dev/v1alpha1", "kind": "ApiRoute", "metadata": metadata, "spec": spec});
        let current = if broken { Err(vec![]) } else { crds::admit(value).map(Arc::new) };
        let creation = uid.map(|uid| CreationMeta { uid: uid.into(), created: BORN.parse().unwrap() });
        let content = snapshot::Hash::of(b"x");
        let object = SourceObject { current, raw: None, generation: 1, content, origin: None, creation };
        Observed { objects: BTreeMap::from([(id(), object)]), ..Observed::default() }
    }

    /// What stays in force of an object that is broken now, and was accepted before.
    fn fallback(before: Option<&str>, after: Option<&str>) -> bool {
        let plan = Plan { accepted: [id()].into(), ..Plan::default() };
        let known = records(&observed(before, false), &plan, &BTreeMap::new(), now());
        let broken = observed(after, true);
        let kept = records(&broken, &Plan::default(), &known, now())[&id()].accepted.is_some();
        assert_eq!(world(&broken, &known, &Arc::default(), None).objects[&id()].accepted.is_some(), kept);
        kept
    }

    #[test]
    fn what_was_accepted_stays_for_the_same_object_only() {
        assert!(fallback(None, None));
        assert!(fallback(Some("u1"), Some("u1")));
        assert!(!fallback(Some("u1"), Some("u2")));
        assert!(fallback(None, Some("u2")), "remembered without its uid");
    }

    /// A Secret with an API key is remembered by its digest, which is not computed anew in each plan, until it has another.
    #[test]
    fn no_key_outlives_its_secret() {
        let id = ObjectRef { kind: Kind::Secret, namespace: "shop".into(), name: "s".into() };
        let observed = |key: &str| {
            let metadata = json!({"name": "s", "namespace": "shop", "labels": {"sluice.dev/credential": "api-key"}});
            let value =
                json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"api-key": key}});
            let (content, current) = (snapshot::Hash::of(key.as_bytes()), crds::admit(value).map(Arc::new));
            let object = SourceObject { current, raw: None, generation: 1, content, origin: None, creation: None };
            Observed { objects: BTreeMap::from([(id.clone(), object)]), ..Observed::default() }
        };
        let plan = Plan { accepted: [id.clone()].into(), ..Plan::default() };
        let next = |key, before: &BTreeMap<_, _>| records(&observed(key), &plan, before, now());
        let accepted = |records: &BTreeMap<ObjectRef, ObjectRecord>| records[&id].accepted.clone().unwrap();
        let first = next("k3y", &BTreeMap::new());
        assert!(credentials::is_digested(&accepted(&first)));
        let same = next("k3y", &first);
        assert!(Arc::ptr_eq(&accepted(&first), &accepted(&same)));
        let other = next("other", &same);
        assert!(credentials::is_digested(&accepted(&other)) && accepted(&other) != accepted(&first));
        // It goes on while the Secret can't be read.
        let mut broken = observed("other");
        broken.objects.get_mut(&id).unwrap().current = Err(vec![]);
        let world = world(&broken, &other, &Arc::default(), Some(now()));
        assert_eq!(world.objects[&id].accepted, Some(accepted(&other)));
    }

    #[test]
    fn what_is_held_by_its_name_only_has_no_content_in_force() {
        let plan = Plan { accepted: [id()].into(), ..Plan::default() };
        let known = records(&observed(Some("u"), false), &plan, &BTreeMap::new(), now());
        let mut broken = observed(Some("u"), true);
        broken.left_out.insert(id());
        assert!(world(&broken, &known, &Arc::default(), None).objects[&id()].accepted.is_none());
        assert!(records(&broken, &Plan::default(), &known, now())[&id()].accepted.is_none());
    }

    #[test]
    fn an_api_server_says_how_old_an_object_is() {
        let created = |observed: &Observed, known: &BTreeMap<_, _>| {
            world(observed, known, &Arc::default(), Some(now())).objects[&id()].created.map(|Millis(at)| at)
        };
        let millis = |text: &str| text.parse::<Timestamp>().unwrap().as_millisecond().try_into().ok();
        assert_eq!(created(&observed(Some("u"), false), &BTreeMap::new()), millis(BORN));
        assert_eq!(created(&observed(None, false), &BTreeMap::new()), millis("2026-06-01T00:00:00Z"));
        let known = records(&observed(Some("u"), false), &Plan::default(), &BTreeMap::new(), now());
        assert_eq!(known[&id()].created.to_string(), BORN);
        assert_eq!(created(&observed(None, false), &known), millis(BORN));
    }
}
