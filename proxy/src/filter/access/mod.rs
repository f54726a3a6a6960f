//! Access policies: who calls, and what they may do.
//!
//! A rule has the policy that is the most specific for it, and the fleet's besides where that overrides. Each decides by
//! itself, knows the consumers of its own namespace alone, and sees the request as it came: credentials are taken out once
//! all of them let it pass. A policy in mode Audit counts what it would refuse, and changes nothing.

mod authentication;
mod authorization;
mod counters;
mod credentials;
mod failures;
mod jwt;
mod networks;
mod refusal;
mod registry;

use std::sync::Arc;

pub use self::registry::AccessPolicies;
use self::{
    authentication::{Authentication, Caller},
    authorization::Rules,
    counters::{Outcome, PolicyCounters},
    credentials::Places,
    jwt::Accepted,
    refusal::{Refusal, Refusals},
};
use super::{Ctx, Filter, Flow, Stage};
use crate::message::RequestHead;

/// How a request passed a policy.
struct Passed {
    /// The number of the provider that knows the caller.
    provider: Option<usize>,
    token: Option<Arc<Accepted>>,
}

/// The filter of one rule's access policies.
struct Access {
    /// The fleet's first.
    policies: Box<[Arc<Policy>]>,
}

/// A policy, compiled once for all rules that it holds for.
pub(crate) struct Policy {
    audit: bool,
    /// `None`: nobody is asked.
    authentication: Option<Authentication>,
    rules: Rules,
    /// Where credentials are, which the log is not to have.
    secret: Places,
    /// Where backends are not to find them.
    taken_out: Box<[Places]>,
    refusals: Refusals,
    counters: PolicyCounters,
}

impl Filter for Access {
    fn stage(&self) -> Stage {
        Stage::Authn
    }

    fn on_request(&self, head: &mut RequestHead, ctx: &mut Ctx) -> Flow {
        for policy in &self.policies {
            if let Some(uri) = policy.secret.without_parameters(ctx.logged.as_deref().unwrap_or(&head.uri)) {
                ctx.logged = Some(Box::new(uri));
            }
        }
        let mut passed = Vec::with_capacity(self.policies.len());
        for policy in &self.policies {
            match policy.decide(head, ctx) {
                _ if policy.audit => {}
                Ok(by) => passed.push((policy, by)),
                Err(refusal) => return policy.refusals.reply(refusal),
            }
        }
        for (policy, by) in &passed {
            policy.taken_out(by.provider).iter().for_each(|places| places.clear(head));
        }
        passed.iter().filter_map(|(_, by)| by.token.as_ref()).for_each(|token| token.tell(head));
        Flow::Continue
    }
}

impl Policy {
    /// Decides, and counts; `Ok`: the request may pass. Whom it knows the caller for stands
    /// in the context, whatever the caller may do.
    fn decide(&self, head: &RequestHead, ctx: &mut Ctx) -> Result<Passed, Refusal> {
        let (provider, known, token) = match &self.authentication {
            None => (None, None, None),
            Some(authentication) => match authentication.known(head, ctx) {
                Ok(None) => (None, None, None),
                Ok(Some((provider, Caller::Consumer(consumer)))) => (Some(provider), Some(consumer), None),
                Ok(Some((provider, Caller::Token(token)))) => (Some(provider), None, Some(token)),
                Err(refusal) => {
                    self.counters.count(refusal.provider(), refusal.outcome());
                    return Err(refusal);
                }
            },
        };
        let is_allowed = self.rules.allow(head, ctx, known.as_deref());
        self.counters.count(provider, if is_allowed { Outcome::Allowed } else { Outcome::Denied });
        // The fleet's policy comes first: for whom it knows a caller, limits of the fleet do, whatever a tenant's says.
        if ctx.identity.is_none() {
            ctx.identity = known;
        }
        if is_allowed { Ok(Passed { provider, token }) } else { Err(Refusal::Denied) }
    }

    /// Where backends are to find nothing; `provider`: the one that knows the caller.
    fn taken_out(&self, provider: Option<usize>) -> Option<&Places> {
        provider.map_or(self.taken_out.last(), |number| self.taken_out.get(number))
    }
}

#[cfg(test)]
mod tests;
