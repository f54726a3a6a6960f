//! Answers to requests that a policy refuses: RFC 9457 problems, which say what to bring and nothing of who has what.

use bytes::Bytes;
use http::{
    HeaderValue, StatusCode,
    header::{RETRY_AFTER, WWW_AUTHENTICATE},
};
use jwt::{OAuthError, Reason};
use snapshot::{
    check::{Unfit, reason},
    proto::{self, auth_provider},
};

use super::counters::Outcome;
use crate::filter::{Flow, LocalReply, local_reply};

/// Why a request does not pass; providers by their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It has no credential.
    Missing,
    /// Its credential is none.
    Invalid(usize),
    /// Its token is none, or not enough.
    Token(usize, Reason),
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
    name: Box<str>,
    /// What it asks for of those whose token is none, and of those whose token lacks a scope (RFC 6750 section 3).
    invalid_token: HeaderValue,
    insufficient_scope: HeaderValue,
    invalid: Bytes,
    several: Bytes,
    failures: Bytes,
}

impl Refusal {
    pub(super) fn provider(self) -> Option<usize> {
        match self {
            Self::Missing | Self::Denied => None,
            Self::Invalid(provider)
            | Self::Token(provider, _)
            | Self::Several(provider)
            | Self::TooManyFailures(provider, _) => Some(provider),
        }
    }

    /// Whether the credential may have been made up.
    pub(super) fn is_guess(self) -> bool {
        match self {
            Self::Invalid(_) => true,
            Self::Token(_, reason) => !reason.is_of_claims(),
            Self::Missing | Self::Several(_) | Self::TooManyFailures(..) | Self::Denied => false,
        }
    }

    pub(super) fn outcome(self) -> Outcome {
        match self {
            Self::Missing => Outcome::Missing,
            Self::Token(_, reason) if reason.oauth_error() == OAuthError::InsufficientScope => Outcome::Denied,
            Self::Invalid(_) | Self::Token(..) | Self::Several(_) => Outcome::Invalid,
            Self::TooManyFailures(..) => Outcome::Limited,
            Self::Denied => Outcome::Denied,
        }
    }
}

impl Refusals {
    pub(super) fn compile(providers: &[proto::AuthProvider]) -> Result<Self, Unfit> {
        let challenges = providers.iter().map(challenge).collect::<Vec<_>>().join(", ");
        let problem = local_reply::problem;
        let of_provider = |provider: &proto::AuthProvider| {
            let name = &provider.name;
            let lacks = format!(", error=\"{}\"{}", OAuthError::InsufficientScope.as_str(), scope(provider));
            Ok(OfProvider {
                name: name.as_str().into(),
                invalid_token: field(&format!(
                    "{}, error=\"{}\"",
                    challenge(provider),
                    OAuthError::InvalidToken.as_str()
                ))?,
                insufficient_scope: field(&(challenge(provider) + &lacks))?,
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
            })
        };
        Ok(Self {
            challenge: field(&challenges)?,
            missing: problem(StatusCode::UNAUTHORIZED, "This needs a credential, and the request has none."),
            denied: problem(StatusCode::FORBIDDEN, "This request is not allowed."),
            providers: providers.iter().map(of_provider).collect::<Result<_, Unfit>>()?,
        })
    }

    pub(super) fn reply(&self, refusal: Refusal) -> Flow {
        let of = |number: usize, body: fn(&OfProvider) -> &Bytes| self.providers.get(number).map(body).cloned();
        let (status, reason, body) = match refusal {
            Refusal::Missing => (StatusCode::UNAUTHORIZED, "credential_missing", Some(self.missing.clone())),
            Refusal::Invalid(i) => (StatusCode::UNAUTHORIZED, "credential_invalid", of(i, |of| &of.invalid)),
            Refusal::Token(i, reason) => {
                let status = match reason.oauth_error() {
                    OAuthError::InvalidToken => StatusCode::UNAUTHORIZED,
                    OAuthError::InsufficientScope => StatusCode::FORBIDDEN,
                };
                (status, reason.as_str(), self.providers.get(i).map(|of| of.token_body(status, reason)))
            }
            Refusal::Several(i) => (StatusCode::BAD_REQUEST, "several_credentials", of(i, |of| &of.several)),
            Refusal::TooManyFailures(i, _) => {
                (StatusCode::TOO_MANY_REQUESTS, "too_many_failures", of(i, |of| &of.failures))
            }
            Refusal::Denied => (StatusCode::FORBIDDEN, "access_denied", Some(self.denied.clone())),
        };
        let mut head = local_reply::head(status);
        if let Some(challenge) = self.challenge(refusal) {
            head.fields.append(WWW_AUTHENTICATE, challenge.clone());
        }
        if let Refusal::TooManyFailures(_, seconds) = refusal {
            head.fields.append(RETRY_AFTER, seconds.into());
        }
        Flow::Reply(LocalReply { head, body: body.unwrap_or_default(), reason, error_source: None })
    }

    fn challenge(&self, refusal: Refusal) -> Option<&HeaderValue> {
        match refusal {
            Refusal::Missing | Refusal::Invalid(_) => Some(&self.challenge),
            Refusal::Token(number, reason) => self.providers.get(number).map(|of| match reason.oauth_error() {
                OAuthError::InvalidToken => &of.invalid_token,
                OAuthError::InsufficientScope => &of.insufficient_scope,
            }),
            Refusal::Several(_) | Refusal::TooManyFailures(..) | Refusal::Denied => None,
        }
    }
}

impl OfProvider {
    /// Who has no token of the issuer is not told what is wrong with what it made up.
    fn token_body(&self, status: StatusCode, reason: Reason) -> Bytes {
        match reason.is_of_claims() {
            true => local_reply::problem(status, &format!("Refused: {reason} (provider {}).", self.name)),
            false => self.invalid.clone(),
        }
    }
}

/// The scheme that a provider wants, and its name as the realm. There is no registered scheme for API keys.
fn challenge(provider: &proto::AuthProvider) -> String {
    let scheme = match provider.provider {
        Some(auth_provider::Provider::Jwt(_)) => "Bearer",
        _ => "APIKey",
    };
    format!("{scheme} realm=\"{}\"", provider.name)
}

/// The scopes that a provider wants.
fn scope(provider: &proto::AuthProvider) -> String {
    match &provider.provider {
        Some(auth_provider::Provider::Jwt(jwt)) => format!(", scope=\"{}\"", jwt.scopes.join(" ")),
        _ => String::new(),
    }
}

fn field(challenge: &str) -> Result<HeaderValue, Unfit> {
    HeaderValue::try_from(challenge)
        .map_err(|e| Unfit::new("authentication.providers", reason::INVALID_ACCESS, e.to_string()))
}
