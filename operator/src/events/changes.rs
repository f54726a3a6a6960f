//! Changes since the reconciliation before, for the log and for Events.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::ObjectReference;
use planner::{FleetRef, Kind, ObjectRef, Plan, Problem, problem::reason, scale::Decision};
use snapshot::{Key, proto::Nack};

use crate::{
    events::recorder::Event,
    reason::{FORBIDDEN, NOT_FOUND, RESOLVED, SCALED},
    reconcile::fleet_state::FleetState,
    source::Observed,
};

/// Most problems of one reconciliation that go into the log.
const MAX_LOGGED_PROBLEMS: usize = 100;

/// By turns of their namespaces: who has thousands comes with one at a time, and what is said of others is not lost for it.
fn by_turns<T>(all: Vec<T>, namespace: impl Fn(&T) -> &str) -> Vec<T> {
    let mut counts: HashMap<String, usize> = HashMap::new();
    let turns = all.into_iter().map(|item| {
        let count = counts.entry(namespace(&item).to_owned()).or_default();
        *count += 1;
        (*count, item)
    });
    let mut turns: Vec<(usize, T)> = turns.collect();
    turns.sort_by_key(|(turn, _)| *turn);
    turns.into_iter().map(|(_, item)| item).collect()
}

/// Logs the problems that were not there before.
pub fn log(before: Option<&Plan>, after: &Plan) {
    let before = before.map(|plan| plan.problems.as_slice()).unwrap_or_default();
    let known: HashSet<String> = before.iter().map(ToString::to_string).collect();
    let new: Vec<&Problem> = after.problems.iter().filter(|problem| !known.contains(&problem.to_string())).collect();
    let new = by_turns(new, |problem| problem.object.as_ref().map_or("", |object| object.namespace.as_str()));
    for problem in new.iter().take(MAX_LOGGED_PROBLEMS) {
        tracing::warn!("{problem}");
    }
    if let Some(more) = new.len().checked_sub(MAX_LOGGED_PROBLEMS).filter(|more| *more > 0) {
        tracing::warn!(more, "further problems are not logged one by one: see the statuses");
    }
    if !before.is_empty() && after.problems.is_empty() {
        tracing::info!("no problems any more");
    }
}

/// A problem of an object, which begins once and ends once.
#[derive(Clone, Debug)]
pub struct ActiveProblem {
    /// With which object.
    pub object: ObjectRef,
    /// With which of its fields; or which of what comes from it.
    pub field: String,
    /// A fixed word.
    pub reason: &'static str,
    /// The problem, in a sentence.
    pub message: String,
    /// The attempt of the operator that met the problem, in CamelCase.
    pub action: &'static str,
}

impl ActiveProblem {
    /// A problem of a plan; `None`: of no object.
    pub fn of_problem(problem: &Problem) -> Option<Self> {
        let Problem { object, field, reason, message, .. } = problem;
        let (field, message) = (field.clone(), message.clone());
        Some(Self { object: object.clone()?, field, reason, message, action: "Plan" })
    }

    /// A fleet has too few proxies that are Ready.
    pub fn of_readiness(fleet: &FleetRef, (reason, message): (&'static str, String)) -> Self {
        Self { object: fleet_object(fleet), field: String::new(), reason, message, action: "Run" }
    }

    /// The content that proxies of a fleet do not run, all of them or one alone. `sources`: which objects resources
    /// come from.
    pub fn of_proxies(fleet: &FleetRef, state: &FleetState, sources: Option<&BTreeMap<Key, ObjectRef>>) -> Vec<Self> {
        let refused = state.rolled_back.iter().map(|(key, Nack { field, message, .. })| Self {
            object: sources.and_then(|sources| sources.get(key)).cloned().unwrap_or_else(|| fleet_object(fleet)),
            field: format!("{key} {field}"),
            reason: reason::PROXY_REJECTED,
            message: format!("{message}; proxies of {fleet} refuse it, what was good before runs instead"),
            action: "RollBack",
        });
        let of_fleet = |field: String, reason, message: String| Self {
            object: fleet_object(fleet),
            field,
            reason,
            message,
            action: "RollOut",
        };
        // Always the same words, whatever a proxy says and how often.
        let what = "refuses what the other proxies run, and does without it: see `sluice-operator refusals`";
        let alone =
            state.dissenters().into_iter().map(|proxy| of_fleet(proxy, reason::PROXY_DISAGREES, what.to_owned()));
        let halted = state.halted().map(|why| {
            of_fleet(String::new(), reason::ROLLOUT_HALTED, format!("proxies keep what they ran before: {why}"))
        });
        refused.chain(alone).chain(halted).collect()
    }
}

/// Reasons of problems that pass by themselves while objects are made one after the other, in any order. For a new
/// object they become an Event only once they have lasted.
const TRANSIENT_REASONS: &[&str] = &[
    reason::BACKEND_NOT_FOUND,
    reason::INVALID_CERTIFICATE_REF,
    reason::INVALID_CREDENTIAL_REF,
    reason::LISTENER_NOT_PROGRAMMED,
    reason::NO_MATCHING_LISTENER_HOSTNAME,
    reason::NO_MATCHING_PARENT,
    reason::NO_READY_ENDPOINTS,
    reason::NO_READY_PROXY,
    reason::NOT_ALLOWED_BY_LISTENERS,
    reason::REF_NOT_PERMITTED,
    reason::TARGET_NOT_FOUND,
    reason::TARGET_NOT_SERVED,
    // Of a namespace that was made a moment ago.
    FORBIDDEN,
    NOT_FOUND,
];
/// An object is new for so long, and has so long to be well.
const NEW_OBJECT_GRACE: Duration = Duration::from_secs(60);
/// Reasons of problems that every growth of a fleet and every drain of a node brings, and that become an Event only
/// once they have lasted.
const SLOW_REASONS: &[&str] = &[reason::BELOW_MINIMUM];
/// The time after which one of [`SLOW_REASONS`] becomes an Event.
const SLOW_GRACE: Duration = Duration::from_secs(30);
/// The time after which a problem that went away counts as resolved: one that comes and goes is one problem.
const RESOLVED_AFTER: Duration = Duration::from_secs(10);

/// The known problems: since when, and whether an Event was written.
#[derive(Debug, Default)]
pub struct ProblemTracker(BTreeMap<(ObjectRef, String, &'static str), State>);

#[derive(Debug)]
struct State {
    message: String,
    since: Instant,
    told: bool,
    /// Since when it is not there.
    gone: Option<Instant>,
    action: &'static str,
}

impl ProblemTracker {
    /// Takes up all that is wrong; gives back what is to be told: of each problem that it begins, and that it is over.
    /// `age` is that of an object, `None` when it is no more. Who does not lead tells nobody.
    pub fn take(
        &mut self,
        wrong: impl Iterator<Item = ActiveProblem>,
        observed: &Observed,
        leads: bool,
        now: Instant,
        age: impl Fn(&ObjectRef) -> Option<Duration>,
    ) -> Vec<Event> {
        let mut told = vec![];
        self.0.values_mut().for_each(|state| _ = state.gone.get_or_insert(now));
        for ActiveProblem { object, field, reason, message, action } in wrong {
            let key = (object, field, reason);
            match self.0.get_mut(&key) {
                Some(state) => {
                    // Counts and times change; what is wrong in another way is told once more.
                    state.told &= same(&state.message, &message);
                    (state.message, state.gone) = (message, None);
                }
                None => {
                    let state = State { message, since: now, told: false, gone: None, action };
                    self.0.insert(key, state);
                }
            }
        }
        self.0.retain(|(object, field, reason), state| {
            let age = age(object);
            let waits = TRANSIENT_REASONS.contains(reason) && age.is_some_and(|age| age < NEW_OBJECT_GRACE);
            let lasts = now.duration_since(state.since);
            let waits = waits && lasts < NEW_OBJECT_GRACE || SLOW_REASONS.contains(reason) && lasts < SLOW_GRACE;
            let begins = !state.told && state.gone.is_none() && !waits;
            state.told |= begins;
            let over = |gone| age.is_none() || !state.told || now.duration_since(gone) >= RESOLVED_AFTER;
            let over = state.gone.is_some_and(over);
            let ends = over && state.told && age.is_some();
            // There may be tens of thousands, of which nothing is to be told.
            if leads && (begins || ends) {
                let separator = if field.is_empty() { "" } else { ": " };
                let note = format!("{field}{separator}{}", state.message);
                let begun =
                    Event { regarding: reference(observed, object), warning: true, reason, action: state.action, note };
                told.push(match begins {
                    true => begun,
                    false => {
                        let note = format!("no more {reason}: {}", begun.note);
                        Event { warning: false, reason: RESOLVED, note, ..begun }
                    }
                });
            }
            !over
        });
        by_turns(told, |event| event.regarding.namespace.as_deref().unwrap_or_default())
    }
}

/// Whether two messages say the same, but for numbers.
fn same(a: &str, b: &str) -> bool {
    let words = |text: &str| text.chars().filter(|c| !c.is_ascii_digit()).collect::<String>();
    a == b || words(a) == words(b)
}

/// A fleet is to have another number of replicas; `None`: it stays.
pub fn of_decision(observed: &Observed, fleet: &FleetRef, former: Option<&Decision>, now: &Decision) -> Option<Event> {
    let from = former.map_or(now.current, |former| former.desired);
    let Decision { desired, reason, .. } = now;
    (from != *desired).then(|| Event {
        regarding: reference(observed, &fleet_object(fleet)),
        warning: false,
        reason: SCALED,
        action: "Scale",
        note: format!("from {from} to {desired} replicas: {reason}"),
    })
}

fn fleet_object(fleet: &FleetRef) -> ObjectRef {
    ObjectRef { kind: Kind::GatewayFleet, namespace: fleet.namespace.clone(), name: fleet.name.clone() }
}

fn reference(observed: &Observed, id: &ObjectRef) -> ObjectReference {
    let uid =
        observed.objects.get(id).and_then(|object| object.creation.as_ref()).map(|creation| creation.uid.to_string());
    ObjectReference {
        api_version: id.kind.api_versions().first().map(|version| (*version).to_owned()),
        kind: Some(id.kind.name().to_owned()),
        namespace: Some(id.namespace.clone()),
        name: Some(id.name.clone()),
        uid,
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(desired: u32, current: u32) -> Decision {
        Decision { desired, current, driven_by: None, reason: "why".into(), signals: vec![] }
    }

    #[test]
    fn a_scale_is_news_once() {
        let fleet = FleetRef { namespace: "sys".into(), name: "default".into() };
        let note = |former: Option<Decision>, now: Decision| {
            of_decision(&Observed::default(), &fleet, former.as_ref(), &now).map(|event| event.note)
        };
        assert_eq!(note(None, decision(3, 3)), None, "taken over as it is");
        assert_eq!(note(None, decision(2, 0)).as_deref(), Some("from 0 to 2 replicas: why"));
        assert_eq!(note(Some(decision(2, 1)), decision(2, 2)), None);
        assert_eq!(note(Some(decision(2, 2)), decision(5, 2)).as_deref(), Some("from 2 to 5 replicas: why"));
    }

    fn wrong(reason: &'static str, message: &str) -> ActiveProblem {
        let object = ObjectRef { kind: Kind::ApiRoute, namespace: "shop".into(), name: "r".into() };
        ActiveProblem { object, field: "spec.x".into(), reason, message: message.into(), action: "Plan" }
    }

    struct Scene {
        known: ProblemTracker,
        now: Instant,
        age: Option<Duration>,
        leads: bool,
    }

    impl Scene {
        fn new() -> Self {
            Self { known: ProblemTracker::default(), now: Instant::now(), age: Some(NEW_OBJECT_GRACE), leads: true }
        }

        /// What is told, `seconds` later.
        fn told(&mut self, seconds: u64, wrong: &[ActiveProblem]) -> Vec<String> {
            self.now += Duration::from_secs(seconds);
            let Self { known, now, age, leads } = self;
            let told = known.take(wrong.iter().cloned(), &Observed::default(), *leads, *now, |_| *age);
            told.into_iter()
                .map(|h| format!("{} {}: {}", if h.warning { "Warning" } else { "Normal" }, h.reason, h.note))
                .collect()
        }
    }

    #[test]
    fn a_problem_begins_once_and_ends_once() {
        let (mut scene, conflict) = (Scene::new(), [wrong("Conflicted", "older")]);
        assert_eq!(scene.told(0, &conflict), ["Warning Conflicted: spec.x: older"]);
        assert_eq!(scene.told(100, &conflict), [""; 0]);
        // It comes and goes.
        assert_eq!(scene.told(1, &[]), [""; 0]);
        assert_eq!(scene.told(5, &conflict), [""; 0]);
        assert_eq!(scene.told(1, &[]), [""; 0]);
        assert_eq!(scene.told(10, &[]), ["Normal Resolved: no more Conflicted: spec.x: older"]);
        assert_eq!(scene.told(10, &[]), [""; 0]);
        // In another way; and other numbers.
        assert_eq!(scene.told(0, &[wrong("Conflicted", "a, 1 of 2")]).len(), 1);
        assert_eq!(scene.told(0, &[wrong("Conflicted", "a, 2 of 2")]), [""; 0]);
        assert_eq!(scene.told(0, &[wrong("Conflicted", "b, 2 of 2")]), ["Warning Conflicted: spec.x: b, 2 of 2"]);
        // Its object is deleted: nothing to be told of.
        scene.age = None;
        assert_eq!(scene.told(0, &[]), [""; 0]);
        assert!(scene.known.0.is_empty());
    }

    #[test]
    fn what_passes_while_things_are_made_is_not_told() {
        for reason in TRANSIENT_REASONS {
            let (mut scene, missing) = (Scene::new(), [wrong(reason, "m")]);
            scene.age = Some(Duration::ZERO);
            assert_eq!(scene.told(0, &missing), [""; 0]);
            assert_eq!(scene.told(59, &missing), [""; 0]);
            assert_eq!(scene.told(1, &[]), [""; 0]);
            assert_eq!(scene.told(20, &[]), [""; 0], "never told, so never over");
            // It lasts; or befalls what was well.
            assert_eq!(scene.told(0, &missing), [""; 0]);
            scene.age = Some(NEW_OBJECT_GRACE);
            assert_eq!(scene.told(1, &missing).len(), 1);
        }
    }

    #[test]
    fn who_does_not_lead_tells_nobody_and_who_leads_then_not_what_was_told() {
        let mut scene = Scene::new();
        scene.leads = false;
        assert_eq!(scene.told(0, &[wrong("Conflicted", "m")]), [""; 0]);
        scene.leads = true;
        assert_eq!(scene.told(0, &[wrong("Conflicted", "m")]), [""; 0]);
        assert_eq!(scene.told(0, &[]), [""; 0]);
        assert_eq!(scene.told(10, &[]).len(), 1);
    }

    #[test]
    fn a_problem_names_its_object() {
        let mut known = ProblemTracker::default();
        let wrong = [wrong("Conflicted", "older")].into_iter();
        let told = known.take(wrong, &Observed::default(), true, Instant::now(), |_| Some(NEW_OBJECT_GRACE)).remove(0);
        assert_eq!(told.regarding.api_version.as_deref(), Some("sluice.dev/v1alpha1"));
        assert_eq!((told.regarding.kind.as_deref(), told.regarding.name.as_deref()), (Some("ApiRoute"), Some("r")));
        let wrong = ActiveProblem::of_readiness(
            &FleetRef { namespace: "sys".into(), name: "default".into() },
            (reason::NO_READY_PROXY, "none".into()),
        );
        assert_eq!(wrong.object.to_string(), "GatewayFleet sys/default");
    }

    #[test]
    fn nobody_is_drowned_by_the_problems_of_another() {
        let mut all: Vec<_> = (0..1000).map(|i| ("crowd", format!("c{i}"))).collect();
        all.extend([("shop", "s0".to_owned()), ("shop", "s1".to_owned())]);
        let first: Vec<_> =
            by_turns(all, |(namespace, _)| namespace).into_iter().take(5).map(|(_, name)| name).collect();
        assert_eq!(first, ["c0", "s0", "c1", "s1", "c2"]);
    }
}
