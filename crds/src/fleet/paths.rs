//! How paths of requests are read.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the paths of requests are read where servers read them differently. The defaults are safe whatever the backends are:
/// no spelling of a path passes by a route, or a policy, that is meant for it. `docs/paths.md` says which servers need more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Paths {
    /// What `;` and what follows it in a segment is, such as `/orders;v=1/7`. Servlets leave it out; for most other servers
    /// it is part of the segment.
    pub parameters: PathParameters,
    /// What becomes of `%2F`, such as in `/projects/group%2Fname`, which some servers decode and others do not.
    pub escaped_slashes: EscapedSlashes,
    /// Whether `//` is the same as `/`, as it is for most servers; false: routes and backends get it as it came, as object
    /// stores need it.
    pub merge_slashes: bool,
}

impl Default for Paths {
    fn default() -> Self {
        Self { parameters: PathParameters::default(), escaped_slashes: EscapedSlashes::default(), merge_slashes: true }
    }
}

/// What parameters of a path's segments are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PathParameters {
    /// Routes are compared without them, and backends get them; `..;` is answered 400.
    #[default]
    StripForMatching,
    /// They are part of the segment: no backend leaves them out.
    Keep,
    /// They are answered 400.
    Reject,
}

/// What becomes of encoded slashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EscapedSlashes {
    /// They are answered 400.
    #[default]
    Reject,
    /// They are part of a segment, for routes and backends: no backend decodes them before it looks at the path. GitLab,
    /// npm registries and Argo CD need it.
    KeepEncoded,
}
