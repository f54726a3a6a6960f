//! What tenants share is shared fairly, and who has too much pays for it alone: the routes, endpoints, bytes and entries of
//! the routing table that a fleet holds, and the memory of the operator. What is left out says so, in numbers; what serves
//! within its share goes on, changes as fast as before, and says `Programmed`.
//!
//! The kinds: few large objects, many small ones, few bytes that come to much (matches that are `{}`, 64 hosts), clusters
//! of many endpoints, policies that must not fall alone. Pure parts of it: `planner::share`, `planner/src/compile/bounds`,
//! `operator/src/source/budget.rs`, `operator/src/push/slots.rs`, `operator/src/state/configmap.rs`.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    time::{Duration, Instant},
};

use e2e::{
    echo::Echo,
    harness::{
        Gateway, eventually, free_port, http,
        manifests::{Fleet, HOST, route, route_with, token_bucket},
        pause,
    },
    load::{Load, Plan},
};

use crate::{assert_clean, at, bound, long, serves};

/// What the chart gives an operator.
const OPERATOR_LIMIT: u64 = 512 << 20;
const ROUTES: usize = 20;

/// A tenant within its share: routes, one of them with a policy and one of a Service.
fn tenant(backend: SocketAddr) -> Vec<(&'static str, String)> {
    let mut routes = String::new();
    for i in 0..ROUTES {
        let _ = write!(routes, "---\n{}", route(&format!("r{i}"), &format!("/r{i}"), backend));
    }
    let _ = write!(
        routes,
        "---\n{}---\napiVersion: sluice.dev/v1alpha1\nkind: ApiRoute\nmetadata: {{name: service, namespace: shop}}\n\
         spec:\n  hostnames: [{HOST}]\n  rules:\n  - matches: [{{path: {{value: /service}}}}]\n    \
         backendRefs: [{{name: echo, port: 80}}]\n---\n\
         {{apiVersion: v1, kind: Service, metadata: {{name: echo, namespace: shop}}, spec: {{ports: [{{port: 80}}]}}}}\n---\n\
         {{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, ports: [{{port: {}}}],\n  \
           metadata: {{name: echo, namespace: shop, labels: {{kubernetes.io/service-name: echo}}}},\n  \
           endpoints: [{{addresses: [{}]}}]}}\n",
        token_bucket("limits", "r0", 100_000, 100_000),
        backend.port(),
        backend.ip(),
    );
    vec![("shop.yaml", routes)]
}

/// A hostile tenant's manifests, in files that the operator takes, whose names come before all others.
fn crowd(documents: impl Iterator<Item = String>) -> Vec<(String, String)> {
    let mut files = vec![String::new()];
    for document in documents {
        if files.last().is_some_and(|file| file.len() + document.len() > 15 << 20) {
            files.push(String::new());
        }
        if let Some(file) = files.last_mut() {
            let _ = write!(file, "---\n{document}\n");
        }
    }
    files.into_iter().enumerate().map(|(i, file)| (format!("a{i}.yaml"), file)).collect()
}

fn hostile(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "{{\"apiVersion\": \"sluice.dev/v1alpha1\", \"kind\": \"{kind}\", \
         \"metadata\": {{\"name\": \"{name}\", \"namespace\": \"crowd\"}}, \"spec\": {spec}}}"
    )
}

/// A route of half a megabyte.
fn large(i: usize, backend: SocketAddr) -> String {
    let value = "v".repeat(4000);
    let rule = |r: usize| {
        let matching = |m: usize| format!("{{\"headers\": [{{\"name\": \"x-{r}-{m}\", \"value\": \"{value}\"}}]}}");
        format!(
            "{{\"matches\": [{}, {}], \"backendRefs\": [{{\"address\": \"{backend}\"}}]}}",
            matching(0),
            matching(1)
        )
    };
    let rules: Vec<String> = (0..64).map(rule).collect();
    let spec = format!("{{\"hostnames\": [\"large{i}.crowd.example\"], \"rules\": [{}]}}", rules.join(","));
    hostile("ApiRoute", &format!("large{i:04}"), &spec)
}

/// One of many.
fn small(i: usize, backend: SocketAddr) -> String {
    let spec = format!(
        "{{\"hostnames\": [\"crowd.example\"], \"rules\": [{{\"matches\": [{{\"path\": {{\"value\": \"/{i}\"}}}}], \
         \"backendRefs\": [{{\"address\": \"{backend}\"}}]}}]}}"
    );
    hostile("ApiRoute", &format!("small{i:05}"), &spec)
}

/// Four kilobytes that come to 65,536 entries of the routing table.
fn wide(i: usize, backend: SocketAddr) -> String {
    let hosts: Vec<String> = (0..64).map(|h| format!("\"h{h}.w{i}.crowd.example\"")).collect();
    let matches = vec!["{}"; 16].join(",");
    let rule = format!("{{\"matches\": [{matches}], \"backendRefs\": [{{\"address\": \"{backend}\"}}]}}");
    let rules = vec![rule; 64].join(",");
    hostile(
        "ApiRoute",
        &format!("wide{i:04}"),
        &format!("{{\"hostnames\": [{}], \"rules\": [{rules}]}}", hosts.join(",")),
    )
}

/// The most that a process ever had resident.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// One tenant serves; another brings this. Nothing happens to the first, and all is as before when the second is gone.
fn attack(what: &str, documents: impl FnOnce(SocketAddr) -> Vec<(String, String)>, resource: &str) {
    let echo = Echo::start("a").unwrap();
    let port = free_port().unwrap();
    let mut manifests = tenant(echo.addr);
    manifests.push(("fleet.yaml", Fleet::single(port).yaml()));
    let gateway = Gateway::start(&manifests).unwrap();
    for path in ["/r0", "/r19", "/service"] {
        serves(port, path);
    }
    let condition = |name: &str| gateway.condition("apiroutes", "shop", name, "Programmed");
    eventually("the tenant's routes are programmed", Duration::from_secs(10), || {
        (0..ROUTES).all(|i| condition(&format!("r{i}")).is_some_and(|c| c.status == "True")).then_some(())
    })
    .unwrap();

    let mut plan = Plan::new(at(port), HOST).step(300.0, Duration::from_secs(3600));
    plan.h1 = 8;
    plan.paths = (0..ROUTES).map(|i| format!("/r{i}")).chain(["/service".to_owned()]).collect();
    let load = Load::start(plan).unwrap();
    pause(Duration::from_secs(1));

    let files = documents(echo.addr);
    let bytes: usize = files.iter().map(|(_, text)| text.len()).sum();
    let started = Instant::now();
    for (name, text) in &files {
        gateway.write(name, text).unwrap();
    }
    // The hostile one is told, in numbers.
    let told = eventually("what is left out says so", Duration::from_secs(120), || {
        let folder = gateway.state_dir().join("status/apiroutes/crowd");
        let names = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.file_name());
        let mut names: Vec<String> = names.filter_map(|name| name.into_string().ok()).collect();
        names.sort();
        let name = names.last()?.strip_suffix(".json")?.to_owned();
        let condition = gateway.condition("apiroutes", "crowd", &name, "Programmed")?;
        (condition.reason == "TooLarge").then_some(condition.message)
    })
    .unwrap();
    println!("{what}: {} MiB of manifests; told after {:.1?}: {told}", bytes >> 20, started.elapsed());
    assert!(told.contains(resource) && told.contains("\"crowd\""), "{told}");

    // The other changes as fast as before, and none of its statuses was ever another.
    let changed = Instant::now();
    gateway.write("new.yaml", &route("new", "/new", echo.addr)).unwrap();
    eventually("a new route serves", bound(Duration::from_secs(1)), || {
        http::get(at(port), HOST, "/new").is_ok_and(|answer| answer.status == 200).then_some(())
    })
    .unwrap();
    let changed = changed.elapsed();
    eventually("a new route is programmed", bound(Duration::from_secs(2)), || {
        condition("new").filter(|c| c.status == "True")
    })
    .unwrap();
    for name in (0..ROUTES).map(|i| format!("r{i}")).chain(["service".into()]) {
        let condition = condition(&name).unwrap();
        assert_eq!(
            (condition.status.as_str(), condition.reason.as_str()),
            ("True", "Programmed"),
            "{name}: {condition:?}"
        );
    }
    pause(Duration::from_secs(if long() { 60 } else { 3 }));

    for (name, _) in &files {
        gateway.remove(name).unwrap();
    }
    eventually("nothing is left of it", Duration::from_secs(60), || {
        let objects = gateway.state_dir().join("status/apiroutes/crowd");
        std::fs::read_dir(objects).map_or(true, |mut left| left.next().is_none()).then_some(())
    })
    .unwrap();
    let report = load.stop().unwrap();
    let resident = peak(gateway.operator_pid().unwrap());
    println!(
        "{what}: a change of the other took {changed:.2?} (goal 1 s); the operator had {} MiB at most (goal {} MiB)\n{report}",
        resident >> 20,
        OPERATOR_LIMIT >> 20
    );
    assert_clean(&report);
    assert!(resident < OPERATOR_LIMIT, "the operator had {} MiB", resident >> 20);
}

#[test]
fn seventy_megabytes_of_one_namespace() {
    attack("70 MB", |backend| crowd((0..140).map(|i| large(i, backend))), "namespaces share");
}

#[test]
fn more_routes_than_a_fleet_takes() {
    attack(
        "11,000 routes",
        |backend| crowd((0..11_000).map(|i| small(i, backend))),
        "of 10000 routes, which 2 namespaces share",
    );
}

#[test]
fn few_bytes_that_come_to_much() {
    let count = if long() { 10_000 } else { 1_000 };
    attack("wide routes", |backend| crowd((0..count).map(|i| wide(i, backend))), "namespaces share");
}

/// What guards is never left out while what it guards is served, whichever is too much.
#[test]
fn no_policy_falls_alone() {
    let echo = Echo::start("a").unwrap();
    let port = free_port().unwrap();
    let guarded = route_with("guarded", "matches: [{path: {type: PathPrefix, value: /guarded}}]", echo.addr);
    let gateway = Gateway::start(&[
        ("fleet.yaml", Fleet::single(port).yaml()),
        ("guarded.yaml", guarded),
        ("policy.yaml", token_bucket("limits", "guarded", 1, 1)),
    ])
    .unwrap();
    let limited = || http::get(at(port), HOST, "/guarded").is_ok_and(|answer| answer.status == 429);
    eventually("the policy holds", Duration::from_secs(10), || limited().then_some(())).unwrap();
    // So many policies of its own namespace that they can't all be held.
    let limit = |i: usize| {
        let key = format!("{{\"type\": \"Header\", \"name\": \"{}\"}}", "h".repeat(250));
        let keys = vec![key; 8].join(",");
        format!("{{\"name\": \"l{i}\", \"key\": [{keys}], \"tokenBucket\": {{\"rate\": 1}}}}")
    };
    let limits: Vec<String> = (0..32).map(limit).collect();
    let target = "{\"group\": \"sluice.dev\", \"kind\": \"ApiRoute\", \"name\": \"guarded\"}";
    let spec = format!("{{\"targetRefs\": [{target}], \"limits\": [{}]}}", limits.join(","));
    let policies =
        (0..1500).map(|i| hostile("RatePolicy", &format!("p{i:04}"), &spec).replace("\"crowd\"", "\"shop\""));
    let mut open = 0;
    for (name, text) in crowd(policies) {
        gateway.write(&name, &text).unwrap();
        for _ in 0..20 {
            open += usize::from(http::get(at(port), HOST, "/guarded").is_ok_and(|answer| answer.status == 200));
            pause(Duration::from_millis(20));
        }
    }
    let said = eventually("the policy says that it is too much", Duration::from_secs(60), || {
        gateway.condition("apiroutes", "shop", "guarded", "Programmed").filter(|condition| condition.status == "False")
    })
    .unwrap();
    let answer = http::get(at(port), HOST, "/guarded").unwrap().status;
    println!("guarded: {answer}, {open} requests passed in all that time; {} {}", said.reason, said.message);
    assert_ne!(answer, 200);
    // One each second passes as the policy says, and no more.
    assert!(open <= 60, "{open} requests passed");
}
