//! Two tenants on one fleet, one of them hostile, with every right that the README gives a tenant: the other's traffic, status
//! and changes are as if it were alone; then the hostile namespace is deleted, and nothing of it is left.
//!
//! The kind: what one namespace writes costs another one something. Large objects, many, ever new and ever changing ones;
//! expressions; hostnames that are another's; policies, Services and Secrets that nothing needs.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use e2e::{
    cluster::{FLEET, Fleet, HOST, Place, RELEASE, Resource, SYSTEM, Sluice, sluice},
    harness::pause,
};
use http::Method;
use serde_json::{Value, json};

use super::rights;
use crate::{MIXED, assert_clean, bound, long, seconds};

/// A change is live, and its status says so.
const LIVE: Duration = Duration::from_secs(1);
/// Between two acts of the hostile tenant: so many that a small machine's API server is kept busy by them.
const PACE: Duration = Duration::from_millis(100);
/// Names that it uses of each kind: what it has made is then replaced.
const NAMES: usize = 400;
/// Ways to be hostile.
const KINDS: usize = 10;
/// A hostname of the hostile tenant's own.
const ITS_OWN: &str = "its-own.example";

#[test]
fn a_hostile_tenant_costs_others_nothing() {
    let sluice = sluice().unwrap();
    let place = Place::new(&sluice, "tenants", &Fleet::fixed(2)).unwrap();
    let hostile = Place::bare(&sluice, "hostile").unwrap();
    let user = rights::tenant(&hostile);
    place.apply(&place.route_yaml("all", "/", "")).unwrap();
    place.apply(&place.rewrite_yaml("changes", "/changes", "/c0")).unwrap();
    place.until("/", 200, "", seconds(20)).unwrap();
    for route in ["all", "changes"] {
        place.until_programmed(route, seconds(20)).unwrap();
    }
    let load = place.load(&format!("{MIXED} --rate 200")).unwrap();

    let (over, taken) = (AtomicBool::new(false), [const { AtomicUsize::new(0) }; KINDS]);
    let (changes, told) = thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                match act(&sluice, &user, &place.namespace, &hostile.namespace, n) {
                    Ok(()) => drop(taken[n % KINDS].fetch_add(1, Ordering::Relaxed)),
                    Err(why) if n < KINDS => println!("act {n}: {why}"),
                    Err(_) => {}
                }
                pause(PACE);
            }
        });
        let _over = Over(&over);
        changes(&place, if long() { seconds(600) } else { seconds(25) })
    });
    let (slowest, told) = (print("live", changes), print("told", told));
    let taken = taken.map(AtomicUsize::into_inner);
    println!("acts of the hostile tenant that the API server took, by kind: {taken:?}");
    assert!(taken.iter().all(|n| *n > 0), "an attack that the API server refuses attacks nothing: {taken:?}");
    assert!(slowest <= bound(LIVE) && told <= bound(LIVE));

    // What was its own is nobody's as soon as its namespace is gone.
    sluice.gone(&hostile.namespace).unwrap();
    let claim = place.rewrite_yaml("claims", "/", "/claimed").replace(HOST, ITS_OWN);
    place.apply(&claim).unwrap();
    let at = Instant::now();
    place
        .api()
        .eventually("its hostname is another's", seconds(20), |_| {
            let answer = place.request(&place.target(), ITS_OWN, "/")?;
            Ok((answer.status == 200).then_some(()))
        })
        .unwrap();
    println!("a hostname of the namespace that is gone is another's after {:.1?}", at.elapsed());
    let remembered = || {
        let memory = sluice.api.get(Resource::CONFIG_MAPS, SYSTEM, &format!("{RELEASE}-memory"))?;
        anyhow::Ok(memory.map(|memory| memory.to_string()).unwrap_or_default())
    };
    sluice
        .api
        .eventually("nothing of it is remembered", seconds(60), |_| {
            Ok((!remembered()?.contains(&hostile.namespace)).then_some(()))
        })
        .unwrap();
    let report = load.stop().unwrap();
    println!("{} requests, {} failed: the goal is 0\n{report}", report.requests, report.failures());
    assert_clean(&report);
}

/// Ends what goes on meanwhile, also when a test fails: the threads of a scope are waited for.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn print(what: &str, mut took: Vec<Duration>) -> Duration {
    took.sort();
    let (median, longest) = (took[took.len() / 2], took[took.len() - 1]);
    println!("{} changes {what}: median {median:.0?}, longest {longest:.0?}, the goal is {LIVE:?}", took.len());
    longest
}

/// Changes a route again and again: how long each took until it was live, and until the status said so. Meanwhile no status
/// says anything but that all is well.
fn changes(place: &Place<'_>, span: Duration) -> (Vec<Duration>, Vec<Duration>) {
    let (begun, mut live, mut told) = (Instant::now(), vec![], vec![]);
    while begun.elapsed() < span {
        let path = format!("/c{}", live.len() + 1);
        place.apply(&place.rewrite_yaml("changes", "/changes", &path)).unwrap();
        let at = Instant::now();
        place.until("/changes", 200, &path, bound(LIVE)).unwrap();
        live.push(at.elapsed());
        place.until_condition(Resource::API_ROUTES, "changes", ("Programmed", "True"), bound(LIVE)).unwrap();
        told.push(at.elapsed());
        if let (Some(live), Some(told)) = (live.last(), told.last().filter(|told| **told > LIVE / 2)) {
            println!(
                "{:.0?} after the first, {path} was live after {live:.0?}, and told after {told:.0?}",
                begun.elapsed()
            );
        }
        for condition in ["Accepted", "ResolvedRefs", "Programmed"] {
            let is = place.condition(Resource::API_ROUTES, "all", condition).unwrap().unwrap();
            assert_eq!(is.status, "True", "{is:?}");
        }
        let fleet = place.condition(Resource::GATEWAY_FLEETS, FLEET, "Accepted").unwrap().unwrap();
        assert_eq!(fleet.status, "True", "{fleet:?}");
        pause(Duration::from_millis(500));
    }
    (live, told)
}

/// One act of the hostile tenant, or why the API server does not take it.
fn act(sluice: &Sluice, user: &str, fleet: &str, own: &str, n: usize) -> Result<(), String> {
    let at = |kind: usize| format!("n{kind}-{}", n / KINDS % NAMES);
    let kind = n % KINDS;
    let name = at(kind);
    let route = |spec: Value| (Resource::API_ROUTES, object("sluice.dev/v1alpha1", "ApiRoute", &name, &spec));
    let backend = json!([{"name": "nothing", "port": 80}]);
    let parent = json!([{"name": FLEET, "namespace": fleet}]);
    let simple = |hostnames: Value, path: &str| {
        json!({"parentRefs": parent, "hostnames": hostnames,
            "rules": [{"matches": [{"path": {"value": path}}], "backendRefs": backend}]})
    };
    let (resource, object) = match kind {
        // What is another's: its host, whatever lies around it, and every other one.
        0 => route(simple(json!([HOST, "*.shop.example", "*.example", ITS_OWN]), "/")),
        1 => route(json!({"parentRefs": parent, "rules": [{"backendRefs": backend}]})),
        // Half a megabyte.
        2 => {
            let rule = |r: usize| {
                let value = "v".repeat(4000);
                json!({"matches": [
                    {"headers": [{"name": format!("x-{r}-{n}"), "value": value}]},
                    {"headers": [{"name": format!("y-{r}-{n}"), "value": value}]},
                ], "backendRefs": backend})
            };
            route(json!({"parentRefs": parent, "rules": (0..64).map(rule).collect::<Vec<_>>()}))
        }
        // The worst expressions, ever others.
        3 => {
            let rule = |r: usize| {
                let path = format!("/{n}-{r}/(.*/)*(a|b|c)*.*(a|b)[a-c]{{12}}");
                json!({"matches": [{"path": {"type": "RegularExpression", "value": path}}], "backendRefs": backend})
            };
            route(json!({"parentRefs": parent, "rules": (0..60).map(rule).collect::<Vec<_>>()}))
        }
        // Much of the routing table for few bytes.
        4 => {
            let hostnames: Vec<_> = (0..16).map(|h| format!("h{h}-{n}.example")).collect();
            let rules = (0..32)
                .map(|r| json!({"matches": vec![json!({}); 8], "name": format!("r{r}"), "backendRefs": backend}));
            let rules: Vec<_> = rules.collect();
            route(json!({"parentRefs": parent, "hostnames": hostnames, "rules": rules}))
        }
        5 => {
            let target = json!([{"group": "sluice.dev", "kind": "ApiRoute", "name": at(0)}]);
            let spec = json!({"targetRefs": target, "limits": [{"name": "l", "tokenBucket": {"rate": 1, "per": "1m", "burst": 1}}]});
            (Resource::RATE_POLICIES, object("sluice.dev/v1alpha1", "RatePolicy", &name, &spec))
        }
        6 => {
            let spec = json!({"selector": {"app": "load"}, "ports": [{"port": 80, "targetPort": 9099}]});
            (Resource::SERVICES, object("v1", "Service", &name, &spec))
        }
        7 => {
            let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
                "type": "kubernetes.io/tls", "stringData": {"tls.crt": "x".repeat(100_000), "tls.key": "x"}});
            (Resource::SECRETS, secret)
        }
        // Not valid, by what the API server does not see.
        8 => route(simple(json!([HOST]), "/%zz")),
        // Made and deleted again and again.
        _ => {
            let path = Resource::API_ROUTES.named(own, &at(n / KINDS % 5));
            drop(sluice.api.send_as(Some(user), Method::DELETE, &path, Some(&json!({}))));
            route(simple(json!([format!("d{n}.example"), ITS_OWN]), "/"))
        }
    };
    let path = format!("{}?fieldManager=hostile&force=true", resource.named(own, &name));
    match sluice.api.send_as(Some(user), Method::PATCH, &path, Some(&object)) {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(refusal)) => Err(refusal.to_string()),
        Err(error) => Err(format!("{error:#}")),
    }
}

fn object(version: &str, kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec})
}
