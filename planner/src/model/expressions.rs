//! The choice of the expressions that a plan looks at. Finding out what one compiles to takes up to some milliseconds, so a plan
//! does so much of it and no more, each namespace its share, and the rest in the plans that follow: whoever writes
//! thousands of the worst keeps nobody else waiting. Verdicts are kept by content (`snapshot::expression`).

use std::{collections::BTreeMap, sync::Arc};

use crds::Object;
use snapshot::{
    check::{MAX_ROUTE_EXPRESSIONS, MAX_ROUTE_EXPRESSIONS_LENGTH},
    expression::{self, Fault, MAX_COMPILED},
};

use crate::world::{Kind, ObjectRef, World};

/// The bounds of what a plan looks at of one namespace, and of all, in bytes of what it compiles to: some hundred
/// expressions as they are usually written, or eight that compile to too much.
const MAX_NAMESPACE_BYTES: usize = 2 << 20;
const MAX_PLAN_BYTES: usize = 8 * MAX_NAMESPACE_BYTES;
/// The factor of these bounds in the first plan: nothing is in force yet, so it waits for more.
const FIRST_PLAN_FACTOR: usize = 32;

/// The progress of looking at expressions.
#[derive(Clone, Debug, Default)]
pub(super) struct Looked {
    /// A plan was made.
    begun: bool,
    /// The namespace that was looked at last: others come first the next time.
    last: String,
}

impl Looked {
    /// Looks at the expressions of contents that are not `known`, as far as one plan does.
    pub(super) fn look(&mut self, world: &World, known: impl Fn(&ObjectRef, &Arc<Object>) -> bool) {
        let times = if std::mem::replace(&mut self.begun, true) { 1 } else { FIRST_PLAN_FACTOR };
        let mut namespaces: BTreeMap<&str, Vec<&crds::ApiRoute>> = BTreeMap::new();
        let first = ObjectRef { kind: Kind::ApiRoute, namespace: String::new(), name: String::new() };
        let routes = world.objects.range(first..).take_while(|(object, _)| object.kind == Kind::ApiRoute);
        let mut routes: Vec<_> = routes.collect();
        // The older first, as elsewhere.
        routes.sort_by_key(|(_, entry)| entry.created);
        for (object, entry) in routes {
            // What is in force comes before what may be.
            for content in entry.accepted.iter().chain(&entry.current) {
                if let Object::ApiRoute(route) = content.as_ref()
                    && !known(object, content)
                    && !are_looked_at(route)
                {
                    namespaces.entry(&object.namespace).or_default().push(route);
                }
            }
        }
        let mut all = times * MAX_PLAN_BYTES;
        let (before, after): (Vec<_>, Vec<_>) =
            namespaces.into_iter().partition(|(namespace, _)| *namespace <= self.last.as_str());
        for (namespace, routes) in after.into_iter().chain(before) {
            if all == 0 {
                return;
            }
            let mut share = all.min(times * MAX_NAMESPACE_BYTES);
            all -= share;
            for pattern in routes.into_iter().flat_map(patterns).filter(|pattern| !expression::is_known(pattern)) {
                if share == 0 {
                    break;
                }
                share = share.saturating_sub(cost(&expression::verdict(pattern)));
            }
            all += share;
            namespace.clone_into(&mut self.last);
        }
    }
}

/// Whether validating a route costs no compiling.
pub(super) fn are_looked_at(route: &crds::ApiRoute) -> bool {
    // One that has too many is refused for that alone.
    let (count, length) = patterns(route).fold((0, 0), |(count, length), text| (count + 1, length + text.len()));
    count > MAX_ROUTE_EXPRESSIONS || length > MAX_ROUTE_EXPRESSIONS_LENGTH || patterns(route).all(expression::is_known)
}

fn cost(verdict: &Result<usize, Fault>) -> usize {
    match verdict {
        Ok(weight) => *weight,
        Err(Fault::Syntax(_)) => MAX_COMPILED / 64,
        Err(Fault::TooComplex(_)) => MAX_COMPILED,
    }
}

fn patterns(route: &crds::ApiRoute) -> impl Iterator<Item = &str> {
    use crds::route::{PathMatchType, ValueMatchType::RegularExpression};
    route.spec.rules.iter().flat_map(|rule| &rule.matches).flat_map(|m| {
        let path = m.path.iter().filter(|path| path.kind == PathMatchType::RegularExpression).map(|path| &path.value);
        let headers = m.headers.iter().filter(|header| header.kind == RegularExpression).map(|header| &header.value);
        let query = m.query_params.iter().filter(|query| query.kind == RegularExpression).map(|query| &query.value);
        path.chain(headers).chain(query).map(String::as_str)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Millis, Planner, WorldObject, problem::reason};

    /// A route with expressions that compile to too much, each of its own.
    fn hostile(namespace: &str, name: usize) -> (ObjectRef, WorldObject) {
        let rule = |n: usize| {
            let path = format!("/{namespace}/{name}/{n}/.*(a|b)[a-c]{{12}}");
            json!({"matches": [{"path": {"type": "RegularExpression", "value": path}}],
                "backendRefs": [{"address": "127.0.0.1:9000"}]})
        };
        route(namespace, &format!("hostile-{name:05}"), &(0..60).map(rule).collect::<Vec<_>>())
    }

    fn route(namespace: &str, name: &str, rules: &[serde_json::Value]) -> (ObjectRef, WorldObject) {
        let id = ObjectRef { kind: Kind::ApiRoute, namespace: namespace.into(), name: name.into() };
        let value = json!({"apiVersion": "sluice.dev/v1alpha1", "kind": "ApiRoute",
            "metadata": {"name": name, "namespace": namespace}, "spec": {"rules": rules}});
        let current = crds::admit(value).map(Arc::new);
        let created = Some(Millis(1));
        (
            id,
            WorldObject { current, raw: None, accepted: None, accepted_at: None, generation: 1, created, origin: None },
        )
    }

    /// Thousands of the worst in two namespaces keep a third waiting for no more than one plan.
    #[test]
    fn a_plan_looks_at_so_much_of_each_namespace() {
        let mut planner = Planner::default();
        let mut world = World::default();
        planner.plan(&world);
        world.objects.extend((0..40).flat_map(|n| [hostile("a-hostile", n), hostile("m-hostile", n)]));
        let plan = planner.plan(&world);
        assert!(plan.is_unfinished());
        let rule = json!({"matches": [{"path": {"type": "RegularExpression", "value": "/z-good/[0-9]+"}}],
            "backendRefs": [{"address": "127.0.0.1:9000"}]});
        let (good, entry) = route("z-good", "good", &[rule]);
        world.objects.insert(good.clone(), entry);
        let looked_at = |world: &World| -> usize {
            let contents = world.objects.values().map(|entry| entry.current.as_ref().unwrap());
            let of = |content: &Arc<Object>| match content.as_ref() {
                Object::ApiRoute(route) => patterns(route).filter(|pattern| expression::is_known(pattern)).count(),
                _ => 0,
            };
            contents.map(of).sum()
        };
        let before = looked_at(&world);
        let plan = planner.plan(&world);
        assert!(plan.accepted.contains(&good) && plan.is_unfinished());
        let more = looked_at(&world) - before;
        assert!(more <= 2 * MAX_NAMESPACE_BYTES / MAX_COMPILED + 1, "{more}");
        let waiting = plan.problems.iter().filter(|problem| problem.reason == reason::PENDING).count();
        assert!(waiting >= 70, "{waiting}");
    }

    /// Content that was accepted before by another planner is looked at like any other: until then the plan says that it
    /// is not all.
    #[test]
    fn accepted_content_that_waits_is_waited_for() {
        let mut planner = Planner::default();
        let mut world = World::default();
        planner.plan(&world);
        let plain = |n| {
            json!({"matches": [{"path": {"type": "RegularExpression", "value": format!("/{n}/[0-9]+")}}],
            "backendRefs": [{"address": "127.0.0.1:9000"}]})
        };
        world.objects.extend((0..40).map(|n| hostile("w", n)));
        let (id, mut entry) = route("w", "z", &[plain(1)]);
        entry.created = Some(Millis(2));
        entry.accepted = entry.current.ok();
        entry.current = Err(vec![crds::Violation { path: "spec".into(), message: "not valid".into() }]);
        world.objects.insert(id.clone(), entry);
        let plan = planner.plan(&world);
        assert!(plan.waiting.contains(&id) && !plan.parents.contains_key(&id), "{:?}", plan.waiting);
        let plan = (0..400).map(|_| planner.plan(&world)).find(|plan| !plan.is_unfinished()).unwrap();
        assert!(plan.parents.contains_key(&id), "what was accepted is in force");
    }

    /// Whatever is left for later is done later, and what was accepted before serves meanwhile.
    #[test]
    fn what_waits_is_looked_at_in_the_end() {
        let mut planner = Planner::default();
        let mut world = World::default();
        planner.plan(&world);
        let plain = route("w", "hostile-00001", &[json!({"backendRefs": [{"address": "127.0.0.1:9000"}]})]);
        for n in 0..2 {
            let (id, mut entry) = hostile("w", n);
            entry.accepted = plain.1.current.clone().ok();
            world.objects.insert(id, entry);
        }
        let mut plans = 0;
        loop {
            let plan = planner.plan(&world);
            plans += 1;
            assert_eq!(plan.parents.len(), 2, "what was accepted is in force");
            if !plan.is_unfinished() {
                assert!(plan.problems.iter().all(|problem| problem.reason != reason::PENDING));
                assert!(plan.problems.iter().any(|problem| problem.reason == "TooComplex"));
                break;
            }
        }
        assert!((2..40).contains(&plans), "{plans}");
    }
}
