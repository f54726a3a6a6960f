//! AccessPolicy: providers and rules in the form that proxies execute; targets still as references.

use crds::{access as crd, common::PolicyMode};
use jwt::{Unusable, UnusableKey};
use serde_json::Value;
use snapshot::{
    Key, Kind, check,
    check::Unfit,
    path,
    proto::{self, Label, Resource, resource},
};

use super::{
    Findings,
    target::{self, Target},
    unless,
};
use crate::{problem::reason, world::ObjectRef};

/// An AccessPolicy.
#[derive(Clone, Debug)]
pub(crate) struct AccessPolicy {
    pub(crate) targets: Vec<Target>,
    /// On a fleet, whether it holds besides those on routes.
    pub(crate) overrides: bool,
    /// Without targets. `Err`: it is not valid and never was; why its targets answer 500.
    pub(crate) content: Result<proto::AccessPolicy, String>,
    /// Keys of tokens that can't be used, with the number of their provider; but for those that say themselves that they
    /// are for something else.
    pub(crate) unusable_keys: Vec<(usize, UnusableKey)>,
}

pub(super) fn validate(object: &ObjectRef, policy: &crds::AccessPolicy) -> Result<AccessPolicy, Findings> {
    let spec = &policy.spec;
    let rules = spec.authorization.iter().flat_map(|authorization| &authorization.rules);
    let content = proto::AccessPolicy {
        overrides: spec.overrides,
        audit: spec.mode == PolicyMode::Audit,
        authentication: spec.authentication.as_ref().map(authentication),
        rules: rules.map(rule).collect(),
        ..proto::AccessPolicy::default()
    };
    let mut findings: Findings = unfit(object, &content).into_iter().collect();
    if spec.target_refs.is_empty() {
        findings.push(Unfit::new("spec.targetRefs", reason::INVALID, "a policy needs a target"));
    }
    if spec.authentication.is_none() && content.rules.is_empty() {
        // It would let everything pass.
        let message = "a policy guards by something: give authentication, authorization or both";
        findings.push(Unfit::new("spec", reason::INVALID, message));
    }
    let (targets, unusable_keys) = (target::of(&spec.target_refs), unusable_keys(&content));
    unless(findings, AccessPolicy { targets, overrides: spec.overrides, content: Ok(content), unusable_keys })
}

/// Whether a document that is no valid policy was meant to hold besides those on routes. What can't be told is taken to:
/// it was meant to guard.
pub(super) fn overrides(document: &Value) -> bool {
    match document.pointer("/spec/override") {
        None => document.pointer("/spec/authentication").is_none() && document.pointer("/spec/authorization").is_none(),
        Some(value) => value.as_bool().unwrap_or(true),
    }
}

/// What the proxy would say of it.
fn unfit(object: &ObjectRef, policy: &proto::AccessPolicy) -> Option<Unfit> {
    let resource = Resource { requires: vec![], kind: Some(resource::Kind::AccessPolicy(policy.clone())) };
    let unfit = check::resource(&Key::new(Kind::AccessPolicy, &object.namespace, &object.name), &resource).err();
    unfit.map(|unfit| Unfit { field: format!("spec.{}", unfit.field), ..unfit })
}

fn unusable_keys(policy: &proto::AccessPolicy) -> Vec<(usize, UnusableKey)> {
    let providers = policy.authentication.iter().flat_map(|authentication| &authentication.providers);
    let of_provider = |(i, provider): (usize, &proto::AuthProvider)| {
        let keys = match &provider.provider {
            Some(proto::auth_provider::Provider::Jwt(jwt)) => check::access::jwt_keys(jwt).ok(),
            _ => None,
        };
        let unusable = keys.map(|(_, unusable)| unusable).unwrap_or_default();
        unusable.into_iter().filter(|key| key.cause != Unusable::OtherUse).map(move |key| (i, key))
    };
    providers.enumerate().flat_map(of_provider).collect()
}

fn authentication(authentication: &crd::Authentication) -> proto::Authentication {
    proto::Authentication {
        providers: authentication.providers.iter().map(provider).collect(),
        anonymous: authentication.anonymous,
        max_failures_per_minute: authentication.max_failures_per_minute,
    }
}

/// A provider whose member is missing stays empty, which `check` refuses.
fn provider(provider: &crd::Provider) -> proto::AuthProvider {
    use proto::auth_provider::Provider;
    let of_type = match provider.kind {
        crd::ProviderType::ApiKey => provider.api_key.as_ref().map(|keys| {
            Provider::ApiKey(proto::ApiKeyProvider {
                from: keys.from.iter().map(source).collect(),
                forward: keys.forward,
            })
        }),
        crd::ProviderType::Jwt => provider.jwt.as_ref().map(|jwt| Provider::Jwt(self::jwt(jwt))),
    };
    proto::AuthProvider { name: provider.name.clone(), provider: of_type }
}

fn jwt(jwt: &crd::JwtProvider) -> proto::JwtProvider {
    let required = |required: &crd::RequiredClaim| proto::RequiredClaim {
        claim: required.claim.clone(),
        values: required.values.clone(),
    };
    let field = |to: &crd::ClaimToHeader| proto::ClaimHeader {
        claim: to.claim.clone(),
        header: to.header.to_ascii_lowercase(),
    };
    proto::JwtProvider {
        issuer: jwt.issuer.clone(),
        audiences: jwt.audiences.clone(),
        r#type: jwt.typ.clone().unwrap_or_default(),
        // What is not a whole number of seconds counts for the next one.
        leeway_seconds: u32::try_from(jwt.leeway.as_millis().div_ceil(1000)).unwrap_or(u32::MAX),
        required_claims: jwt.required_claims.iter().map(required).collect(),
        scopes: jwt.scopes.clone(),
        from: jwt.from.iter().map(source).collect(),
        forward: jwt.forward,
        claim_headers: jwt.claim_to_headers.iter().map(field).collect(),
        jwks: jwt.jwks.inline.clone().into(),
    }
}

fn source(source: &crd::CredentialSource) -> proto::CredentialSource {
    use proto::credential_source::Source;
    let source = match (&source.header, &source.query, &source.cookie) {
        (Some(name), None, None) => Some(Source::Header(name.to_ascii_lowercase())),
        (None, Some(name), None) => Some(Source::Query(name.clone())),
        (None, None, Some(name)) => Some(Source::Cookie(name.clone())),
        _ => None,
    };
    proto::CredentialSource { source }
}

fn rule(rule: &crd::AccessRule) -> proto::AccessRule {
    let action = match rule.action {
        crd::AccessAction::Allow => proto::AccessAction::Allow,
        crd::AccessAction::Deny => proto::AccessAction::Deny,
    };
    let when = rule.when.clone().unwrap_or_default();
    let labels = when.labels.into_iter().map(|(name, value)| Label { name, value });
    proto::AccessRule {
        name: rule.name.clone(),
        action: action.into(),
        cidrs: when.cidrs,
        consumers: when.consumers,
        labels: labels.collect(),
        methods: when.methods,
        paths: when.paths.iter().map(self::path).collect(),
    }
}

/// In the form that requests have when they are compared; what has none is refused by `check`.
fn path(path: &crd::AccessPath) -> proto::PathMatch {
    let kind = match path.kind {
        crd::AccessPathType::Exact => proto::PathKind::Exact,
        crd::AccessPathType::PathPrefix => proto::PathKind::Prefix,
    };
    let value = path::normal(&path.value, path::Rules::OF_ROUTES).unwrap_or_else(|| path.value.as_str().into());
    proto::PathMatch { kind: kind.into(), value: value.into_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_meant_to_override() {
        for (spec, expect) in [
            (json!({"override": true}), true),
            (json!({"override": false}), false),
            (json!({"override": "yes"}), true),
            (json!({"authentication": 7}), false),
            // Nothing but its targets is held of it.
            (json!({"targetRefs": []}), true),
        ] {
            assert_eq!(overrides(&json!({ "spec": spec })), expect, "{spec}");
        }
    }
}
