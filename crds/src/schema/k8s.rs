//! Bounded schemas for the types that come from Kubernetes itself, whose own schemas bound nothing.

use schemars::{Schema, SchemaGenerator, json_schema};

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
