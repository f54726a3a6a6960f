//! Manifests are edited, added, broken, fixed and deleted under load: each change is live at once, and loses nothing.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use e2e::{
    echo::Echo,
    harness::{
        Condition, Gateway, Proxy, eventually, fds, free_port, http,
        manifests::{Fleet, HOST, route_with},
        pause, rss,
    },
    load::{Load, Plan},
};

use crate::{assert_clean, assert_heavy, at, bound, long};

const RATE: f64 = 2200.0;
const MEDIAN: Duration = Duration::from_millis(200);
const WORST: Duration = Duration::from_secs(1);
/// What a process may differ by between two moments of the same load: allocator slack, and upstream connections that are
/// kept for as many requests as ever were under way at once. A leak of one for each change would be more than that: there
/// are 80 changes between the two moments, 400 with `--long`.
const SLACK_BYTES: u64 = 16 << 20;
const SLACK_FDS: usize = 64;

#[test]
fn a_hundred_changes_under_load() {
    let changes = if long() { 500 } else { 100 };
    let (a, b) = (Echo::start("a").unwrap(), Echo::start("b").unwrap());
    let port = free_port().unwrap();
    // The route that carries the load is the one that changes: version N reaches the upstream as /vN.
    let hot = |version: u32| {
        let rule = format!(
            "matches: [{{path: {{type: PathPrefix, value: /hot}}}}]\n    filters:\n    \
             - {{type: URLRewrite, urlRewrite: {{path: {{type: ReplaceFullPath, replaceFullPath: /v{version}}}}}}}"
        );
        route_with("hot", &rule, if version.is_multiple_of(2) { a.addr } else { b.addr })
    };
    let extra = |rule: &str| route_with("extra", rule, a.addr);
    let manifests = [("fleet.yaml", Fleet::fixed(port, 2).yaml()), ("hot.yaml", hot(0))];
    let mut gateway = Gateway::start(&manifests).unwrap();
    gateway.wait_for_proxies(2, Duration::from_secs(30)).unwrap();
    let mut world = Live { gateway: &gateway, port, revision: String::new() };
    world.becomes("the first", |w| w.hot() == Some("/v0".to_owned()));

    let mut plan = Plan::new(at(port), HOST).mixed().step(RATE, Duration::from_secs(3600));
    plan.paths = vec!["/hot".to_owned()];
    let load = Load::start(plan).unwrap();
    pause(Duration::from_secs(2));

    let mut times = Vec::new();
    let mut early = None;
    for number in 1..=changes {
        let version = number / 5;
        match number % 5 {
            0 => {
                gateway.write("hot.yaml", &hot(version)).unwrap();
                times.push(world.becomes("edited", |w| w.hot() == Some(format!("/v{version}"))));
            }
            1 => {
                gateway.write("extra.yaml", &extra("matches: [{path: {value: /extra}}]")).unwrap();
                times.push(world.becomes("added", |w| w.get("/extra").status == 200));
            }
            2 => {
                // A broken object keeps what it had, changes nothing else, and says why.
                let before = world.revisions();
                gateway.write("extra.yaml", &extra("matches: [{path: {valeu: /extra}}]")).unwrap();
                let accepted = world.extra_accepted("False");
                assert!(accepted.message.contains("valeu"), "{accepted:?}");
                assert_eq!((world.revisions(), world.get("/extra").status), (before, 200));
            }
            3 => {
                gateway.write("extra.yaml", &extra("matches: [{path: {value: /fixed}}]")).unwrap();
                times.push(world.becomes("fixed", |w| w.get("/fixed").status == 200 && w.get("/extra").status == 404));
                world.extra_accepted("True");
            }
            _ => {
                gateway.remove("extra.yaml").unwrap();
                times.push(world.becomes("deleted", |w| w.get("/fixed").status == 404));
            }
        }
        if number == changes / 5 {
            early = Some(usage(&gateway));
        }
    }
    while load.live().requests < 50_000 {
        pause(Duration::from_millis(100));
    }
    let late = usage(&gateway);
    let report = load.stop().unwrap();

    times.sort();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    println!("{changes} changes: live after {median:.0?} median, {worst:.0?} worst\n{early:?}\n{late:?}\n{report}");
    assert_clean(&report);
    assert_heavy(&report);
    assert!(median <= bound(MEDIAN), "median {median:?}");
    assert!(worst <= bound(WORST), "worst {worst:?}");
    for (early, late) in early.unwrap().iter().zip(&late) {
        assert_eq!(early.pid, late.pid, "no process was replaced");
        assert!(late.bytes <= early.bytes + SLACK_BYTES, "memory grew: {early:?} {late:?}");
        assert!(late.fds <= early.fds + SLACK_FDS, "descriptors grew: {early:?} {late:?}");
    }
}

struct Live<'a> {
    gateway: &'a Gateway,
    port: u16,
    revision: String,
}

impl Live<'_> {
    /// Waits until every proxy runs one new revision and a new connection gets the new answer; gives the time it took.
    fn becomes(&mut self, what: &str, answers: impl Fn(&Self) -> bool) -> Duration {
        let started = Instant::now();
        let revision = eventually(what, bound(WORST).max(Duration::from_secs(10)), || {
            let revisions = self.revisions();
            let [revision] = revisions.iter().collect::<Vec<_>>()[..] else { return None };
            (*revision != self.revision && answers(self)).then(|| revision.clone())
        });
        self.revision = revision.unwrap();
        started.elapsed()
    }

    fn revisions(&self) -> BTreeSet<String> {
        let proxies: Vec<Proxy> = self.gateway.proxies();
        assert_eq!(proxies.len(), 2);
        proxies.iter().map(|proxy| self.gateway.revision(proxy).unwrap()).collect()
    }

    fn get(&self, path: &str) -> http::Answer {
        http::get(at(self.port), HOST, path).unwrap()
    }

    fn hot(&self) -> Option<String> {
        Some(self.get("/hot").json()["path"].as_str()?.to_owned())
    }

    fn extra_accepted(&self, status: &str) -> Condition {
        eventually(&format!("extra is Accepted={status}"), Duration::from_secs(15), || {
            self.gateway.condition("apiroutes", "shop", "extra", "Accepted").filter(|c| c.status == status)
        })
        .unwrap()
    }
}

#[derive(Debug)]
struct Usage {
    pid: u32,
    bytes: u64,
    fds: usize,
}

/// The operator and then each proxy.
fn usage(gateway: &Gateway) -> Vec<Usage> {
    let proxies = gateway.proxies().into_iter().map(|proxy| proxy.pid);
    let pids = std::iter::once(gateway.operator_pid().unwrap()).chain(proxies);
    pids.map(|pid| Usage { pid, bytes: rss(pid).unwrap(), fds: fds(pid).unwrap() }).collect()
}
