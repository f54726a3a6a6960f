//! Consumer: whether proxies know it, and by how many credentials.

use crds::ConsumerStatus;
use snapshot::{Key, Kind, proto::resource};

use super::{Context, Status, Subject, conditions::Verdict, resource as conditions_of};
use crate::{problem::reason, world::FleetRef};

pub(super) fn status(context: &Context<'_>, subject: &Subject<'_>) -> ConsumerStatus {
    let previous = match subject.previous {
        Some(Status::Consumer(status)) => status.conditions.as_slice(),
        _ => &[],
    };
    let key = subject.object.key(Kind::Consumer);
    let fleets = conditions_of::fleets(context, &key);
    let accepted = subject.findings.rejection();
    let accepted = accepted.unwrap_or_else(|| Verdict::good(reason::ACCEPTED, "its content is in use"));
    let message = "no fleet serves a route of its namespace";
    let unserved = Verdict::bad(reason::TARGET_NOT_SERVED, message);
    let conditions = conditions_of::conditions(context, subject, (&key, &fleets), previous, (accepted, unserved));
    let credentials = fleets.iter().map(|fleet| in_force(context, subject, &key, fleet)).min().unwrap_or_default();
    ConsumerStatus { conditions, credentials: u32::try_from(credentials).unwrap_or(u32::MAX) }
}

/// How many credentials the proxies of a fleet know it by: where they refuse what it is now, by those of what they run instead.
fn in_force(context: &Context<'_>, subject: &Subject<'_>, key: &Key, fleet: &FleetRef) -> usize {
    let planned = || context.plan.consumers.get(subject.object).map_or(0, Vec::len);
    let Some(view) = context.fleets.get(fleet).filter(|view| view.rolled_back.contains_key(key)) else {
        return planned();
    };
    let ready = view.proxies.iter().filter(|proxy| proxy.ready && !proxy.draining);
    let running = ready.map(|proxy| match proxy.content.as_ref()?.entry(key)?.kind()? {
        resource::Kind::Consumer(consumer) => Some(consumer.credentials.len()),
        _ => None,
    });
    running.map(Option::unwrap_or_default).min().unwrap_or_default()
}
