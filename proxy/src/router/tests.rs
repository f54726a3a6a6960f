//! The router against a reference that looks at every candidate.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue, Method};
use proptest::{prelude::*, sample::select};
use snapshot::{
    expression,
    proto::{Attachment, HeldHostnames},
};

use super::*;
use crate::{fields::Fields, filter::testing::rule};

/// A candidate's parts, and where it is inserted.
#[derive(Clone, Debug)]
struct Spec {
    listener: &'static str,
    host: &'static str,
    path: (char, &'static str),
    method: Option<Method>,
    headers: Vec<(&'static str, &'static str)>,
    query: Vec<(&'static str, &'static str)>,
    created_ms: i64,
    route: &'static str,
    order: (usize, usize),
}

const LISTENERS: [&str; 3] = ["", "*.example", "a.example"];
const HOSTS: [&str; 5] = ["", "*.example", "*.b.example", "a.example", "x.b.example"];
const PATHS: [&str; 9] = ["/", "/a", "/a/", "/a/b", "/a/b/c", "/ab", "/a//b", "/c", "/a/b/"];
const ASKED: [&str; 14] =
    ["/", "/a", "/a/", "/a/b", "/a/b/", "/a/b/c", "/a/b/c/d", "/ab", "/abc", "/a//b", "//", "/c", "/x/y", "*"];
const EXPRESSIONS: [&str; 9] =
    ["/a/[a-z]+", "/[ab]", ".*", "/a/b/.*", "/a/b|/c", "(?i)/A/b/?", "(/a/b)+(/c)?", "/a/b/c/[d-f]", "/a.*"];

fn spec() -> impl Strategy<Value = Spec> {
    let path = prop_oneof![
        3 => (Just('p'), select(&PATHS[..])),
        2 => (Just('e'), select(&PATHS[..])),
        2 => (Just('r'), select(&EXPRESSIONS[..])),
    ];
    let method = select(&[None, None, Some(Method::GET), Some(Method::POST)][..]);
    let pairs = |names: &'static [&'static str]| {
        proptest::collection::btree_map(select(names), select(&["1", "2"][..]), 0..2)
            .prop_map(|map| map.into_iter().collect::<Vec<_>>())
    };
    (
        (select(&LISTENERS[..]), select(&HOSTS[..]), path, method),
        (pairs(&["x-a", "x-b"]), pairs(&["q", "r"])),
        (0..3i64, select(&["a/a", "a/b", "b/a"][..]), (0..3usize, 0..2usize)),
    )
        .prop_map(|((listener, host, path, method), (headers, query), (created_ms, route, order))| Spec {
            listener,
            host,
            path,
            method,
            headers,
            query,
            created_ms,
            route,
            order,
        })
}

fn candidate(spec: &Spec, number: usize) -> Arc<Candidate> {
    let value = |v: &str| Value::Exact(v.as_bytes().into());
    let mut rule = rule(&number.to_string());
    Arc::get_mut(&mut rule).unwrap().route = spec.route.into();
    let conditions = Conditions {
        method: spec.method.clone(),
        headers: spec.headers.iter().map(|(n, v)| (HeaderName::from_static(n), value(v))).collect(),
        query: spec.query.iter().map(|(n, v)| (n.as_bytes().into(), value(v))).collect(),
    };
    Arc::new(Candidate {
        path: match spec.path {
            ('p', path) => Path::prefix(path),
            ('e', path) => Path::Exact(path.into()),
            (_, pattern) => Path::Regex(Box::new(PathExpression::new(pattern, expression::compile(pattern).unwrap()))),
        },
        conditions: Some(Box::new(conditions)),
        created_ms: spec.created_ms,
        order: spec.order,
        rule,
    })
}

/// How specific a hostname pattern is for a host; `None`: it does not fit.
fn specific(pattern: &str, host: &str) -> Option<usize> {
    match pattern.strip_prefix('*') {
        None if pattern.is_empty() => Some(0),
        None => (pattern == host).then_some(usize::MAX),
        Some(suffix) => (host.ends_with(suffix) && host.len() > suffix.len()).then_some(suffix.len()),
    }
}

/// How good a path match is: the kind, then the length; and the length of what matched.
fn path_rank(spec: &Spec, path: &str) -> Option<((u8, usize), usize)> {
    match spec.path {
        ('e', value) => (value == path).then_some(((3, 0), path.len())),
        ('p', value) => {
            let value = value.strip_suffix('/').unwrap_or(value);
            let rest = path.strip_prefix(value)?;
            (rest.is_empty() || rest.starts_with('/') || value.is_empty()).then_some(((1, value.len()), value.len()))
        }
        (_, pattern) => {
            let regex = regex::Regex::new(&format!(r"\A(?:{pattern})\z")).unwrap();
            regex.is_match(path).then_some(((2, pattern.len()), path.len()))
        }
    }
}

fn namespace(spec: &Spec) -> &str {
    spec.route.split('/').next().unwrap()
}

/// Whose a hostname is: the oldest route's, on whichever listener.
fn holder<'s>(specs: &'s [Spec], host: &str) -> Option<&'s str> {
    let claims = specs.iter().filter(|s| s.host == host);
    claims.min_by_key(|s| (s.created_ms, s.route)).map(namespace)
}

/// The reference: of all that match, the best.
fn reference(specs: &[Spec], q: &Query<'_>) -> Option<(String, usize)> {
    let listener = specs.iter().filter_map(|s| specific(s.listener, q.host)).max()?;
    let pairs: Vec<_> = q.query.unwrap_or_default().split('&').filter_map(|p| p.split_once('=')).collect();
    let most = specs.iter().filter(|s| specific(s.host, q.host).is_some()).max_by_key(|s| specific(s.host, q.host))?;
    let owner = holder(specs, most.host);
    let matching = specs.iter().enumerate().filter_map(|(i, s)| {
        let host = specific(s.host, q.host)?;
        if owner != Some(namespace(s)) || holder(specs, s.host) != owner {
            return None;
        }
        let (path, length) = path_rank(s, q.path)?;
        let fits = specific(s.listener, q.host) == Some(listener)
            && s.method.as_ref().is_none_or(|m| m == q.method)
            && s.headers.iter().all(|(n, v)| q.fields.get_all(*n).any(|got| got == v.as_bytes()))
            && s.query.iter().all(|(n, v)| pairs.iter().find(|(name, _)| name == n).map(|(_, got)| got) == Some(v));
        let conditions = (s.method.is_some(), s.headers.len(), s.query.len());
        let age = std::cmp::Reverse((s.created_ms, s.route, s.order, i));
        fits.then_some(((host, path, conditions, age), i, length))
    });
    matching.max_by(|a, b| a.0.cmp(&b.0)).map(|(_, i, length)| (i.to_string(), length))
}

/// Where a route of that hostname is served.
fn attachments(hostname: &str) -> Arc<[Attachment]> {
    let hostnames = if hostname.is_empty() { vec![] } else { vec![hostname.to_owned()] };
    vec![Attachment { listener: "l".into(), hostnames }].into()
}

fn holders(specs: &[Spec], beside: &[HeldHostnames]) -> Arc<Holders> {
    let served: Vec<_> = specs.iter().map(|spec| attachments(spec.host)).collect();
    let claims = specs.iter().zip(&served).map(|(spec, attachments)| Claim {
        namespace: namespace(spec),
        route: spec.route,
        created_ms: spec.created_ms,
        attachments,
    });
    Arc::new(Holders::new(claims, beside))
}

fn router(specs: &[Spec]) -> Router {
    router_with(specs, &[])
}

fn router_with(specs: &[Spec], beside: &[HeldHostnames]) -> Router {
    let holders = holders(specs, beside);
    let mut router = Router::new(Arc::clone(&holders));
    let mut hosted: BTreeMap<_, (&str, Vec<_>)> = BTreeMap::new();
    for (i, spec) in specs.iter().enumerate() {
        // A listener is there whatever it serves.
        router.listener(false, spec.listener);
        if holders.has(namespace(spec), spec.host) {
            let of = hosted.entry((spec.listener, spec.host)).or_insert((namespace(spec), vec![]));
            of.1.push(candidate(spec, i));
        }
    }
    for ((listener, host), (namespace, candidates)) in hosted {
        router
            .listener(false, listener)
            .serve(host, Arc::new(Hosted::new(&namespace.into(), Box::default(), candidates)));
    }
    router
}

fn found(matched: &Matched<'_>) -> (String, usize) {
    (matched.rule.name.to_string(), matched.prefix)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn finds_what_the_reference_finds(
        specs in proptest::collection::vec(spec(), 0..25),
        host in select(&["a.example", "b.example", "x.b.example", "y.b.example", "other", "example"][..]),
        path in select(&ASKED[..]),
        method in select(&[Method::GET, Method::POST, Method::PUT][..]),
        query in select(&[None, Some("q=1"), Some("q=2&r=1"), Some("r=2&q=1&q=2")][..]),
        fields in proptest::collection::vec((select(&["x-a", "x-b"][..]), select(&["1", "2"][..])), 0..4),
    ) {
        let field = |(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let fields: Fields = fields.into_iter().map(field).collect();
        let q = Query { tls: false, host, path, query, method: &method, fields: &fields };
        let router = router(&specs);
        prop_assert_eq!(router.find(&q).as_ref().map(found).ok(), reference(&specs, &q));
        let over_tls = Query { tls: true, ..q };
        prop_assert!(router.find(&over_tls).is_err());
    }

    #[test]
    fn no_rule_answers_for_another_namespaces_host(
        specs in proptest::collection::vec(spec(), 0..25),
        host in select(&["a.example", "b.example", "x.b.example", "y.b.example", "other", "example"][..]),
        path in select(&ASKED[..]),
        beside in select(&["a.example", "*.b.example", "*.example", "other", ""][..]),
        keeper in select(&["", "a", "c"][..]),
    ) {
        let fields = Fields::default();
        let q = Query { tls: false, host, path, query: None, method: &Method::GET, fields: &fields };
        let beside = [HeldHostnames { namespace: keeper.into(), hostnames: vec![beside.into()] }];
        let answered = router_with(&specs, &beside).find(&q).ok().map(|m| m.rule.route.split('/').next().unwrap().to_owned());
        let kept = (beside[0].hostnames[0].as_str(), keeper);
        let names = specs.iter().map(|s| s.host).chain([kept.0]);
        let most = names.filter(|name| specific(name, host).is_some()).max_by_key(|name| specific(name, host));
        let owner = most.and_then(|most| match (holder(&specs, most), kept) {
            (Some(holder), (name, "")) if name == most => Some(holder),
            (_, (name, keeper)) if name == most => Some(keeper),
            (holder, _) => holder,
        });
        if let Some(answered) = answered {
            prop_assert_eq!(Some(answered.as_str()), owner);
        }
    }

    #[test]
    fn any_path_and_host_is_fine(host in ".*", path in ".*", query in proptest::option::of(".*")) {
        let specs: Vec<_> = PATHS.iter().map(|path| Spec {
            listener: "", host: "", path: ('p', path), method: None, headers: vec![], query: vec![("é", "ü")],
            created_ms: 0, route: "a/a", order: (0, 0),
        }).collect();
        let fields = Fields::default();
        let q = Query { tls: false, host: &host, path: &path, query: query.as_deref(), method: &Method::GET, fields: &fields };
        prop_assert!(router(&specs).find(&q).is_err());
    }
}

#[test]
fn a_prefix_is_whole_elements() {
    let specs: Vec<_> = ["/", "/foo/"]
        .map(|path| Spec {
            listener: "",
            host: "",
            path: ('p', path),
            method: None,
            headers: vec![],
            query: vec![],
            created_ms: 0,
            route: "a/a",
            order: (0, 0),
        })
        .into();
    let router = router(&specs);
    let fields = Fields::default();
    for (path, expect) in [("/foo", ("1", 4)), ("/foo/bar", ("1", 4)), ("/foobar", ("0", 0)), ("/", ("0", 0))] {
        let q = Query { tls: false, host: "h", path, query: None, method: &Method::GET, fields: &fields };
        let (name, prefix) = found(&router.find(&q).unwrap());
        assert_eq!((name.as_str(), prefix), expect, "{path}");
    }
}

#[test]
fn a_trailing_dot_is_the_same_host() {
    let spec = Spec {
        listener: "a.example",
        host: "a.example",
        path: ('p', "/"),
        method: None,
        headers: vec![],
        query: vec![],
        created_ms: 0,
        route: "a/a",
        order: (0, 0),
    };
    let router = router(&[spec]);
    let fields = Fields::default();
    let q = Query { tls: false, host: "a.example.", path: "/", query: None, method: &Method::GET, fields: &fields };
    assert!(router.find(&q).is_ok());
}

/// A path of 8 KiB, as long as targets may be, and a query like that, against the worst that routes may ask of them.
#[test]
fn a_look_up_is_bounded_whatever_the_routes_are() {
    let path = "/a".repeat(4 << 10);
    let query = "&".repeat(8 << 10);
    let fields: Fields = (0..90).map(|_| (HeaderName::from_static("x-b"), HeaderValue::from_static("2"))).collect();
    let q = Query { tls: false, host: "h", path: &path, query: Some(&query), method: &Method::GET, fields: &fields };
    let spec = |path, query| Spec {
        listener: "",
        host: "",
        path,
        method: None,
        headers: vec![],
        query,
        created_ms: 0,
        route: "a/a",
        order: (0, 0),
    };
    let never = |n: usize| expression::compile(&format!("(/a)*{n}")).unwrap();
    let value = |n: usize| Value::Regex(expression::compile(&format!("2*-{n}")).unwrap());
    let base = |path, n: usize| {
        let mut candidate = Arc::into_inner(candidate(&spec(path, vec![("q", "1")]), n)).unwrap();
        candidate.order = (n, 0);
        candidate
    };
    let any = ('p', "/");
    // What is asked for by name is answered by an index: all of it is within the bound.
    let (costly, none) = (Missed::TooCostly, Missed::NoRoute);
    type Make<'a> = &'a dyn Fn(usize) -> Candidate;
    let worst: [(&str, Missed, Make<'_>); 4] = [
        ("expressions over the path", costly, &|n| {
            let path = Path::Regex(Box::new(PathExpression::new("(/a)*n", never(n))));
            Candidate { path, conditions: None, ..base(any, n) }
        }),
        ("expressions over fields", costly, &|n| {
            let headers = vec![(HeaderName::from_static("x-b"), value(n))];
            let conditions = Conditions { headers, ..Conditions::default() };
            Candidate { conditions: Some(Box::new(conditions)), ..base(any, n) }
        }),
        ("fields", none, &|n| {
            let headers = vec![(HeaderName::from_static("x-c"), value(n))];
            let conditions = Conditions { headers, ..Conditions::default() };
            Candidate { conditions: Some(Box::new(conditions)), ..base(any, n) }
        }),
        ("parameters", none, &|n| base(any, n)),
    ];
    for (what, expect, candidate) in worst {
        let mut router = Router::new(holders(&[spec(any, vec![])], &[]));
        let candidates = (0..4096).map(|n| Arc::new(candidate(n))).collect();
        router.listener(false, "").serve("", Arc::new(Hosted::new(&"a".into(), Box::default(), candidates)));
        let start = std::time::Instant::now();
        let found = router.find(&q).map(drop);
        let took = start.elapsed();
        println!("4,096 {what}: {took:.1?} (goal 1 ms, built for release)");
        assert_eq!(found, Err(expect), "{what}");
        // Without optimisation, beside others. Unbounded, it would be seconds even in a release.
        assert!(took < std::time::Duration::from_millis(200), "{what}: {took:?}");
    }
}

/// Of the expressions of a host, a request meets those whose first elements are its path's.
#[test]
fn only_expressions_that_could_match_are_tried() {
    let plain = Spec {
        listener: "",
        host: "",
        path: ('p', "/"),
        method: None,
        headers: vec![],
        query: vec![],
        created_ms: 0,
        route: "a/a",
        order: (0, 0),
    };
    let mut router = Router::new(holders(std::slice::from_ref(&plain), &[]));
    let candidates = (0..200).map(|n| {
        let source = format!("/service-{n}/items/[0-9]+");
        let path = Path::Regex(Box::new(PathExpression::new(&source, expression::compile(&source).unwrap())));
        let candidate = Arc::into_inner(candidate(&plain, n)).unwrap();
        Arc::new(Candidate { path, ..candidate })
    });
    router.listener(false, "").serve("", Arc::new(Hosted::new(&"a".into(), Box::default(), candidates.collect())));
    let fields = Fields::default();
    let path = "/service-17/items/4";
    let q = Query { tls: false, host: "h", path, query: None, method: &Method::GET, fields: &fields };
    assert_eq!(found(&router.find(&q).unwrap()).0, "17");
    let ask = Ask::of(&q);
    let before = ask.effort.left();
    router.look_up(&q, &ask).unwrap();
    assert!(before - ask.effort.left() <= 40 + path.len(), "{}", before - ask.effort.left());
}

/// One of `/` on any listener.
fn all_of(route: &'static str, host: &'static str, listener: &'static str, path: &'static str) -> Spec {
    Spec {
        listener,
        host,
        path: ('p', path),
        method: None,
        headers: vec![],
        query: vec![],
        created_ms: 0,
        route,
        order: (0, 0),
    }
}

/// What answers a request for a host and a path.
#[track_caller]
fn check(router: &Router, host: &str, path: &str, expect: Option<&str>) {
    let fields = Fields::default();
    let q = Query { tls: false, host, path, query: None, method: &Method::GET, fields: &fields };
    assert_eq!(router.find(&q).ok().map(|m| m.rule.route.to_string()).as_deref(), expect, "{host}{path}");
}

#[test]
fn what_a_host_does_not_match_goes_to_nobody_else() {
    let acme = "/.well-known/acme-challenge/token";
    let mut specs = vec![
        all_of("shop/orders", "api.shop.example", "", "/orders"),
        all_of("evil/wildcard", "*.shop.example", "", "/"),
        all_of("evil/any", "", "", "/"),
    ];
    let router = router(&specs);
    check(&router, "api.shop.example", "/orders", Some("shop/orders"));
    for host in ["api.shop.example", "api.shop.example.", "api.shop.example.."] {
        check(&router, host, acme, None);
    }
    check(&router, "www.shop.example", acme, Some("evil/wildcard"));
    check(&router, "other.example", acme, Some("evil/any"));
    // Within a namespace it goes on.
    specs.push(all_of("shop/all", "*.example", "", "/"));
    let router = router_with(&specs, &[]);
    check(&router, "api.shop.example", acme, Some("shop/all"));
    check(&router, "www.shop.example", acme, Some("evil/wildcard"));
}

#[test]
fn a_hostname_is_held_on_every_listener() {
    // The holder has a route on one listener only; on the other, and of none at all, nobody else answers.
    let specs = [
        all_of("shop/orders", "api.shop.example", "api.shop.example", "/"),
        all_of("evil/wildcard", "*.shop.example", "", "/"),
        all_of("evil/any", "", "", "/"),
    ];
    let mut others = specs.to_vec();
    others[0].listener = "elsewhere.example";
    let router = router_with(&others, &[]);
    check(&router, "api.shop.example", "/", None);
    let held = |namespace: &str, hostname: &str| HeldHostnames {
        namespace: namespace.into(),
        hostnames: vec![hostname.into()],
    };
    let router = router_with(&specs[1..], &[held("shop", "api.shop.example"), held("", "*.pay.example")]);
    check(&router, "api.shop.example", "/", None);
    check(&router, "x.pay.example", "/", None);
    check(&router, "www.shop.example", "/", Some("evil/wildcard"));
    check(&router, "pay.example", "/", Some("evil/any"));
}
