//! Where pods may run: tolerations, affinity and spread, bounded as Kubernetes' validation code does it.

use schemars::{Schema, SchemaGenerator, json_schema};

use super::{
    k8s::{expressions, label_selector},
    text,
};

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
                    "format": "int64",
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
                "labelSelector": described(label_selector(generator), "The pods that count; default: the fleet's."),
                "matchLabelKeys": label_keys(generator),
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
                                "minItems": 1,
                                "maxItems": 16,
                                "x-kubernetes-list-type": "atomic",
                                "items": node_term(generator),
                            },
                        },
                    },
                    "preferredDuringSchedulingIgnoredDuringExecution": weighted("preference", &node_term(generator)),
                },
            },
            "podAffinity": pod_affinity(generator, "Beside which pods."),
            "podAntiAffinity": pod_affinity(generator, "Away from which pods."),
        },
    })
}

fn node_term(generator: &mut SchemaGenerator) -> Schema {
    let operators = ["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"];
    json_schema!({
        "type": "object",
        "properties": {
            "matchExpressions": described(expressions(generator, &operators), "Labels of the node, all of which must fit."),
            "matchFields": described(
                expressions(generator, &["In", "NotIn"]),
                "Fields of the node, all of which must fit.",
            ),
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
                "maxItems": 16,
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
            "labelSelector": described(label_selector(generator), "The pods."),
            "namespaceSelector": described(label_selector(generator), "Their namespaces; default: the fleet's."),
            "namespaces": {
                "type": "array",
                "description": "Their namespaces by name.",
                "maxItems": 16,
                "x-kubernetes-list-type": "atomic",
                "items": text::label(generator),
            },
            "matchLabelKeys": label_keys(generator),
            "mismatchLabelKeys": label_keys(generator),
        },
    })
}

/// Terms with weights: the more of them fit, the better.
fn weighted(name: &str, term: &Schema) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "atomic",
        "items": {
            "type": "object",
            "required": ["weight", name],
            "properties": {"weight": {"type": "integer", "minimum": 1, "maximum": 100}, name: term},
        },
    })
}

fn label_keys(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 8,
        "x-kubernetes-list-type": "atomic",
        "items": text::qualified_name(generator),
    })
}

fn described(mut schema: Schema, description: &str) -> Schema {
    schema.insert("description".into(), description.into());
    schema
}
