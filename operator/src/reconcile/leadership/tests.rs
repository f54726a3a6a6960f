//! One operator takes over from another.

use tokio::sync::watch;

use super::{
    super::{
        tests::{Bench, attached, fleet_manifest, fleet_ref, observed, route_manifest},
        *,
    },
    SETTLE_TIMEOUT,
};
use crate::{
    kube::testing::{Answer, api_server},
    leader::election::LeaderState,
    state::{
        certificates::Certificates,
        configmap,
        store::{ClusterStore, StateStore},
    },
};

/// An API server that has a ConfigMap and a Secret with this in it, or has them not.
fn store(found: Option<serde_json::Value>) -> StateStore {
    let (client, _asked) = api_server(move |asked| match &found {
        Some(found) if asked.uri.path().contains("secrets") => {
            let text = found["certificates"].as_str().unwrap_or("[]").as_bytes().to_vec();
            Answer::json(200, serde_json::json!({"data": {"certificates.json": k8s_openapi::ByteString(text)}}))
        }
        Some(found) => Answer::json(200, found.get("objects").cloned().unwrap_or(serde_json::json!({"metadata": {}}))),
        None => Answer::status(404),
    });
    let objects = configmap::ConfigMapStore::start(client.clone(), "sys", "memory");
    StateStore::Cluster(Box::new(ClusterStore { objects, certificates: Certificates::start(client, "sys", "kept") }))
}

/// A standby in a cluster, and what makes it the leader.
fn standby(found: Option<serde_json::Value>) -> (Bench, watch::Sender<LeaderState>) {
    let (told, lead) = watch::channel(LeaderState::Standby { holder: None });
    let bench = Bench::with(tempfile::tempdir().unwrap(), store(found), PersistedState::default(), lead);
    bench.fleet.0.lock().unwrap().outlives = true;
    (bench, told)
}

/// Turns until it knows what the leader before left.
async fn take_over(bench: &mut Bench, told: &watch::Sender<LeaderState>) -> Vec<(u32, Vec<u16>)> {
    told.send_replace(LeaderState::Leader { epoch: 2 });
    for _ in 0..500 {
        let asked = bench.turn(Event::Tick).await;
        if matches!(bench.reconciler.leadership, Leadership::Leading(_)) {
            return asked;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never led");
}

#[tokio::test]
async fn a_standby_plans_and_touches_nothing() {
    let (mut bench, _told) = standby(None);
    bench.observe(3, vec![]);
    assert_eq!(bench.turn(observed(&[fleet_manifest(), route_manifest("/a")])).await, []);
    assert_eq!(bench.turn(Event::Tick).await, []);
    assert!(bench.reconciler.plan.is_some() && bench.reconciler.context.view.view().is_some());
    let state = &bench.reconciler.states[&fleet_ref()];
    assert!(state.published.is_none() && state.decision.is_none() && bench.reconciler.shown.is_none());
}

/// Nobody waits for a standby's plans, so they are few; when it leads, what it did not plan yet is planned first.
#[tokio::test]
async fn a_standby_rests_between_plans_and_leads_with_the_latest() {
    let (mut bench, told) = standby(None);
    bench.turn(observed(&[fleet_manifest()])).await;
    bench.reconciler.planning.rests_until = Some(Instant::now() + Duration::from_secs(600));
    bench.turn(observed(&[fleet_manifest(), route_manifest("/a")])).await;
    assert!(bench.reconciler.plan.as_ref().unwrap().parents.is_empty(), "it rests");
    take_over(&mut bench, &told).await;
    assert!(bench.published().iter().any(|key| key.starts_with("Route/")), "{:?}", bench.published());
}

/// Whether what statuses were made of last has something to say of the proxies.
fn has_settled(bench: &Bench) -> bool {
    bench.reconciler.shown.as_ref().is_some_and(|(_, settling, _)| settling.is_empty())
}

#[tokio::test]
async fn until_proxies_have_dialled_nothing_moves() {
    let (mut bench, told) = standby(None);
    bench.observe(3, vec![]);
    bench.turn(observed(&[fleet_manifest(), route_manifest("/a")])).await;
    assert_eq!(take_over(&mut bench, &told).await, [(3, vec![8080, 8081])], "as many as there are");
    let state = |bench: &Bench| {
        let state = &bench.reconciler.states[&fleet_ref()];
        (state.published.is_some(), state.decision.is_some(), has_settled(bench))
    };
    assert_eq!(state(&bench), (true, false, false), "published at once, no conclusion yet");
    for i in 0..3 {
        assert_eq!(bench.turn(Event::Tick).await, [(3, vec![8080, 8081])]);
        assert_eq!(state(&bench), (true, false, false));
        attached(&mut bench, &format!("default-{i}")).await;
    }
    tokio::time::sleep(DECISION_INTERVAL).await;
    assert_eq!(bench.turn(Event::Tick).await, [(3, vec![8080, 8081])]);
    assert_eq!(state(&bench), (true, true, true));
    assert_eq!(bench.reconciler.states[&fleet_ref()].ready(), 3);
}

#[tokio::test]
async fn a_proxy_that_never_dials_is_not_waited_for_for_ever() {
    let (mut bench, told) = standby(None);
    bench.observe(3, vec![]);
    bench.turn(observed(&[fleet_manifest()])).await;
    take_over(&mut bench, &told).await;
    attached(&mut bench, "default-0").await;
    assert!(!has_settled(&bench));
    bench.reconciler.leadership = Leadership::Leading(Instant::now().checked_sub(SETTLE_TIMEOUT));
    bench.reconciler.decided = None;
    assert_eq!(bench.turn(Event::Tick).await, [(3, vec![8080, 8081])], "who is silent counts as there");
    assert!(has_settled(&bench));
}

/// What the leader before left of an object that is broken now.
fn left(accepted: &serde_json::Value) -> serde_json::Value {
    serde_json::json!({"objects": {"metadata": {"name": "memory"}, "data": {"objects.json": record(accepted).to_string()}}})
}

fn record(accepted: &serde_json::Value) -> serde_json::Value {
    let metadata = &accepted["metadata"];
    serde_json::json!([{
        "object": {"kind": accepted["kind"], "namespace": metadata["namespace"], "name": metadata["name"]},
        "generation": 1, "content": snapshot::Hash::of(b"x").to_string(), "created": "2026-01-01T00:00:00Z",
        "accepted": accepted,
    }])
}

#[tokio::test]
async fn what_the_leader_before_accepted_stays_in_force() {
    let (mut bench, told) = standby(Some(left(&route_manifest("/a"))));
    // It never saw the route whole.
    bench.turn(observed(&[fleet_manifest(), route_manifest("no path")])).await;
    take_over(&mut bench, &told).await;
    assert!(bench.published().iter().any(|key| key.starts_with("Route/")), "{:?}", bench.published());
}

/// A change that is being planned when the leader before is heard is not forgotten for the world before it.
#[tokio::test]
async fn what_changes_while_one_takes_over_is_planned() {
    let (mut bench, told) = standby(Some(left(&route_manifest("/a"))));
    let broken = route_manifest("no path");
    bench.turn(observed(&[fleet_manifest(), broken.clone()])).await;
    let mut new = route_manifest("/new");
    new["metadata"]["name"] = "new".into();
    bench.reconciler.take(observed(&[fleet_manifest(), broken, new]));
    bench.reconciler.planning.rests_until = None;
    bench.reconciler.plan().await;
    assert!(bench.reconciler.planning.is_under_way());
    told.send_replace(LeaderState::Leader { epoch: 2 });
    while !matches!(bench.reconciler.leadership, Leadership::AwaitingPlan { .. }) {
        assert!(!bench.reconciler.leads(Instant::now()).await, "what it left is to be planned first");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    take_over(&mut bench, &told).await;
    let published = bench.published();
    assert_eq!(published.iter().filter(|key| key.starts_with("Route/")).count(), 2, "{published:?}");
}

/// A standby that never saw its fleet whole, which serves by the certificate `cert`, up to where it knows that.
async fn without_certificate() -> (Bench, serde_json::Value) {
    let mut fleet = fleet_manifest();
    let tls = serde_json::json!({"certificateRefs": [{"name": "cert"}]});
    fleet["spec"]["listeners"] = serde_json::json!([{"name": "https", "protocol": "HTTPS", "port": 8443, "tls": tls}]);
    let (mut bench, told) = standby(Some(left(&fleet)));
    fleet["spec"]["scaling"]["minReplicas"] = 9.into();
    bench.turn(observed(&[fleet.clone()])).await;
    told.send_replace(LeaderState::Leader { epoch: 2 });
    for _ in 0..500 {
        bench.turn(Event::Tick).await;
        if !matches!(
            bench.reconciler.leadership,
            Leadership::Standby | Leadership::Restoring(_) | Leadership::AwaitingPlan { .. }
        ) {
            assert!(
                matches!(bench.reconciler.leadership, Leadership::AwaitingSource { .. }),
                "{:?}",
                bench.reconciler.leadership
            );
            return (bench, fleet);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never led");
}

fn certificate() -> serde_json::Value {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(["a.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    let field = |tag, der: &[u8]| k8s_openapi::ByteString(pem::encode(&pem::Pem::new(tag, der)).into_bytes());
    serde_json::json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cert", "namespace": "sys"}, "type": "kubernetes.io/tls",
        "data": {"tls.crt": field("CERTIFICATE", certificate.der()), "tls.key": field("PRIVATE KEY", &key.serialize_der())},
    })
}

#[tokio::test]
async fn nothing_is_published_without_the_certificates_of_what_stays_in_force() {
    let (mut bench, broken) = without_certificate().await;
    let told = bench.reconciler.context.in_force.as_ref().unwrap().borrow().clone().unwrap();
    assert_eq!(told.secrets.iter().map(ToString::to_string).collect::<Vec<_>>(), ["Secret sys/cert"]);
    assert_eq!(bench.turn(Event::Tick).await, []);
    assert!(bench.published().is_empty());
    bench.turn(observed(&[broken, certificate()])).await;
    assert!(bench.published().iter().any(|key| key.starts_with("Certificate/")), "{:?}", bench.published());
}

#[tokio::test]
async fn a_certificate_that_is_broken_is_what_the_leader_before_accepted() {
    let mut fleet = fleet_manifest();
    let tls = serde_json::json!({"certificateRefs": [{"name": "cert"}]});
    fleet["spec"]["listeners"] = serde_json::json!([{"name": "https", "protocol": "HTTPS", "port": 8443, "tls": tls}]);
    let good = certificate();
    let (mut bench, told) = standby(Some(serde_json::json!({"certificates": record(&good).to_string()})));
    let mut broken = good.clone();
    broken["data"]["tls.crt"] = "Z2FyYmFnZQ==".into();
    bench.turn(observed(&[fleet, broken])).await;
    take_over(&mut bench, &told).await;
    assert!(bench.published().iter().any(|key| key.starts_with("Certificate/")), "{:?}", bench.published());
}

#[tokio::test]
async fn a_certificate_that_never_comes_is_not_waited_for_for_ever() {
    let (mut bench, _broken) = without_certificate().await;
    let Leadership::AwaitingSource { until, .. } = &mut bench.reconciler.leadership else { panic!("it does not wait") };
    assert!(*until > Instant::now());
    *until = Instant::now();
    bench.turn(Event::Tick).await;
    assert!(bench.published().iter().any(|key| key.starts_with("Fleet/")), "{:?}", bench.published());
}

/// What a source of these manifests puts into its slot.
fn put(source: &Latest, number: u64, manifests: &[serde_json::Value]) -> Event {
    let Event::WorldChanged(world) = observed(manifests) else { unreachable!() };
    source.put(Arc::new(Observed { number, ..Observed::clone(&world.take().unwrap()) }));
    Event::WorldChanged(source.clone())
}

/// A standby whose source put off what changed faster than that plans, up to where it knows that, and the source. Proxies
/// may have later objects than it holds.
async fn behind() -> (Bench, Latest) {
    let ((mut bench, told), source) = (standby(None), Latest::default());
    bench.turn(put(&source, 1, &[fleet_manifest()])).await;
    source.set_behind(true);
    told.send_replace(LeaderState::Leader { epoch: 2 });
    for _ in 0..500 {
        bench.turn(Event::Tick).await;
        if matches!(bench.reconciler.leadership, Leadership::AwaitingSource { .. }) {
            assert!(bench.published().is_empty());
            return (bench, source);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it does not wait");
}

#[tokio::test]
async fn what_the_source_put_off_is_planned_before_anything_is_published() {
    let (mut bench, source) = behind().await;
    // However much its namespace owes.
    let owes = pace::causes(&Observed::default(), &bench.reconciler.observed, &BTreeSet::new());
    bench.reconciler.planning.pace.charge(&owes, Duration::from_secs(600), Instant::now());
    let mut fleet = fleet_manifest();
    fleet["spec"]["scaling"]["minReplicas"] = 2.into();
    let world = put(&source, 2, &[fleet]);
    source.set_behind(false);
    bench.turn(world).await;
    bench.turn(Event::Tick).await;
    assert_eq!(bench.reconciler.observed.number, 2);
    assert!(bench.published().iter().any(|key| key.starts_with("Fleet/")), "{:?}", bench.published());
}

#[tokio::test]
async fn a_source_that_is_always_behind_is_not_waited_for_for_ever() {
    let (mut bench, _source) = behind().await;
    let Leadership::AwaitingSource { until, .. } = &mut bench.reconciler.leadership else { panic!("it does not wait") };
    assert!(*until > Instant::now());
    *until = Instant::now();
    bench.turn(Event::Tick).await;
    assert!(bench.published().iter().any(|key| key.starts_with("Fleet/")), "{:?}", bench.published());
}

#[tokio::test]
async fn pods_outlive_their_operator() {
    let (mut bench, told) = standby(None);
    bench.observe(2, vec![]);
    bench.turn(observed(&[fleet_manifest()])).await;
    take_over(&mut bench, &told).await;
    assert_eq!(bench.turn(Event::Shutdown).await, [], "nothing is asked of the fleet");
    let (sender, events) = mpsc::channel(1);
    sender.try_send(Event::Shutdown).unwrap();
    bench.reconciler.context.events = events;
    tokio::time::timeout(Duration::from_secs(5), bench.reconciler.run()).await.expect("ends with proxies alive");
}
