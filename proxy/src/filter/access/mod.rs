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
mod networks;
mod refusal;
mod registry;

use std::sync::Arc;

pub use self::registry::AccessPolicies;
use self::{
    authentication::Authentication,
    authorization::Rules,
    counters::{Outcome, PolicyCounters},
    credentials::Places,
    refusal::{Refusal, Refusals},
};
use super::{Ctx, Filter, Flow, Stage};
use crate::message::RequestHead;

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
    taken_out: Places,
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
        for policy in &self.policies {
            if let Some(refusal) = policy.decide(head, ctx).filter(|_| !policy.audit) {
                return policy.refusals.reply(refusal);
            }
        }
        for policy in self.policies.iter().filter(|policy| !policy.audit) {
            policy.taken_out.clear(head);
        }
        Flow::Continue
    }
}

impl Policy {
    /// Decides, and counts; `None`: the request may pass. Whom it knows the caller for stands in the context, whatever the
    /// caller may do.
    fn decide(&self, head: &RequestHead, ctx: &mut Ctx) -> Option<Refusal> {
        let (provider, known) = match &self.authentication {
            None => (None, None),
            Some(authentication) => match authentication.known(head, ctx) {
                Ok(None) => (None, None),
                Ok(Some((provider, consumer))) => (Some(provider), Some(consumer)),
                Err(refusal) => {
                    self.counters.count(refusal.provider(), refusal.outcome());
                    return Some(refusal);
                }
            },
        };
        let is_allowed = self.rules.allow(head, ctx, known.as_deref());
        self.counters.count(provider, if is_allowed { Outcome::Allowed } else { Outcome::Denied });
        if known.is_some() {
            ctx.identity = known;
        }
        (!is_allowed).then_some(Refusal::Denied)
    }
}

#[cfg(test)]
mod tests;
