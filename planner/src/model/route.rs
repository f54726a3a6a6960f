//! ApiRoute: matches and filters in the form that proxies execute; parents and backends still as references.

use std::{collections::BTreeMap, net::SocketAddr, sync::OnceLock};

use crds::{common::ParentRef, route as crd};
use snapshot::{
    Entry, Hash, Key, Kind, check,
    check::Unfit,
    path,
    proto::{self, ClusterProtocol, Resource, ValueMatch, resource},
};

use super::{Findings, Hostname, cross_origin, external_auth, unless};
use crate::{problem::reason, world::ObjectRef};

/// Bytes of the shortest body that is coded: shorter ones are one packet either way.
const MIN_COMPRESSED_BYTES: u32 = 1024;

/// A valid ApiRoute.
#[derive(Clone, Debug, Default)]
pub(crate) struct Route {
    /// The parentRefs as written; empty: the fleet named `default`.
    pub(crate) parents: Vec<ParentRef>,
    pub(crate) hostnames: Vec<Hostname>,
    /// Namespaces, and what of this one's hostnames they may have.
    pub(crate) delegates: Vec<(Vec<String>, Vec<Hostname>)>,
    /// Complete but for their backends. One without matches is none: it keeps the place of a rule that can't be read.
    pub(crate) rules: Vec<proto::Rule>,
    /// The backends of each rule.
    pub(crate) backends: Vec<Vec<Backend>>,
    /// Services that filters call, of each rule.
    pub(crate) services: Vec<Vec<CalledService>>,
    /// Names that policies can use: those that stand in the manifest.
    pub(crate) rule_names: Vec<String>,
    /// Made when they are asked for: a route outlives many plans, and few of them are not compared.
    identities: OnceLock<Vec<Vec<Hash>>>,
}

impl Route {
    /// A route of nothing but rules.
    #[cfg(test)]
    pub(crate) fn of(rules: Vec<proto::Rule>) -> Self {
        Self { rules, ..Self::default() }
    }

    /// The identities of each rule's matches: those that mean the same have the same.
    pub(crate) fn identities(&self) -> &[Vec<Hash>] {
        let of_rule = |rule: &proto::Rule| rule.matches.iter().map(identity).collect();
        self.identities.get_or_init(|| self.rules.iter().map(of_rule).collect())
    }
}

/// A hash of a match, such that two that mean the same are equal.
fn identity(matching: &proto::Match) -> Hash {
    let mut matching = matching.clone();
    let by_name = |a: &ValueMatch, b: &ValueMatch| (&a.name, &a.value).cmp(&(&b.name, &b.value));
    matching.headers.sort_by(by_name);
    matching.query_params.sort_by(by_name);
    if let Some(path) = matching.path.as_mut().filter(|path| path.kind() == proto::PathKind::Prefix) {
        // `/a/` and `/a` are one prefix.
        path.value.truncate(path.value.trim_end_matches('/').len());
    }
    let rule = proto::Rule { matches: vec![matching], ..proto::Rule::default() };
    let route = proto::Route { rules: vec![rule], ..proto::Route::default() };
    Entry::new(&Resource { requires: vec![], kind: Some(resource::Kind::Route(route)) }).hash()
}

/// A destination of requests, and its share of them.
#[derive(Clone, Debug)]
pub(crate) struct Backend {
    pub(crate) to: Destination,
    pub(crate) weight: u32,
}

/// A service that a filter calls, without which its rule does not work.
#[derive(Clone, Debug)]
pub(crate) struct CalledService {
    /// The path of the field that names it, such as `spec.rules[0].filters[0].externalAuth.backendRef`.
    pub(crate) field: String,
    pub(crate) to: Destination,
}

/// A destination of requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Destination {
    /// A port of a Service.
    Service { namespace: Option<String>, name: String, port: u16 },
    /// `IP:port`.
    Address { address: SocketAddr, protocol: ClusterProtocol },
}

impl Destination {
    /// The key of its cluster, for a route of this namespace.
    pub(crate) fn key(&self, route_namespace: &str) -> Key {
        match self {
            Self::Address { address, protocol } => {
                let word = match protocol {
                    ClusterProtocol::Http1 => "http1",
                    ClusterProtocol::H2c => "h2c",
                };
                Key::cluster(route_namespace, &address.to_string(), word)
            }
            Self::Service { namespace, name, port } => {
                let namespace = namespace.as_deref().unwrap_or(route_namespace);
                Key::cluster(namespace, name, &port.to_string())
            }
        }
    }
}

pub(super) fn validate(object: &ObjectRef, route: &crds::ApiRoute) -> Result<Route, Findings> {
    let (route, findings) = build(object, route);
    unless(findings, route)
}

/// The usable part of a route that is not valid and never was: rules that nothing is wrong with are as written, the others
/// answer 500 where their matches can be read. `None`: more than rules is wrong, or no rule is left.
pub(super) fn rest(object: &ObjectRef, route: &crds::ApiRoute) -> Option<Route> {
    let spec = &route.spec;
    let (mut route, findings) = build(object, route);
    for Unfit { field, reason, message } in findings {
        let index = field.strip_prefix("spec.rules[")?.split_once(']')?.0.parse::<usize>().ok()?;
        let rule = route.rules.get_mut(index)?;
        if reason == reason::DUPLICATE_NAME {
            rule.matches.clear(); // two rules can't be known by one name: the first has it
        }
        let alone = |m: &proto::Match| proto::Rule { matches: vec![m.clone()], ..proto::Rule::default() };
        rule.matches
            .retain(|m| unfit_rule(object, &proto::Rule { unavailable: message.clone(), ..alone(m) }).is_none());
        rule.filters.clear();
        rule.unavailable = message;
        route.backends.get_mut(index)?.clear();
        route.services.get_mut(index)?.clear();
    }
    let readable = || spec.rules.iter().zip(&route.rules).filter(|(_, rule)| !rule.matches.is_empty());
    route.rule_names = readable().filter_map(|(rule, _)| rule.name.clone()).collect();
    (readable().count() > 0).then_some(route)
}

/// The route, and what is wrong with it.
fn build(object: &ObjectRef, route: &crds::ApiRoute) -> (Route, Findings) {
    let spec = &route.spec;
    let mut findings = vec![];
    let compiled: Vec<_> =
        spec.rules.iter().enumerate().map(|(i, rule)| self::rule(&object.namespace, rule, i)).collect();
    let whole = proto::Route { rules: compiled, ..proto::Route::default() };
    // Before anything compiles them one by one.
    let in_sum = check::expressions_in_sum(&whole).err();
    let too_many = in_sum.is_some();
    findings.extend(in_sum.map(|e| Unfit { field: format!("spec.{}", e.field), ..e }));
    let hostnames: Vec<_> = spec.hostnames.iter().map(|name| Hostname::new(name)).collect();
    for (i, hostname) in hostnames.iter().enumerate() {
        findings.extend(unfit_hostname(object, hostname).map(|e| Unfit { field: format!("spec.hostnames[{i}]"), ..e }));
    }
    let (mut rules, mut backends, mut services) = (vec![], vec![], vec![]);
    for (i, (rule, compiled)) in spec.rules.iter().zip(whole.rules).enumerate() {
        let field = format!("spec.rules[{i}]");
        let unfit = if too_many { None } else { unfit_rule(object, &compiled) };
        findings.extend(unfit.map(|e| Unfit { field: e.field.replacen("rules[0]", &field, 1), ..e }));
        let matches = rule.matches.iter().enumerate();
        findings.extend(matches.filter_map(|(j, m)| unreachable(m, &format!("{field}.matches[{j}].path.value"))));
        rules.push(compiled);
        let refs = rule.backend_refs.iter().enumerate();
        let refs = refs.filter_map(|(j, backend)| {
            let field = format!("{field}.backendRefs[{j}]");
            self::backend(backend, &field).map_err(|e| findings.push(e)).ok()
        });
        backends.push(refs.collect());
        let called = rule.filters.iter().enumerate().filter_map(|(j, filter)| {
            let auth = filter.external_auth.as_ref()?;
            let field = format!("{field}.filters[{j}].externalAuth.backendRef");
            let to = external_auth::service(auth, &field).map_err(|e| findings.push(e)).ok()?;
            Some(CalledService { field, to })
        });
        services.push(called.collect());
    }
    findings.extend(same_names(&rules));
    let route = Route {
        parents: spec.parent_refs.clone(),
        hostnames,
        delegates: spec.delegates.iter().map(delegate).collect(),
        rules,
        backends,
        services,
        rule_names: spec.rules.iter().filter_map(|rule| rule.name.clone()).collect(),
        identities: OnceLock::new(),
    };
    (route, findings)
}

fn delegate(delegate: &crd::Delegate) -> (Vec<String>, Vec<Hostname>) {
    (delegate.namespaces.clone(), delegate.hostnames.iter().map(|name| Hostname::new(name)).collect())
}

/// The check of one rule as the proxy makes it.
fn unfit_rule(object: &ObjectRef, rule: &proto::Rule) -> Option<Unfit> {
    unfit(object, proto::Route { rules: vec![rule.clone()], ..proto::Route::default() })
}

/// The check of one hostname as the proxy makes it.
fn unfit_hostname(object: &ObjectRef, hostname: &Hostname) -> Option<Unfit> {
    let attachment = proto::Attachment { listener: String::new(), hostnames: vec![hostname.as_str().to_owned()] };
    unfit(object, proto::Route { attachments: vec![attachment], ..proto::Route::default() })
}

fn unfit(object: &ObjectRef, route: proto::Route) -> Option<Unfit> {
    let resource = Resource { requires: vec![], kind: Some(resource::Kind::Route(route)) };
    check::resource(&Key::new(Kind::Route, &object.namespace, &object.name), &resource).err()
}

/// A path that no request has, on whatever fleet.
fn unreachable(m: &crd::RouteMatch, field: &str) -> Option<Unfit> {
    let crd::PathMatch { kind, value } = m.path.as_ref()?;
    match kind {
        crd::PathMatchType::RegularExpression => {
            let why = path::unmatched(value)?;
            Some(Unfit::new(field, check::reason::INVALID_REGEX, format!("no request's path matches it: {why}")))
        }
        // What does not begin with `/` is told of already.
        _ if !value.starts_with('/') || path::normal(value, path::Rules::OF_ROUTES).is_some() => None,
        _ => {
            let message = "no request has this path: '\\', NUL, '%' without two hexadecimal digits, overlong UTF-8 and what \
                           leads above the root are answered 400";
            Some(Unfit::new(field, check::reason::INVALID_PATH, message))
        }
    }
}

/// Rules are known by their names, and those without by their index: `name: "1"` clashes with the second rule's index.
fn same_names(rules: &[proto::Rule]) -> Findings {
    let (mut first, mut findings) = (BTreeMap::new(), vec![]);
    for (i, rule) in rules.iter().enumerate() {
        if let Some(other) = first.insert(rule.name.as_str(), i) {
            let message = format!("rules {other} and {i} are both known as {:?}: give each its own name", rule.name);
            findings.push(Unfit::new(format!("spec.rules[{i}].name"), reason::DUPLICATE_NAME, message));
        }
    }
    findings
}

/// A rule of a route of this namespace.
fn rule(namespace: &str, rule: &crd::Rule, index: usize) -> proto::Rule {
    let millis = |timeout: Option<crds::Duration>| timeout.map_or(0, crds::Duration::as_millis);
    let mut matches: Vec<_> = rule.matches.iter().map(route_match).collect();
    if matches.is_empty() {
        matches.push(route_match(&crd::RouteMatch::default()));
    }
    proto::Rule {
        name: rule.name.clone().unwrap_or_else(|| index.to_string()),
        matches,
        filters: rule.filters.iter().map(|f| filter(namespace, f)).collect(),
        backends: vec![],
        request_timeout_ms: millis(rule.timeouts.request),
        backend_timeout_ms: millis(rule.timeouts.backend_request),
        unavailable: String::new(),
        streams: rule.timeouts.request.is_some_and(|request| request.as_millis() == 0),
    }
}

fn route_match(m: &crd::RouteMatch) -> proto::Match {
    use crd::{PathMatchType, ValueMatchType};
    let kind = match m.path.as_ref().map_or(PathMatchType::default(), |path| path.kind) {
        PathMatchType::Exact => proto::PathKind::Exact,
        PathMatchType::PathPrefix => proto::PathKind::Prefix,
        PathMatchType::RegularExpression => proto::PathKind::Regex,
    };
    let value = m.path.as_ref().map_or("/", |path| &path.value);
    // In the form that requests have when they are compared; what has none is told of (`unreachable`).
    let value = match kind {
        proto::PathKind::Regex => value.into(),
        _ => path::normal(value, path::Rules::OF_ROUTES).unwrap_or_else(|| value.into()).into_owned(),
    };
    let header = |h: &crd::HeaderMatch| proto::ValueMatch {
        name: h.name.to_ascii_lowercase(),
        value: h.value.clone(),
        regex: h.kind == ValueMatchType::RegularExpression,
    };
    let query = |q: &crd::QueryParamMatch| proto::ValueMatch {
        name: q.name.clone(),
        value: q.value.clone(),
        regex: q.kind == ValueMatchType::RegularExpression,
    };
    proto::Match {
        path: Some(proto::PathMatch { kind: kind.into(), value }),
        method: m.method.map(method).unwrap_or_default().to_owned(),
        headers: m.headers.iter().map(header).collect(),
        query_params: m.query_params.iter().map(query).collect(),
    }
}

fn method(method: crd::Method) -> &'static str {
    match method {
        crd::Method::Get => "GET",
        crd::Method::Head => "HEAD",
        crd::Method::Post => "POST",
        crd::Method::Put => "PUT",
        crd::Method::Delete => "DELETE",
        crd::Method::Connect => "CONNECT",
        crd::Method::Options => "OPTIONS",
        crd::Method::Trace => "TRACE",
        crd::Method::Patch => "PATCH",
    }
}

/// A filter whose member is missing stays empty, which `check` refuses.
fn filter(namespace: &str, filter: &crd::RouteFilter) -> proto::Filter {
    use proto::filter::Filter;
    let filter = match filter.kind {
        crd::FilterType::RequestHeaderModifier => {
            filter.request_header_modifier.as_ref().map(|m| Filter::RequestHeaderModifier(header_modifier(m)))
        }
        crd::FilterType::ResponseHeaderModifier => {
            filter.response_header_modifier.as_ref().map(|m| Filter::ResponseHeaderModifier(header_modifier(m)))
        }
        crd::FilterType::RequestRedirect => filter.request_redirect.as_ref().map(|r| {
            Filter::RequestRedirect(proto::Redirect {
                scheme: r.scheme.clone().unwrap_or_default(),
                hostname: r.hostname.as_deref().unwrap_or_default().to_ascii_lowercase(),
                port: r.port.unwrap_or_default().into(),
                path: r.path.as_ref().map(path_rewrite),
                status: r.status_code.unwrap_or(302).into(),
            })
        }),
        crd::FilterType::UrlRewrite => filter.url_rewrite.as_ref().map(|u| {
            Filter::UrlRewrite(proto::UrlRewrite {
                hostname: u.hostname.as_deref().unwrap_or_default().to_ascii_lowercase(),
                path: u.path.as_ref().map(path_rewrite),
            })
        }),
        crd::FilterType::Compression => filter.compression.as_ref().map(|c| Filter::Compression(compression(c))),
        crd::FilterType::ExternalAuth => {
            filter.external_auth.as_ref().map(|a| Filter::ExternalAuth(external_auth::compile(namespace, a)))
        }
        crd::FilterType::Cors => filter.cors.as_ref().map(|c| Filter::Cors(cross_origin::cors(c))),
        crd::FilterType::Csrf => filter.csrf.as_ref().map(|c| Filter::Csrf(cross_origin::csrf(c))),
    };
    proto::Filter { filter }
}

fn compression(c: &crd::Compression) -> proto::Compression {
    let algorithm = |algorithm: &crd::CompressionAlgorithm| match algorithm {
        crd::CompressionAlgorithm::Gzip => proto::CompressionAlgorithm::Gzip.into(),
    };
    proto::Compression {
        algorithms: c.algorithms.iter().map(algorithm).collect(),
        types: c.types.iter().map(|media_type| media_type.to_ascii_lowercase()).collect(),
        min_bytes: c.min_bytes.unwrap_or(MIN_COMPRESSED_BYTES).into(),
    }
}

fn header_modifier(m: &crd::HeaderModifier) -> proto::HeaderModifier {
    let header =
        |h: &crds::common::HttpHeader| proto::Header { name: h.name.to_ascii_lowercase(), value: h.value.clone() };
    proto::HeaderModifier {
        set: m.set.iter().map(header).collect(),
        add: m.add.iter().map(header).collect(),
        remove: m.remove.iter().map(|name| name.to_ascii_lowercase()).collect(),
    }
}

fn path_rewrite(path: &crd::PathModifier) -> proto::PathRewrite {
    use proto::path_rewrite::Rewrite;
    let rewrite = match path.kind {
        crd::PathModifierType::ReplaceFullPath => path.replace_full_path.clone().map(Rewrite::ReplaceFullPath),
        crd::PathModifierType::ReplacePrefixMatch => path.replace_prefix_match.clone().map(Rewrite::ReplacePrefixMatch),
    };
    proto::PathRewrite { rewrite }
}

pub(super) fn backend(backend: &crd::BackendRef, field: &str) -> Result<Backend, Unfit> {
    let weight = backend.weight;
    match (&backend.address, &backend.name, backend.port) {
        (Some(text), None, None) => {
            let Ok(address) = text.parse::<SocketAddr>() else {
                let message = format!("{text:?} is no IP address and port, such as 127.0.0.1:9000 or [::1]:9000");
                return Err(Unfit::new(format!("{field}.address"), reason::INVALID_ADDRESS, message));
            };
            let protocol = match backend.app_protocol.as_deref() {
                None => ClusterProtocol::Http1,
                Some("kubernetes.io/h2c") => ClusterProtocol::H2c,
                Some(other) => {
                    let message =
                        format!("{other:?} is not supported: use kubernetes.io/h2c, or leave it out for HTTP/1.1");
                    return Err(Unfit::new(format!("{field}.appProtocol"), reason::UNSUPPORTED_PROTOCOL, message));
                }
            };
            Ok(Backend { to: Destination::Address { address, protocol }, weight })
        }
        (None, Some(name), Some(port)) => {
            let (namespace, name) = (backend.namespace.clone(), name.clone());
            Ok(Backend { to: Destination::Service { namespace, name, port }, weight })
        }
        _ => Err(Unfit::new(field, reason::INVALID, "needs either an address, or a Service's name and port")),
    }
}
