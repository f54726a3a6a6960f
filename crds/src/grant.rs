//! `ReferenceGrant` of Gateway API: permits references into its own namespace. Its definition is not ours to install; the
//! type reads `v1` and `v1beta1`, which are the same but for the name.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::text;

/// The API group of Gateway API.
pub const GROUP: &str = "gateway.networking.k8s.io";
/// The versions that are read, newest first.
pub const API_VERSIONS: &[&str] = &["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"];

/// Permits objects of other namespaces to refer to objects of this one.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(group = "gateway.networking.k8s.io", version = "v1", kind = "ReferenceGrant", namespaced, derive = "PartialEq")]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReferenceGrantSpec {
    /// Who may refer: any of these.
    #[schemars(length(min = 1, max = 16))]
    pub from: Vec<GrantFrom>,
    /// To what: any of these.
    #[schemars(length(min = 1, max = 16))]
    pub to: Vec<GrantTo>,
}

/// Objects that may refer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrantFrom {
    /// Their API group.
    #[schemars(schema_with = "text::group")]
    pub group: String,
    /// Their kind.
    #[schemars(schema_with = "text::kind")]
    pub kind: String,
    /// Their namespace.
    #[schemars(schema_with = "text::label")]
    pub namespace: String,
}

/// What may be referred to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GrantTo {
    /// Its API group; empty for Service and Secret.
    #[schemars(schema_with = "text::group")]
    pub group: String,
    /// Its kind.
    #[schemars(schema_with = "text::kind")]
    pub kind: String,
    /// Its name; default: all of that kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))] // Gateway API's own words: any name
    pub name: Option<String>,
}
