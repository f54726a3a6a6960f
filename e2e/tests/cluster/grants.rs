//! A listener's certificate in another namespace: served while a ReferenceGrant there says so, and as it is now.

use std::{fs, path::Path, time::Instant};

use e2e::cluster::{FLEET, Fleet, HOST, Place, Resource, grants, sluice};
use serde_json::json;
use tempfile::TempDir;

use crate::{bound, seconds};

const SECRET: &str = "shop-tls";

#[test]
fn a_certificate_of_another_namespace_needs_a_grant() {
    let sluice = sluice().unwrap();
    // As clusters have it that run an older Gateway API.
    let _installed = grants::beta_only(&sluice).unwrap();
    let place = Place::new(&sluice, "tls", &Fleet::fixed(1)).unwrap();
    let vault = Place::bare(&sluice, "vault").unwrap();
    let files = tempfile::tempdir().unwrap();
    place.apply(&place.route_yaml("all", "/", "")).unwrap();
    place.until("/", 200, "", seconds(20)).unwrap();

    let first = certificate(&vault, &files, "first.pem");
    place
        .patch_fleet(&json!({"listeners": [
            {"name": "http", "protocol": "HTTP", "port": 80, "allowedRoutes": {"namespaces": {"from": "All"}}},
            {"name": "https", "protocol": "HTTPS", "port": 443,
             "tls": {"certificateRefs": [{"name": SECRET, "namespace": vault.namespace}]}},
        ]}))
        .unwrap();
    refused(&place);
    assert!(https(&place, &first).is_err(), "nothing is served that is not permitted");
    assert_eq!(place.get("/").unwrap().status, 200);

    let grant = json!({
        "apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "ReferenceGrant",
        "metadata": {"name": "to-fleets", "namespace": vault.namespace},
        "spec": {
            "from": [{"group": "sluice.dev", "kind": "GatewayFleet", "namespace": place.namespace}],
            "to": [{"group": "", "kind": "Secret", "name": SECRET}],
        },
    });
    let at = Instant::now();
    vault.api().apply(Resource::REFERENCE_GRANTS_BETA, &grant, "e2e").unwrap();
    permitted(&place);
    serves(&place, &first);
    println!("served {:.1?} after the grant", at.elapsed());

    // The Secret changes: what it holds now is served.
    let second = certificate(&vault, &files, "second.pem");
    serves(&place, &second);
    assert!(https(&place, &first).is_err(), "the former certificate is served no more");

    vault.api().delete(Resource::REFERENCE_GRANTS_BETA, &vault.namespace, "to-fleets", None).unwrap();
    refused(&place);
    place
        .api()
        .eventually("it is served no more", bound(seconds(5)), |_| Ok(https(&place, &second).is_err().then_some(())))
        .unwrap();
}

fn refused(place: &Place<'_>) {
    let condition = ("ResolvedRefs", "False");
    let told = place.until_condition(Resource::GATEWAY_FLEETS, FLEET, condition, bound(seconds(5))).unwrap();
    assert_eq!(told.reason, "RefNotPermitted", "{told:?}");
    assert!(told.message.contains("spec.listeners[1].tls.certificateRefs[0]"), "{told:?}");
}

fn permitted(place: &Place<'_>) {
    for condition in ["ResolvedRefs", "Programmed"] {
        place.until_condition(Resource::GATEWAY_FLEETS, FLEET, (condition, "True"), bound(seconds(5))).unwrap();
    }
}

/// Writes a new certificate with its key into the Secret, and the certificate into a file.
fn certificate(vault: &Place<'_>, files: &TempDir, name: &str) -> std::path::PathBuf {
    let made = rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap();
    let file = files.path().join(name);
    fs::write(&file, made.cert.pem()).unwrap();
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET, "namespace": vault.namespace},
        "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": made.cert.pem(), "tls.key": made.signing_key.serialize_pem()},
    });
    vault.api().apply(Resource::SECRETS, &secret, "e2e").unwrap();
    file
}

/// Waits until a request over TLS is answered by somebody with this certificate.
fn serves(place: &Place<'_>, trusted: &Path) {
    place
        .api()
        .eventually("a request over TLS is answered", bound(seconds(5)), |_| https(place, trusted).map(Some))
        .unwrap();
}

/// Sends a request over TLS, and trusts this certificate alone.
fn https(place: &Place<'_>, trusted: &Path) -> anyhow::Result<()> {
    let script = format!(
        "kubectl port-forward --namespace {} service/sluice-{FLEET} 18443:443 >/dev/null 2>&1 &\n\
         trap 'kill $(jobs -p) 2>/dev/null || :; wait' EXIT\n\
         curl --silent --show-error --fail --max-time 5 --retry 5 --retry-connrefused --retry-delay 1 \
         --cacert {} --connect-to {HOST}:443:127.0.0.1:18443 --output /dev/null https://{HOST}/",
        place.namespace,
        trusted.display()
    );
    place.shell().run(&script).map(drop)
}
