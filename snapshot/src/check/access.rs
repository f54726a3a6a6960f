//! What makes an access policy executable.

mod jwt;
mod parts;

use std::collections::BTreeSet;

use ipnet::IpNet;

use self::parts::{bounded, sources};
pub use self::{
    jwt::{MAX_JWKS_BYTES, keys as jwt_keys},
    parts::MAX_SOURCES,
};
use super::{Fit, Unfit, http_token, reason, within};
use crate::{
    path,
    proto::{
        AccessAction, AccessPolicy, AccessRule, ApiKeyProvider, AuthProvider, Authentication, PathKind, auth_provider,
    },
};

/// Most providers of a policy: each looks for its credential in every request.
pub const MAX_PROVIDERS: usize = 8;
/// Most rules of a policy: each may be compared with a request.
pub const MAX_RULES: usize = 64;
/// Most networks of all rules of a policy together.
pub const MAX_CIDRS: usize = 10_000;
/// Most consumers, methods and paths of a rule, and labels.
const MAX_CONSUMERS: usize = 1_000;
const MAX_METHODS: usize = 16;
const MAX_PATHS: usize = 64;
const MAX_LABELS: usize = 64;
/// Most failures in a minute, if they are counted.
const MAX_FAILURES: u32 = 1_000_000;

pub(super) fn policy(p: &AccessPolicy) -> Fit {
    if let Some(authentication) = &p.authentication {
        within("authentication", self::authentication(authentication))?;
    }
    bounded("authorization.rules", p.rules.len(), MAX_RULES)?;
    unique("authorization.rules", p.rules.iter().map(|rule| rule.name.as_str()))?;
    let cidrs = p.rules.iter().map(|rule| rule.cidrs.len()).sum();
    bounded("authorization.rules", cidrs, MAX_CIDRS)?;
    for (i, rule) in p.rules.iter().enumerate() {
        let at = format!("authorization.rules[{i}]");
        if p.authentication.is_none() && !(rule.consumers.is_empty() && rule.labels.is_empty()) {
            let message = "consumers and labels are of callers that are known: give authentication too";
            return Err(Unfit::new(format!("{at}.when"), reason::INVALID_ACCESS, message));
        }
        if AccessAction::try_from(rule.action).is_err() {
            let message = "an action that this version does not know";
            return Err(Unfit::new(format!("{at}.action"), reason::INVALID_ACCESS, message));
        }
        within(format_args!("{at}.when"), condition(rule))?;
    }
    Ok(())
}

fn authentication(a: &Authentication) -> Fit {
    if a.providers.is_empty() {
        return Err(Unfit::new("providers", reason::INVALID_ACCESS, "names no provider"));
    }
    bounded("providers", a.providers.len(), MAX_PROVIDERS)?;
    unique("providers", a.providers.iter().map(|provider| provider.name.as_str()))?;
    if a.max_failures_per_minute > MAX_FAILURES {
        let message = format!("must be at most {MAX_FAILURES}; 0 counts none");
        return Err(Unfit::new("maxFailuresPerMinute", reason::INVALID_LIMIT, message));
    }
    let mut providers = a.providers.iter().enumerate();
    providers.try_for_each(|(i, provider)| within(format_args!("providers[{i}]"), self::provider(provider)))
}

fn provider(p: &AuthProvider) -> Fit {
    match &p.provider {
        Some(auth_provider::Provider::ApiKey(api_key)) => within("apiKey", self::api_key(api_key)),
        Some(auth_provider::Provider::Jwt(jwt)) => within("jwt", self::jwt::provider(jwt)),
        None => Err(Unfit::new("type", reason::UNKNOWN_PROVIDER, "a provider that this version does not know")),
    }
}

fn api_key(p: &ApiKeyProvider) -> Fit {
    if p.from.is_empty() {
        return Err(Unfit::new("from", reason::INVALID_ACCESS, "names no place to look for a key"));
    }
    sources(&p.from)
}

fn condition(rule: &AccessRule) -> Fit {
    bounded("consumers", rule.consumers.len(), MAX_CONSUMERS)?;
    bounded("labels", rule.labels.len(), MAX_LABELS)?;
    bounded("methods", rule.methods.len(), MAX_METHODS)?;
    bounded("paths", rule.paths.len(), MAX_PATHS)?;
    for (i, cidr) in rule.cidrs.iter().enumerate() {
        network(cidr).map_err(|e| Unfit::new(format!("cidrs[{i}]"), reason::INVALID_PREFIX, e))?;
    }
    for (i, method) in rule.methods.iter().enumerate() {
        if http_token(method).is_err() {
            let message = format!("{method:?} is no method");
            return Err(Unfit::new(format!("methods[{i}]"), reason::INVALID_METHOD, message));
        }
    }
    for (i, path) in rule.paths.iter().enumerate() {
        let is_known = matches!(PathKind::try_from(path.kind), Ok(PathKind::Exact | PathKind::Prefix));
        if !is_known {
            return Err(Unfit::new(format!("paths[{i}].type"), reason::UNKNOWN_PATH_TYPE, path.kind.to_string()));
        }
        // In any other form it would be compared with what no request has, and a rule that denies would deny nothing.
        if path::normal(&path.value, path::Rules::OF_ROUTES).is_none_or(|normal| normal != path.value) {
            let message =
                "no request has this path: it must begin with '/' and be in the form that requests are brought into";
            return Err(Unfit::new(format!("paths[{i}].value"), reason::INVALID_PATH, message));
        }
    }
    Ok(())
}

/// A network; `Err`: why it is none.
pub fn network(cidr: &str) -> Result<IpNet, String> {
    let Ok(network) = cidr.parse::<IpNet>() else {
        return Err(format!("{cidr:?} is no network such as 10.0.0.0/8 or fd00::/8"));
    };
    if network.addr() == network.network() {
        Ok(network)
    } else {
        Err(format!("{cidr} has bits beyond its length: write {}", network.trunc()))
    }
}

fn unique<'a>(list: &str, names: impl Iterator<Item = &'a str>) -> Fit {
    let mut seen = BTreeSet::new();
    for (i, name) in names.enumerate() {
        if !seen.insert(name) {
            let message = format!("two are named {name:?}: give each its own name");
            return Err(Unfit::new(format!("{list}[{i}].name"), reason::INVALID_ACCESS, message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
