//! How far the proxies are.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use snapshot::{Entry, Key, Snapshot, proto::Nack};

use super::conditions::{Verdict, find};
use crate::{
    fleet::{FleetView, ProxyView},
    plan::PlannedFleet,
    problem::reason,
    world::ObjectRef,
};

pub(super) const PROGRAMMED: &str = "Programmed";
/// What a condition says when all is well.
const EVERYWHERE: &str = "runs on every Ready proxy";

/// Ready proxies that don't leave: how many run what is published, of how many.
pub(super) fn count(view: &FleetView) -> (usize, usize) {
    let ready = || view.proxies.iter().filter(|proxy| proxy.ready && !proxy.draining);
    let running = ready().filter(|proxy| view.published.is_some() && proxy.revision == view.published);
    (running.count(), ready().count())
}

/// Whether every Ready proxy runs what is published.
pub(super) fn everywhere(view: Option<&FleetView>) -> Verdict {
    let halted = view.and_then(|view| view.halted.as_deref());
    match view.map(count) {
        Some((running, ready)) if running < ready && halted.is_some() => {
            let why = halted.unwrap_or_default();
            let message = format!(
                "{running} of {ready} proxies: {why}; they keep what they ran before. Change it, or see the proxies' logs"
            );
            Verdict::bad(reason::ROLLOUT_HALTED, message)
        }
        None | Some((_, 0)) => Verdict::bad(reason::PENDING, "no proxy is Ready yet"),
        Some((running, ready)) if running == ready => Verdict::good(reason::PROGRAMMED, EVERYWHERE),
        Some((running, ready)) => Verdict::bad(reason::PENDING, format!("{running} of {ready} proxies")),
    }
}

/// The same for a route or policy, which these resources are made of: what else of the fleet changes meanwhile, such as
/// another tenant's routes again and again, is nothing to it. What a generation once was it stays, while proxies come and
/// go.
pub(super) fn of_generation(
    view: Option<&FleetView>,
    planned: Option<&PlannedFleet>,
    keys: &[&Key],
    generation: i64,
    previous: &[Condition],
) -> Verdict {
    let verdict = everywhere(view);
    let Some(view) = view.filter(|view| count(view).1 > 0) else { return verdict };
    let good = || Verdict::good(reason::PROGRAMMED, EVERYWHERE);
    let was =
        find(previous, PROGRAMMED).is_some_and(|c| c.status == "True" && c.observed_generation == Some(generation));
    if was || verdict.is_good() {
        return good();
    }
    let Some(planned) = planned.filter(|_| view.published.is_some()) else { return verdict };
    let hash = |content: &Snapshot, key: &Key| content.entry(key).map(Entry::hash);
    let runs = |proxy: &&ProxyView| {
        let same = |content: &Snapshot| keys.iter().all(|key| hash(content, key) == hash(&planned.snapshot, key));
        proxy.revision == view.published || proxy.content.as_ref().is_some_and(same)
    };
    let ready = view.proxies.iter().filter(|proxy| proxy.ready && !proxy.draining);
    match (ready.clone().filter(runs).count(), ready.count()) {
        (running, ready) if running == ready => good(),
        _ if view.halted.is_some() => verdict,
        (running, ready) => Verdict::bad(reason::PENDING, format!("{running} of {ready} proxies")),
    }
}

/// That none of these listeners is open, and why the first is not.
pub(super) fn closed<'k>(view: Option<&FleetView>, listeners: impl IntoIterator<Item = &'k Key>) -> Option<Verdict> {
    let view = view.filter(|view| !view.withheld.is_empty())?;
    let why: Option<Vec<_>> = listeners.into_iter().map(|key| view.withheld.get_key_value(key)).collect();
    let (key, why) = why?.into_iter().next()?;
    Some(Verdict::bad(reason::LISTENER_NOT_PROGRAMMED, format!("{key} is not served: {why}")))
}

/// Why a resource of an object does not run, when proxies refuse one of `keys`.
pub(super) fn refusal<'k>(
    object: &ObjectRef,
    view: Option<&FleetView>,
    keys: impl IntoIterator<Item = &'k Key>,
) -> Option<Verdict> {
    let view = view.filter(|view| !view.rolled_back.is_empty())?;
    let (key, nack) = keys.into_iter().find_map(|key| view.rolled_back.get_key_value(key))?;
    let Nack { field, reason, message, .. } = nack;
    let own = match key.kind() {
        snapshot::Kind::Route | snapshot::Kind::RatePolicy | snapshot::Kind::AccessPolicy => {
            format!("{object}: spec.{field}")
        }
        _ => format!("{object}: {key} {field}"),
    };
    let message = format!(
        "{own}: {message} [{reason}]; proxies refuse it, and what was acknowledged last runs instead \
         (nothing before: requests answer 500)"
    );
    Some(Verdict::bad(reason::PROXY_REJECTED, message))
}

/// That not every proxy runs a resource of an object, when one alone refuses one of `keys`: it does without.
pub(super) fn disagreement<'k>(view: Option<&FleetView>, keys: impl IntoIterator<Item = &'k Key>) -> Option<Verdict> {
    let view = view.filter(|view| !view.disagreeing.is_empty())?;
    let (key, by) = keys.into_iter().find_map(|key| view.disagreeing.get_key_value(key))?;
    let (proxy, Nack { field, reason, message, .. }) = by.first_key_value()?;
    let all = view.proxies.iter().filter(|proxy| !proxy.draining).count();
    let running = all.saturating_sub(by.len());
    let message = format!(
        "{running} of {all} proxies: {proxy} refuses {key}: {field}: {message} [{reason}]; it does without, and is asked again"
    );
    Some(Verdict::bad(reason::PROXY_DISAGREES, message))
}
