//! The comparison of the errors of proxies that have a change with those of the others.

use std::collections::BTreeMap;

use super::Proxy;
use crate::publish::ProxyId;

/// Errors of a canary rise when it answers so much more 5xx, in percent of its requests, than the others do at the same time
/// (than it did before, where there are no others), of so many requests at least.
const RISE_PERCENT: f64 = 5.0;
const FEWEST_REQUESTS: u64 = 20;

/// The answers of a proxy since it began, as far as it reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Requests answered.
    pub all: u64,
    /// Those with 5xx, by whomever.
    pub failed: u64,
}

impl Answers {
    fn since(self, before: Answers) -> Answers {
        Answers { all: self.all.saturating_sub(before.all), failed: self.failed.saturating_sub(before.failed) }
    }

    fn percent(self) -> f64 {
        if self.all == 0 { 0.0 } else { self.failed.min(self.all) as f64 / self.all as f64 * 100.0 }
    }
}

/// The canaries whose errors rose, and how. What the others do is their median: none of them alone moves it.
pub(super) fn risen(
    is_canary: impl Fn(&ProxyId) -> bool,
    before: &BTreeMap<ProxyId, Answers>,
    proxies: &BTreeMap<ProxyId, Proxy>,
) -> Vec<(ProxyId, String)> {
    let (mut canaries, mut others) = (vec![], vec![]);
    for (id, proxy) in proxies {
        let Some(before) = before.get(id) else { continue };
        let since = proxy.answers.since(*before);
        if since.all >= FEWEST_REQUESTS {
            if is_canary(id) { canaries.push((id, since, before.percent())) } else { others.push(since.percent()) }
        }
    }
    others.sort_by(f64::total_cmp);
    let usual = others.get(others.len() / 2).copied();
    let why = |(id, since, before): (&ProxyId, Answers, f64)| {
        let (now, usual) = (since.percent(), usual.unwrap_or(before));
        let why = format!("{id} answered {now:.0} % of {} requests with 5xx, {usual:.0} % otherwise", since.all);
        (now > usual + RISE_PERCENT).then(|| (id.clone(), why))
    };
    canaries.into_iter().filter_map(why).collect()
}
