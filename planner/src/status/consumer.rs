//! Consumer: whether proxies know it, and by how many credentials.

use crds::ConsumerStatus;
use snapshot::Kind;

use super::{Context, Status, Subject, conditions::Verdict, resource};
use crate::problem::reason;

pub(super) fn status(context: &Context<'_>, subject: &Subject<'_>) -> ConsumerStatus {
    let previous = match subject.previous {
        Some(Status::Consumer(status)) => status.conditions.as_slice(),
        _ => &[],
    };
    let key = subject.object.key(Kind::Consumer);
    let fleets = resource::fleets(context, &key);
    let accepted = subject.findings.rejection();
    let accepted = accepted.unwrap_or_else(|| Verdict::good(reason::ACCEPTED, "its content is in use"));
    let message = "no fleet serves a route of its namespace";
    let unserved = Verdict::bad(reason::TARGET_NOT_SERVED, message);
    let conditions = resource::conditions(context, subject, (&key, &fleets), previous, (accepted, unserved));
    let credentials = context.plan.consumers.get(subject.object).map_or(0, Vec::len);
    ConsumerStatus { conditions, credentials: u32::try_from(credentials).unwrap_or(u32::MAX) }
}
