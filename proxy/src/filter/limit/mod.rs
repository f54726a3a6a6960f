//! Rate limits: every limit that applies to a rule is checked, the strictest wins.
//!
//! A request that one limit rejects takes nothing from the others: first each limit is asked, then each is taken from.
//! When another request took the last token in between, what was taken is given back (see `limits/README.md`). A limit
//! in mode Audit counts what it would reject, and rejects nothing.
//!
//! `RateLimit` and `RateLimit-Policy` follow draft-ietf-httpapi-ratelimit-headers; the policy lists every limit of the
//! rule, the other names the one with the least left.

mod counters;
mod key;
mod registry;

use std::{mem, sync::Arc};

use bytes::Bytes;
use http::StatusCode;
use limits::{Decision, Key, Limiter, Receipt, Table};

pub use self::registry::Limiters;
use self::{
    counters::{Counters, PolicyCounters},
    key::KeyPart,
};
use super::{Ctx, Filter, Flow, LocalReply, Stage, local_reply};
use crate::{
    message::RequestHead,
    rate_limit_fields::{self, RateLimit},
    telemetry::RATE_LIMITED,
};

/// Limits that are worked on without allocating.
const INLINE: usize = 4;

/// The filter of one rule's limits.
pub(super) struct Limits {
    table: Arc<Table>,
    limits: Vec<Limit>,
    /// Limits of one policy stand together; each policy's range of `limits`.
    policies: Vec<(std::ops::Range<usize>, Arc<PolicyCounters>)>,
    /// Text for the case that one of the limits is the strictest, in their order.
    words: Vec<Arc<rate_limit_fields::Words>>,
}

/// A limit of the rule.
pub(super) struct Limit {
    limiter: Arc<Limiter>,
    key: Vec<KeyPart>,
    audit: bool,
    /// Name of the limit in the fields, quoted.
    name: Bytes,
    counters: Arc<Counters>,
    /// The body when it rejects.
    problem: Bytes,
}

/// The state of a request at one limit.
#[derive(Clone, Copy, Default)]
struct Step {
    key: Option<Key>,
    decision: Option<Decision>,
    receipt: Option<Receipt>,
}

impl Filter for Limits {
    fn stage(&self) -> Stage {
        Stage::Limits
    }

    fn on_request(&self, head: &mut RequestHead, ctx: &mut Ctx) -> Flow {
        match self.limits.len() {
            1 => self.check(&mut [Step::default()], head, ctx),
            few @ ..=INLINE => self.check(&mut [Step::default(); INLINE][..few], head, ctx),
            many => self.check(&mut vec![Step::default(); many], head, ctx),
        }
    }
}

impl Limits {
    fn check(&self, steps: &mut [Step], head: &RequestHead, ctx: &mut Ctx) -> Flow {
        let lookup = key::lookup(head);
        for (step, limit) in steps.iter_mut().zip(&self.limits) {
            step.key = key::key(&self.table, limit.limiter.namespace(), &limit.key, (head, &lookup), ctx);
        }
        let passed = (self.limits.len() == 1 || self.ask(steps, ctx.now_us)) && self.take(steps, ctx.now_us);
        self.count(steps, passed);
        self.reply(steps, passed, ctx)
    }

    /// Asks each limit; nothing is taken.
    fn ask(&self, steps: &mut [Step], now_us: u64) -> bool {
        let mut passed = true;
        for (step, limit) in steps.iter_mut().zip(&self.limits) {
            let decision = limit.limiter.peek(&self.table, step.key, now_us);
            step.decision = Some(decision);
            passed &= decision.allowed || limit.audit;
        }
        passed
    }

    /// Takes from each limit. When one that was asked before has nothing left, all is given back.
    fn take(&self, steps: &mut [Step], now_us: u64) -> bool {
        for i in 0..steps.len() {
            let limit = &self.limits[i];
            let (decision, receipt) = limit.limiter.take(&self.table, steps[i].key, now_us);
            (steps[i].decision, steps[i].receipt) = (Some(decision), receipt);
            if !decision.allowed && !limit.audit {
                for (step, limit) in steps[..i].iter_mut().zip(&self.limits) {
                    if let Some(receipt) = step.receipt.take() {
                        limit.limiter.give_back(&self.table, receipt, now_us);
                    }
                }
                return false;
            }
        }
        true
    }

    fn count(&self, steps: &[Step], passed: bool) {
        let allowed = |step: &Step| step.decision.is_none_or(|d| d.allowed);
        for (step, limit) in steps.iter().zip(&self.limits) {
            let counts = limit.counters.own();
            match (allowed(step), limit.audit) {
                // What another limit rejected was not allowed by this one either.
                (true, _) if !passed => {}
                (true, _) => counts.allowed.count(),
                (false, true) => counts.audited.count(),
                (false, false) => counts.limited.count(),
            }
        }
        for (range, counters) in &self.policies {
            let counts = counters.own();
            counts.checked.count();
            if !steps[range.clone()].iter().all(allowed) {
                counts.limited.count();
            }
        }
    }

    fn reply(&self, steps: &[Step], passed: bool, ctx: &mut Ctx) -> Flow {
        let limits = self.limits.iter().zip(&self.words);
        let enforced = steps.iter().zip(limits).filter(|(_, (limit, _))| !limit.audit);
        let enforced = enforced.filter_map(|(step, limit)| Some((step.decision?, limit)));
        // Of those that reject, the one that does so the longest; else the one with the least left.
        let strictest = enforced.max_by_key(|(d, _)| (d.retry_after_us, u64::MAX - d.remaining, d.reset_us));
        let Some((decision, (limit, words))) = strictest else { return Flow::Continue };
        ctx.rate_limit = Some(RateLimit { words: Arc::clone(words), decision });
        if passed {
            return Flow::Continue;
        }
        let head = local_reply::head(StatusCode::TOO_MANY_REQUESTS);
        Flow::Reply(LocalReply { head, body: limit.problem.clone(), reason: RATE_LIMITED, error_source: None })
    }
}

impl Limits {
    /// `limits` by policy; `None` when there is none.
    pub(super) fn new(table: Arc<Table>, by_policy: Vec<(Arc<PolicyCounters>, Vec<Limit>)>) -> Option<Self> {
        let (mut limits, mut policies) = (vec![], vec![]);
        for (counters, mut of_policy) in by_policy {
            let start = limits.len();
            limits.append(&mut of_policy);
            policies.push((start..limits.len(), counters));
        }
        policies.retain(|(range, _)| !range.is_empty());
        let enforced = limits.iter().filter(|l: &&Limit| !l.audit);
        // Nobody is told of one in mode Audit.
        let policy = rate_limit_fields::policy(enforced.map(|l| (&l.name, l.limiter.bucket()))).unwrap_or_default();
        let words =
            |limit: &Limit| Arc::new(rate_limit_fields::Words { policy: policy.clone(), name: limit.name.clone() });
        let words = limits.iter().map(words).collect();
        (!limits.is_empty()).then_some(Self { table, limits, words, policies })
    }
}

// Four of them are on the stack for each request.
const _: () = assert!(mem::size_of::<Step>() <= 144);

#[cfg(test)]
mod tests;
