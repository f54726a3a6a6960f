//! Everything counted, in Prometheus' text format.

use std::sync::atomic::Ordering::Relaxed;

use prometheus::{
    TextEncoder,
    proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType},
};
use snapshot::latency;

use super::{
    Telemetry,
    histogram::{BOUNDS_US, Counts},
    process,
    routes::CLASSES,
    sharded::Counter as Counted,
    waits::{AuthDecisions, Waiter},
};
use crate::{Shared, memory::Kind};

/// All metrics in Prometheus' text format.
pub fn metrics(shared: &Shared) -> String {
    let telemetry = &shared.telemetry;
    let mut families = requests(telemetry);
    families.extend(load(telemetry));
    families.extend(waits(telemetry));
    families.extend(limits(shared));
    families.push(access(shared));
    families.extend(memory(shared));
    families.extend(state(shared));
    families.extend(process_families(telemetry));
    families.retain(|family| !family.get_metric().is_empty());
    let text = TextEncoder::new().encode_to_string(&families);
    text.inspect_err(|e| tracing::error!("metrics can't be encoded: {e}")).unwrap_or_default()
}

fn requests(telemetry: &Telemetry) -> Vec<MetricFamily> {
    let mut totals = vec![];
    let mut durations = vec![];
    let mut upstream = vec![];
    let routes = telemetry.routes.list();
    let routes = routes.iter().map(|(name, metrics)| (name.as_ref(), metrics.as_ref()));
    for (route, metrics) in routes.chain([("", &telemetry.routes.unmatched)]) {
        for (class, word) in CLASSES.iter().enumerate() {
            let counts = metrics.durations(class);
            if counts.count() > 0 {
                let labels = labels(&[("route", route), ("code_class", word)]);
                totals.push(counter(labels.clone(), counts.count() as f64));
                durations.push(histogram(labels, &counts));
            }
        }
        let counts = metrics.upstream();
        if counts.count() > 0 {
            upstream.push(histogram(labels(&[("route", route)]), &counts));
        }
    }
    vec![
        family("sluice_requests_total", "Requests by route and class of the answer.", MetricType::COUNTER, totals),
        family(
            "sluice_request_duration_seconds",
            "From a request's head to its response's end.",
            MetricType::HISTOGRAM,
            durations,
        ),
        family(
            "sluice_upstream_duration_seconds",
            "From a request's way upstream to the response's head.",
            MetricType::HISTOGRAM,
            upstream,
        ),
    ]
}

fn load(telemetry: &Telemetry) -> Vec<MetricFamily> {
    let (in_flight, connections) = telemetry.load.open();
    let connected = telemetry.load.counters.sum(|c| &c.connected);
    let failed = telemetry.failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    let failed = failed
        .iter()
        .map(|((reason, error_source), n)| counter(labels(&[("reason", reason), ("blame", error_source)]), *n as f64));
    let floods = telemetry.floods.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    let floods = floods.iter().map(|(class, n)| counter(labels(&[("class", class)]), *n as f64));
    let websockets = telemetry.websockets.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    let websockets = websockets.iter().map(|(limit, n)| counter(labels(&[("limit", limit)]), *n as f64));
    vec![
        family(
            "sluice_websockets_ended_total",
            "WebSockets that were ended because their time was over, by which limit of it: idle, age.",
            MetricType::COUNTER,
            websockets.collect(),
        ),
        family(
            "sluice_http2_floods_total",
            "HTTP/2 connections that were ended because the client sent too much that is no request, by what.",
            MetricType::COUNTER,
            floods.collect(),
        ),
        family(
            "sluice_failed_requests_total",
            "Requests that the proxy refused, answered with 5xx or could not end, by reason and whose fault it is.",
            MetricType::COUNTER,
            failed.collect(),
        ),
        family(
            "sluice_added_latency_seconds",
            "Time the proxy itself added up to the response's head.",
            MetricType::HISTOGRAM,
            vec![added(telemetry)],
        ),
        single_gauge("sluice_requests_in_flight", "Requests that are open.", in_flight as f64),
        single_gauge("sluice_connections", "Client connections that are open.", connections as f64),
        single_counter("sluice_connections_total", "Client connections that were accepted.", connected as f64),
        single_counter(
            "sluice_connections_refused_total",
            "Connections that were closed at once, because their client had as many as it may have.",
            telemetry.refused.load(Relaxed) as f64,
        ),
        single_counter(
            "sluice_accept_pauses_total",
            "Times that accepting paused, because there were as many connections as descriptors or memory suffice for.",
            telemetry.paused.load(Relaxed) as f64,
        ),
    ]
}

fn waits(telemetry: &Telemetry) -> Vec<MetricFamily> {
    let (mut ends, mut times) = (vec![], vec![]);
    for filter in Waiter::ALL {
        let resumed = telemetry.waits.sum(filter, |waits| &waits.resumed);
        let abandoned = telemetry.waits.sum(filter, |waits| &waits.abandoned);
        for (end, count) in [("resumed", resumed), ("abandoned", abandoned)].into_iter().filter(|(_, n)| *n > 0) {
            ends.push(counter(labels(&[("filter", filter.name()), ("end", end)]), count as f64));
        }
        if resumed + abandoned > 0 {
            let seconds = telemetry.waits.sum(filter, |waits| &waits.time_us) as f64 / 1e6;
            times.push(counter(labels(&[("filter", filter.name())]), seconds));
        }
    }
    let decided = |counter: fn(&AuthDecisions) -> &Counted| telemetry.auth_decisions.sum(counter);
    let decisions = [
        ("allowed", decided(|d| &d.allowed)),
        ("denied", decided(|d| &d.denied)),
        ("failed", decided(|d| &d.failed)),
        ("unchecked", decided(|d| &d.unchecked)),
    ];
    let decisions = decisions.into_iter().filter(|(_, n)| *n > 0);
    let decisions = decisions.map(|(decision, n)| counter(labels(&[("decision", decision)]), n as f64)).collect();
    vec![
        family(
            "sluice_external_auth_decisions_total",
            "Decisions of external authorization; failed: refused, because the service could not be asked; unchecked: \
             let go on all the same.",
            MetricType::COUNTER,
            decisions,
        ),
        family(
            "sluice_filter_waits_total",
            "Waits of filters for others; abandoned: the client left, or the request's time was over.",
            MetricType::COUNTER,
            ends,
        ),
        family(
            "sluice_filter_wait_seconds_total",
            "Time for which filters waited for others, which is no part of the latency that the proxy adds.",
            MetricType::COUNTER,
            times,
        ),
    ]
}

fn limits(shared: &Shared) -> Vec<MetricFamily> {
    let mut decisions = vec![];
    for (policy, limit, counts) in shared.limiters.decisions() {
        for (decision, count) in [("allowed", counts.allowed), ("limited", counts.limited), ("audited", counts.audited)]
        {
            if count > 0 {
                let labels = labels(&[("policy", &policy), ("limit", &limit), ("decision", decision)]);
                decisions.push(counter(labels, count as f64));
            }
        }
    }
    let table = shared.limiters.table();
    vec![
        family(
            "sluice_limit_decisions_total",
            "Decisions of rate limits; audited: over the limit, but only counted.",
            MetricType::COUNTER,
            decisions,
        ),
        single_gauge("sluice_limit_keys", "Keys whose rate-limit state is held.", table.len() as f64),
        single_counter(
            "sluice_limit_evictions_total",
            "Rate-limit states given up to stay within bounds; each lets a key begin anew too early.",
            table.evicted() as f64,
        ),
    ]
}

fn access(shared: &Shared) -> MetricFamily {
    let decisions = shared.access.decisions().into_iter().map(|(counted, outcome, count)| {
        let policy = format!("{}/{}", counted.policy.namespace(), counted.policy.name());
        let provider = counted.provider.as_deref().unwrap_or_default();
        let mode = if counted.audit { "Audit" } else { "Enforce" };
        let labels = labels(&[("policy", &policy), ("provider", provider), ("outcome", outcome), ("mode", mode)]);
        counter(labels, count as f64)
    });
    family(
        "sluice_access_decisions_total",
        "Decisions of access policies. allowed; denied: no rule allows it; invalid: the provider does not know the \
         credential; missing: there is none; limited: too many wrong ones came from that address before. In mode Audit all \
         of them passed.",
        MetricType::COUNTER,
        decisions.collect(),
    )
}

fn memory(shared: &Shared) -> Vec<MetricFamily> {
    let report = shared.memory.report();
    let held = Kind::ALL.iter().zip(report.held);
    let held = held.map(|(kind, bytes)| gauge(labels(&[("kind", kind.name())]), bytes as f64)).collect();
    vec![
        family("sluice_memory_held_bytes", "Memory that clients hold.", MetricType::GAUGE, held),
        single_gauge(
            "sluice_memory_budget_bytes",
            "Memory that clients may hold; beyond it the connections of those that hold most are ended.",
            report.budget as f64,
        ),
        single_gauge("sluice_memory_limit_bytes", "Memory that the process may have.", report.limit as f64),
        single_counter(
            "sluice_memory_connections_ended_total",
            "Client connections that were ended for the memory that they held.",
            report.ended as f64,
        ),
        single_counter(
            "sluice_memory_streams_refused_total",
            "Streams that were refused, because memory was nearly used up and their connection held much of it.",
            report.refused as f64,
        ),
    ]
}

fn state(shared: &Shared) -> Vec<MetricFamily> {
    let status = shared.status.borrow().clone();
    let info = gauge(labels(&[("revision", &status.pushed.to_string())]), 1.0);
    let consumers = shared.config.load().consumers.len();
    vec![
        family("sluice_config_info", "The revision that was pushed last.", MetricType::GAUGE, vec![info]),
        single_gauge("sluice_config_nacks", "Resources that this proxy refused.", status.nacks.len() as f64),
        single_gauge("sluice_consumers", "Consumers that are known here.", consumers as f64),
        single_gauge("sluice_ready", "Whether a full snapshot runs.", f64::from(u8::from(status.ready))),
        single_gauge("sluice_draining", "Whether this proxy leaves.", f64::from(u8::from(shared.is_draining()))),
    ]
}

fn process_families(telemetry: &Telemetry) -> Vec<MetricFamily> {
    let dropped = telemetry.log.dropped.load(Relaxed);
    let cpu = process::cpu_us() as f64 / 1e6;
    vec![
        single_counter(
            "sluice_access_log_dropped_total",
            "Lines of the access log that were dropped because it was not read fast enough.",
            dropped as f64,
        ),
        single_counter(
            "sluice_restarts_total",
            "Times that this proxy crashed and was started again in its container.",
            telemetry.restarts as f64,
        ),
        single_counter("process_cpu_seconds_total", "CPU time of the process.", cpu),
        single_gauge("process_resident_memory_bytes", "Resident memory.", process::memory_bytes() as f64),
        single_gauge("process_open_fds", "Open file descriptors.", process::open_files() as f64),
        single_gauge(
            "process_start_time_seconds",
            "When the process began, in seconds since 1970.",
            process::unix_seconds(telemetry.started),
        ),
    ]
}

/// The log-linear buckets of load reports, two to each power of two.
fn added(telemetry: &Telemetry) -> Metric {
    let counts = telemetry.load.added();
    let mut cumulative = 0;
    let mut buckets = vec![];
    for (bucket, count) in counts.iter().enumerate() {
        cumulative += count;
        // From 16 µs to 8 s.
        if bucket % 2 == 1 && (12..92).contains(&bucket) {
            buckets.push(self::bucket((latency::upper_us(bucket) + 1) as f64 / 1e6, cumulative));
        }
    }
    let sum = telemetry.load.counters.sum(|c| &c.added_sum_us) as f64 / 1e6;
    histogram_of(vec![], buckets, cumulative, sum)
}

fn histogram(labels: Vec<LabelPair>, counts: &Counts) -> Metric {
    let mut cumulative = 0;
    let buckets = BOUNDS_US.iter().zip(&counts.counts).map(|(bound, count)| {
        cumulative += count;
        bucket(*bound as f64 / 1e6, cumulative)
    });
    let buckets = buckets.collect();
    histogram_of(labels, buckets, counts.count(), counts.sum_us as f64 / 1e6)
}

fn histogram_of(labels: Vec<LabelPair>, buckets: Vec<Bucket>, count: u64, sum: f64) -> Metric {
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets);
    histogram.set_sample_count(count);
    histogram.set_sample_sum(sum);
    let mut metric = Metric::from_label(labels);
    metric.set_histogram(histogram);
    metric
}

fn bucket(bound: f64, cumulative: u64) -> Bucket {
    let mut bucket = Bucket::default();
    bucket.set_upper_bound(bound);
    bucket.set_cumulative_count(cumulative);
    bucket
}

fn counter(labels: Vec<LabelPair>, value: f64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(value);
    let mut metric = Metric::from_label(labels);
    metric.set_counter(counter);
    metric
}

fn gauge(labels: Vec<LabelPair>, value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = Metric::from_gauge(gauge);
    metric.set_label(labels);
    metric
}

fn single_gauge(name: &str, help: &str, value: f64) -> MetricFamily {
    family(name, help, MetricType::GAUGE, vec![gauge(vec![], value)])
}

fn single_counter(name: &str, help: &str, value: f64) -> MetricFamily {
    family(name, help, MetricType::COUNTER, vec![counter(vec![], value)])
}

fn labels(pairs: &[(&str, &str)]) -> Vec<LabelPair> {
    let label = |(name, value): &(&str, &str)| {
        let mut label = LabelPair::default();
        label.set_name((*name).to_owned());
        label.set_value((*value).to_owned());
        label
    };
    pairs.iter().map(label).collect()
}

fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}
