//! Requests in, metrics and load windows out.

use std::time::Duration;

use http::{Method, Version};

use super::*;
use crate::{Shared, filter::testing::rule, rule::Rule};

fn record<'a>(rule: Option<&'a Arc<Rule>>, status: u16, reason: Option<&'static str>) -> RequestRecord<'a> {
    RequestRecord {
        ended: std::time::Instant::now(),
        rule: rule.map(|rule| rule.served_by()),
        consumer: None,
        client: b"192.0.2.1",
        client_port: Some(7),
        method: &Method::GET,
        target: "/",
        host: b"h",
        version: Version::HTTP_11,
        status,
        request_id: b"id",
        duration: Duration::from_millis(30),
        upstream: Some(Duration::from_millis(20)),
        external: None,
        added: Duration::from_micros(300),
        upstream_address: None,
        bytes_in: 0,
        bytes_out: 0,
        reason,
        error_source: (status >= 500).then_some(ErrorSource::Upstream),
    }
}

fn serve(shared: &Shared, record: &RequestRecord<'_>) {
    shared.telemetry.opened();
    shared.telemetry.closed(record);
}

/// A rule of a route, compiled as the compiler does.
fn rule_of(shared: &Shared, route: &str) -> Arc<Rule> {
    let name: Arc<str> = route.into();
    let mut rule = rule("x");
    let parts = Arc::get_mut(&mut rule).unwrap();
    (parts.metrics, parts.route) = (shared.telemetry.route(&name), name);
    rule
}

#[track_caller]
fn check(shared: &Shared, line: &str, expect: bool) {
    let text = metrics(shared);
    assert_eq!(text.lines().any(|l| l == line), expect, "{line} in\n{text}");
}

#[test]
fn series_of_routes_come_and_go() {
    let shared = Shared::new(Telemetry::default());
    let (a, b) = (rule_of(&shared, "ns/a"), rule_of(&shared, "ns/b"));
    serve(&shared, &record(Some(&a), 200, None));
    serve(&shared, &record(Some(&rule_of(&shared, "ns/a")), 204, None));
    serve(&shared, &record(Some(&b), 503, Some("no_endpoint")));
    serve(&shared, &record(None, 404, Some("no_route")));
    shared.telemetry.opened();
    let a_lines = [
        r#"sluice_requests_total{route="ns/a",code_class="2xx"} 2"#,
        r#"sluice_request_duration_seconds_bucket{route="ns/a",code_class="2xx",le="0.025"} 0"#,
        r#"sluice_request_duration_seconds_bucket{route="ns/a",code_class="2xx",le="0.05"} 2"#,
        r#"sluice_request_duration_seconds_sum{route="ns/a",code_class="2xx"} 0.06"#,
        r#"sluice_upstream_duration_seconds_count{route="ns/a"} 2"#,
    ];
    a_lines.iter().for_each(|line| check(&shared, line, true));
    let others = [
        r#"sluice_requests_total{route="ns/b",code_class="5xx"} 1"#,
        r#"sluice_requests_total{route="",code_class="4xx"} 1"#,
        r#"sluice_failed_requests_total{reason="no_endpoint",blame="upstream"} 1"#,
        "sluice_added_latency_seconds_count 4",
        r#"sluice_added_latency_seconds_bucket{le="0.000256"} 0"#,
        r#"sluice_added_latency_seconds_bucket{le="0.000384"} 4"#,
        "sluice_requests_in_flight 1",
        "sluice_ready 0",
        "sluice_restarts_total 0",
    ];
    others.iter().for_each(|line| check(&shared, line, true));
    // A route that is gone takes its series along.
    drop(a);
    a_lines.iter().for_each(|line| check(&shared, line, false));
    others.iter().for_each(|line| check(&shared, line, true));
}

#[tokio::test(start_paused = true)]
async fn windows_count_what_happened_in_a_second() {
    let shared = Shared::new(Telemetry::default());
    let a = rule_of(&shared, "ns/a");
    let mut windows = shared.telemetry.windows();
    tokio::spawn(report(Arc::clone(&shared), 3));
    tokio::time::sleep(Duration::from_millis(500)).await;
    (0..5).for_each(|_| serve(&shared, &record(Some(&a), 200, None)));
    serve(&shared, &record(Some(&a), 429, Some(RATE_LIMITED)));
    serve(&shared, &record(Some(&a), 503, Some(SHED)));
    serve(&shared, &record(Some(&a), 502, Some("connect_failed")));
    shared.telemetry.opened();
    shared.telemetry.connected();
    let first = windows.recv().await.unwrap();
    assert_eq!((first.admitted, first.limited, first.shed, first.errors), (6, 1, 1, 1));
    assert_eq!((first.in_flight, first.connections, first.workers, first.draining), (1, 1, 3, false));
    let bucket = snapshot::latency::bucket(300) as u32;
    assert_eq!(first.added_latency, [snapshot::proto::LatencyCount { bucket, count: 6 }]);
    assert!(first.memory_bytes > 0 && first.start_unix_ms > 0);
    let second = windows.recv().await.unwrap();
    assert_eq!((second.admitted, second.limited, second.in_flight), (0, 0, 1));
    assert!(second.added_latency.is_empty());
    for _ in 0..400 {
        windows.recv().await.unwrap();
    }
    assert_eq!(shared.telemetry.last_windows().len(), 300);
}
