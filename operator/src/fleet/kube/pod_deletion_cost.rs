//! Which pods leave when a fleet shrinks: those of least harm. The ReplicaSet's controller takes pods that are not Ready
//! first, then those of the lowest [`COST_ANNOTATION`]; all others have none.

use std::collections::BTreeSet;

/// The annotation that a ReplicaSet's controller reads.
pub(super) const COST_ANNOTATION: &str = "controller.kubernetes.io/pod-deletion-cost";
/// The cost of a pod that is to leave; one without the annotation counts 0.
pub(super) const COST_OF_LEAVING: i32 = -1;

/// A pod that is not leaving, as far as the choice depends on it.
#[derive(Clone, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) name: &'a str,
    /// As Kubernetes sees it.
    pub(super) ready: bool,
    /// Serves what is published.
    pub(super) serves: bool,
    pub(super) connections: u32,
    pub(super) rate: f64,
    /// The value of the annotation.
    pub(super) cost: Option<i32>,
}

/// A pod's new cost; `None`: it loses the annotation.
pub(super) type Change = (String, Option<i32>);

/// The annotations to change before `leaving` pods are taken away. Nothing when those that would leave have it already.
pub(super) fn changes(mut pods: Vec<Candidate<'_>>, leaving: usize) -> Vec<Change> {
    pods.sort_by(|a, b| {
        let order = |pod: &Candidate<'_>| (pod.ready, pod.serves, pod.connections);
        order(a).cmp(&order(b)).then(a.rate.total_cmp(&b.rate)).then(a.name.cmp(b.name))
    });
    let leave: BTreeSet<&str> = pods.iter().take(leaving).map(|pod| pod.name).collect();
    let change = |pod: &Candidate<'_>| {
        let cost = leave.contains(pod.name).then_some(COST_OF_LEAVING);
        (pod.cost != cost).then(|| (pod.name.to_owned(), cost))
    };
    pods.iter().filter_map(change).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, ready, serves, connections, rate, cost.
    type Given = (&'static str, bool, bool, u32, f64, Option<i32>);

    #[track_caller]
    fn check(pods: &[Given], leaving: usize, expect: &[(&str, Option<i32>)]) {
        let pods = pods.iter().map(|(name, ready, serves, connections, rate, cost)| Candidate {
            name,
            ready: *ready,
            serves: *serves,
            connections: *connections,
            rate: *rate,
            cost: *cost,
        });
        let got = changes(pods.collect(), leaving);
        let got: Vec<(&str, Option<i32>)> = got.iter().map(|(name, cost)| (name.as_str(), *cost)).collect();
        assert_eq!(got, expect);
    }

    #[test]
    fn least_harm_first() {
        let (a, b) = (("a", true, true, 5, 1.0, None), ("b", true, true, 2, 9.0, None));
        check(&[a, b], 1, &[("b", Some(-1))]);
        check(&[a, ("b", true, true, 5, 9.0, None)], 1, &[("a", Some(-1))]);
        check(&[a, ("b", true, false, 9, 9.0, None)], 1, &[("b", Some(-1))]);
        check(&[("a", true, false, 0, 0.0, None), ("b", false, true, 9, 9.0, None)], 1, &[("b", Some(-1))]);
        check(&[a, ("c", true, true, 5, 1.0, None)], 1, &[("a", Some(-1))]);
        check(&[a, b], 2, &[("b", Some(-1)), ("a", Some(-1))]);
        check(&[a, b], 7, &[("b", Some(-1)), ("a", Some(-1))]);
        check(&[], 1, &[]);
    }

    #[test]
    fn changed_only_when_others_leave() {
        let b = ("b", true, true, 2, 9.0, Some(-1));
        check(&[("a", true, true, 5, 1.0, None), b], 1, &[]);
        // A choice that was not carried out is taken back.
        check(&[("a", true, true, 1, 1.0, None), b], 1, &[("a", Some(-1)), ("b", None)]);
        // Neither is what someone else wrote left to decide.
        check(&[("a", true, true, 5, 1.0, Some(-50)), b], 1, &[("a", None)]);
    }
}
