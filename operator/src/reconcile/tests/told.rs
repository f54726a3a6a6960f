//! An Event for each problem that begins, and for each that is over: of every reason that `docs/conditions.md` has.

use snapshot::proto::Nack;

use super::*;
use crate::events::recorder;

impl Bench {
    fn listen(&mut self) -> mpsc::Receiver<recorder::Event> {
        let (sender, told) = mpsc::channel(1000);
        self.reconciler.context.recorder = EventRecorder::to(sender);
        told
    }

    /// What is told when nothing is young any more, and it is this much later.
    fn tell(&mut self, later: u64) {
        let reconciler = &mut self.reconciler;
        let plan = reconciler.plan.clone().unwrap();
        let (plan, _) = reconciler.effective.of(&plan, &reconciler.world, &reconciler.states, &Default::default());
        reconciler.announce(&plan, true, Instant::now() + Duration::from_secs(later), Millis(u64::MAX));
    }
}

fn all(told: &mut mpsc::Receiver<recorder::Event>) -> Vec<(bool, String)> {
    let events = std::iter::from_fn(|| told.try_recv().ok()).filter(|h| h.reason != "Scaled");
    events
        .map(|h| (h.warning, if h.warning { h.reason.to_owned() } else { format!("{}: {}", h.reason, h.note) }))
        .collect()
}

/// The reasons of `docs/conditions.md` that say that something is wrong in a cluster.
fn reasons() -> Vec<&'static str> {
    let page = include_str!("../../../../docs/conditions.md");
    let wrong = |section: &&str| {
        ["The content", "A route", "Something it", "It does not", "The fleet", "Faults"]
            .iter()
            .any(|title| section.starts_with(title))
    };
    let rows = page.split("\n## ").filter(wrong).flat_map(str::lines).filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.split('`').next()).collect()
}

#[tokio::test]
async fn each_reason_is_told_when_it_begins_and_when_it_is_over() {
    let (reasons, mut bench) = (reasons(), Bench::new());
    assert!(reasons.len() > 50 && reasons.contains(&"Immutable") && reasons.contains(&"ProxyCrashes"), "{reasons:?}");
    let mut told = bench.listen();
    bench.observe(1, vec![]);
    bench.turn(observed(&[fleet_manifest()])).await;
    attached(&mut bench, "default-0").await;
    let mut later = 0;
    for reason in reasons {
        let problem = Problem { port: None, reason, message: "why".into() };
        bench.observe(1, vec![problem]);
        bench.turn(Event::Tick).await;
        bench.tell(later);
        // A fleet that grows is below its minimum for a while.
        bench.tell(later + 31);
        assert_eq!(all(&mut told), [(true, reason.to_owned())]);
        bench.observe(1, vec![]);
        bench.turn(Event::Tick).await;
        bench.tell(later + 32);
        bench.tell(later + 50);
        assert_eq!(all(&mut told), [(false, format!("Resolved: no more {reason}: why"))]);
        later += 100;
    }
}

#[tokio::test]
async fn a_fleet_without_a_ready_proxy_is_told_of() {
    let mut bench = Bench::new();
    let mut told = bench.listen();
    bench.observe(1, vec![]);
    bench.turn(observed(&[fleet_manifest()])).await;
    assert_eq!(all(&mut told), [], "it begins");
    attached(&mut bench, "default-0").await;
    bench.tell(2);
    assert_eq!(all(&mut told), []);
    bench.observe(0, vec![]);
    bench.turn(Event::Tick).await;
    bench.tell(4);
    assert_eq!(all(&mut told), [(true, "NoReadyProxy".to_owned())]);
    bench.observe(1, vec![]);
    attached(&mut bench, "default-0").await;
    bench.tell(6);
    bench.tell(20);
    assert_eq!(all(&mut told), [(false, "Resolved: no more NoReadyProxy: no proxy is Ready".to_owned())]);
}

#[tokio::test]
async fn an_install_in_any_order_is_told_of_to_nobody() {
    let policy = json!({
        "apiVersion": "sluice.dev/v1alpha1", "kind": "RatePolicy", "metadata": {"name": "p", "namespace": "shop"},
        "spec": {"targetRefs": [{"group": "sluice.dev", "kind": "ApiRoute", "name": "r"}],
                 "limits": [{"name": "all", "tokenBucket": {"rate": 1}}]},
    });
    let mut route = route_manifest("/a");
    route["spec"]["rules"][0]["backendRefs"] = json!([{"name": "s", "port": 80}]);
    let mut bench = Bench::new();
    let mut told = bench.listen();
    bench.turn(observed(std::slice::from_ref(&policy))).await;
    bench.turn(observed(&[policy.clone(), route.clone()])).await;
    bench.turn(observed(&[policy.clone(), route.clone(), fleet_manifest()])).await;
    assert!(!bench.reconciler.plan.as_ref().unwrap().problems.is_empty());
    assert_eq!(all(&mut told), []);
    // It lasts.
    bench.tell(2);
    assert!(all(&mut told).iter().any(|(_, reason)| reason == "BackendNotFound"));
}

#[tokio::test]
async fn what_proxies_refuse_is_told_of_until_they_refuse_it_no_more() {
    let mut bench = Bench::new();
    let mut told = bench.listen();
    bench.observe(1, vec![]);
    bench.turn(observed(&[fleet_manifest(), route_manifest("/a")])).await;
    attached(&mut bench, "default-0").await;
    bench.turn(observed(&[fleet_manifest(), route_manifest("/b")])).await;
    let published = Arc::clone(bench.reconciler.states[&fleet_ref()].published.as_ref().unwrap());
    let hash = published.snapshot.entry(&"Route/shop/r".parse().unwrap()).unwrap().hash().as_bytes().to_vec();
    let nack = Nack {
        key: "Route/shop/r".into(),
        hash: hash.into(),
        field: "f".into(),
        message: "m".into(),
        ..Nack::default()
    };
    bench.turn(said("default-0", ProxyWhat::Ack { published, nacks: vec![nack], ready: true })).await;
    bench.tell(2);
    assert_eq!(all(&mut told), [(true, "ProxyRejected".to_owned())]);
    bench.turn(observed(&[fleet_manifest(), route_manifest("/c")])).await;
    attached(&mut bench, "default-0").await;
    bench.tell(4);
    assert_eq!(all(&mut told), [], "it may come back");
    bench.tell(20);
    let over = all(&mut told);
    assert!(
        over.len() == 1 && over[0].1.starts_with("Resolved: no more ProxyRejected: Route/shop/r f: m;"),
        "{over:?}"
    );
}
