//! Limits of rules: what bites, what is told, what outlives a push.

use http::{HeaderMap, Request};
use snapshot::{
    Key as ResourceKey, Kind,
    proto::{self, ClientIp, LimitScope, PolicyTarget, RatePolicy, key_part},
};

use super::*;
use crate::filter::testing::ctx;

fn limit(name: &str, rate: u64, burst: u64) -> proto::Limit {
    let token_bucket = Some(proto::TokenBucket { rate, per_ms: 1000, burst });
    proto::Limit { name: name.into(), token_bucket, ..proto::Limit::default() }
}

fn policy(name: &str, limits: Vec<proto::Limit>) -> (ResourceKey, RatePolicy) {
    let targets = vec![PolicyTarget { route: "Route/ns/r".into(), rule: String::new() }, PolicyTarget::default()];
    (ResourceKey::new(Kind::RatePolicy, "ns", name), RatePolicy { targets, limits, unavailable: String::new() })
}

fn stage(limiters: &Limiters, policies: &[(ResourceKey, RatePolicy)], route: &str, rule: &str) -> Box<dyn Filter> {
    let route = ResourceKey::new(Kind::Route, "ns", route);
    let of = policies.iter().map(|(key, policy)| {
        let target = policy.targets.iter().find(|t| t.route == route.as_str()).unwrap_or(&policy.targets[1]);
        (key, policy, target)
    });
    limiters.compile(of, &route, rule).unwrap().unwrap()
}

/// What is compiled and runs.
fn compile(limiters: &Limiters, policies: &[(ResourceKey, RatePolicy)], route: &str, rule: &str) -> Box<dyn Filter> {
    let filter = stage(limiters, policies, route, rule);
    limiters.take_effect(crate::clock::clock_us(std::time::Instant::now()));
    filter
}

/// What a request is told: status (0: goes on), `Retry-After`, and the fields.
fn ask(filter: &dyn Filter, now_us: u64, client: u8) -> (u16, String, String, String) {
    let mut head = RequestHead::from(Request::new(()).into_parts().0);
    let mut ctx = ctx();
    ctx.now_us = now_us;
    ctx.client = [192, 0, 2, client].into();
    let flow = filter.on_request(&mut head, &mut ctx);
    let status = match &flow {
        Flow::Continue => 0,
        Flow::Reply(answer) => answer.head.status.as_u16(),
        Flow::Wait(_) => panic!("limits wait for nobody"),
    };
    let mut told = HeaderMap::new();
    ctx.rate_limit.iter().for_each(|limit| limit.set(&mut told));
    let field = |name| told.get(name).map_or_else(String::new, |value| value.to_str().unwrap().to_owned());
    (status, field("retry-after"), field("ratelimit"), field("ratelimit-policy"))
}

fn passes(filter: &dyn Filter, now_us: u64, client: u8, requests: usize) -> usize {
    (0..requests).filter(|_| ask(filter, now_us, client).0 == 0).count()
}

fn per_client(mut limit: proto::Limit) -> proto::Limit {
    let part = key_part::Part::ClientIp(ClientIp { ipv4_prefix: 32, ipv6_prefix: 64 });
    limit.key = vec![proto::KeyPart { part: Some(part) }];
    limit
}

const NOW: u64 = 5_000_000_000;

#[test]
fn what_a_client_is_told() {
    let limiters = Limiters::default();
    let filter = compile(&limiters, &[policy("p", vec![limit("a", 2, 2), limit("b", 100, 200)])], "r", "x");
    let told = |status, retry: &str, field: &str| {
        (status, retry.into(), field.into(), "\"a\";q=2;w=1, \"b\";q=100;w=1".into())
    };
    assert_eq!(ask(&*filter, NOW, 1), told(0, "", "\"a\";r=1;t=1"));
    assert_eq!(ask(&*filter, NOW, 1), told(0, "", "\"a\";r=0;t=1"));
    assert_eq!(ask(&*filter, NOW, 1), told(429, "1", "\"a\";r=0;t=1"));
    let mut head = RequestHead::from(Request::new(()).into_parts().0);
    let mut ctx = ctx();
    ctx.now_us = NOW;
    let Flow::Reply(answer) = filter.on_request(&mut head, &mut ctx) else { panic!("passed") };
    assert_eq!(answer.reason, "rate_limited");
    assert_eq!(answer.head.fields.get("content-type"), Some(&b"application/problem+json"[..]));
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body["violated-policies"], serde_json::json!(["a"]));
    assert_eq!(body["status"], 429);
}

#[test]
fn each_client_has_its_bucket() {
    let limiters = Limiters::default();
    let filter = compile(&limiters, &[policy("p", vec![per_client(limit("a", 1, 3))])], "r", "x");
    assert_eq!(passes(&*filter, NOW, 1, 10), 3);
    assert_eq!(passes(&*filter, NOW, 2, 10), 3);
    assert_eq!(passes(&*filter, NOW + 1_000_000, 1, 10), 1);
}

#[test]
fn a_rejected_request_takes_nothing_elsewhere() {
    let limiters = Limiters::default();
    let policies = [policy("p", vec![limit("wide", 1, 10)]), policy("q", vec![per_client(limit("narrow", 1, 2))])];
    let filter = compile(&limiters, &policies, "r", "x");
    assert_eq!(passes(&*filter, NOW, 1, 100), 2);
    // 98 rejected ones left the wide limit alone: 8 tokens for others.
    assert_eq!((2..=9).map(|client| passes(&*filter, NOW, client, 2)).sum::<usize>(), 8);
    let (status, _, field, _) = ask(&*filter, NOW, 99);
    assert_eq!((status, field.as_str()), (429, "\"wide\";r=0;t=1"));
    let counts = limiters.policy_counts();
    let of = |name: &str| counts[&ResourceKey::new(Kind::RatePolicy, "ns", name)];
    assert_eq!(of("q"), (100 + 16 + 1, 98));
    assert_eq!(of("p"), (100 + 16 + 1, 8 + 1));
}

#[test]
fn audit_counts_and_rejects_nothing() {
    let limiters = Limiters::default();
    let audit = proto::Limit { audit: true, ..limit("a", 1, 2) };
    let filter = compile(&limiters, &[policy("p", vec![audit])], "r", "x");
    assert_eq!(ask(&*filter, NOW, 1), (0, String::new(), String::new(), String::new()));
    assert_eq!(passes(&*filter, NOW, 1, 9), 9);
    let expect = counters::Decisions { allowed: 2, limited: 0, audited: 8 };
    assert_eq!(limiters.decisions(), [("ns/p".to_owned(), "a".to_owned(), expect)]);
    assert_eq!(limiters.policy_counts().into_values().collect::<Vec<_>>(), [(10, 8)]);
}

#[test]
fn scopes_span_what_they_say() {
    let check = |scope: LimitScope, same_rule, same_target, other_route| {
        let limiters = Limiters::default();
        let policies = [policy("p", vec![proto::Limit { scope: scope.into(), ..limit("a", 1, 10) }])];
        let filters = [("r", "x"), ("r", "y"), ("s", "x")].map(|(r, rule)| compile(&limiters, &policies, r, rule));
        assert_eq!(passes(&*filters[0], NOW, 1, 4), 4);
        let again = compile(&limiters, &policies, "r", "x");
        let left = |filter: &dyn Filter| ask(filter, NOW, 1).2;
        let told = |remaining: u32| format!("\"a\";r={remaining};t={}", 10 - remaining);
        assert_eq!(left(&*again), told(same_rule), "{scope:?}");
        assert_eq!(left(&*filters[1]), told(same_target), "{scope:?}");
        assert_eq!(left(&*filters[2]), told(other_route), "{scope:?}");
    };
    check(LimitScope::Policy, 5, 4, 3);
    check(LimitScope::PerTarget, 5, 4, 9);
    check(LimitScope::PerRule, 5, 9, 9);
}

#[test]
fn a_push_resets_nothing_and_a_new_rate_applies() {
    let limiters = Limiters::default();
    for (client, kind) in [(1, per_client as fn(_) -> _), (2, std::convert::identity)] {
        let now = crate::clock::clock_us(std::time::Instant::now());
        let policies = |rate, burst| [policy("p", vec![kind(limit("a", rate, burst))])];
        let before = compile(&limiters, &policies(1, 1_000), "r", "x");
        assert_eq!(passes(&*before, now, client, 2_000), 1_000);
        let same = compile(&limiters, &policies(1, 1_000), "r", "x");
        limiters.forget_unused();
        assert_eq!(passes(&*same, now, client, 10), 0);
        let wider = compile(&limiters, &policies(1_000, 1_000_000), "r", "x");
        // As empty as it was, but for what the new rate has filled since the compilation.
        let passed = passes(&*wider, now + 1_000_000, client, 5_000);
        assert!((900..=1_100).contains(&passed), "{passed}");
        drop((before, same, wider));
        limiters.forget_unused();
        let anew = compile(&limiters, &policies(1, 7), "r", "x");
        assert_eq!(passes(&*anew, now, client, 10), 7);
        drop(anew);
        limiters.forget_unused();
        assert!(limiters.decisions().is_empty() && limiters.policy_counts().is_empty());
    }
}

/// In force as of a moment that the test says.
fn push(limiters: &Limiters, limit: proto::Limit, now_us: u64) -> Box<dyn Filter> {
    let filter = stage(limiters, &[policy("p", vec![limit])], "r", "x");
    limiters.take_effect(now_us);
    limiters.forget_unused();
    filter
}

#[test]
fn who_is_used_up_waits_by_the_limit_in_force() {
    for kind in [per_client as fn(_) -> _, std::convert::identity] {
        let limiters = Limiters::default();
        let hourly = || {
            let token_bucket = Some(proto::TokenBucket { rate: 1, per_ms: 3_600_000, burst: 1 });
            kind(proto::Limit { token_bucket, ..limit("a", 1, 1) })
        };
        let slow = push(&limiters, hourly(), NOW);
        assert_eq!(passes(&*slow, NOW, 1, 2), 1);
        assert_eq!(ask(&*slow, NOW, 1).1, "3600");
        let raised = NOW + 30_000_000;
        let fast = push(&limiters, kind(limit("a", 100, 100)), raised);
        let told = (429, "1".into(), "\"a\";r=0;t=1".into(), "\"a\";q=100;w=1".into());
        assert_eq!(ask(&*fast, raised, 1), told);
        assert_eq!(passes(&*fast, raised + 500_000, 1, 100), 50);
        // A request that began before the push takes from the same buckets, by the same rate.
        assert_eq!(passes(&*slow, raised + 600_000, 1, 100), 10);
        let cut = push(&limiters, hourly(), raised + 2_000_000);
        assert_eq!(passes(&*cut, raised + 2_000_000, 1, 100), 1);
        assert_eq!(ask(&*cut, raised + 2_000_000, 1).1, "3600");
        assert_eq!(passes(&*fast, raised + 2_500_000, 1, 100), 0);
    }
}

#[test]
fn what_is_not_in_force_changes_nothing() {
    for kind in [per_client as fn(_) -> _, std::convert::identity] {
        let limiters = Limiters::default();
        let running = push(&limiters, kind(limit("a", 1, 4)), NOW);
        let refused = stage(&limiters, &[policy("p", vec![kind(limit("a", 100, 100))])], "r", "x");
        assert_eq!(passes(&*running, NOW + 1_000_000, 1, 2), 2);
        drop(refused);
        let same = push(&limiters, kind(limit("a", 1, 4)), NOW + 1_000_000);
        assert_eq!(passes(&*same, NOW + 1_000_000, 1, 10), 2);
        // It was compiled again and again, and takes effect as of now.
        let of = [policy("p", vec![kind(limit("a", 10, 10))])];
        let first = stage(&limiters, &of, "r", "x");
        let second = stage(&limiters, &of, "r", "y");
        limiters.take_effect(NOW + 2_000_000);
        assert_eq!(passes(&*first, NOW + 2_000_000, 1, 10) + passes(&*second, NOW + 2_100_000, 1, 10), 2);
    }
}

#[test]
fn a_limit_that_counts_by_something_else_has_other_buckets() {
    let limiters = Limiters::default();
    let by_network = || {
        let part = key_part::Part::ClientIp(ClientIp { ipv4_prefix: 24, ipv6_prefix: 64 });
        proto::Limit { key: vec![proto::KeyPart { part: Some(part) }], ..limit("a", 1, 5) }
    };
    let by_client = push(&limiters, per_client(limit("a", 1, 3)), NOW);
    assert_eq!((passes(&*by_client, NOW, 1, 10), passes(&*by_client, NOW, 2, 10)), (3, 3));
    let wider = push(&limiters, by_network(), NOW);
    assert_eq!((passes(&*wider, NOW, 1, 4), passes(&*wider, NOW, 2, 10)), (4, 1));
    // Requests that began before go on with theirs, and take nothing from the new ones.
    assert_eq!((passes(&*by_client, NOW + 1_000_000, 1, 10), passes(&*wider, NOW, 1, 10)), (1, 0));
    let all = push(&limiters, limit("a", 1, 2), NOW);
    assert_eq!((passes(&*all, NOW, 3, 10), passes(&*wider, NOW, 3, 10)), (2, 0));
}

#[test]
fn more_limits_than_fit_inline() {
    let limiters = Limiters::default();
    let many = (1..=20).map(|i| limit(&format!("l{i}"), 1, 100 + i)).collect();
    let filter = compile(&limiters, &[policy("p", many)], "r", "x");
    assert_eq!(passes(&*filter, NOW, 1, 200), 101);
}

#[test]
fn limits_of_the_same_name_are_told_apart() {
    let limiters = Limiters::default();
    let policies = [policy("p", vec![limit("a", 1, 2)]), policy("q", vec![limit("a", 1, 1)])];
    let filter = compile(&limiters, &policies, "r", "x");
    let (_, _, field, policy) = ask(&*filter, NOW, 1);
    assert_eq!((field.as_str(), policy.as_str()), ("\"q/a\";r=0;t=1", "\"p/a\";q=1;w=1, \"q/a\";q=1;w=1"));
}

#[test]
fn threads_together_take_what_there_is() {
    let limiters = Limiters::default();
    let policies = [policy("p", vec![limit("a", 1, 500)]), policy("q", vec![per_client(limit("b", 1, 300))])];
    let filter = compile(&limiters, &policies, "r", "x");
    let passed: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|i| {
                scope.spawn({
                    let filter = &filter;
                    move || passes(&**filter, NOW, 1 + i % 2, 2_000)
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    });
    // Tokens that two threads raced for may stay taken: never more, hardly less.
    assert!((490..=500).contains(&passed), "{passed}");
}
