//! A proxy's word counts for itself, and costs the operator what it is worth: one that refuses what is fine changes nothing for
//! the others, what ends one never reaches all, and what one says makes the operator neither large nor slow.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use e2e::{
    echo::Echo,
    harness::{
        Gateway, Options, Proxy, eventually, free_port, http,
        manifests::{Fleet, HOST, route, route_with},
        metric, pause, program, rss,
    },
    load::{Load, Plan},
};
use snapshot::{
    FORMAT_VERSION,
    proto::{Hello, LoadWindow, PolicyCount, ProxyMessage, control_client::ControlClient, proxy_message::Message},
};

use crate::{assert_clean, at, serves};

/// A proxy of a build that has faults, which these variables switch on.
fn faulty(switches: &[(&str, &str)]) -> Options {
    let switches = switches.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Options { fault: Some(switches) }
}

/// A route whose content says `to`.
fn rewritten(name: &str, to: &str, echo: &Echo) -> String {
    let rule = format!(
        "matches: [{{path: {{type: PathPrefix, value: /{name}}}}}]\n    filters:\n    \
         - {{type: URLRewrite, urlRewrite: {{path: {{type: ReplaceFullPath, replaceFullPath: {to}}}}}}}"
    );
    route_with(name, &rule, echo.addr)
}

/// Waits until a condition has this reason and its message says this.
#[track_caller]
fn says(gateway: &Gateway, (kind, namespace, name): (&str, &str, &str), reason: &str, message: &str) {
    let mut last = None;
    let found = eventually(&format!("{name} is {reason}"), Duration::from_secs(20), || {
        last = gateway.condition(kind, namespace, name, "Programmed");
        last.as_ref().is_some_and(|c| c.reason == reason && c.message.contains(message)).then_some(())
    });
    assert!(found.is_ok(), "{name}: {last:?}\n{}", gateway.log_tail());
}

/// What `sluice-operator refusals` prints.
fn refusals(gateway: &Gateway, more: &[&str]) -> String {
    let mut command = Command::new(program("sluice-operator").unwrap());
    let output = command.arg("refusals").args(more).arg("--state-dir").arg(gateway.state_dir()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

const FLEET: (&str, &str, &str) = ("gatewayfleets", "sluice-system", "default");

#[test]
fn what_one_proxy_refuses_the_others_run() {
    let echo = Echo::start("a").unwrap();
    let (port, more) = (free_port().unwrap(), free_port().unwrap());
    let keys = "Route/shop/edited,Listener/sluice-system/default/more";
    let options =
        faulty(&[("SLUICE_FAULT_NACK", keys), ("SLUICE_FAULT_PROXY", "default-1"), ("SLUICE_FAULT_NEEDLE", "e")]);
    let fleet = Fleet::fixed(port, 3).yaml();
    let manifests = [("fleet.yaml", fleet.clone()), ("all.yaml", route("all", "/", echo.addr))];
    let mut gateway = Gateway::start_with(&manifests, options).unwrap();
    gateway.wait_for_proxies(3, Duration::from_secs(30)).unwrap();
    serves(port, "/");
    let load = Load::start(Plan::new(at(port), HOST).mixed().step(300.0, Duration::from_secs(600))).unwrap();

    // A new route and a new listener, both of which it refuses.
    let second =
        format!("  - {{name: more, protocol: HTTP, port: {more}, allowedRoutes: {{namespaces: {{from: All}}}}}}\n");
    gateway.write("fleet.yaml", &fleet.replace("  scaling:\n", &format!("{second}  scaling:\n"))).unwrap();
    gateway.write("edited.yaml", &rewritten("edited", "/v1", &echo)).unwrap();
    let refused = "default-1 refuses Route/shop/edited";
    says(&gateway, ("apiroutes", "shop", "edited"), "ProxyDisagrees", &format!("2 of 3 proxies: {refused}"));
    says(&gateway, FLEET, "ProxyDisagrees", "default-1 refuses");
    serves(more, "/");
    // It has no such route: there the other one, of `/`, answers.
    let by = |path: &str| http::get(at(port), HOST, "/edited").unwrap().json()["path"] == path;
    let rewritten_ones = (0..60).filter(|_| by("/v1")).count();
    assert!((15..60).contains(&rewritten_ones), "{rewritten_ones} of 60 by the two that run it");
    let count = |scope: &str| {
        let label = format!("scope=\"{scope}\"");
        metric(gateway.operator_admin().unwrap(), "sluice_operator_refusals", &[&label]).unwrap()
    };
    assert_eq!((count("proxy"), count("fleet")), (2.0, 0.0));
    let shown = refusals(&gateway, &[]);
    assert!(shown.contains("Route/shop/edited") && shown.contains("default-1") && shown.contains("proxy"), "{shown}");
    let said = refusals(&gateway, &["forget", "Route/shop/edited"]);
    assert!(said.contains("tried again"), "{said}");

    // Another operator comes to the same.
    gateway.kill_operator().unwrap();
    gateway.start_operator().unwrap();
    eventually("the new operator serves", Duration::from_secs(20), || gateway.operator_admin().ok()).unwrap();
    gateway.write("other.yaml", &route("other", "/other", echo.addr)).unwrap();
    serves(port, "/other");
    serves(more, "/");
    says(&gateway, ("apiroutes", "shop", "edited"), "ProxyDisagrees", refused);
    says(&gateway, ("apiroutes", "shop", "other"), "Programmed", "");
    assert_clean(&load.stop().unwrap());
}

#[test]
fn what_ends_a_proxy_never_reaches_all() {
    let echo = Echo::start("a").unwrap();
    let port = free_port().unwrap();
    let manifests = [("fleet.yaml", Fleet::fixed(port, 4).yaml()), ("all.yaml", route("all", "/", echo.addr))];
    let mut gateway = Gateway::start_with(&manifests, faulty(&[("SLUICE_FAULT_END", "Route/shop/poison")])).unwrap();
    gateway.wait_for_proxies(4, Duration::from_secs(30)).unwrap();
    serves(port, "/");
    let before = gateway.proxies();
    let plan = Plan::new(at(port), HOST).mixed().step(1000.0, Duration::from_secs(600));
    let in_flight = (plan.h1 + plan.h2 * plan.h2_streams + 1) as u64;
    let load = Load::start(plan).unwrap();
    gateway.write("poison.yaml", &rewritten("poison", "/fault-injected", &echo)).unwrap();
    says(&gateway, ("apiroutes", "shop", "poison"), "RolloutHalted", "2 proxies ended");
    says(&gateway, FLEET, "RolloutHalted", "2 proxies ended");
    gateway.wait_for_proxies(4, Duration::from_secs(30)).unwrap();
    let same = |proxy: &&Proxy| before.iter().any(|former| former.pid == proxy.pid);
    let survivors = gateway.proxies().iter().filter(same).count();
    println!("{survivors} of 4 proxies were never ended by it; goal: 2");
    assert_eq!(survivors, 2);
    let label = "fleet=\"sluice-system/default\"";
    let halted = metric(gateway.operator_admin().unwrap(), "sluice_operator_rollout_halted", &[label]);
    assert_eq!(halted.unwrap(), 1.0);
    // What comes next is taken.
    gateway.remove("poison.yaml").unwrap();
    gateway.write("next.yaml", &route("next", "/next", echo.addr)).unwrap();
    says(&gateway, ("apiroutes", "shop", "next"), "Programmed", "");
    says(&gateway, FLEET, "Programmed", "");
    let report = load.stop().unwrap();
    println!("{report}");
    // At most one request on each connection and stream of each of two.
    assert!(report.failed <= 2 * in_flight, "\n{report}");
    assert_eq!(report.ok + report.failed, report.requests, "\n{report}");
}

/// 40 messages of 4 MiB made the operator 3.3 GB.
#[test]
fn what_a_proxy_says_makes_the_operator_no_larger() {
    let echo = Echo::start("a").unwrap();
    let port = free_port().unwrap();
    let manifests = [("fleet.yaml", Fleet::fixed(port, 1).yaml()), ("all.yaml", route("all", "/", echo.addr))];
    let gateway = Gateway::start(&manifests).unwrap();
    let pid = gateway.operator_pid().unwrap();
    pause(Duration::from_secs(1));
    let before = rss(pid).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let socket = gateway.state_dir().join("control.sock");
    let (mut most, mut slowest) = (before, Duration::ZERO);
    // Once as a large fleet would say it, once with as many parts as fit.
    for policies in [80_000, 2_000_000] {
        let attack = runtime.spawn(flood(format!("unix:{}", socket.display()), policies));
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(4) {
            most = most.max(rss(pid).unwrap());
            let asked = Instant::now();
            serves(port, "/");
            http::get(gateway.operator_admin().unwrap(), "localhost", "/healthz").unwrap();
            slowest = slowest.max(asked.elapsed());
            pause(Duration::from_millis(50));
        }
        attack.abort();
    }
    let grew = most.saturating_sub(before) as f64 / f64::from(1 << 20);
    println!("40 messages of 4 MiB, twice: the operator grew by {grew:.0} MiB; goal: 64, before: 3300");
    assert!(grew <= 64.0, "{grew} MiB");
    // A change is live as ever.
    gateway.write("other.yaml", &route("other", "/other", echo.addr)).unwrap();
    serves(port, "/other");
}

/// Says Hello, and then 40 windows of 4 MiB, as fast as they are read.
async fn flood(operator: String, policies: usize) {
    let (out, messages) = tokio::sync::mpsc::channel(4);
    let say = |message| ProxyMessage { message: Some(message) };
    let hello = Hello {
        format_version: FORMAT_VERSION,
        proxy: "stranger".into(),
        fleet: "sluice-system/default".into(),
        ready: true,
        ..Hello::default()
    };
    out.send(say(Message::Hello(hello))).await.unwrap();
    let channel = tonic::transport::Endpoint::from_shared(operator).unwrap().connect().await.unwrap();
    let stream = tokio_stream::wrappers::ReceiverStream::new(messages);
    let _inbound = ControlClient::new(channel).attach(stream).await.unwrap();
    let count = |i: usize| match policies {
        0..1_000_000 => PolicyCount { policy: format!("RatePolicy/ns/{i:030}"), checked: 1, limited: 1 },
        _ => PolicyCount::default(),
    };
    let counts: Vec<PolicyCount> = (0..policies).map(count).collect();
    for second in 1..=40 {
        let window = LoadWindow {
            start_unix_ms: second * 1000,
            duration_ms: 1000,
            policies: counts.clone(),
            ..LoadWindow::default()
        };
        if out.send(say(Message::Load(window))).await.is_err() {
            return;
        }
    }
}
