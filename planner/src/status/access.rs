//! AccessPolicy: whether it holds, and how often it refuses.

use crds::AccessPolicyStatus;
use snapshot::Kind;

use super::{Context, Status, Subject, conditions::Verdict, policy, resource};
use crate::problem::reason;

pub(super) fn status(context: &Context<'_>, subject: &Subject<'_>) -> AccessPolicyStatus {
    let previous = match subject.previous {
        Some(Status::Access(status)) => status.conditions.as_slice(),
        _ => &[],
    };
    let key = subject.object.key(Kind::AccessPolicy);
    let targets = context.plan.targets.get(subject.object).copied().unwrap_or(0);
    let fleets = resource::fleets(context, &key);
    let accepted = policy::accepted(subject, targets, "its content is in use");
    let unserved = Verdict::bad(reason::TARGET_NOT_SERVED, "no fleet serves what it guards");
    let conditions = resource::conditions(context, subject, (&key, &fleets), previous, (accepted, unserved));
    AccessPolicyStatus { conditions, targets, refused: policy::share(context, &fleets, &key) }
}
