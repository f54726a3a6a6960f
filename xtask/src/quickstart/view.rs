//! A look at the running fleet, once a second, as the operator sees it.

use std::{fmt, time::Instant};

use serde_json::Value;

use super::{children::Gateway, http};

/// Lines after which the head is printed again.
const HEAD_EVERY: u32 = 20;
const HEAD: &str = "  TIME  READY/DESIRED  PROCESSES  DRIVEN-BY            CONFIG    REQ/S   P99 ms   CPU %  LIMITED/S";

/// A table that grows by a line each second.
pub(super) struct View {
    started: Instant,
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
    driven_by: Option<String>,
    config: Option<String>,
    rps: Option<f64>,
    /// The time the proxies added.
    p99_ms: Option<f64>,
    cpu_percent: Option<f64>,
    limited: Option<f64>,
}

impl View {
    pub(super) fn new() -> View {
        View { started: Instant::now(), lines: 0 }
    }

    /// A line of the table, with the head above it from time to time.
    pub(super) fn show(&mut self, look: &Look) -> String {
        let head = self.lines.is_multiple_of(HEAD_EVERY);
        self.lines += 1;
        if head { format!("{HEAD}\n{look}") } else { look.to_string() }
    }

    pub(super) fn look(&self, gateway: &Gateway) -> Look {
        // While it starts the operator may not answer: then nothing is known.
        let decision = gateway.admin().and_then(|admin| http::request(admin, "localhost", "/debug/decision").ok());
        let decision = decision.and_then(|answer| serde_json::from_str(&answer.body).ok()).unwrap_or(Value::Null);
        Look {
            seconds: self.started.elapsed().as_secs_f64(),
            processes: gateway.proxies().len(),
            config: gateway.fleet_status()["config"].as_str().map(str::to_owned),
            ..Look::of(&decision)
        }
    }
}

impl Look {
    /// The look of the one fleet, by what `/debug/decision` says.
    fn of(decision: &Value) -> Look {
        let fleet = &decision["fleets"][0];
        let (observed, totals) = (&fleet["observed"], &fleet["totals"]);
        Look {
            ready: observed["ready"].as_u64(),
            desired: observed["desired"].as_u64(),
            driven_by: fleet["decision"]["drivenBy"].as_str().map(str::to_owned),
            rps: totals["rps"].as_f64(),
            p99_ms: totals["p99Ms"].as_f64(),
            cpu_percent: totals["cpuPercent"].as_f64(),
            limited: totals["limitedPerSecond"].as_f64(),
            ..Look::default()
        }
    }
}

impl fmt::Display for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |value: Option<u64>| value.map_or("?".to_owned(), |value| value.to_string());
        let number = |value: Option<f64>, digits: usize| value.map_or("-".to_owned(), |v| format!("{v:.digits$}"));
        let replicas = format!("{}/{}", count(self.ready), count(self.desired));
        write!(
            f,
            "{:5.0}s  {replicas:>13}  {:>9}  {:<19}  {:<7}  {:>6}  {:>7}  {:>6}  {:>9}",
            self.seconds,
            self.processes,
            self.driven_by.as_deref().unwrap_or("-"),
            self.config.as_deref().unwrap_or("-"),
            number(self.rps, 0),
            number(self.p99_ms, 2),
            number(self.cpu_percent, 0),
            number(self.limited, 0),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_holds_what_the_operator_says() {
        let decision = json!({"fleets": [{
            "fleet": "sluice-system/default",
            "decision": {"desired": 2, "drivenBy": "RequestRate=131%"},
            "observed": {"ready": 1, "current": 2, "desired": 2},
            "totals": {"rps": 786.4, "p99Ms": 1.26, "cpuPercent": 12.0, "limitedPerSecond": 0.0},
        }]});
        let look = Look { seconds: 3.0, processes: 2, config: Some("3f9c2e1".to_owned()), ..Look::of(&decision) };
        let line = "    3s            1/2          2  RequestRate=131%     3f9c2e1     786     1.26      12          0";
        assert_eq!(look.to_string(), line);
        assert_eq!(HEAD.len(), line.len());
        let nothing = Look::of(&Value::Null).to_string();
        assert_eq!(nothing.split_whitespace().collect::<Vec<_>>(), ["0s", "?/?", "0", "-", "-", "-", "-", "-", "-"]);
    }
}
