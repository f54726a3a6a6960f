//! An object as it comes: any JSON. So nothing that one object holds can end the watch of the others.

use std::{borrow::Cow, fmt};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{ApiResource, DynamicResourceScope, Resource};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// An object as it comes.
#[derive(Clone)]
pub(super) struct Raw {
    /// What the watcher reads: name, namespace, resource version. Nothing else is filled in.
    meta: ObjectMeta,
    /// All of it.
    pub(super) value: Value,
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let text = |key: &str| value.get("metadata")?.get(key)?.as_str().map(str::to_owned);
        let meta = ObjectMeta {
            name: text("name"),
            namespace: text("namespace"),
            resource_version: text("resourceVersion"),
            ..ObjectMeta::default()
        };
        Ok(Self { meta, value })
    }
}

/// Only its name: it may be a Secret.
impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Raw").field("namespace", &self.meta.namespace).field("name", &self.meta.name).finish()
    }
}

impl Resource for Raw {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        Cow::Borrowed(&resource.kind)
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        Cow::Borrowed(&resource.group)
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        Cow::Borrowed(&resource.version)
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        Cow::Borrowed(&resource.plural)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn anything_is_an_object() {
        for value in [json!({"metadata": {"name": 7, "labels": []}}), json!({"metadata": "x"}), json!([1]), json!(null)]
        {
            let raw: Raw = serde_json::from_value(value.clone()).unwrap();
            assert_eq!(raw.value, value);
            assert_eq!(raw.meta, ObjectMeta::default());
        }
        let value =
            json!({"metadata": {"name": "a", "namespace": "b", "resourceVersion": "3", "annotations": {"x": 1}}});
        let raw: Raw = serde_json::from_value(value).unwrap();
        assert_eq!(raw.meta.resource_version.as_deref(), Some("3"));
        assert_eq!(format!("{raw:?}"), "Raw { namespace: Some(\"b\"), name: Some(\"a\") }");
    }
}
