//! Tests of who reaches what: the NetworkPolicies of the operator (as the chart gives them) and of fleets (as the operator
//! makes them), evaluated as Kubernetes defines them, since not every cluster enforces them. What comes from a pod's own
//! node, such as probes, no policy keeps out.

use std::collections::BTreeMap;

use devcluster::files;
use serde_json::{Value, json};

use super::folder;
use crate::shell;

type Labels = BTreeMap<&'static str, &'static str>;

/// The sender of a connection.
#[derive(Clone, Debug)]
enum Source {
    /// A pod, with the labels of its namespace and its own.
    Pod(Labels, Labels),
    /// An address that is no pod's.
    Outside,
}

fn pod(namespace: &'static str, labels: &[(&'static str, &'static str)]) -> Source {
    Source::Pod([("kubernetes.io/metadata.name", namespace)].into(), labels.iter().copied().collect())
}

/// Whether a policy of this namespace lets something reach a TCP port of the pods that it is for.
fn admits(policy: &Value, namespace: &'static str, from: &Source, port: &Value) -> bool {
    let types: Vec<_> = policy["spec"]["policyTypes"].as_array().unwrap().iter().collect();
    assert_eq!(types, [&json!("Ingress")], "what goes out is not limited");
    let rules = policy["spec"]["ingress"].as_array().into_iter().flatten();
    rules.clone().any(|rule| {
        let ports = rule["ports"].as_array();
        let is_port = |of: &Value| of["port"] == *port && of["protocol"] == "TCP";
        let peers = rule["from"].as_array().filter(|peers| !peers.is_empty());
        ports.is_none_or(|ports| ports.iter().any(is_port))
            && peers.is_none_or(|peers| peers.iter().any(|peer| is_of(peer, namespace, from)))
    })
}

fn is_of(peer: &Value, own: &'static str, from: &Source) -> bool {
    assert!(peer["ipBlock"].is_null(), "not evaluated here");
    let Source::Pod(namespace, labels) = from else { return false };
    let in_namespace = match &peer["namespaceSelector"] {
        Value::Null => namespace["kubernetes.io/metadata.name"] == own,
        selector => selects(selector, namespace),
    };
    in_namespace && (peer["podSelector"].is_null() || selects(&peer["podSelector"], labels))
}

fn selects(selector: &Value, labels: &Labels) -> bool {
    assert!(selector["matchExpressions"].is_null(), "not evaluated here");
    let wanted = selector["matchLabels"].as_object().into_iter().flatten();
    wanted.clone().all(|(key, value)| labels.get(key.as_str()).is_some_and(|label| value == label))
}

fn documents(path: &std::path::Path) -> Vec<Value> {
    serde_yaml::from_multiple(&files::read(path).unwrap()).unwrap()
}

fn of_kind<'a>(documents: &'a [Value], kind: &str) -> &'a Value {
    documents.iter().find(|document| document["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
}

/// The ports of a Deployment's container, by name.
fn ports(documents: &[Value]) -> BTreeMap<String, Value> {
    let container = &of_kind(documents, "Deployment")["spec"]["template"]["spec"]["containers"][0];
    let ports = container["ports"].as_array().unwrap().iter();
    ports.map(|port| (port["name"].as_str().unwrap().to_owned(), port["containerPort"].clone())).collect()
}

#[track_caller]
fn check(policy: &Value, namespace: &'static str, from: &Source, port: &Value, expect: bool) {
    assert_eq!(admits(policy, namespace, from, port), expect, "{from:?} to {port} by {policy:#}");
}

#[test]
fn a_proxy_serves_anybody_and_shows_its_metrics_to_collectors() {
    let folder = shell::root().join("operator/testdata/fleet");
    let mut fleets = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if !path.to_string_lossy().ends_with(".out.yaml") {
            continue;
        }
        fleets += 1;
        let documents = documents(&path);
        let (policy, ports) = (of_kind(&documents, "NetworkPolicy"), ports(&documents));
        let service = of_kind(&documents, "Service");
        let tenant = pod("shop", &[("app", "shop")]);
        let collector = pod("monitoring", &[("app.kubernetes.io/name", "prometheus")]);
        let neighbour = pod("edge", &[("app.kubernetes.io/name", "sluice-proxy")]);
        for source in [&tenant, &collector, &neighbour, &Source::Outside] {
            for served in service["spec"]["ports"].as_array().unwrap() {
                check(policy, "edge", source, &served["targetPort"], true);
            }
            check(policy, "edge", source, &ports["admin"], false);
            check(policy, "edge", source, &json!(1234), false);
        }
        check(policy, "edge", &collector, &ports["metrics"], true);
        for source in [&tenant, &neighbour, &Source::Outside, &pod("shop", &[("app.kubernetes.io/name", "prometheus")])]
        {
            check(policy, "edge", source, &ports["metrics"], false);
        }
        // It is for the fleet's pods, and for all of them.
        let template = &of_kind(&documents, "Deployment")["spec"]["template"]["metadata"]["labels"];
        let selected = policy["spec"]["podSelector"]["matchLabels"].as_object().unwrap();
        assert!(!selected.is_empty() && selected.iter().all(|(key, value)| template[key] == *value));
        // What the kubelet asks is there, whatever a policy says.
        let container = &of_kind(&documents, "Deployment")["spec"]["template"]["spec"]["containers"][0];
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            assert!(ports.contains_key(container[probe]["httpGet"]["port"].as_str().unwrap()), "{probe}");
        }
    }
    assert!(fleets >= 4);
}

#[test]
fn the_operator_lets_in_proxies_collectors_and_helm_test() {
    let proxy = [("app.kubernetes.io/name", "sluice-proxy"), ("app.kubernetes.io/managed-by", "sluice-operator")];
    let test = [("app.kubernetes.io/name", "sluice-test"), ("app.kubernetes.io/instance", "sluice")];
    let collector = pod("monitoring", &[("app.kubernetes.io/name", "prometheus")]);
    for case in ["default", "full"] {
        let documents = documents(&folder().join(format!("testdata/{case}.yaml")));
        let policy = of_kind(&documents, "NetworkPolicy");
        // The policy names ports as the pods do.
        let ports = ports(&documents);
        let [control, admin] = ["control", "admin"].map(|name| {
            assert!(ports.contains_key(name));
            json!(name)
        });
        for namespace in ["sluice-system", "shop"] {
            check(policy, "sluice-system", &pod(namespace, &proxy), &control, true);
            check(policy, "sluice-system", &pod(namespace, &proxy), &admin, false);
            check(policy, "sluice-system", &pod(namespace, &[("app", "shop")]), &control, false);
            check(policy, "sluice-system", &pod(namespace, &[("app", "shop")]), &admin, false);
        }
        check(policy, "sluice-system", &collector, &admin, true);
        check(policy, "sluice-system", &collector, &control, false);
        check(policy, "sluice-system", &pod("sluice-system", &test), &admin, true);
        check(policy, "sluice-system", &pod("shop", &test), &admin, false);
        for port in [&control, &admin] {
            check(policy, "sluice-system", &Source::Outside, port, false);
        }
    }
}
