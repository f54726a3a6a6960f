//! Checks that make a resource executable. The operator runs them before it publishes and the proxy before it applies,
//! so that a resource which passes here is refused by a proxy only for what that proxy alone can know.

pub mod access;
mod client_address;
mod compression;
pub mod consumer;
mod cross_origin;
mod expressions;
mod external_auth;
mod fields;
mod fleet;
mod hostname;
pub mod reason;
mod unfit;

use std::net::SocketAddr;

pub use self::{
    expressions::{MAX_ROUTE_EXPRESSIONS, MAX_ROUTE_EXPRESSIONS_LENGTH, expressions, expressions_in_sum},
    unfit::Unfit,
};
pub(crate) use self::{
    fields::{BAD_PATH, OF_REQUESTS, OF_RESPONSES, http_token, is_path, modifiable},
    hostname::hostname,
    unfit::{Fit, within},
};
use crate::{
    expression,
    key::{Key, Kind},
    proto::{
        Certificate, Cluster, Filter, HeaderModifier, Listener, Match, PathKind, PathRewrite, RatePolicy, Resource,
        Route, Rule, ValueMatch, filter, key_part, path_rewrite, resource,
    },
    refs::{self, Reference},
};

/// Features of a proxy of this version: it announces them, and a resource can require them. Of each kind that the protocol
/// did not begin with there is one ([`Kind::feature`]).
pub const FEATURES: &[&str] = &["Consumer", "AccessPolicy"];

/// Checks one resource under its key.
pub fn resource(key: &Key, resource: &Resource) -> Fit {
    if let Some(unknown) = resource.requires.iter().find(|f| !FEATURES.contains(&f.as_str())) {
        return Err(Unfit::new("requires", reason::UNKNOWN_FEATURE, format!("this proxy has no feature {unknown:?}")));
    }
    let (kind, fit) = match &resource.kind {
        Some(resource::Kind::Fleet(f)) => (Kind::Fleet, fleet::fit(f)),
        Some(resource::Kind::Listener(l)) => (Kind::Listener, listener(l)),
        Some(resource::Kind::Certificate(c)) => (Kind::Certificate, certificate(c)),
        Some(resource::Kind::Route(r)) => (Kind::Route, route(r)),
        Some(resource::Kind::Cluster(c)) => (Kind::Cluster, cluster(c)),
        Some(resource::Kind::RatePolicy(p)) => (Kind::RatePolicy, rate_policy(p)),
        Some(resource::Kind::Consumer(c)) => (Kind::Consumer, consumer::consumer(c)),
        Some(resource::Kind::AccessPolicy(p)) => (Kind::AccessPolicy, access::policy(p)),
        None => {
            let message = format!("this version does not know the kind of {key}: finish the upgrade");
            return Err(Unfit::new("", reason::UNKNOWN_KIND, message));
        }
    };
    if kind != key.kind() {
        return Err(Unfit::new("", reason::WRONG_KIND, format!("a {} under the key {key}", kind.as_str())));
    }
    fit?;
    resource.kind.iter().flat_map(refs::refs).try_for_each(|reference| named(&reference))
}

/// Whether a reference is the key of what it is to name.
fn named(reference: &Reference<'_>) -> Fit {
    if reference.target().is_some() {
        return Ok(());
    }
    let message = format!("{:?} is no {} key", reference.key, reference.kind.as_str());
    Err(Unfit::new(reference.field.to_string(), reason::WRONG_REFERENCE, message))
}

/// Whether that expression can be used.
fn regex(field: &str, pattern: &str) -> Fit {
    expression::verdict(pattern).map(drop).map_err(|fault| Unfit::new(field, fault.reason(), fault.to_string()))
}

fn listener(l: &Listener) -> Fit {
    if !(1..=65535).contains(&l.port) {
        return Err(Unfit::new("port", reason::INVALID_PORT, format!("{} is not a port (1 to 65535)", l.port)));
    }
    if l.bind_port > 65535 {
        return Err(Unfit::new(
            "port",
            reason::INVALID_PORT,
            format!("{} is not a port that can be opened", l.bind_port),
        ));
    }
    hostname("hostname", &l.hostname, true)?;
    if l.tls && l.certificates.is_empty() {
        return Err(Unfit::new("tls.certificateRefs", reason::NO_CERTIFICATE, "a TLS listener needs a certificate"));
    }
    Ok(())
}

fn certificate(c: &Certificate) -> Fit {
    for (field, pem) in [("tls.crt", &c.chain_pem), ("tls.key", &c.private_key_pem)] {
        if pem.is_empty() {
            return Err(Unfit::new(field, reason::INVALID_CERTIFICATE, "is empty"));
        }
    }
    Ok(())
}

fn route(r: &Route) -> Fit {
    expressions_in_sum(r)?;
    for (i, attachment) in r.attachments.iter().enumerate() {
        for (j, name) in attachment.hostnames.iter().enumerate() {
            hostname(format_args!("attachments[{i}].hostnames[{j}]"), name, false)?;
        }
    }
    r.rules.iter().enumerate().try_for_each(|(i, rule)| within(format_args!("rules[{i}]"), self::rule(rule)))
}

fn rule(r: &Rule) -> Fit {
    if r.matches.is_empty() {
        return Err(Unfit::new("matches", reason::NO_MATCH, "a rule needs a match"));
    }
    for (i, m) in r.matches.iter().enumerate() {
        within(format_args!("matches[{i}]"), route_match(m))?;
    }
    for (i, f) in r.filters.iter().enumerate() {
        within(format_args!("filters[{i}]"), filter(f))?;
    }
    Ok(())
}

fn route_match(m: &Match) -> Fit {
    if let Some(path) = &m.path {
        match PathKind::try_from(path.kind) {
            Ok(PathKind::Regex) => regex("path.value", &path.value)?,
            Ok(_) if path.value.starts_with('/') => {}
            Ok(_) => return Err(Unfit::new("path.value", reason::INVALID_PATH, "must begin with /")),
            Err(_) => return Err(Unfit::new("path.type", reason::UNKNOWN_PATH_TYPE, format!("{}", path.kind))),
        }
    }
    if !m.method.is_empty() && http_token(&m.method).is_err() {
        return Err(Unfit::new("method", reason::INVALID_METHOD, format!("{:?} is no method", m.method)));
    }
    for (list, header, items) in [("headers", true, &m.headers), ("queryParams", false, &m.query_params)] {
        for (i, item) in items.iter().enumerate() {
            within(format_args!("{list}[{i}]"), value_match(item, header))?;
        }
    }
    Ok(())
}

fn value_match(m: &ValueMatch, header: bool) -> Fit {
    if header {
        http_token(&m.name).map_err(|e| Unfit::new("name", reason::INVALID_HEADER, e))?;
    }
    if m.regex { regex("value", &m.value) } else { Ok(()) }
}

fn filter(f: &Filter) -> Fit {
    match &f.filter {
        Some(filter::Filter::RequestHeaderModifier(m)) => {
            within("requestHeaderModifier", header_modifier(m, &OF_REQUESTS))
        }
        Some(filter::Filter::ResponseHeaderModifier(m)) => {
            within("responseHeaderModifier", header_modifier(m, &OF_RESPONSES))
        }
        Some(filter::Filter::RequestRedirect(r)) => {
            hostname("requestRedirect.hostname", &r.hostname, true)?;
            if !matches!(r.status, 301 | 302 | 303 | 307 | 308) {
                let message = format!("{} is not 301, 302, 303, 307 or 308", r.status);
                return Err(Unfit::new("requestRedirect.statusCode", reason::INVALID_STATUS, message));
            }
            if !matches!(r.scheme.as_str(), "" | "http" | "https") {
                return Err(Unfit::new("requestRedirect.scheme", reason::INVALID_SCHEME, "is neither http nor https"));
            }
            within("requestRedirect.path", path_rewrite(r.path.as_ref()))
        }
        Some(filter::Filter::UrlRewrite(u)) => {
            hostname("urlRewrite.hostname", &u.hostname, true)?;
            within("urlRewrite.path", path_rewrite(u.path.as_ref()))
        }
        Some(filter::Filter::Compression(c)) => within("compression", compression::fit(c)),
        Some(filter::Filter::ExternalAuth(a)) => within("externalAuth", external_auth::fit(a)),
        Some(filter::Filter::Cors(c)) => within("cors", cross_origin::cors(c)),
        Some(filter::Filter::Csrf(c)) => within("csrf", cross_origin::csrf(c)),
        None => Err(Unfit::new("type", reason::UNKNOWN_FILTER, "a filter that this version does not know")),
    }
}

fn path_rewrite(p: Option<&PathRewrite>) -> Fit {
    let (field, path) = match p.and_then(|p| p.rewrite.as_ref()) {
        Some(path_rewrite::Rewrite::ReplaceFullPath(path)) => ("replaceFullPath", path),
        Some(path_rewrite::Rewrite::ReplacePrefixMatch(path)) if path.is_empty() => return Ok(()),
        Some(path_rewrite::Rewrite::ReplacePrefixMatch(path)) => ("replacePrefixMatch", path),
        None => return Ok(()),
    };
    if is_path(path) { Ok(()) } else { Err(Unfit::new(field, reason::INVALID_PATH, BAD_PATH)) }
}

/// A modifier of header fields; `written` are those that the proxy itself writes behind it.
fn header_modifier(m: &HeaderModifier, written: &[&str]) -> Fit {
    let modifiable = |name: &str| modifiable(name, written);
    for (list, headers) in [("set", &m.set), ("add", &m.add)] {
        for (i, header) in headers.iter().enumerate() {
            let field = |member: &str| format!("{list}[{i}].{member}");
            http_token(&header.name).map_err(|e| Unfit::new(field("name"), reason::INVALID_HEADER, e))?;
            modifiable(&header.name).map_err(|e| Unfit::new(field("name"), reason::INVALID_HEADER, e))?;
            if !header.value.bytes().all(|b| b == b'\t' || (b >= b' ' && b != 0x7f)) {
                return Err(Unfit::new(field("value"), reason::INVALID_HEADER, "holds a control character"));
            }
        }
    }
    for (i, name) in m.remove.iter().enumerate() {
        let fit = http_token(name).and_then(|()| modifiable(name));
        fit.map_err(|e| Unfit::new(format!("remove[{i}]"), reason::INVALID_HEADER, e))?;
    }
    Ok(())
}

fn cluster(c: &Cluster) -> Fit {
    for (i, endpoint) in c.endpoints.iter().enumerate() {
        if endpoint.address.parse::<SocketAddr>().is_err() {
            let message = format!("{:?} is not IP:port", endpoint.address);
            return Err(Unfit::new(format!("endpoints[{i}].address"), reason::INVALID_ADDRESS, message));
        }
    }
    Ok(())
}

fn rate_policy(p: &RatePolicy) -> Fit {
    for (i, limit) in p.limits.iter().enumerate() {
        let bucket = limit.token_bucket.unwrap_or_default();
        let unfit = |member: &str, message: &str| {
            Err(Unfit::new(format!("limits[{i}].tokenBucket.{member}"), reason::INVALID_LIMIT, message))
        };
        // 2^40 tokens and a year keep every product of the limiter's arithmetic within 128 bits.
        if bucket.rate == 0 || bucket.rate > 1 << 40 {
            return unfit("rate", "must be at least 1");
        }
        if bucket.per_ms == 0 || bucket.per_ms > 366 * 86_400_000 {
            return unfit("per", "must be 1ms to one year");
        }
        if bucket.burst == 0 || bucket.burst > 1 << 40 {
            return unfit("burst", "must be at least 1");
        }
        for (j, part) in limit.key.iter().enumerate() {
            let field = format!("limits[{i}].key[{j}]");
            match &part.part {
                Some(key_part::Part::Header(name)) => {
                    http_token(name).map_err(|e| Unfit::new(format!("{field}.name"), reason::INVALID_HEADER, e))?;
                }
                Some(key_part::Part::ClientIp(ip)) if ip.ipv4_prefix > 32 || ip.ipv6_prefix > 128 => {
                    return Err(Unfit::new(format!("{field}.prefixLength"), reason::INVALID_PREFIX, "is over 128"));
                }
                Some(_) => {}
                None => return Err(Unfit::new(field, reason::UNKNOWN_KEY, "a key that this version does not know")),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::PathMatch;

    #[track_caller]
    fn check_path(kind: PathKind, value: &str, expect: Option<(&str, &str)>) {
        let path = PathMatch { kind: kind.into(), value: value.into() };
        let rule = Rule { matches: vec![Match { path: Some(path), ..Match::default() }], ..Rule::default() };
        let kind = resource::Kind::Route(Route { rules: vec![rule], ..Route::default() });
        let got = resource(&Key::new(Kind::Route, "a", "b"), &Resource { requires: vec![], kind: Some(kind) });
        assert_eq!(got.as_ref().err().map(|e| (e.field.as_str(), e.reason)), expect);
    }

    #[test]
    fn paths_and_expressions() {
        let field = "rules[0].matches[0].path.value";
        check_path(PathKind::Prefix, "/a", None);
        check_path(PathKind::Exact, "a", Some((field, "InvalidPath")));
        check_path(PathKind::Regex, "/a/[0-9]+", None);
        check_path(PathKind::Regex, "/a/(", Some((field, "InvalidRegex")));
        check_path(PathKind::Regex, "/only)|(?:/admin.*", Some((field, "InvalidRegex")));
        check_path(PathKind::Regex, "(a{1000}){1000}", Some((field, "TooComplex")));
    }

    #[test]
    fn framing_fields_are_the_proxys_own() {
        let set = vec![crate::proto::Header { name: "Transfer-Encoding".into(), value: "chunked".into() }];
        let got = header_modifier(&HeaderModifier { set, ..HeaderModifier::default() }, &[]);
        assert_eq!(got.unwrap_err().field, "set[0].name");
        let remove = vec!["X-Forwarded-For".into(), "x-forwarded-PROTO".into()];
        let modifier = HeaderModifier { remove, ..HeaderModifier::default() };
        assert_eq!(header_modifier(&modifier, &OF_REQUESTS).unwrap_err().field, "remove[1]");
        assert_eq!(header_modifier(&modifier, &OF_RESPONSES), Ok(()));
    }

    #[test]
    fn unknown_features_are_refused_by_name() {
        let key = Key::new(Kind::Fleet, "a", "b");
        let got = resource(&key, &Resource { requires: vec!["quic".into()], kind: None });
        assert_eq!(got.unwrap_err().to_string(), "requires: this proxy has no feature \"quic\"");
    }
}
