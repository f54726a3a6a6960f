//! What others refer to breaks or goes, and operators end: what was accepted last serves on.

use super::*;
use crate::state::store::FolderStore;

fn with_tls() -> Value {
    let mut fleet = fleet_manifest();
    let tls = json!({"certificateRefs": [{"name": "cert"}]});
    fleet["spec"]["listeners"] = json!([{"name": "https", "protocol": "HTTPS", "port": 8443, "tls": tls}]);
    fleet
}

/// A certificate and its key.
fn pair() -> (Value, Value) {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(["a.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    let pem = |tag, der: &[u8]| json!(pem::encode(&pem::Pem::new(tag, der)));
    (pem("CERTIFICATE", certificate.der()), pem("PRIVATE KEY", &key.serialize_der()))
}

fn secret((certificate, key): (&Value, &Value)) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cert", "namespace": "sys"}, "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": certificate, "tls.key": key},
    })
}

impl Bench {
    /// The certificate that is published.
    fn certificate(&self) -> Option<Hash> {
        let published = self.reconciler.states.get(&fleet_ref())?.published.as_ref()?;
        published.snapshot.iter().find(|(key, _)| key.to_string().starts_with("Certificate/")).map(|(_, e)| e.hash())
    }

    /// What is wrong with the fleet.
    fn wrong(&self) -> String {
        let problems = &self.reconciler.plan.as_ref().unwrap().problems;
        let of_fleet = problems.iter().filter(|p| p.object.as_ref().is_some_and(|o| o.kind == Kind::GatewayFleet));
        of_fleet.map(|p| format!("{}: {}\n", p.reason, p.message)).collect()
    }

    /// Another operator on the same state.
    async fn again(self) -> Self {
        let Self { reconciler, _dir, .. } = self;
        reconciler.context.store.finish().await;
        let (store, persisted) = FolderStore::open(_dir.path());
        Self::with(_dir, StateStore::Folder(store), persisted, crate::leader::election::sole_leader(1))
    }
}

#[tokio::test]
async fn a_certificate_that_breaks_serves_on_and_the_fleet_says_which() {
    let (mut bench, (a, b)) = (Bench::new(), (pair(), pair()));
    bench.turn(observed(&[with_tls(), secret((&a.0, &a.1))])).await;
    let good = bench.certificate();
    assert!(good.is_some() && bench.wrong().is_empty(), "{}", bench.wrong());
    let garbage = json!("garbage");
    for broken in [secret((&garbage, &garbage)), secret((&a.0, &b.1)), secret((&b.0, &a.1)), secret((&a.0, &garbage))] {
        bench.turn(observed(&[with_tls(), broken.clone()])).await;
        for _ in 0..2 {
            assert_eq!(bench.certificate(), good, "{broken}");
            let wrong = bench.wrong();
            assert!(wrong.starts_with("InvalidCertificateRef: Secret sys/cert is not valid: data[tls."), "{wrong}");
            assert!(wrong.contains("; what serves is the certificate accepted at 20"), "{wrong}");
            assert!(wrong.contains(", expires 4096-01-01T00:00:00Z"), "{wrong}");
            bench = bench.again().await;
            bench.turn(observed(&[with_tls(), broken.clone()])).await;
        }
    }
    bench.turn(observed(&[with_tls(), secret((&b.0, &b.1))])).await;
    assert!(bench.certificate().is_some() && bench.certificate() != good && bench.wrong().is_empty());
}

#[tokio::test]
async fn what_is_gone_counts_for_a_while() {
    let (mut bench, a) = (Bench::new(), pair());
    bench.turn(observed(&[with_tls(), secret((&a.0, &a.1))])).await;
    let good = bench.certificate();
    bench.turn(observed(&[with_tls()])).await;
    for _ in 0..2 {
        assert_eq!(bench.certificate(), good);
        let wrong = bench.wrong();
        assert!(
            wrong.starts_with("InvalidCertificateRef: Secret sys/cert is gone: create it again; what serves"),
            "{wrong}"
        );
        assert!(wrong.contains(", until 20"), "{wrong}");
        bench = bench.again().await;
        bench.turn(observed(&[with_tls()])).await;
    }
    // Made again, and broken at first.
    bench.turn(observed(&[with_tls(), secret((&a.0, &a.0))])).await;
    assert_eq!(bench.certificate(), good);
    bench.turn(observed(&[with_tls()])).await;
    assert_eq!(bench.certificate(), good);
    // Its time is over, and nothing else happens.
    let long_ago = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(30);
    for known in Arc::make_mut(&mut bench.reconciler.records).values_mut().filter(|known| known.gone.is_some()) {
        known.gone = Some(long_ago);
    }
    Arc::make_mut(bench.reconciler.plan.as_mut().unwrap()).changes_at = Some(status::now());
    bench.reconciler.planning.rests_until = None;
    bench.turn(Event::Tick).await;
    assert_eq!(bench.certificate(), None);
    assert!(bench.wrong().contains("no Secret sys/cert of type kubernetes.io/tls exists"), "{}", bench.wrong());
    assert_eq!(bench.reconciler.plan.as_ref().unwrap().changes_at, None);
}

#[tokio::test]
async fn what_nobody_refers_to_is_forgotten_at_once() {
    let (mut bench, a) = (Bench::new(), pair());
    bench.turn(observed(&[with_tls(), secret((&a.0, &a.1))])).await;
    bench.turn(observed(&[fleet_manifest()])).await;
    let known = |bench: &Bench| bench.reconciler.records.keys().any(|id| id.kind == Kind::Secret);
    assert!(!known(&bench) && bench.certificate().is_none());
}

#[tokio::test]
async fn a_service_that_is_made_again_is_not_missed() {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "shop"},
        "spec": {"ports": [{"port": 80, "targetPort": 8080}]},
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "s-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "s"}},
        "ports": [{"port": 8080}], "endpoints": [{"addresses": ["10.0.0.1"]}],
    });
    let mut route = route_manifest("/a");
    route["spec"]["rules"][0]["backendRefs"] = json!([{"name": "s", "port": 80}]);
    let mut bench = Bench::new();
    bench.turn(observed(&[fleet_manifest(), route.clone(), service.clone(), slice.clone()])).await;
    let revision = |bench: &Bench| bench.reconciler.states[&fleet_ref()].published.as_ref().unwrap().revision;
    let before = revision(&bench);
    bench.turn(observed(&[fleet_manifest(), route.clone(), slice.clone()])).await;
    assert_eq!(revision(&bench), before);
    let problems = bench.reconciler.plan.as_ref().unwrap().problems.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert!(problems.iter().any(|p| p.contains("Service shop/s is gone")), "{problems:?}");
    bench.turn(observed(&[fleet_manifest(), route, service, slice])).await;
    assert_eq!(revision(&bench), before);
    assert_eq!(bench.reconciler.plan.as_ref().unwrap().problems, []);
}
