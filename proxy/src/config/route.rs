//! One route, compiled: its rules, and the ways to reach them.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, Method};
use snapshot::{
    Key,
    check::Unfit,
    expression::{self, Expression},
    proto::{self, PathKind},
};

use super::{clusters::Clusters, policies::Policies};
use crate::{
    Shared,
    filter::{self, Chain},
    router::{Candidate, Conditions, Path, PathExpression, Value},
    rule::{Action, Backends, Rule},
};

/// Compiles a route with the policies that target it: to the ways to reach its rules.
pub(crate) fn compile(
    shared: &Shared,
    clusters: &mut Clusters,
    policies: &Policies,
    key: &Key,
    route: &proto::Route,
) -> Result<Box<[Arc<Candidate>]>, Unfit> {
    let name: Arc<str> = format!("{}/{}", key.namespace(), key.name()).into();
    let metrics = shared.telemetry.route(&name);
    let mut candidates = vec![];
    for (i, rule) in route.rules.iter().enumerate() {
        let within = |e: Unfit| Unfit { field: format!("rules[{i}].{}", e.field), ..e };
        let (chain, action) = match refusal(rule, policies, key) {
            // No filter answers for a rule that must not serve: a policy that can't be enforced never opens it.
            Some(why) => (Chain::default(), Action::Unavailable(why.into())),
            None => (chain(shared, clusters, policies, key, rule).map_err(within)?, action(clusters, rule)),
        };
        let compiled = Arc::new(Rule {
            route: Arc::clone(&name),
            name: rule.name.as_str().into(),
            metrics: Arc::clone(&metrics),
            chain,
            request_timeout: timeout(rule.request_timeout_ms),
            backend_timeout: timeout(rule.backend_timeout_ms),
            streams: rule.streams,
            action,
        });
        for (j, m) in rule.matches.iter().enumerate() {
            let within = |e: Unfit| within(Unfit { field: format!("matches[{j}].{}", e.field), ..e });
            candidates.push(Arc::new(Candidate {
                path: path(m.path.as_ref()).map_err(within)?,
                conditions: conditions(m).map_err(within)?,
                created_ms: route.created_ms,
                order: (i, j),
                rule: Arc::clone(&compiled),
            }));
        }
    }
    Ok(candidates.into())
}

/// Why a rule answers 500, if it does.
fn refusal(rule: &proto::Rule, policies: &Policies, key: &Key) -> Option<String> {
    if !rule.unavailable.is_empty() {
        return Some(rule.unavailable.clone());
    }
    policies.refusal(key, &rule.name)
}

fn chain(
    shared: &Shared,
    clusters: &mut Clusters,
    policies: &Policies,
    key: &Key,
    rule: &proto::Rule,
) -> Result<Chain, Unfit> {
    let mut filters = vec![];
    let mut parts = filter::Parts { telemetry: &shared.telemetry, slots: &mut |key: &Key| clusters.slot(key) };
    for (i, f) in rule.filters.iter().enumerate() {
        let within = |e: Unfit| Unfit { field: format!("filters[{i}].{}", e.field), ..e };
        filters.push(filter::compile(f, &mut parts).map_err(within)?);
    }
    filters.extend(shared.access.compile(&policies.access.holding(key, &rule.name))?);
    let rate = policies.rate.of(key, &rule.name).map(|(key, _, policy, target)| (key, policy, target));
    filters.extend(shared.limiters.compile(rate, key, &rule.name)?);
    Ok(Chain::new(filters))
}

fn action(clusters: &mut Clusters, rule: &proto::Rule) -> Action {
    if rule.backends.is_empty() {
        // Reached only when no redirect answers first.
        return Action::Unavailable("the rule has no backend".into());
    }
    let mut sum = 0;
    let weighted = rule.backends.iter().filter(|b| b.weight > 0).filter_map(|backend| {
        sum += u64::from(backend.weight);
        // check::resource made sure that it is a key.
        Some((sum, clusters.slot(&backend.cluster.parse().ok()?)))
    });
    Action::Forward(Backends { choices: weighted.collect() })
}

fn timeout(ms: u64) -> Option<Duration> {
    (ms > 0).then(|| Duration::from_millis(ms))
}

fn path(path: Option<&proto::PathMatch>) -> Result<Path, Unfit> {
    let Some(path) = path else {
        return Ok(Path::prefix("/"));
    };
    Ok(match path.kind() {
        PathKind::Prefix => Path::prefix(&path.value),
        PathKind::Exact => Path::Exact(path.value.as_str().into()),
        PathKind::Regex => {
            let expression = regex("path.value", &path.value)?;
            Path::Regex(Box::new(PathExpression::new(&path.value, expression)))
        }
    })
}

fn conditions(m: &proto::Match) -> Result<Option<Box<Conditions>>, Unfit> {
    let conditions =
        Conditions { method: method(&m.method)?, headers: headers(&m.headers)?, query: query(&m.query_params)? };
    Ok((!conditions.is_empty()).then(|| Box::new(conditions)))
}

fn method(method: &str) -> Result<Option<Method>, Unfit> {
    if method.is_empty() {
        return Ok(None);
    }
    let parsed = Method::from_bytes(method.as_bytes());
    parsed.map(Some).map_err(|e| Unfit::new("method", "InvalidMethod", format!("{method:?}: {e}")))
}

fn headers(matches: &[proto::ValueMatch]) -> Result<Vec<(HeaderName, Value)>, Unfit> {
    let mut compiled: Vec<(HeaderName, Value)> = vec![];
    for (i, m) in matches.iter().enumerate() {
        let name = HeaderName::from_bytes(m.name.as_bytes());
        let name =
            name.map_err(|e| Unfit::new(format!("headers[{i}].name"), "InvalidHeader", format!("{:?}: {e}", m.name)))?;
        // Gateway API: of matches with the same name only the first counts.
        if compiled.iter().all(|(n, _)| *n != name) {
            compiled.push((name, value(&format!("headers[{i}].value"), m)?));
        }
    }
    Ok(compiled)
}

/// Query parameters by name.
type Parameters = Vec<(Box<[u8]>, Value)>;

fn query(matches: &[proto::ValueMatch]) -> Result<Parameters, Unfit> {
    let mut compiled = Parameters::new();
    for (i, m) in matches.iter().enumerate() {
        if compiled.iter().all(|(n, _)| **n != *m.name.as_bytes()) {
            compiled.push((m.name.as_bytes().into(), value(&format!("queryParams[{i}].value"), m)?));
        }
    }
    Ok(compiled)
}

fn value(field: &str, m: &proto::ValueMatch) -> Result<Value, Unfit> {
    match m.regex {
        true => regex(field, &m.value).map(Value::Regex),
        false => Ok(Value::Exact(m.value.as_bytes().into())),
    }
}

fn regex(field: &str, pattern: &str) -> Result<Arc<Expression>, Unfit> {
    expression::compile(pattern).map_err(|fault| Unfit::new(field, fault.reason(), fault.to_string()))
}
