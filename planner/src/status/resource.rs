//! Conditions of what is one resource in each fleet that has it: a policy, a consumer.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use snapshot::{Key, Kind};

use super::{
    Context, Subject,
    conditions::Verdict,
    progress::{self, PROGRAMMED},
};
use crate::{problem::reason, world::FleetRef};

/// The fleets whose snapshots have a resource.
pub(super) fn fleets<'a>(context: &Context<'a>, key: &Key) -> Vec<&'a FleetRef> {
    let fleets = context.plan.fleets.iter().filter(|(_, fleet)| fleet.sources.contains_key(key));
    fleets.map(|(name, _)| name).collect()
}

/// `Accepted`, as it is given; `ResolvedRefs`; `Programmed`, where a resource that no fleet has is `unserved`.
pub(super) fn conditions(
    context: &Context<'_>,
    subject: &Subject<'_>,
    (key, fleets): (&Key, &[&FleetRef]),
    previous: &[Condition],
    (accepted, unserved): (Verdict, Verdict),
) -> Vec<Condition> {
    let findings = &subject.findings;
    // Labels of a consumer and its Secrets are content too, which no generation counts: what it was says nothing.
    let known = if key.kind() == Kind::Consumer { &[] } else { previous };
    let programmed = findings
        .rejection_programmed()
        .or_else(|| {
            let refused = |fleet: &&FleetRef| progress::refusal(subject.object, context.fleets.get(*fleet), [key]);
            fleets.iter().find_map(refused)
        })
        .or_else(|| findings.degradation())
        .or_else(|| fleets.is_empty().then_some(unserved))
        .or_else(|| fleets.iter().find_map(|fleet| progress::outdated(context.fleets.get(*fleet), key)))
        .or_else(|| fleets.iter().find_map(|fleet| progress::disagreement(context.fleets.get(*fleet), [key])))
        .unwrap_or_else(|| {
            let verdicts = fleets.iter().map(|fleet| {
                let (view, planned) = (context.fleets.get(*fleet), context.plan.fleets.get(*fleet));
                progress::of_generation(view, planned, &[key], subject.generation, known)
            });
            verdicts
                .reduce(|a, b| if a.is_good() { b } else { a })
                .unwrap_or_else(|| Verdict::bad(reason::PENDING, "no fleet"))
        });
    let all = [("Accepted", accepted), ("ResolvedRefs", findings.resolved_refs()), (PROGRAMMED, programmed)];
    all.map(|(type_, verdict)| verdict.condition(type_, subject.generation, previous, context.now)).into()
}
