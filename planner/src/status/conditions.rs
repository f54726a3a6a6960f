//! Findings of an object, and conditions made of them.

use std::{collections::BTreeMap, fmt::Write};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::{Millis, Plan, Problem, Severity, problem::reason, world::ObjectRef};

/// Most findings in one message, and its greatest length; the API server takes 32,768 bytes.
const MAX_FINDINGS: usize = 8;
const MAX_MESSAGE_BYTES: usize = 4_000;

/// Everything that is wrong with one object.
#[derive(Default)]
pub(super) struct Findings<'a> {
    /// Problems for which its content is not used.
    pub(super) rejected: Vec<&'a Problem>,
    /// A route has no such parent.
    pub(super) detached: Vec<&'a Problem>,
    /// Problems of references to what is not there.
    pub(super) unresolved: Vec<&'a Problem>,
    /// Other things that don't work.
    pub(super) degraded: Vec<&'a Problem>,
    /// Notices of what others want of it; nothing is wrong with it.
    pub(super) told: Vec<&'a Problem>,
    /// Earlier content stays in force in place of what is rejected.
    pub(super) fallback: bool,
    /// There is no earlier content, but some rules of the current one are in force.
    pub(super) rest: bool,
}

/// The plan's problems by object.
pub(super) fn by_object(plan: &Plan) -> BTreeMap<&ObjectRef, Findings<'_>> {
    let mut by_object: BTreeMap<_, Findings<'_>> = BTreeMap::new();
    for problem in &plan.problems {
        let Some(object) = &problem.object else { continue };
        let findings = by_object.entry(object).or_default();
        let list = match (problem.severity, problem.reason) {
            (Severity::Rejected, _) => &mut findings.rejected,
            (
                Severity::Degraded,
                reason::NO_MATCHING_PARENT | reason::NOT_ALLOWED_BY_LISTENERS | reason::NO_MATCHING_LISTENER_HOSTNAME,
            ) => &mut findings.detached,
            (
                Severity::Degraded,
                reason::BACKEND_NOT_FOUND
                | reason::REF_NOT_PERMITTED
                | reason::INVALID_CERTIFICATE_REF
                | reason::INVALID_CREDENTIAL_REF
                | reason::UNSUPPORTED_PROTOCOL
                | reason::UNSUPPORTED_VALUE
                | reason::TARGET_NOT_FOUND,
            ) => &mut findings.unresolved,
            (Severity::Degraded, _) => &mut findings.degraded,
            (Severity::Told, _) => &mut findings.told,
        };
        list.push(problem);
    }
    by_object
}

/// The value of a condition, with reason and message.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    /// `None`: not known.
    good: Option<bool>,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Verdict {
    pub(super) fn good(reason: &'static str, message: impl Into<String>) -> Self {
        Self { good: Some(true), reason, message: message.into() }
    }

    pub(super) fn bad(reason: &'static str, message: impl Into<String>) -> Self {
        Self { good: Some(false), reason, message: message.into() }
    }

    pub(super) fn unknown(reason: &'static str, message: impl Into<String>) -> Self {
        Self { good: None, reason, message: message.into() }
    }

    pub(super) fn is_good(&self) -> bool {
        self.good == Some(true)
    }

    /// The reason of the first problem, the fields and messages of all; `None` when there are none.
    pub(super) fn of(problems: &[&Problem]) -> Option<Self> {
        let first = problems.first()?;
        let mut message = String::new();
        for (i, problem) in problems.iter().take(MAX_FINDINGS).enumerate() {
            let field = if problem.field.is_empty() { "" } else { ": " };
            let next = if i > 0 { "; " } else { "" };
            let _ = write!(message, "{next}{}{field}{}", problem.field, problem.message);
        }
        if let Some(more) = problems.len().checked_sub(MAX_FINDINGS).filter(|n| *n > 0) {
            let _ = write!(message, "; and {more} more");
        }
        Some(Self::bad(first.reason, message))
    }

    /// The condition, whose time is that of the previous one unless its status changed.
    pub(super) fn condition(mut self, type_: &str, generation: i64, previous: &[Condition], now: Millis) -> Condition {
        let status = match self.good {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        };
        let since = find(previous, type_).filter(|c| c.status == status).map(|c| c.last_transition_time.clone());
        if self.message.len() > MAX_MESSAGE_BYTES {
            let end = (0..=MAX_MESSAGE_BYTES).rev().find(|i| self.message.is_char_boundary(*i)).unwrap_or(0);
            self.message.truncate(end);
            self.message.push_str(" ...");
        }
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            observed_generation: Some(generation),
            last_transition_time: since.unwrap_or_else(|| time(now)),
            reason: self.reason.to_owned(),
            message: self.message,
        }
    }
}

/// The condition of a type.
pub(super) fn find<'c>(conditions: &'c [Condition], type_: &str) -> Option<&'c Condition> {
    conditions.iter().find(|c| c.type_ == type_)
}

/// Whole seconds, as Kubernetes writes times.
fn time(now: Millis) -> Time {
    let seconds = i64::try_from(now.0 / 1000).unwrap_or(i64::MAX);
    Time(Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX))
}

impl Findings<'_> {
    /// The reason why the current content is not used, if it is not.
    pub(super) fn rejection(&self) -> Option<Verdict> {
        let mut verdict = Verdict::of(&self.rejected)?;
        if verdict.reason == reason::TOO_LARGE {
            return Some(verdict); // there is none that could be in force
        }
        verdict.message.push_str(match (self.fallback, self.rest) {
            (true, _) => "; until this is fixed, the content accepted last stays in force",
            (false, true) => "; no earlier content was ever accepted: the rules that nothing is wrong with serve",
            (false, false) => "; no earlier content was ever accepted",
        });
        Some(verdict)
    }

    /// The condition `Programmed` while the current content is not used.
    pub(super) fn rejection_programmed(&self) -> Option<Verdict> {
        let first = self.rejected.first()?;
        if first.reason == reason::TOO_LARGE {
            return Verdict::of(&self.rejected);
        }
        let message = match (self.fallback, self.rest) {
            (true, _) => "this generation is not accepted, so it runs nowhere; the content accepted last does",
            (false, true) => "this generation is not accepted; only the rules that nothing is wrong with run",
            (false, false) => "this generation is not accepted, so it runs nowhere",
        };
        Some(Verdict::bad(first.reason, message))
    }

    /// The condition `ResolvedRefs`.
    pub(super) fn resolved_refs(&self) -> Verdict {
        if !self.rejected.is_empty() && !self.fallback && !self.rest {
            return Verdict::unknown(reason::NOT_ACCEPTED, "there is no accepted content to resolve references of");
        }
        Verdict::of(&self.unresolved)
            .unwrap_or_else(|| Verdict::good(reason::RESOLVED_REFS, "every reference is resolved"))
    }

    /// The condition `Contested`, which is there while others claim what this one has.
    pub(super) fn contested(&self) -> Option<Verdict> {
        Verdict::of(&self.told).map(|verdict| Verdict { good: Some(true), ..verdict })
    }

    /// The part of the content in use that does not work.
    pub(super) fn degradation(&self) -> Option<Verdict> {
        let all: Vec<&Problem> = self.unresolved.iter().chain(&self.degraded).copied().collect();
        Verdict::of(&all)
    }
}
