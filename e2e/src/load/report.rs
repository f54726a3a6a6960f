//! The counts while the load runs, and the report made of them.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// The samples of failures that a report keeps.
const MAX_SAMPLES: usize = 5;
/// Different reasons and upstream names that a report keeps apart; what comes after is counted as "other".
const MAX_KEYS: usize = 100;

/// Everything that was counted.
///
/// `requests == ok + limited + upstream_5xx + failed`; what was retried (`reused_closed`, `above_goaway`) is counted
/// apart and once more by its retry's outcome.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Requests with an outcome.
    pub requests: u64,
    /// Complete answers of 2xx, 3xx, or 4xx other than 429.
    pub ok: u64,
    /// Complete answers of 429.
    pub limited: u64,
    /// Complete answers of 5xx that carry `x-upstream`: the upstream said so, not the gateway.
    pub upstream_5xx: u64,
    /// Requests without a complete answer, or with a 5xx that the upstream did not send.
    pub failed: u64,
    /// The reasons why they failed, and how often.
    pub reasons: BTreeMap<String, u64>,
    /// The first few failures, with what was asked and when.
    pub samples: Vec<String>,
    /// A reused HTTP/1.1 connection closed before any byte of the answer: retried on a new connection.
    pub reused_closed: u64,
    /// HTTP/2 streams above the last id of a GOAWAY: the server did not see them. Retried on a new connection.
    pub above_goaway: u64,
    /// Connections that the server retired properly: `Connection: close` or GOAWAY.
    pub retired: u64,
    /// Connections opened.
    pub connections: u64,
    /// Requests that were due but never sent because every connection was busy.
    pub missed: u64,
    /// The WebSockets.
    pub ws: WebSockets,
    /// Complete answers by the name in `x-upstream`.
    pub upstreams: BTreeMap<String, u64>,
    /// Complete answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// The time from due (or sent, in a closed loop) to the answer's last byte.
    pub latency: Latency,
    /// The time that the load ran, in seconds.
    pub seconds: f64,
    /// Requests with an outcome, a second.
    pub rps: f64,
}

/// The fates of the WebSockets.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WebSockets {
    /// Handshakes completed.
    pub opened: u64,
    /// Messages that came back as they were sent.
    pub messages: u64,
    /// Closed by the server with code 1001 (going away).
    pub closed_1001: u64,
    /// Closed by the server with another code, or none.
    pub closed_other: u64,
    /// Handshakes refused, connections that broke without a Close, echoes that did not come or were wrong.
    pub failed: u64,
}

/// Percentiles in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Latency {
    /// Half were faster.
    pub p50: f64,
    /// 90 % were faster.
    pub p90: f64,
    /// 99 % were faster.
    pub p99: f64,
    /// The slowest.
    pub max: f64,
}

/// A look at a running load.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Live {
    /// Seconds since the start.
    pub seconds: f64,
    /// Requests with an outcome so far.
    pub requests: u64,
    /// Failures so far, WebSockets included.
    pub failed: u64,
    /// 429 so far.
    pub limited: u64,
    /// Requests a second since the last look.
    pub rps: f64,
    /// Percentiles since the last look.
    pub latency: Latency,
}

impl Report {
    /// Everything that must be 0: failed requests and WebSockets that did not end with 1001.
    pub fn failures(&self) -> u64 {
        self.failed + self.ws.failed + self.ws.closed_other
    }

    /// The requests that are counted apart and allowed at most 0.1 % of all.
    pub fn retried(&self) -> u64 {
        self.reused_closed + self.above_goaway
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Latency { p50, p90, p99, max } = self.latency;
        writeln!(f, "requests     {} in {:.1} s, {:.0}/s", self.requests, self.seconds, self.rps)?;
        writeln!(f, "ok           {}", self.ok)?;
        writeln!(f, "limited      {}", self.limited)?;
        writeln!(f, "upstream 5xx {}", self.upstream_5xx)?;
        writeln!(f, "failed       {}", self.failed)?;
        for (reason, count) in &self.reasons {
            writeln!(f, "  {count:>9}  {reason}")?;
        }
        for sample in &self.samples {
            writeln!(f, "  e.g. {sample}")?;
        }
        writeln!(f, "retried      {} reused closed, {} above GOAWAY", self.reused_closed, self.above_goaway)?;
        writeln!(f, "connections  {} opened, {} retired by the server", self.connections, self.retired)?;
        if self.missed > 0 {
            writeln!(f, "missed       {} were due but every connection was busy", self.missed)?;
        }
        let WebSockets { opened, messages, closed_1001, closed_other, failed } = self.ws;
        if opened + failed > 0 {
            writeln!(
                f,
                "websockets   {opened} opened, {messages} messages, {closed_1001} closed 1001, {closed_other} closed otherwise, {failed} failed"
            )?;
        }
        let list = |map: Vec<String>| map.join(", ");
        writeln!(f, "upstreams    {}", list(self.upstreams.iter().map(|(k, v)| format!("{k} {v}")).collect()))?;
        writeln!(f, "statuses     {}", list(self.statuses.iter().map(|(k, v)| format!("{k} {v}")).collect()))?;
        write!(f, "latency ms   p50 {p50:.2}, p90 {p90:.2}, p99 {p99:.2}, max {max:.2}")
    }
}

/// The answer of an exchange that went to its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) upstream: Option<String>,
    /// Whether the connection may carry another request.
    pub(super) keep: bool,
}

/// The counters of a running load.
#[derive(Debug)]
pub(super) struct Stats {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    report: Report,
    all: Histogram<u64>,
    recent: Histogram<u64>,
    started: Instant,
    looked: (Instant, u64),
}

impl Stats {
    pub(super) fn new() -> anyhow::Result<Stats> {
        // Microseconds up to two minutes, three digits: about 200 KiB each.
        let all = Histogram::new_with_bounds(1, 120_000_000, 3)?;
        let now = Instant::now();
        let inner = Inner { report: Report::default(), recent: all.clone(), all, started: now, looked: (now, 0) };
        Ok(Stats { inner: Mutex::new(inner) })
    }

    pub(super) fn begin(&self, now: Instant) {
        let mut inner = self.lock();
        (inner.started, inner.looked) = (now, (now, 0));
    }

    pub(super) fn end(&self, now: Instant, missed: u64) {
        let mut inner = self.lock();
        inner.report.seconds = (now - inner.started).as_secs_f64();
        inner.report.missed = missed;
    }

    /// Counts an answer that came to its end.
    pub(super) fn answered(&self, from: Instant, answer: &Answer, path: &str) {
        let micros = u64::try_from(from.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut inner = self.lock();
        inner.all.saturating_record(micros);
        inner.recent.saturating_record(micros);
        let report = &mut inner.report;
        report.requests += 1;
        *report.statuses.entry(answer.status).or_default() += 1;
        if let Some(upstream) = &answer.upstream {
            count(&mut report.upstreams, upstream);
        }
        match answer.status {
            429 => report.limited += 1,
            500.. if answer.upstream.is_some() => report.upstream_5xx += 1,
            500.. => {
                report.failed += 1;
                inner.explain(&format!("{} from the gateway", answer.status), path);
            }
            _ => report.ok += 1,
        }
    }

    /// Counts a request without a complete answer.
    pub(super) fn failed(&self, reason: &str, path: &str) {
        let mut inner = self.lock();
        inner.report.requests += 1;
        inner.report.failed += 1;
        inner.explain(reason, path);
    }

    pub(super) fn connected(&self) {
        self.lock().report.connections += 1;
    }

    pub(super) fn retired(&self) {
        self.lock().report.retired += 1;
    }

    pub(super) fn reused_closed(&self) {
        self.lock().report.reused_closed += 1;
    }

    pub(super) fn above_goaway(&self) {
        self.lock().report.above_goaway += 1;
    }

    pub(super) fn ws(&self, update: impl FnOnce(&mut WebSockets)) {
        update(&mut self.lock().report.ws);
    }

    pub(super) fn ws_failed(&self, reason: &str, path: &str) {
        let mut inner = self.lock();
        inner.report.ws.failed += 1;
        inner.explain(&format!("websocket: {reason}"), path);
    }

    pub(super) fn live(&self) -> Live {
        let mut inner = self.lock();
        let now = Instant::now();
        let (looked, requests) = inner.looked;
        let seconds = (now - looked).as_secs_f64().max(1e-3);
        let live = Live {
            seconds: (now - inner.started).as_secs_f64(),
            requests: inner.report.requests,
            failed: inner.report.failures(),
            limited: inner.report.limited,
            rps: (inner.report.requests - requests) as f64 / seconds,
            latency: latency(&inner.recent),
        };
        inner.recent.reset();
        inner.looked = (now, live.requests);
        live
    }

    pub(super) fn report(&self) -> Report {
        let inner = self.lock();
        let mut report = inner.report.clone();
        if report.seconds == 0.0 {
            report.seconds = inner.started.elapsed().as_secs_f64();
        }
        report.rps = report.requests as f64 / report.seconds.max(1e-3);
        report.latency = latency(&inner.all);
        report
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn explain(&mut self, reason: &str, path: &str) {
        count(&mut self.report.reasons, reason);
        if self.report.samples.len() < MAX_SAMPLES {
            let at = self.started.elapsed().as_secs_f64();
            self.report.samples.push(format!("{path} after {at:.3} s: {reason}"));
        }
    }
}

fn count(map: &mut BTreeMap<String, u64>, key: &str) {
    if let Some(value) = map.get_mut(key) {
        *value += 1;
    } else {
        let key = if map.len() < MAX_KEYS { key } else { "other" };
        *map.entry(key.to_owned()).or_default() += 1;
    }
}

fn latency(histogram: &Histogram<u64>) -> Latency {
    if histogram.is_empty() {
        return Latency::default();
    }
    let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
    Latency { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: histogram.max() as f64 / 1000.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_counts_where_it_belongs() {
        let stats = Stats::new().unwrap();
        for (status, upstream) in [(200, Some("a")), (404, None), (429, None), (503, Some("a")), (503, None)] {
            let answer = Answer { status, upstream: upstream.map(str::to_owned), keep: true };
            stats.answered(Instant::now(), &answer, "/x");
        }
        stats.failed("timeout", "/x");
        let report = stats.report();
        let counts = (report.requests, report.ok, report.limited, report.upstream_5xx, report.failed);
        assert_eq!(counts, (6, 2, 1, 1, 2));
        assert_eq!(report.upstreams, BTreeMap::from([("a".to_owned(), 2)]));
        let reasons = [("503 from the gateway".to_owned(), 1), ("timeout".to_owned(), 1)];
        assert_eq!(report.reasons, BTreeMap::from(reasons));
        assert_eq!(report.samples.len(), 2);
    }
}
