//! Bounded schemas for the types that come from Kubernetes itself, whose own schemas bound nothing.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use super::text;

/// `metav1.Condition` as its Go type's markers bound it.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 8,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {
                    "type": "string",
                    "maxLength": 316,
                    "pattern": r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
                },
                "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
                "lastTransitionTime": {"type": "string", "format": "date-time", "maxLength": 64},
                "reason": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                },
                "message": {"type": "string", "maxLength": 32768},
            },
        },
    })
}

/// `autoscaling/v2 HorizontalPodAutoscalerBehavior` with the bounds that Kubernetes' validation code sets.
pub(crate) fn scaling_behavior(generator: &mut SchemaGenerator) -> Schema {
    let mut tolerance = text::tolerance(generator);
    tolerance
        .insert("description".into(), "A signal this close to its target changes nothing; \"0.1\" is 10 %.".into());
    let direction = |description: &str| {
        json_schema!({
            "type": "object",
            "description": description,
            "properties": {
                "stabilizationWindowSeconds": {
                    "type": "integer",
                    "description": "Past recommendations of this many seconds are held against flapping.",
                    "minimum": 0,
                    "maximum": 3600,
                },
                "selectPolicy": {
                    "type": "string",
                    "description": "Which of the policies counts; Disabled forbids this direction.",
                    "enum": ["Max", "Min", "Disabled"],
                },
                "policies": {
                    "type": "array",
                    "description": "How much may change in how long.",
                    "maxItems": 8,
                    "x-kubernetes-list-type": "atomic",
                    "items": {
                        "type": "object",
                        "required": ["type", "value", "periodSeconds"],
                        "properties": {
                            "type": {"type": "string", "enum": ["Pods", "Percent"]},
                            "value": {"type": "integer", "minimum": 1, "maximum": 100_000},
                            "periodSeconds": {"type": "integer", "minimum": 1, "maximum": 1800},
                        },
                    },
                },
                "tolerance": tolerance,
            },
        })
    };
    json_schema!({
        "type": "object",
        "properties": {
            "scaleUp": direction("How fast the fleet grows."),
            "scaleDown": direction("How fast the fleet shrinks."),
        },
    })
}

/// Labels of anything: what a node must have.
pub(crate) fn labels(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = label_map(generator);
    schema.insert("x-kubernetes-validations".into(), json!([qualified_keys()]));
    schema
}

/// Labels that are added to an object of the operator's, whose own are not to be had.
pub(crate) fn own_labels(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = label_map(generator);
    schema.insert(
        "x-kubernetes-validations".into(),
        json!([
            qualified_keys(),
            {
                "rule": "self.all(key, !key.startsWith('sluice.dev/') && !(key in ['app.kubernetes.io/name', \
                    'app.kubernetes.io/instance', 'app.kubernetes.io/managed-by']))",
                "message": "the operator itself sets app.kubernetes.io/name, app.kubernetes.io/instance, \
                    app.kubernetes.io/managed-by and what begins with sluice.dev/",
                "reason": "FieldValueForbidden",
            },
        ]),
    );
    schema
}

/// Annotations that are added to an object of the operator's.
pub(crate) fn own_annotations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": {"type": "string", "maxLength": 4096},
        "x-kubernetes-validations": [
            qualified_keys(),
            {
                "rule": "self.all(key, !key.startsWith('sluice.dev/'))",
                "message": "the operator itself sets what begins with sluice.dev/",
                "reason": "FieldValueForbidden",
            },
        ],
    })
}

fn label_map(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": text::label_value(generator),
    })
}

/// Keys can't have a pattern in a structural schema; as CEL a length bounds the cost of the expression.
fn qualified_keys() -> Value {
    json!({
        "rule": "self.all(key, key.size() <= 317 && key.matches('^([a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$'))",
        "message": "a key is a name of at most 63 letters, digits, '-', '_' and '.', with a DNS name and '/' in front if you like, such as example.com/team",
    })
}

/// `cpu` and `memory`, by the names Kubernetes has for them.
pub(crate) fn resources(generator: &mut SchemaGenerator) -> Schema {
    let mut quantity = |description: &str| {
        let mut schema = text::quantity(generator);
        schema.insert("description".into(), description.into());
        schema.insert(
            "x-kubernetes-validations".into(),
            json!([{"rule": "quantity(self).isGreaterThan(quantity('0'))", "message": "must be above 0"}]),
        );
        schema
    };
    json_schema!({
        "type": "object",
        "properties": {
            "cpu": quantity("Cores, such as \"2\" or \"500m\"."),
            "memory": quantity("Bytes, such as \"256Mi\"."),
        },
    })
}

/// Networks, such as 10.0.0.0/8.
pub(crate) fn cidrs(generator: &mut SchemaGenerator) -> Schema {
    let mut cidr = text::cidr(generator);
    cidr.insert(
        "x-kubernetes-validations".into(),
        json!([{"rule": "isCIDR(self)", "message": "must be a network such as 10.0.0.0/8 or fd00::/8"}]),
    );
    json_schema!({"type": "array", "maxItems": 64, "x-kubernetes-list-type": "set", "items": cidr})
}

/// Names of namespaces.
pub(crate) fn namespaces(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": 64,
        "x-kubernetes-list-type": "set",
        "items": text::label(generator),
    })
}

/// `metav1.LabelSelector`.
pub(crate) fn label_selector(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "properties": {
            "matchLabels": described(labels(generator), "Labels that must be there with this value."),
            "matchExpressions": {
                "type": "array",
                "description": "Conditions, all of which must hold.",
                "maxItems": 16,
                "x-kubernetes-list-type": "atomic",
                "items": expression(generator),
            },
        },
    })
}

fn expression(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "required": ["key", "operator"],
        "properties": {
            "key": text::qualified_name(generator),
            "operator": {"type": "string", "enum": ["In", "NotIn", "Exists", "DoesNotExist"]},
            "values": {
                "type": "array",
                "maxItems": 32,
                "x-kubernetes-list-type": "atomic",
                "items": text::label_value(generator),
            },
        },
        "x-kubernetes-validations": [values_rule()],
    })
}

fn described(mut schema: Schema, description: &str) -> Schema {
    schema.insert("description".into(), description.into());
    schema
}

/// The rule of which operators have values.
pub(crate) fn values_rule() -> Value {
    json!({
        "rule": "(has(self.values) && self.values.size() > 0) == !(self.operator in ['Exists', 'DoesNotExist'])",
        "messageExpression": "has(self.values) && self.values.size() > 0 ? 'the operators Exists and DoesNotExist take no values' : 'the operator ' + self.operator + ' needs values'",
        "fieldPath": ".values",
    })
}
