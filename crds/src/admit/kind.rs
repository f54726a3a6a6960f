//! The kinds that are known, and which of them a document claims to be.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    rules::Rules,
    violations::{Violation, nearest, show},
};
use crate::grant;

/// A kind that [`super::admit`] knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs)] // each is the kind of that name
pub enum Kind {
    GatewayFleet,
    ApiRoute,
    RatePolicy,
    Service,
    EndpointSlice,
    Secret,
    Namespace,
    Node,
    ReferenceGrant,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::GatewayFleet,
        Self::ApiRoute,
        Self::RatePolicy,
        Self::Service,
        Self::EndpointSlice,
        Self::Secret,
        Self::Namespace,
        Self::Node,
        Self::ReferenceGrant,
    ];

    /// The word that stands in a manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::GatewayFleet => "GatewayFleet",
            Self::ApiRoute => "ApiRoute",
            Self::RatePolicy => "RatePolicy",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Secret => "Secret",
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::ReferenceGrant => "ReferenceGrant",
        }
    }

    /// Each `apiVersion` that is read, the preferred one first.
    pub fn api_versions(self) -> &'static [&'static str] {
        match self {
            Self::GatewayFleet | Self::ApiRoute | Self::RatePolicy => &[crate::API_VERSION],
            Self::Service | Self::Secret | Self::Namespace | Self::Node => &["v1"],
            Self::EndpointSlice => &["discovery.k8s.io/v1"],
            Self::ReferenceGrant => grant::API_VERSIONS,
        }
    }

    /// Whether its objects are in a namespace.
    pub fn is_namespaced(self) -> bool {
        !matches!(self, Self::Namespace | Self::Node)
    }

    /// The kind's rules, compiled when they are first needed.
    pub(super) fn rules(self) -> &'static Rules {
        static FLEET: LazyLock<Rules> = LazyLock::new(|| Rules::of(Kind::GatewayFleet));
        static ROUTE: LazyLock<Rules> = LazyLock::new(|| Rules::of(Kind::ApiRoute));
        static POLICY: LazyLock<Rules> = LazyLock::new(|| Rules::of(Kind::RatePolicy));
        static SERVICE: LazyLock<Rules> = LazyLock::new(|| Rules::of(Kind::Service));
        static SLICE: LazyLock<Rules> = LazyLock::new(|| Rules::of(Kind::EndpointSlice));
        static SECRET: LazyLock<Rules> = LazyLock::new(|| Rules::of(Kind::Secret));
        static NAMESPACE: LazyLock<Rules> = LazyLock::new(|| Rules::of(Kind::Namespace));
        static NODE: LazyLock<Rules> = LazyLock::new(|| Rules::of(Kind::Node));
        static GRANT: LazyLock<Rules> = LazyLock::new(|| Rules::of(Kind::ReferenceGrant));
        match self {
            Self::GatewayFleet => &FLEET,
            Self::ApiRoute => &ROUTE,
            Self::RatePolicy => &POLICY,
            Self::Service => &SERVICE,
            Self::EndpointSlice => &SLICE,
            Self::Secret => &SECRET,
            Self::Namespace => &NAMESPACE,
            Self::Node => &NODE,
            Self::ReferenceGrant => &GRANT,
        }
    }
}

/// The kind a document names, if it is known and of the version that is read.
pub(super) fn of(value: &Value) -> Result<Kind, Vec<Violation>> {
    if !value.is_object() {
        let message = format!("a manifest is a mapping with apiVersion, kind, metadata and spec, not {}", show(value));
        return Err(vec![Violation { path: String::new(), message }]);
    }
    let mut missing = Vec::new();
    let mut text = |key: &str| match value.get(key) {
        Some(Value::String(text)) if !text.is_empty() => Some(text.as_str()),
        Some(Value::Null) | None => {
            missing.push(Violation { path: key.into(), message: "is required".into() });
            None
        }
        Some(other) => {
            let message = format!("must be text, not {}", show(other));
            missing.push(Violation { path: key.into(), message });
            None
        }
    };
    match (text("apiVersion"), text("kind")) {
        (Some(api_version), Some(kind)) => known(api_version, kind).map_err(|violation| vec![violation]),
        _ => Err(missing),
    }
}

fn known(api_version: &str, kind: &str) -> Result<Kind, Violation> {
    if let Some(found) = Kind::ALL.into_iter().find(|known| known.name() == kind) {
        if found.api_versions().contains(&api_version) {
            return Ok(found);
        }
        let given = show(&Value::from(api_version));
        let message = format!("{kind} is read as {}, not as {given}", found.api_versions().join(" and "));
        return Err(Violation { path: "apiVersion".into(), message });
    }
    let hint = match nearest(kind, Kind::ALL.iter().map(|known| known.name())) {
        Some(near) => format!("; did you mean {near}?"),
        None => String::new(),
    };
    let message = format!(
        "unknown kind {} of {}; known are GatewayFleet, ApiRoute and RatePolicy ({}), Service, Secret and \
         Namespace (v1), EndpointSlice (discovery.k8s.io/v1) and ReferenceGrant (gateway.networking.k8s.io/v1){hint}",
        show(&Value::from(kind)),
        show(&Value::from(api_version)),
        crate::API_VERSION,
    );
    Err(Violation { path: "kind".into(), message })
}
