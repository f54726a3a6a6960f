use super::*;
use crate::proto::{CredentialSource, Label, PathMatch, credential_source};

fn source(source: credential_source::Source) -> CredentialSource {
    CredentialSource { source: Some(source) }
}

fn header(name: &str) -> CredentialSource {
    source(credential_source::Source::Header(name.into()))
}

fn keys(name: &str, from: Vec<CredentialSource>) -> AuthProvider {
    let provider = auth_provider::Provider::ApiKey(ApiKeyProvider { from, forward: false });
    AuthProvider { name: name.into(), provider: Some(provider) }
}

fn by_key() -> Authentication {
    Authentication { providers: vec![keys("keys", vec![header("x-api-key")])], ..Authentication::default() }
}

fn rule(name: &str) -> AccessRule {
    AccessRule { name: name.into(), ..AccessRule::default() }
}

fn path(value: &str) -> PathMatch {
    PathMatch { kind: PathKind::Prefix.into(), value: value.into() }
}

#[track_caller]
fn check(authentication: Option<Authentication>, rules: Vec<AccessRule>, expect: Option<&str>) {
    let found = policy(&AccessPolicy { authentication, rules, ..AccessPolicy::default() });
    assert_eq!(found.err().map(|unfit| unfit.field).as_deref(), expect);
}

#[test]
fn providers() {
    let with = |change: &dyn Fn(&mut Authentication)| {
        let mut authentication = by_key();
        change(&mut authentication);
        Some(authentication)
    };
    let from = |from: Vec<CredentialSource>| with(&move |a| a.providers = vec![keys("keys", from.clone())]);
    check(with(&|_| {}), vec![], None);
    check(with(&|a| a.providers.clear()), vec![], Some("authentication.providers"));
    check(
        with(&|a| a.providers.push(keys("keys", vec![header("x")]))),
        vec![],
        Some("authentication.providers[1].name"),
    );
    check(with(&|a| a.max_failures_per_minute = MAX_FAILURES), vec![], None);
    check(with(&|a| a.max_failures_per_minute = MAX_FAILURES + 1), vec![], Some("authentication.maxFailuresPerMinute"));
    check(with(&|a| a.providers[0].provider = None), vec![], Some("authentication.providers[0].type"));
    let many = (0..=MAX_PROVIDERS).map(|i| keys(&i.to_string(), vec![header("x")])).collect::<Vec<_>>();
    check(with(&|a| a.providers.clone_from(&many)), vec![], Some("authentication.providers"));
    check(from(vec![]), vec![], Some("authentication.providers[0].apiKey.from"));
    check(from(vec![header("x"); MAX_SOURCES + 1]), vec![], Some("authentication.providers[0].apiKey.from"));
    for name in ["host", "Cookie", "a b", "transfer-encoding"] {
        check(from(vec![header(name)]), vec![], Some("authentication.providers[0].apiKey.from[0].header"));
    }
    let cookie = source(credential_source::Source::Cookie("a=b".into()));
    check(from(vec![header("x"), cookie]), vec![], Some("authentication.providers[0].apiKey.from[1].cookie"));
    let query = source(credential_source::Source::Query(String::new()));
    check(from(vec![query]), vec![], Some("authentication.providers[0].apiKey.from[0].query"));
    check(from(vec![CredentialSource::default()]), vec![], Some("authentication.providers[0].apiKey.from[0]"));
}

#[test]
fn rules() {
    let ruled = |rule: AccessRule, expect: Option<&str>| check(Some(by_key()), vec![rule], expect);
    ruled(rule("a"), None);
    check(None, vec![rule("a"), rule("a")], Some("authorization.rules[1].name"));
    check(None, (0..=MAX_RULES).map(|i| rule(&i.to_string())).collect(), Some("authorization.rules"));
    ruled(AccessRule { action: 9, ..rule("a") }, Some("authorization.rules[0].action"));
    for cidr in ["10.0.0.1/8", "10.0.0.0", "10.0.0.0/33", "a", "fd00::1/8"] {
        ruled(AccessRule { cidrs: vec![cidr.into()], ..rule("a") }, Some("authorization.rules[0].when.cidrs[0]"));
    }
    for path in ["", "a", "/%61", "/a//../..", "/a\\b", "/a/../b", "/%2e"] {
        let paths = vec![self::path(path)];
        ruled(AccessRule { paths, ..rule("a") }, Some("authorization.rules[0].when.paths[0].value"));
    }
    let regex = PathMatch { kind: PathKind::Regex.into(), value: "/a".into() };
    ruled(AccessRule { paths: vec![regex], ..rule("a") }, Some("authorization.rules[0].when.paths[0].type"));
    ruled(AccessRule { methods: vec!["G T".into()], ..rule("a") }, Some("authorization.rules[0].when.methods[0]"));
    let known = AccessRule { consumers: vec!["acme".to_owned()], ..rule("a") };
    check(Some(by_key()), vec![known.clone()], None);
    check(None, vec![known], Some("authorization.rules[0].when"));
    check(None, vec![AccessRule { labels: vec![Label::default()], ..rule("a") }], Some("authorization.rules[0].when"));
}

/// The bound is on the sum of all rules.
#[test]
fn networks() {
    let of = |name: &str, many: usize| AccessRule { cidrs: vec!["10.0.0.0/8".into(); many], ..rule(name) };
    check(None, vec![of("a", MAX_CIDRS / 2), of("b", MAX_CIDRS / 2)], None);
    check(None, vec![of("a", MAX_CIDRS / 2), of("b", MAX_CIDRS / 2 + 1)], Some("authorization.rules"));
    assert_eq!(network("10.0.0.1/8").unwrap_err(), "10.0.0.1/8 has bits beyond its length: write 10.0.0.0/8");
    assert!(network("fd00::/8").is_ok());
}
