//! The operator's own metrics.

use std::sync::LazyLock;

use prometheus::{
    Encoder as _, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

/// All of them.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Seconds from the start of a turn to its end.
    pub turns: Histogram,
    /// Seconds that making a plan takes, beside the turns.
    pub plans: Histogram,
    /// Seconds from a push to its acknowledgement.
    pub push_seconds: Histogram,
    /// Scans of the source.
    pub scans: IntCounter,
    /// Pushes begun.
    pub pushes: IntCounter,
    /// Pushes acknowledged.
    pub acks: IntCounter,
    /// Resources refused.
    pub nacks: IntCounter,
    /// Contents that are refused, by fleet and by whose refusal it is.
    pub refusals: IntGaugeVec,
    /// 1 while a change of a fleet's configuration is not rolled out.
    pub rollout_halted: IntGaugeVec,
    /// Proxies by fleet and state.
    pub proxies: IntGaugeVec,
    /// Replicas wanted, by fleet.
    pub desired: IntGaugeVec,
    /// Problems by reason.
    pub problems: IntGaugeVec,
    /// 1 while the watch of a resource does not work.
    pub watch_failing: IntGaugeVec,
    /// 1 while this operator leads.
    pub leader: IntGauge,
    /// The epoch that this operator leads with, or last led with.
    pub epoch: IntGauge,
    /// Writes to the API server that failed, by HTTP status.
    pub api_write_errors: IntCounterVec,
    /// 1 while the default fleet is not as its ConfigMap says.
    pub default_fleet_problem: IntGauge,
    /// Events that were not written: there were too many.
    pub events_dropped: IntCounter,
}

/// The metrics of this process.
pub fn get() -> &'static Metrics {
    static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);
    &METRICS
}

impl Metrics {
    // Names are fixed and distinct: registering can't fail, and a metric that is not registered still counts.
    #[allow(clippy::expect_used)]
    fn new() -> Self {
        let registry = Registry::new();
        let seconds = |name: &str, help: &str| {
            let buckets = vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];
            let histogram =
                Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets)).expect("fixed options");
            registry.register(Box::new(histogram.clone())).expect("a distinct name");
            histogram
        };
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help).expect("fixed options");
            registry.register(Box::new(counter.clone())).expect("a distinct name");
            counter
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            let gauges = IntGaugeVec::new(Opts::new(name, help), labels).expect("fixed options");
            registry.register(Box::new(gauges.clone())).expect("a distinct name");
            gauges
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help).expect("fixed options");
            registry.register(Box::new(gauge.clone())).expect("a distinct name");
            gauge
        };
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels).expect("fixed options");
            registry.register(Box::new(counters.clone())).expect("a distinct name");
            counters
        };
        Self {
            turns: seconds("sluice_operator_turn_seconds", "Time of one turn: fleet, publish, status."),
            plans: seconds("sluice_operator_plan_seconds", "Time of making one plan, beside the turns."),
            push_seconds: seconds("sluice_operator_push_seconds", "Time from a push to its acknowledgement."),
            scans: counter("sluice_operator_source_scans_total", "Scans of the manifest directory."),
            pushes: counter("sluice_operator_pushes_total", "Pushes to proxies."),
            acks: counter("sluice_operator_acks_total", "Pushes that a proxy acknowledged."),
            nacks: counter("sluice_operator_nacks_total", "Resources that a proxy refused, counted in each push."),
            refusals: gauges(
                "sluice_operator_refusals",
                "Contents that proxies refuse: all of the fleet do without it, or one proxy does.",
                &["fleet", "scope"],
            ),
            rollout_halted: gauges(
                "sluice_operator_rollout_halted",
                "1 while proxies keep what they ran before because a change of the configuration did harm.",
                &["fleet"],
            ),
            proxies: gauges("sluice_operator_proxies", "Proxies by fleet and state.", &["fleet", "state"]),
            desired: gauges("sluice_operator_desired_replicas", "Replicas wanted.", &["fleet"]),
            watch_failing: gauges(
                "sluice_operator_watch_failing",
                "1 while the watch of a resource of the API server does not work.",
                &["resource"],
            ),
            problems: gauges("sluice_operator_problems", "Problems in objects, by reason.", &["reason"]),
            leader: gauge("sluice_operator_leader", "1 while this operator leads."),
            epoch: gauge("sluice_operator_epoch", "The epoch that this operator leads with, or last led with."),
            api_write_errors: counters(
                "sluice_operator_api_write_errors_total",
                "Writes to the API server that failed, by HTTP status (none: no answer).",
                &["code"],
            ),
            default_fleet_problem: gauge(
                "sluice_operator_default_fleet_problem",
                "1 while the default fleet is not as its ConfigMap says.",
            ),
            events_dropped: counter(
                "sluice_operator_events_dropped_total",
                "Kubernetes Events that were not written because there were too many.",
            ),
            registry,
        }
    }

    /// In the text format of Prometheus.
    pub fn text(&self) -> Vec<u8> {
        let mut text = vec![];
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::warn!(%error, "metrics can't be written");
        }
        text
    }
}
