//! Schemas of where pods may run: tolerations, affinity and spread. What only Kubernetes can judge of them it says of the pods'
//! template.

use schemars::{Schema, SchemaGenerator, json_schema};

use super::{k8s::values_rule, text};

/// `core/v1 Toleration`.
pub(crate) fn tolerations(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 32,
        "x-kubernetes-list-type": "atomic",
        "items": {
            "type": "object",
            "properties": {
                "key": text::qualified_name(generator),
                "operator": {
                    "type": "string",
                    "description": "Equal by default; Exists takes any value.",
                    "enum": ["Exists", "Equal"],
                },
                "value": text::label_value(generator),
                "effect": {
                    "type": "string",
                    "description": "Default: every effect.",
                    "enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"],
                },
                "tolerationSeconds": {
                    "type": "integer",
                    "description": "For how long a taint of effect NoExecute is borne; default: for ever.",
                    "minimum": 0,
                    "maximum": i32::MAX,
                },
            },
            "x-kubernetes-validations": [
                {
                    "rule": "has(self.key) || (has(self.operator) && self.operator == 'Exists')",
                    "message": "without key, the operator must be Exists: any taint is borne",
                    "fieldPath": ".operator",
                },
                {
                    "rule": "!has(self.value) || !has(self.operator) || self.operator != 'Exists'",
                    "message": "the operator Exists takes no value",
                    "fieldPath": ".value",
                },
                {
                    "rule": "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
                    "message": "tolerationSeconds is only for effect NoExecute",
                    "fieldPath": ".tolerationSeconds",
                },
            ],
        },
    })
}

/// `core/v1 TopologySpreadConstraint`.
pub(crate) fn spread_constraints(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 8,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["topologyKey", "whenUnsatisfiable"],
        "items": {
            "type": "object",
            "required": ["maxSkew", "topologyKey", "whenUnsatisfiable"],
            "properties": {
                "maxSkew": {
                    "type": "integer",
                    "description": "How many pods more than the least a domain may have.",
                    "minimum": 1,
                    "maximum": 1000,
                },
                "topologyKey": described(text::qualified_name(generator), "The nodes' label that tells domains apart."),
                "whenUnsatisfiable": {"type": "string", "enum": ["DoNotSchedule", "ScheduleAnyway"]},
                "labelSelector": selector("The pods that count; default: the fleet's."),
                "matchLabelKeys": texts("Labels whose value is that of the pod itself."),
                "minDomains": {"type": "integer", "minimum": 1, "maximum": 1000},
                "nodeAffinityPolicy": {"type": "string", "enum": ["Honor", "Ignore"]},
                "nodeTaintsPolicy": {"type": "string", "enum": ["Honor", "Ignore"]},
            },
        },
    })
}

/// `core/v1 Affinity`.
pub(crate) fn affinity(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "properties": {
            "nodeAffinity": {
                "type": "object",
                "description": "Which nodes.",
                "properties": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "type": "object",
                        "required": ["nodeSelectorTerms"],
                        "properties": {
                            "nodeSelectorTerms": {
                                "type": "array",
                                "description": "One of these must fit.",
                                "x-kubernetes-list-type": "atomic",
                                "items": node_term(),
                            },
                        },
                    },
                    "preferredDuringSchedulingIgnoredDuringExecution": weighted("preference", &node_term()),
                },
            },
            "podAffinity": pod_affinity(generator, "Beside which pods."),
            "podAntiAffinity": pod_affinity(generator, "Away from which pods."),
        },
    })
}

fn node_term() -> Schema {
    let operators = ["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"];
    json_schema!({
        "type": "object",
        "properties": {
            "matchExpressions": expressions("Labels of the node, all of which must fit.", &operators),
            "matchFields": expressions("Fields of the node, all of which must fit.", &["In", "NotIn"]),
        },
    })
}

fn pod_affinity(generator: &mut SchemaGenerator, description: &str) -> Schema {
    json_schema!({
        "type": "object",
        "description": description,
        "properties": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "type": "array",
                "x-kubernetes-list-type": "atomic",
                "items": pod_term(generator),
            },
            "preferredDuringSchedulingIgnoredDuringExecution": weighted("podAffinityTerm", &pod_term(generator)),
        },
    })
}

fn pod_term(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "required": ["topologyKey"],
        "properties": {
            "topologyKey": described(text::qualified_name(generator), "The nodes' label that tells domains apart."),
            "labelSelector": selector("The pods."),
            "namespaceSelector": selector("Their namespaces; default: the fleet's."),
            "namespaces": texts("Their namespaces by name."),
            "matchLabelKeys": texts("Labels whose value is that of the pod itself."),
            "mismatchLabelKeys": texts("Labels whose value is another than that of the pod itself."),
        },
    })
}

/// Terms with weights: the more of them fit, the better.
fn weighted(name: &str, term: &Schema) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "atomic",
        "items": {
            "type": "object",
            "required": ["weight", name],
            "properties": {"weight": {"type": "integer", "minimum": 1, "maximum": 100}, name: term},
        },
    })
}

/// A label selector, as far as it can be told without Kubernetes, which checks the pods' template itself.
fn selector(description: &str) -> Schema {
    json_schema!({
        "type": "object",
        "description": description,
        "properties": {
            "matchLabels": {"type": "object", "additionalProperties": {"type": "string"}},
            "matchExpressions": expressions("All of these must hold.", &["In", "NotIn", "Exists", "DoesNotExist"]),
        },
    })
}

fn expressions(description: &str, operators: &[&str]) -> Schema {
    json_schema!({
        "type": "array",
        "description": description,
        "x-kubernetes-list-type": "atomic",
        "items": {
            "type": "object",
            "required": ["key", "operator"],
            "properties": {
                "key": {"type": "string"},
                "operator": {"type": "string", "enum": operators},
                "values": {"type": "array", "x-kubernetes-list-type": "atomic", "items": {"type": "string"}},
            },
            "x-kubernetes-validations": [values_rule()],
        },
    })
}

fn texts(description: &str) -> Schema {
    json_schema!({
        "type": "array",
        "description": description,
        "x-kubernetes-list-type": "atomic",
        "items": {"type": "string"},
    })
}

fn described(mut schema: Schema, description: &str) -> Schema {
    schema.insert("description".into(), description.into());
    schema
}
