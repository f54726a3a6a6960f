//! An object as it comes: any JSON. So nothing that one object holds can end the watch of the others.
//!
//! As text: a megabyte of short values takes sixteen once it is taken apart, and a page of a list has many objects.

use std::{borrow::Cow, fmt};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    core::{ApiResource, DynamicResourceScope, PartialObjectMeta, Resource},
    runtime::watcher::Event,
};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

/// An object as it comes.
#[derive(Clone)]
pub(crate) struct Raw {
    /// The metadata that the watcher reads: name, namespace, resource version. Nothing else is filled in.
    meta: ObjectMeta,
    /// All of it, but for what is large and nothing is made of.
    text: Box<str>,
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        if let Some(Value::Object(metadata)) = value.get_mut("metadata") {
            metadata.retain(|key, _| !matches!(key.as_str(), "annotations" | "managedFields"));
        }
        let text = |key: &str| value.get("metadata")?.get(key)?.as_str().map(str::to_owned);
        let meta = ObjectMeta {
            name: text("name"),
            namespace: text("namespace"),
            resource_version: text("resourceVersion"),
            ..ObjectMeta::default()
        };
        Ok(Self { meta, text: value.to_string().into() })
    }
}

impl Raw {
    /// The object as a value.
    pub(crate) fn value(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default() // it is what was written of a value
    }

    /// The version of the object, which differs after each change of it.
    pub(super) fn version(&self) -> &str {
        self.meta.resource_version.as_deref().unwrap_or_default()
    }
}

/// The name and version of an object of which only the metadata was asked for.
impl From<PartialObjectMeta<Raw>> for Raw {
    fn from(object: PartialObjectMeta<Raw>) -> Self {
        let ObjectMeta { name, namespace, resource_version, .. } = object.metadata;
        let value = json!({"metadata": {"name": name, "namespace": namespace, "resourceVersion": resource_version}});
        let meta = ObjectMeta { name, namespace, resource_version, ..ObjectMeta::default() };
        Self { meta, text: value.to_string().into() }
    }
}

/// The event of a watch with objects of which only the metadata was asked for.
pub(super) fn named(event: Event<PartialObjectMeta<Raw>>) -> Event<Raw> {
    match event {
        Event::Apply(object) => Event::Apply(object.into()),
        Event::Delete(object) => Event::Delete(object.into()),
        Event::Init => Event::Init,
        Event::InitApply(object) => Event::InitApply(object.into()),
        Event::InitDone => Event::InitDone,
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
    use super::*;

    #[test]
    fn anything_is_an_object() {
        for value in [json!({"metadata": {"name": 7, "labels": []}}), json!({"metadata": "x"}), json!([1]), json!(null)]
        {
            let raw: Raw = serde_json::from_value(value.clone()).unwrap();
            assert_eq!(raw.value(), value);
            assert_eq!(raw.meta, ObjectMeta::default());
        }
        let value =
            json!({"metadata": {"name": "a", "namespace": "b", "resourceVersion": "3", "annotations": {"x": 1}}});
        let raw: Raw = serde_json::from_value(value).unwrap();
        assert_eq!(raw.meta.resource_version.as_deref(), Some("3"));
        assert_eq!(raw.value(), json!({"metadata": {"name": "a", "namespace": "b", "resourceVersion": "3"}}));
        assert_eq!(format!("{raw:?}"), "Raw { namespace: Some(\"b\"), name: Some(\"a\") }");
    }
}
