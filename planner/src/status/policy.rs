//! RatePolicy: whether it holds, and how often it bites.

use crds::policy::RatePolicyStatus;
use snapshot::{Key, Kind};

use super::{Context, Status, Subject, conditions::Verdict, resource};
use crate::{problem::reason, world::FleetRef};

/// The message of `consistency: Replica`, whose meaning a limit of 1000/s does not show. The number itself stands on the fleet:
/// scaling writes no policy's status.
const ACCEPTED: &str =
    "every limit is valid; each replica counts for itself, so N replicas admit up to N times the rate";

pub(super) fn status(context: &Context<'_>, subject: &Subject<'_>) -> RatePolicyStatus {
    let previous = match subject.previous {
        Some(Status::Policy(status)) => status.conditions.as_slice(),
        _ => &[],
    };
    let key = subject.object.key(Kind::RatePolicy);
    let targets = context.plan.targets.get(subject.object).copied().unwrap_or(0);
    let fleets = resource::fleets(context, &key);
    let accepted = accepted(subject, targets, ACCEPTED);
    let unserved = Verdict::bad(reason::TARGET_NOT_SERVED, "no fleet serves what it limits");
    let conditions = resource::conditions(context, subject, (&key, &fleets), previous, (accepted, unserved));
    RatePolicyStatus { conditions, targets, limited: share(context, &fleets, &key) }
}

/// The condition `Accepted` of a policy of which so many targets exist.
pub(super) fn accepted(subject: &Subject<'_>, targets: u32, good: &str) -> Verdict {
    let findings = &subject.findings;
    let no_target = || Verdict::of(&findings.unresolved).filter(|_| targets == 0);
    let bad = findings.rejection().or_else(no_target);
    bad.unwrap_or_else(|| Verdict::good(reason::ACCEPTED, good))
}

/// Share of the requests of the last minute that a policy found against, in the fleets that serve it; `None` without
/// any request. What a fleet counted before the policy left it says nothing of the policy as it is.
pub(super) fn share(context: &Context<'_>, fleets: &[&FleetRef], key: &Key) -> Option<String> {
    let counts = fleets.iter().filter_map(|fleet| context.fleets.get(*fleet)?.policies.get(key));
    let (checked, limited) = counts.fold((0u64, 0u64), |(a, b), (c, d)| (a.saturating_add(*c), b.saturating_add(*d)));
    if checked == 0 {
        return None;
    }
    // More found over the limit than were checked can't be; a proxy that says so counts as all of them.
    let percent = limited.min(checked) as f64 / checked as f64 * 100.0;
    Some(match percent {
        0.0 => "0%".to_owned(),
        p if p < 0.05 => "<0.1%".to_owned(),
        p if p < 10.0 => format!("{p:.1}%"),
        p => format!("{p:.0}%"),
    })
}
