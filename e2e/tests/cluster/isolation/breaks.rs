//! What a fleet refers to breaks, or goes, under load, and every operator ends in the midst: as long as anything valid is
//! left, nothing is lost, and the status says within a second what is wrong and what serves.
//!
//! The kind: content that was accepted and is needed still, of which the source has no valid form any more. Certificates: no
//! PEM, the key of another, deleted and made again, broken while no operator runs. Backends: see `breaks_backends`.

use std::time::{Duration, Instant};

use e2e::{
    cluster::{Agent, FLEET, Fleet, HOST, Place, Resource, SYSTEM, Sluice, sluice},
    harness::pause,
    load::Report,
};
use serde_json::{Value, json};

use crate::{assert_clean, bound, seconds};

const SECRET: &str = "shop-tls";
/// The status says so after this long.
const TOLD: Duration = Duration::from_secs(1);

#[test]
fn a_certificate_that_breaks_or_goes_serves_on_over_restarts() {
    let sluice = sluice().unwrap();
    let place = Place::new(&sluice, "breaks", &Fleet::fixed(2)).unwrap();
    let (good, other) = (certificate(), certificate());
    place.apply(&place.route_yaml("all", "/", "")).unwrap();
    put(&place, &good.0, &good.1);
    let agent = agent_that_trusts(&place, &good.0);
    place
        .patch_fleet(&json!({"listeners": [
            {"name": "https", "protocol": "HTTPS", "port": 443, "tls": {"certificateRefs": [{"name": SECRET}]}},
        ]}))
        .unwrap();
    told(&place, "True", "", bound(seconds(10)));
    let clients = format!(
        "--target sluice-{FLEET}.{}.svc:443 --host {HOST} --tls --ca /ca/ca.pem --h1 4 --new-per-second 20 --h2 1 \
         --rate 100 --duration 60m",
        place.namespace
    );
    // The proxies listen; that the node sends connections for a new port to them takes a moment more.
    let arrives = |_: &_| {
        let load = agent.load(&clients)?;
        pause(Duration::from_millis(500));
        let report = load.stop()?;
        Ok((report.requests > 0 && report.failures() == 0).then_some(()))
    };
    place.api().eventually("the node knows the port", seconds(30), arrives).unwrap();
    let load = agent.load(&clients).unwrap();
    pause(seconds(3));

    for (what, certificate, key) in [
        ("garbage", "garbage", "garbage"),
        ("another key", &good.0, &other.1),
        ("another certificate", &other.0, &good.1),
    ] {
        put(&place, certificate, key);
        let after = told(&place, "False", "what serves is the certificate accepted at 20", bound(TOLD));
        println!("{what}: told after {after:.1?}, the goal is {TOLD:?}");
        pause(seconds(2));
        restart(&sluice);
        told(&place, "False", "what serves is the certificate accepted at 20", bound(TOLD));
        pause(seconds(3));
        put(&place, &good.0, &good.1);
        told(&place, "True", "", bound(TOLD));
    }

    let delete = || place.api().delete(Resource::SECRETS, &place.namespace, SECRET, None).unwrap();
    delete();
    let after = told(&place, "False", "is gone: create it again; what serves", bound(TOLD));
    println!("deleted: told after {after:.1?}, the goal is {TOLD:?}");
    pause(seconds(2));
    restart(&sluice);
    put(&place, &good.0, &good.1);
    told(&place, "True", "", bound(TOLD));
    finish(&load.stop().unwrap());
}

fn finish(report: &Report) {
    println!("{} requests, {} failed: the goal is 0\n{report}", report.requests, report.failures());
    assert_clean(report);
}

/// A certificate and its key, in PEM.
fn certificate() -> (String, String) {
    let made = rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

fn put(place: &Place<'_>, certificate: &str, key: &str) {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET, "namespace": place.namespace},
        "type": "kubernetes.io/tls", "stringData": {"tls.crt": certificate, "tls.key": key},
    });
    place.api().apply(Resource::SECRETS, &secret, "e2e").unwrap();
}

/// Waits until the fleet's `ResolvedRefs` says this; how long it took.
fn told(place: &Place<'_>, status: &str, contains: &str, within: Duration) -> Duration {
    let (since, mut last) = (Instant::now(), None);
    let found = place.api().eventually(&format!("ResolvedRefs is {status}: {contains}"), within, |_| {
        last = place.condition(Resource::GATEWAY_FLEETS, FLEET, "ResolvedRefs")?;
        Ok(last.as_ref().filter(|c| c.status == status && c.message.contains(contains)).map(|_| ()))
    });
    found.unwrap_or_else(|error| panic!("{error}; last seen: {last:?}"));
    since.elapsed()
}

/// Every operator ends at once, without a word; waits until another leads.
pub(super) fn restart(sluice: &Sluice) {
    let leader = sluice.leader().unwrap();
    let pods = sluice.api.list(Resource::PODS, SYSTEM, "app.kubernetes.io/name=sluice-operator").unwrap();
    for name in e2e::cluster::names(&pods) {
        sluice.api.delete(Resource::PODS, SYSTEM, &name, Some(0)).unwrap();
    }
    let since = Instant::now();
    let led = sluice.api.eventually("another leader", seconds(90), |_| Ok((sluice.leader()? != leader).then_some(())));
    led.unwrap();
    println!("every operator restarted: another leads after {:.1?}", since.elapsed());
}

/// A pod that loads from, with this certificate in `/ca/ca.pem`.
fn agent_that_trusts<'a>(place: &Place<'a>, certificate: &str) -> Agent<'a> {
    let (name, namespace) = ("tls", place.namespace.as_str());
    let config: Value = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace},
        "data": {"ca.pem": certificate},
    });
    let pod: Value = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "volumes": [{"name": "ca", "configMap": {"name": name}}],
            "containers": [{
                "name": "load", "image": "localhost/sluice-e2e:dev",
                "command": ["sluice-load", "agent", "--listen", "0.0.0.0:9099"],
                "volumeMounts": [{"name": "ca", "mountPath": "/ca"}],
                "readinessProbe": {"tcpSocket": {"port": 9099}, "periodSeconds": 1},
            }],
        },
    });
    place.api().apply(Resource::CONFIG_MAPS, &config, "e2e").unwrap();
    place.api().apply(Resource::PODS, &pod, "e2e").unwrap();
    place.pod_is_ready(name).unwrap();
    Agent::new(place.api(), namespace, name)
}
