//! Answers to requests that a policy refuses: RFC 9457 problems, which say what to bring and nothing of who has what.

use bytes::Bytes;
use http::{
    HeaderValue, StatusCode,
    header::{RETRY_AFTER, WWW_AUTHENTICATE},
};
use snapshot::{check::Unfit, proto};

use super::counters::Outcome;
use crate::filter::{Flow, LocalReply, local_reply};

/// Why a request does not pass; providers by their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It has no credential.
    Missing,
    /// Its credential is none.
    Invalid(usize),
    /// It has several credentials where one is meant.
    Several(usize),
    /// Its client presented too many wrong ones; for so many seconds more.
    TooManyFailures(usize, u64),
    /// No rule allows it.
    Denied,
}

/// The answers of one policy, made once.
pub(super) struct Refusals {
    /// What a 401 asks for (RFC 9110 section 11.6.1).
    challenge: HeaderValue,
    missing: Bytes,
    denied: Bytes,
    /// By number of the provider.
    providers: Box<[OfProvider]>,
}

struct OfProvider {
    invalid: Bytes,
    several: Bytes,
    failures: Bytes,
}

impl Refusal {
    pub(super) fn provider(self) -> Option<usize> {
        match self {
            Self::Missing | Self::Denied => None,
            Self::Invalid(provider) | Self::Several(provider) | Self::TooManyFailures(provider, _) => Some(provider),
        }
    }

    pub(super) fn outcome(self) -> Outcome {
        match self {
            Self::Missing => Outcome::Missing,
            Self::Invalid(_) | Self::Several(_) => Outcome::Invalid,
            Self::TooManyFailures(..) => Outcome::Limited,
            Self::Denied => Outcome::Denied,
        }
    }
}

impl Refusals {
    pub(super) fn compile(providers: &[proto::AuthProvider]) -> Result<Self, Unfit> {
        // There is no registered scheme for API keys; the realm tells which provider asks.
        let challenges = providers.iter().map(|provider| format!("APIKey realm=\"{}\"", provider.name));
        let challenge = HeaderValue::try_from(challenges.collect::<Vec<_>>().join(", "));
        let challenge =
            challenge.map_err(|e| Unfit::new("authentication.providers", "InvalidAccess", e.to_string()))?;
        let problem = local_reply::problem;
        let of_provider = |proto::AuthProvider { name, .. }: &proto::AuthProvider| OfProvider {
            invalid: problem(
                StatusCode::UNAUTHORIZED,
                &format!("The credential that was sent is not valid (provider {name})."),
            ),
            several: problem(
                StatusCode::BAD_REQUEST,
                &format!("The request has more than one credential where one is meant (provider {name})."),
            ),
            failures: problem(
                StatusCode::TOO_MANY_REQUESTS,
                &format!("Too many credentials that are not valid came from this address (provider {name})."),
            ),
        };
        Ok(Self {
            challenge,
            missing: problem(StatusCode::UNAUTHORIZED, "This needs a credential, and the request has none."),
            denied: problem(StatusCode::FORBIDDEN, "This request is not allowed."),
            providers: providers.iter().map(of_provider).collect(),
        })
    }

    pub(super) fn reply(&self, refusal: Refusal) -> Flow {
        let of = |number: usize, body: fn(&OfProvider) -> &Bytes| self.providers.get(number).map(body).cloned();
        let (status, reason, body) = match refusal {
            Refusal::Missing => (StatusCode::UNAUTHORIZED, "credential_missing", Some(self.missing.clone())),
            Refusal::Invalid(i) => (StatusCode::UNAUTHORIZED, "credential_invalid", of(i, |of| &of.invalid)),
            Refusal::Several(i) => (StatusCode::BAD_REQUEST, "several_credentials", of(i, |of| &of.several)),
            Refusal::TooManyFailures(i, _) => {
                (StatusCode::TOO_MANY_REQUESTS, "too_many_failures", of(i, |of| &of.failures))
            }
            Refusal::Denied => (StatusCode::FORBIDDEN, "access_denied", Some(self.denied.clone())),
        };
        let mut head = local_reply::head(status);
        if status == StatusCode::UNAUTHORIZED {
            head.fields.append(WWW_AUTHENTICATE, self.challenge.clone());
        }
        if let Refusal::TooManyFailures(_, seconds) = refusal {
            head.fields.append(RETRY_AFTER, seconds.into());
        }
        Flow::Reply(LocalReply { head, body: body.unwrap_or_default(), reason, error_source: None })
    }
}
