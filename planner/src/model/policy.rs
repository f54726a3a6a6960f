//! RatePolicy: limits in the form that proxies execute; targets still as references.

use std::collections::BTreeSet;

use crds::{common::PolicyMode, policy as crd};
use snapshot::{
    Key, Kind, check,
    check::Unfit,
    proto::{self, Resource, resource},
};

use super::{
    Findings,
    target::{self, Target},
    unless,
};
use crate::{problem::reason, world::ObjectRef};

/// Leading bits of an address that count: all of an IPv4 address; of an IPv6 address the /64 that one client holds.
const IPV4_PREFIX: u32 = 32;
const IPV6_PREFIX: u32 = 64;

/// A RatePolicy.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) targets: Vec<Target>,
    /// `Err`: it is not valid and never was; why its targets answer 500.
    pub(crate) content: Result<Vec<proto::Limit>, String>,
}

pub(super) fn validate(object: &ObjectRef, policy: &crds::RatePolicy) -> Result<Policy, Findings> {
    let spec = &policy.spec;
    let (mut findings, mut names, mut limits) = (vec![], BTreeSet::new(), vec![]);
    for (i, limit) in spec.limits.iter().enumerate() {
        if !names.insert(&limit.name) {
            let message = format!("two limits are named {:?}: give each its own name", limit.name);
            findings.push(Unfit::new(format!("spec.limits[{i}].name"), reason::DUPLICATE_NAME, message));
        }
        let limit = self::limit(limit, spec.mode);
        let field = format!("spec.limits[{i}]");
        findings.extend(unfit(object, &limit).map(|e| Unfit { field: e.field.replacen("limits[0]", &field, 1), ..e }));
        limits.push(limit);
    }
    if spec.target_refs.is_empty() {
        findings.push(Unfit::new("spec.targetRefs", reason::INVALID, "a policy needs a target"));
    }
    unless(findings, Policy { targets: target::of(&spec.target_refs), content: Ok(limits) })
}

/// The check of one limit as the proxy makes it.
fn unfit(object: &ObjectRef, limit: &proto::Limit) -> Option<Unfit> {
    let policy = proto::RatePolicy { limits: vec![limit.clone()], ..proto::RatePolicy::default() };
    let resource = Resource { requires: vec![], kind: Some(resource::Kind::RatePolicy(policy)) };
    check::resource(&Key::new(Kind::RatePolicy, &object.namespace, &object.name), &resource).err()
}

fn limit(limit: &crd::Limit, mode: PolicyMode) -> proto::Limit {
    let scope = match limit.scope {
        crd::LimitScope::Policy => proto::LimitScope::Policy,
        crd::LimitScope::PerTarget => proto::LimitScope::PerTarget,
        crd::LimitScope::PerRule => proto::LimitScope::PerRule,
    };
    let bucket = &limit.token_bucket;
    proto::Limit {
        name: limit.name.clone(),
        key: limit.key.iter().map(key_part).collect(),
        scope: scope.into(),
        token_bucket: Some(proto::TokenBucket {
            rate: bucket.rate.into(),
            per_ms: bucket.per.as_millis(),
            burst: bucket.burst.unwrap_or(bucket.rate).into(),
        }),
        audit: limit.mode.unwrap_or(mode) == PolicyMode::Audit,
    }
}

fn key_part(part: &crd::KeyPart) -> proto::KeyPart {
    use proto::key_part::Part;
    let part = match part {
        crd::KeyPart::ClientIp { prefix_length: None } => {
            Part::ClientIp(proto::ClientIp { ipv4_prefix: IPV4_PREFIX, ipv6_prefix: IPV6_PREFIX })
        }
        crd::KeyPart::ClientIp { prefix_length: Some(bits) } => Part::ClientIp(proto::ClientIp {
            // 48, meant for IPv6, leaves IPv4 whole: 32.
            ipv4_prefix: u32::from(*bits).min(IPV4_PREFIX),
            ipv6_prefix: (*bits).into(),
        }),
        crd::KeyPart::Header { name } => Part::Header(name.to_ascii_lowercase()),
        crd::KeyPart::Query { name } => Part::Query(name.clone()),
        crd::KeyPart::Cookie { name } => Part::Cookie(name.clone()),
        crd::KeyPart::Consumer {} => Part::Consumer(proto::ConsumerKey {}),
    };
    proto::KeyPart { part: Some(part) }
}
