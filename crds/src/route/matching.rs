//! Which requests a rule is for (Gateway API `HTTPRouteMatch`).

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::text;

/// Every part given must match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteMatch {
    /// The path; default: every path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathMatch>,
    /// The method; default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// Header fields, all of them.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub headers: Vec<HeaderMatch>,
    /// Query parameters, all of them.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub query_params: Vec<QueryParamMatch>,
}

/// A path and how it is compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(
    validation = Rule::new("self.type == 'RegularExpression' || self.value.startsWith('/')")
        .message("a path begins with '/'")
        .field_path(".value"),
    validation = Rule::new(
        "self.type == 'RegularExpression' || !(self.value.contains('?') || self.value.contains('#') || \
         self.value.contains('{'))",
    )
    .message("a path has no '?', '#' or '{': queryParams match the query, type RegularExpression a variable part")
    .field_path(".value"),
    validation = Rule::new(
        "self.type == 'RegularExpression' || !(self.value.contains('//') || self.value.contains('/./') || \
         self.value.contains('/../') || self.value.endsWith('/.') || self.value.endsWith('/..'))",
    )
    .message("a path has no '//', '/./' or '/../': requests are normalised before they are matched")
    .field_path(".value")
)]
pub struct PathMatch {
    /// How.
    #[serde(rename = "type", default)]
    pub kind: PathMatchType,
    /// Begins with `/`.
    #[schemars(schema_with = "text::path")]
    pub value: String,
}

/// How a path is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PathMatchType {
    /// The whole path.
    Exact,
    /// Whole path elements from the start.
    #[default]
    PathPrefix,
    /// A regular expression over the whole path (RE2 syntax). A route may have 64 expressions, of 8192 characters together.
    RegularExpression,
}

/// How a value is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ValueMatchType {
    /// The same bytes.
    #[default]
    Exact,
    /// A regular expression over the whole value (RE2 syntax); they count as those of paths do.
    RegularExpression,
}

/// One header field that must match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderMatch {
    /// How.
    #[serde(rename = "type", default)]
    pub kind: ValueMatchType,
    /// Field name, without regard to case.
    #[schemars(schema_with = "text::header_name")]
    pub name: String,
    /// Value or expression.
    #[schemars(schema_with = "text::match_value")]
    pub value: String,
}

/// One query parameter that must match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QueryParamMatch {
    /// How.
    #[serde(rename = "type", default)]
    pub kind: ValueMatchType,
    /// Parameter name, exact.
    #[schemars(schema_with = "text::parameter_name")]
    pub name: String,
    /// Value or expression.
    #[schemars(schema_with = "text::match_value")]
    pub value: String,
}

/// Request methods (RFC 9110 section 9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)] // each is the method of that name
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
}
