//! EndpointSlices made by hand: whoever may write them in a namespace does not reach through the fleet what is not there.
//!
//! The kind: an endpoint that no Service selects (without a selector; beside the controller's own slices, CVE-2021-25740;
//! with the controller's label forged), and addresses that are no pods' (nodes and their kubelets, the API server, loopback,
//! link-local and metadata addresses), of both families.

use e2e::cluster::{Fleet, Place, Resource, UPSTREAM, sluice};
use serde_json::{Value, json};

use crate::{bound, seconds};

const CONTROLLER: &str = "endpointslice-controller.k8s.io";

#[test]
fn slices_made_by_hand_reach_nothing() {
    let sluice = sluice().unwrap();
    let place = Place::new(&sluice, "endpoints", &Fleet::fixed(1)).unwrap();
    let node = text(&place.proxies().unwrap()[0], "/status/hostIP");
    let pod = other_pod(&place);
    let server = api_server(&place);
    place.apply(&place.route_yaml("all", "/", "")).unwrap();
    place.until("/", 200, "", seconds(20)).unwrap();

    // Services of the tenant's own, each with a slice that leads where it should not; no kubelet or API server answers 500.
    let cases = [
        // Where there is one node, the API server's address is that node's.
        ("kubelet", node.as_str(), 10250, "", "is an address of"),
        ("server", server.as_str(), 6443, "", "is an address of the API server"),
        ("another", pod.as_str(), 8080, "", "is there by hand"),
        ("claimed", node.as_str(), 10250, CONTROLLER, "is an address of"),
    ];
    for (name, address, port, by, why) in cases {
        service(&place, name);
        slice(&place, name, name, address, port, by);
        route(&place, name);
        let path = format!("/{name}");
        place.until(&path, 500, "", bound(seconds(5))).unwrap();
        let told = refused(&place, name);
        println!("{name}: {told}");
        assert!(told.contains(why) && told.contains(address), "{told}");
    }

    // Beside the slices that Kubernetes keeps for a Service with pods: not one request goes astray, as itself or forged.
    for (name, by) in [("beside", ""), ("forged", CONTROLLER)] {
        slice(&place, name, UPSTREAM, &node, 10250, by);
        for _ in 0..50 {
            assert_eq!(place.get("/").unwrap().status, 200);
        }
        place.api().delete(Resource::ENDPOINT_SLICES, &place.namespace, name, None).unwrap();
    }

    // What the fleet names is a backend, and the rest still is none.
    let pods: Vec<String> = upstreams(&place).iter().map(|pod| format!("{}/32", text(pod, "/status/podIP"))).collect();
    place.patch_fleet(&json!({"backends": {"endpointCIDRs": pods}})).unwrap();
    place.until("/another", 200, "", bound(seconds(5))).unwrap();
    assert_eq!(place.get("/").unwrap().status, 200);
    assert_eq!(place.get("/kubelet").unwrap().status, 500);
    assert_eq!(place.get("/server").unwrap().status, 500);
}

fn text(object: &Value, at: &str) -> String {
    object.pointer(at).and_then(Value::as_str).unwrap().to_owned()
}

fn upstreams(place: &Place<'_>) -> Vec<Value> {
    place.api().list(Resource::PODS, &place.namespace, &format!("app={UPSTREAM}")).unwrap()
}

/// A pod of another tenant: it stands for what the tenant can't select.
fn other_pod(place: &Place<'_>) -> String {
    text(&upstreams(place)[0], "/status/podIP")
}

fn api_server(place: &Place<'_>) -> String {
    let slices =
        place.api().list(Resource::ENDPOINT_SLICES, "default", "kubernetes.io/service-name=kubernetes").unwrap();
    text(&slices[0], "/endpoints/0/addresses/0")
}

fn service(place: &Place<'_>, name: &str) {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": place.namespace},
        "spec": {"ports": [{"name": "http", "port": 80}]},
    });
    place.api().apply(Resource::SERVICES, &service, "e2e").unwrap();
}

fn slice(place: &Place<'_>, name: &str, service: &str, address: &str, port: u16, by: &str) {
    let mut labels = json!({"kubernetes.io/service-name": service});
    if !by.is_empty() {
        labels["endpointslice.kubernetes.io/managed-by"] = by.into();
    }
    let family = if address.contains(':') { "IPv6" } else { "IPv4" };
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": place.namespace, "labels": labels},
        "addressType": family, "ports": [{"name": "http", "port": port}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
    });
    place.api().apply(Resource::ENDPOINT_SLICES, &slice, "e2e").unwrap();
}

fn route(place: &Place<'_>, name: &str) {
    let backend = format!("name: {UPSTREAM}, port: 80");
    let manifest = place.route_yaml(name, &format!("/{name}"), "");
    place.apply(&manifest.replace(&backend, &format!("name: {name}, port: 80"))).unwrap();
}

fn refused(place: &Place<'_>, name: &str) -> String {
    let condition = ("ResolvedRefs", "False");
    let told = place.until_condition(Resource::API_ROUTES, name, condition, bound(seconds(5))).unwrap();
    assert_eq!(told.reason, "RefNotPermitted", "{told:?}");
    told.message
}
