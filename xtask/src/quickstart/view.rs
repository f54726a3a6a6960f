//! A look at the running fleet, once a second: what the operator says of it, and what its proxies count.

use std::{collections::BTreeMap, fmt, time::Instant};

use serde_json::Value;

use super::{children::Gateway, http};

/// Metric names of the proxy.
const REQUESTS: &str = "sluice_requests_total";
const ADDED_SECONDS: &str = "sluice_request_duration_seconds_bucket";
const CPU_SECONDS: &str = "process_cpu_seconds_total";
const LIMITED: &str = "sluice_limit_decisions_total";

/// Lines after which the head is printed again.
const HEAD_EVERY: u32 = 20;

/// Remembers the counters of the last look.
pub(super) struct View {
    started: Instant,
    last: Option<(Instant, BTreeMap<u32, Counters>)>,
    lines: u32,
}

/// The fleet at one moment. `None`: not known.
#[derive(Debug, Default)]
pub(super) struct Look {
    seconds: f64,
    pub(super) ready: Option<u64>,
    pub(super) desired: Option<u64>,
    /// Proxy processes, leaving ones included.
    pub(super) processes: usize,
    driven_by: String,
    config: String,
    rps: f64,
    p99_ms: Option<f64>,
    cpu_percent: f64,
    limited: f64,
}

impl View {
    pub(super) fn new() -> View {
        View { started: Instant::now(), last: None, lines: 0 }
    }

    /// A line of the table, with the head above it from time to time.
    pub(super) fn line(&mut self, gateway: &Gateway) -> String {
        let look = self.look(gateway);
        self.show(&look)
    }

    pub(super) fn show(&mut self, look: &Look) -> String {
        let head = self.lines.is_multiple_of(HEAD_EVERY);
        self.lines += 1;
        let names =
            "  TIME  READY/DESIRED  PROCESSES  DRIVEN-BY            CONFIG    REQ/S   P99 ms   CPU %  LIMITED/S";
        if head { format!("{names}\n{look}") } else { look.to_string() }
    }

    pub(super) fn look(&mut self, gateway: &Gateway) -> Look {
        let now = Instant::now();
        let proxies = gateway.proxies();
        let mut counters = BTreeMap::new();
        for proxy in &proxies {
            // One that is starting or leaving may not answer.
            let Some(admin) = proxy.admin else { continue };
            if let Ok(answer) = http::request(admin, "localhost", "/metrics") {
                counters.insert(proxy.pid, Counters::parse(&answer.body));
            }
        }
        let mut look =
            Look { seconds: (now - self.started).as_secs_f64(), processes: proxies.len(), ..Look::default() };
        look.take_status(&status(gateway));
        if let Some((then, before)) = &self.last {
            let seconds = (now - *then).as_secs_f64().max(1e-3);
            // A proxy that was not there before has counted since its start, which is after the last look.
            let none = Counters::default();
            let grown: Vec<_> =
                counters.iter().map(|(pid, after)| after.since(before.get(pid).unwrap_or(&none))).collect();
            look.rps = grown.iter().map(|c| c.requests).sum::<f64>() / seconds;
            look.cpu_percent = grown.iter().map(|c| c.cpu).sum::<f64>() / seconds * 100.0;
            look.limited = grown.iter().map(|c| c.limited).sum::<f64>() / seconds;
            look.p99_ms = quantile(&grown, 0.99).map(|seconds| seconds * 1000.0);
        }
        self.last = Some((now, counters));
        look
    }
}

impl Look {
    fn take_status(&mut self, status: &Value) {
        self.ready = status["readyReplicas"].as_u64();
        self.desired = status["desiredReplicas"].as_u64();
        self.driven_by = status["drivenBy"].as_str().unwrap_or("-").to_owned();
        self.config = status["config"].as_str().unwrap_or("-").to_owned();
    }
}

impl fmt::Display for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |value: Option<u64>| value.map_or("?".to_owned(), |value| value.to_string());
        let replicas = format!("{}/{}", number(self.ready), number(self.desired));
        let p99 = self.p99_ms.map_or("-".to_owned(), |ms| format!("{ms:.1}"));
        write!(
            f,
            "{:5.0}s  {replicas:>13}  {:>9}  {:<19}  {:<7}  {:>6.0}  {p99:>7}  {:>6.0}  {:>9.0}",
            self.seconds, self.processes, self.driven_by, self.config, self.rps, self.cpu_percent, self.limited
        )
    }
}

/// The fleet's status as the operator writes it.
fn status(gateway: &Gateway) -> Value {
    let path = gateway.state().join("status/gatewayfleets/sluice-system/default.json");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    serde_json::from_str::<Value>(&text).map_or(Value::Null, |value| value["status"].clone())
}

/// What one proxy has counted since its start.
#[derive(Debug, Clone, Default, PartialEq)]
struct Counters {
    requests: f64,
    limited: f64,
    cpu: f64,
    /// Requests up to each bound in seconds (its bits, to be ordered), as the histogram's buckets say.
    buckets: BTreeMap<u64, f64>,
}

impl Counters {
    /// Sums each metric over its labels.
    fn parse(text: &str) -> Counters {
        let mut counters = Counters::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            match name {
                REQUESTS => counters.requests += value,
                LIMITED if labels.contains("\"limited\"") => counters.limited += value,
                CPU_SECONDS => counters.cpu += value,
                ADDED_SECONDS => {
                    let bound = labels.split("le=\"").nth(1).and_then(|rest| rest.split('"').next());
                    if let Some(Ok(bound)) = bound.map(str::parse::<f64>) {
                        *counters.buckets.entry(bound.to_bits()).or_default() += value;
                    }
                }
                _ => {}
            }
        }
        counters
    }

    fn since(&self, before: &Counters) -> Counters {
        let grown = |bound: &u64, after: f64| after - before.buckets.get(bound).unwrap_or(&0.0);
        Counters {
            requests: self.requests - before.requests,
            limited: self.limited - before.limited,
            cpu: self.cpu - before.cpu,
            buckets: self.buckets.iter().map(|(bound, after)| (*bound, grown(bound, *after))).collect(),
        }
    }
}

/// The least bound that holds this share of all requests.
fn quantile(counters: &[Counters], share: f64) -> Option<f64> {
    let mut sum = BTreeMap::<u64, f64>::new();
    for (bound, count) in counters.iter().flat_map(|c| &c.buckets) {
        *sum.entry(*bound).or_default() += count;
    }
    let (_, total) = sum.last_key_value()?;
    let bound = sum.iter().find(|(_, count)| *total > 0.0 && **count >= total * share)?.0;
    Some(f64::from_bits(*bound)).filter(|bound| bound.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_summed_over_labels() {
        let text = format!(
            "# HELP x y\n{REQUESTS}{{route=\"a\"}} 3\n{REQUESTS}{{route=\"b\"}} 4\n{CPU_SECONDS} 1.5\n\
             {LIMITED}{{decision=\"limited\"}} 2\n{LIMITED}{{decision=\"admitted\"}} 9\n\
             {ADDED_SECONDS}{{route=\"a\",le=\"0.001\"}} 98\n{ADDED_SECONDS}{{route=\"a\",le=\"0.01\"}} 99\n\
             {ADDED_SECONDS}{{route=\"a\",le=\"+Inf\"}} 100\n"
        );
        let counters = Counters::parse(&text);
        assert_eq!((counters.requests, counters.limited, counters.cpu), (7.0, 2.0, 1.5));
        assert_eq!(quantile(std::slice::from_ref(&counters), 0.99), Some(0.01));
        // Beyond the last bound, and without requests, there is no number.
        assert_eq!(quantile(std::slice::from_ref(&counters), 0.999), None);
        assert_eq!(quantile(&[counters.since(&counters)], 0.99), None);
    }
}
