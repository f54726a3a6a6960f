//! A filter that waits: external authorization that is slow, gone or wrong. The client that waits is told in time, one that
//! leaves ends the question, and nothing of the wait is taken for the proxy's own slowness.

use std::{
    io::Write as _,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use e2e::{
    echo::Echo,
    harness::{
        Gateway, eventually, free_port, http,
        manifests::{Fleet, HOST, route_with},
        metric,
    },
    load::{Load, Plan},
};

use crate::{at, bound};

const RATE: f64 = 100.0;
const LOAD_TIME: Duration = Duration::from_secs(4);
/// The time that the service takes under load.
const SLOW: Duration = Duration::from_millis(300);
/// The time that it has for an answer.
const TIMEOUT: Duration = Duration::from_millis(600);
/// The latency that the fleet is scaled by.
const TARGET: Duration = Duration::from_millis(20);

/// A route that asks that service with the request's own path, and then its backend for `/`.
fn guarded(service: &str, more: &str, backend: SocketAddr) -> String {
    let auth = format!(
        "{{protocol: HTTP, backendRef: {service}, http: {{allowedResponseHeaders: [X-Upstream]}}, timeout: {}ms{more}}}",
        TIMEOUT.as_millis()
    );
    let rewrite = "{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /}}}";
    let rule = format!("filters:\n    - {{type: ExternalAuth, externalAuth: {auth}}}\n    - {rewrite}");
    route_with("all", &rule, backend)
}

fn by_address(address: SocketAddr) -> String {
    format!("{{address: \"{address}\"}}")
}

/// A server that speaks no HTTP, and how many connections it had.
fn babbler() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (address, connections) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
    let counted = Arc::clone(&connections);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            counted.fetch_add(1, Ordering::SeqCst);
            let _ = stream.write_all(b"220 mail.example ESMTP\r\n");
        }
    });
    (address, connections)
}

fn get(port: u16, path: &str) -> http::Answer {
    http::send(at(port), "GET", HOST, path, &[("x-upstream", "spoofed")]).unwrap()
}

/// Waits until a request is answered so; the answer, and the time that the last try took.
fn answers(port: u16, path: &str, status: u16) -> (http::Answer, Duration) {
    eventually(&format!("{path} is answered {status}"), Duration::from_secs(10), || {
        let began = Instant::now();
        let answer = get(port, path);
        (answer.status == status).then(|| (answer, began.elapsed()))
    })
    .unwrap()
}

#[test]
fn a_service_that_is_slow_gone_or_wrong() {
    let (auth, backend) = (Echo::start("auth").unwrap(), Echo::start("backend").unwrap());
    let port = free_port().unwrap();
    let mut fleet = Fleet::single(port);
    fleet.replicas = (1, 3);
    fleet.targets = vec![format!("{{type: ProxyLatency, percentile: 99, value: {}ms}}", TARGET.as_millis())];
    let route = |service: &str, more: &str| guarded(service, more, backend.addr);
    let mut gateway =
        Gateway::start(&[("fleet.yaml", fleet.yaml()), ("all.yaml", route(&by_address(auth.addr), ""))]).unwrap();

    // Its word counts: in place of what the client says, or instead of the backend's.
    let (allowed, _) = answers(port, "/allowed", 200);
    assert_eq!((allowed.header("x-upstream"), allowed.json()["path"].as_str()), ("backend", Some("/")));
    assert_eq!(allowed.json()["headers"]["x-upstream"], "auth");
    let before = backend.requests();
    let (denied, _) = answers(port, "/status/403", 403);
    assert_eq!((denied.header("x-upstream"), backend.requests()), ("auth", before));

    // Slow: everybody waits, and the fleet stays as it is.
    let proxy = gateway.proxies().remove(0);
    let count = |name: &str, labels: &[&str]| metric(proxy.admin, name, labels).unwrap();
    let mut plan = Plan::new(at(port), HOST).step(RATE, LOAD_TIME);
    (plan.h1, plan.h2, plan.h2_streams) = (40, 4, 10);
    plan.paths = vec![format!("/delay/{}", SLOW.as_millis())];
    let report = Load::start(plan).unwrap().join().unwrap();
    let added = count("sluice_added_latency_seconds_sum", &[]) / count("sluice_added_latency_seconds_count", &[]);
    let waited = count("sluice_filter_wait_seconds_total", &["filter=\"external_auth\""]);
    println!(
        "slow: p50 {:.0} ms (the service takes {SLOW:.0?}); the proxy adds {:.2} ms of that (goal {TARGET:.0?}); \
         {waited:.0} s were waited for; {} proxies (goal 1), {} failed (goal 0)",
        report.latency.p50,
        added * 1e3,
        gateway.proxies().len(),
        report.failures(),
    );
    assert_eq!((report.failures(), report.statuses.get(&200)), (0, Some(&report.requests)), "\n{report}");
    assert!(report.latency.p50 >= SLOW.as_secs_f64() * 1e3, "\n{report}");
    assert!(added < TARGET.as_secs_f64(), "{added} s");
    assert!(waited >= SLOW.as_secs_f64() * report.requests as f64, "{waited} s");
    assert_eq!(gateway.proxies().len(), 1, "no proxy more for a slow service");

    // Too slow: the client is told in time.
    let (late, took) = answers(port, "/delay/5000", 503);
    println!("too slow: 503 after {took:.0?} (goal {TIMEOUT:.0?}, and 100 ms)");
    assert!((TIMEOUT..TIMEOUT + bound(Duration::from_millis(100))).contains(&took), "{took:?}");
    assert!(late.header("content-type").starts_with("application/problem+json"), "{late:?}");

    // A client that leaves.
    let waits = || count("sluice_filter_waits_total", &["end=\"abandoned\""]);
    let (before, asked) = (waits(), auth.requests());
    let mut client = TcpStream::connect(at(port)).unwrap();
    write!(client, "GET /delay/5000 HTTP/1.1\r\nHost: {HOST}\r\n\r\n").unwrap();
    eventually("the service is asked", Duration::from_secs(5), || (auth.requests() > asked).then_some(())).unwrap();
    rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
    let left = Instant::now();
    drop(client);
    eventually("the question is given up", Duration::from_secs(5), || (waits() > before).then_some(())).unwrap();
    println!("a client left: its question is over after {:.0?} (goal 50 ms)", left.elapsed());
    assert!(left.elapsed() < bound(Duration::from_millis(50)));

    // Gone.
    drop(auth);
    let (_, took) = answers(port, "/gone", 503);
    println!("gone: 503 after {took:.0?} (goal 50 ms)");
    assert!(took < bound(Duration::from_millis(50)), "{took:?}");

    // Wrong.
    let (babbler, connections) = babbler();
    gateway.write("all.yaml", &route(&by_address(babbler), "")).unwrap();
    let (status, took) = eventually("the wrong one is asked", Duration::from_secs(5), || {
        let began = Instant::now();
        let status = get(port, "/wrong").status;
        (connections.load(Ordering::SeqCst) > 0).then(|| (status, began.elapsed()))
    })
    .unwrap();
    println!("wrong: {status} after {took:.0?} (goal: 503 after 50 ms)");
    assert_eq!(status, 503);
    assert!(took < bound(Duration::from_millis(50)), "{took:?}");

    // Fail open: without what only the service may say.
    gateway.write("all.yaml", &route(&by_address(([127, 0, 0, 1], 1).into()), ", failOpen: true")).unwrap();
    let (open, _) = answers(port, "/open", 200);
    assert_eq!(open.json()["headers"]["x-upstream"], serde_json::Value::Null);

    // One that is not there never opens.
    gateway.write("all.yaml", &route("{name: nobody, port: 80}", ", failOpen: true")).unwrap();
    answers(port, "/nobody", 500);
    let refs = eventually("it is told", Duration::from_secs(5), || {
        gateway.condition("apiroutes", "shop", "all", "ResolvedRefs").filter(|c| c.status == "False")
    })
    .unwrap();
    println!("not there: {}: {}", refs.reason, refs.message);
    assert_eq!(refs.reason, "BackendNotFound");
    assert!(refs.message.contains("filters[0].externalAuth.backendRef"), "{refs:?}");
    gateway.check().unwrap();
}
