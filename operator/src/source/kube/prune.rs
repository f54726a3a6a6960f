//! Pruning: of an object only what plans are made of is kept. So memory stays small, a change elsewhere (a status, an
//! annotation, an endpoint's node) is no news, and a field that a newer Kubernetes adds to a Service does not break it.

use crds::{Content, Field, Labels, consumer};
use planner::{Kind, ObjectRef, references::SecretPart};
use serde_json::{Map, Value};

/// Which object it is; `None`: it has no name.
pub(super) fn identity(kind: Kind, value: &Value) -> Option<ObjectRef> {
    let metadata = value.get("metadata")?;
    let name = metadata.get("name")?.as_str()?.to_owned();
    let namespace = metadata.get("namespace").and_then(Value::as_str).unwrap_or_default().to_owned();
    Some(ObjectRef { kind, namespace, name })
}

/// Leaves of an object what is kept. `None`: none of it, as if it were not there.
pub(super) fn keep(kind: Kind, mut value: Value) -> Option<Value> {
    let (info, document) = (kind.info(), value.as_object_mut()?);
    if let Some(Value::Object(metadata)) = document.get_mut("metadata") {
        if !info.keep.while_deleted && metadata.contains_key("deletionTimestamp") {
            return None;
        }
        metadata.retain(|key, _| match key.as_str() {
            "name" | "namespace" | "uid" | "creationTimestamp" => true,
            "generation" => info.has_status, // goes with what is said of it there
            "labels" => !matches!(info.keep.labels, Labels::None),
            _ => false,
        });
        if let Labels::Only(names) | Labels::Any(names) = info.keep.labels
            && let Some(Value::Object(labels)) = metadata.get_mut("labels")
        {
            labels.retain(|key, _| names.contains(&key.as_str()));
        }
        match info.keep.labels {
            Labels::Only(names) => _ = metadata.get("labels")?.get(names.first()?)?, // of no Service: nobody's backend
            Labels::Any(_) if metadata.get("labels").is_some_and(is_empty) => _ = metadata.remove("labels"),
            _ => {}
        }
    }
    match info.keep.content {
        Content::AllButStatus => _ = document.remove("status"),
        Content::Fields(fields) => {
            document.retain(|key, _| {
                matches!(key.as_str(), "apiVersion" | "kind" | "metadata") || fields.iter().any(|f| f.name == key)
            });
            fields.iter().for_each(|field| within(document, field));
        }
    }
    Some(value)
}

/// Leaves of a Secret what is referred to, as far as it serves as that: of one that is no credential that it is there. `None`:
/// nothing is, or it is a certificate that nobody refers to as one.
pub(super) fn referred(mut secret: Value, parts: &[SecretPart]) -> Option<Value> {
    let text = |pointer: &str| secret.pointer(pointer).and_then(Value::as_str);
    let is_api_key = consumer::is_api_key(text("/metadata/labels/sluice.dev~1credential"), text("/type"));
    let is_certificate = text("/type") == Some("kubernetes.io/tls");
    let serves = |part: &&SecretPart| is_api_key || **part == SecretPart::Certificate;
    let serving: Vec<&SecretPart> = parts.iter().filter(serves).collect();
    if parts.is_empty() || (serving.is_empty() && is_certificate) {
        return None;
    }
    if let Some(Value::Object(data)) = secret.get_mut("data") {
        data.retain(|key, _| serving.iter().any(|part| part.has(key)));
    }
    Some(secret)
}

fn is_empty(labels: &Value) -> bool {
    labels.as_object().is_some_and(Map::is_empty)
}

/// Leaves of a field what is kept within it; what is none stays as it is, for admission to refuse.
fn within(members: &mut Map<String, Value>, field: &Field) {
    match members.get_mut(field.name) {
        Some(Value::Array(items)) => items.iter_mut().for_each(|item| pick(item, field.within)),
        Some(value) => pick(value, field.within),
        None => {}
    }
}

fn pick(value: &mut Value, fields: &[Field]) {
    let Value::Object(members) = value else { return };
    if fields.is_empty() {
        return;
    }
    members.retain(|key, _| fields.iter().any(|field| field.name == key));
    fields.iter().for_each(|field| within(members, field));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(kind: Kind, value: Value, expect: Option<&Value>) {
        assert_eq!(keep(kind, value).as_ref(), expect);
    }

    #[test]
    fn of_a_service_its_ports() {
        let value = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "a", "namespace": "b", "uid": "u", "resourceVersion": "7", "managedFields": [], "annotations": {},
                "labels": {"x": "y"}, "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 3, "deletionTimestamp": "t"},
            "spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "selector": {"a": "b"}, "newField": {}, "ports": [
                {"name": "http", "port": 80, "protocol": "TCP", "targetPort": "http", "nodePort": 30000, "appProtocol": "http"},
                "odd",
            ]},
            "status": {"loadBalancer": {}},
        });
        let expect = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "a", "namespace": "b", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "selector": {"a": "b"}, "ports": [
                {"name": "http", "port": 80, "protocol": "TCP", "targetPort": "http", "appProtocol": "http"}, "odd",
            ]},
        });
        check(Kind::Service, value, Some(&expect));
    }

    #[test]
    fn of_a_slice_where_pods_listen() {
        let slice = |labels: Value| {
            json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {"name": "a", "namespace": "b", "labels": labels, "annotations": {"t": "1"}, "generation": 9},
                "addressType": "IPv4", "ports": [{"name": "", "port": 80, "protocol": "TCP", "appProtocol": "x"}],
                "endpoints": [
                    {"addresses": ["10.0.0.1"], "conditions": {"ready": true, "serving": true, "terminating": false, "new": 1},
                     "zone": "z", "nodeName": "n", "targetRef": {"kind": "Pod"}, "hints": {"forZones": []}},
                    {"addresses": ["10.0.0.2"], "conditions": 7},
                ],
            })
        };
        let expect = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "a", "namespace": "b", "labels": {
                "kubernetes.io/service-name": "s", "endpointslice.kubernetes.io/managed-by": "m",
            }},
            "addressType": "IPv4", "ports": [{"name": "", "port": 80, "protocol": "TCP"}],
            "endpoints": [
                {"addresses": ["10.0.0.1"], "conditions": {"ready": true, "serving": true, "terminating": false}, "zone": "z"},
                {"addresses": ["10.0.0.2"], "conditions": 7},
            ],
        });
        let labels =
            json!({"kubernetes.io/service-name": "s", "endpointslice.kubernetes.io/managed-by": "m", "other": "x"});
        check(Kind::EndpointSlice, slice(labels), Some(&expect));
        check(Kind::EndpointSlice, slice(json!({"other": "x"})), None);
    }

    /// A Secret of this type and label with these keys, as it is kept for those who refer to these parts.
    #[track_caller]
    fn secret(kind: &str, label: Option<&str>, parts: &[SecretPart], expect: Option<&[&str]>) {
        let keys = ["tls.crt", "tls.key", "keystore.jks", "api-key", "former"];
        let data = |keys: &[&str]| keys.iter().map(|key| ((*key).to_owned(), json!("YQ=="))).collect::<Map<_, _>>();
        let metadata = |label: Option<&str>| match label {
            Some(label) => json!({"name": "a", "namespace": "b", "labels": {"sluice.dev/credential": label}}),
            None => json!({"name": "a", "namespace": "b"}),
        };
        let mut value = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": metadata(label), "type": kind, "immutable": true, "data": data(&keys),
        });
        value["metadata"]["annotations"] = json!({"applied": "k3y"});
        value["metadata"]["labels"]["app"] = json!("x");
        let expect = expect.map(|keys| {
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata(label), "type": kind, "data": data(keys)})
        });
        assert_eq!(referred(keep(Kind::Secret, value).unwrap(), parts), expect, "{kind} {label:?} {parts:?}");
    }

    #[test]
    fn of_a_secret_what_is_referred_to() {
        let (certificate, key) = (SecretPart::Certificate, |name: &str| SecretPart::Credential(name.into()));
        let tls = Some(&["tls.crt", "tls.key"][..]);
        secret("kubernetes.io/tls", None, std::slice::from_ref(&certificate), tls);
        secret("Opaque", Some("api-key"), &[key("api-key")], Some(&["api-key"]));
        secret("Opaque", Some("api-key"), &[key("api-key"), key("former"), key("none")], Some(&["api-key", "former"]));
        // What does not say that it is a credential, or is something else, is none.
        secret("Opaque", None, &[key("api-key")], Some(&[]));
        secret("Opaque", Some("basic"), &[key("api-key")], Some(&[]));
        secret("kubernetes.io/service-account-token", Some("api-key"), &[key("api-key")], Some(&[]));
        secret("kubernetes.io/tls", Some("api-key"), &[key("tls.key")], None);
        secret("kubernetes.io/tls", Some("api-key"), &[certificate, key("api-key")], tls);
        secret("Opaque", Some("api-key"), &[], None);
    }

    #[test]
    fn of_a_custom_resource_all_but_its_status() {
        let route = |metadata: Value, status: Value| json!({"kind": "ApiRoute", "metadata": metadata, "spec": {"odd": [1]}, "other": 1, "status": status});
        let metadata = json!({"name": "a", "namespace": "b", "generation": 3, "resourceVersion": "9"});
        let expect = json!({
            "kind": "ApiRoute", "metadata": {"name": "a", "namespace": "b", "generation": 3}, "spec": {"odd": [1]}, "other": 1,
        });
        check(Kind::ApiRoute, route(metadata, json!({"conditions": []})), Some(&expect));
        let leaving = json!({"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z"});
        check(Kind::ApiRoute, route(leaving.clone(), json!({})), None);
        check(Kind::ReferenceGrant, json!({"metadata": leaving}), None);
        check(Kind::ApiRoute, json!("odd"), None);
    }

    #[test]
    fn of_a_node_its_addresses() {
        let value = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": "a", "labels": {"x": "y"}, "annotations": {}},
            "spec": {"podCIDR": "10.244.0.0/24"},
            "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.5"}], "conditions": [], "images": []},
        });
        let expect = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"},
            "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.5"}]},
        });
        check(Kind::Node, value, Some(&expect));
    }

    #[test]
    fn of_a_namespace_its_labels() {
        let value = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "labels": {"x": "y"}, "annotations": {}},
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
        });
        let expect = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "labels": {"x": "y"}}});
        check(Kind::Namespace, value, Some(&expect));
    }
}
