//! What [`admit`](super::admit) answers: the decoded object, or the violations.

use std::fmt;

use k8s_openapi::{
    api::{
        core::v1::{Secret, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::{ApiRoute, GatewayFleet, RatePolicy};

/// An admitted object. Its `metadata.name` and `metadata.namespace` are set, its defaults applied, its status dropped.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)] // built once for each change of a manifest, then matched on: a Box would only be in the way
pub enum Object {
    /// A fleet of proxies.
    GatewayFleet(GatewayFleet),
    /// A route.
    ApiRoute(ApiRoute),
    /// Rate limits.
    RatePolicy(RatePolicy),
    /// A Service that routes name as backend.
    Service(Service),
    /// The endpoints of a Service.
    EndpointSlice(EndpointSlice),
    /// A certificate of a listener.
    Secret(Secret),
}

impl Object {
    /// The kind, as it stands in the manifest.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::GatewayFleet(_) => "GatewayFleet",
            Self::ApiRoute(_) => "ApiRoute",
            Self::RatePolicy(_) => "RatePolicy",
            Self::Service(_) => "Service",
            Self::EndpointSlice(_) => "EndpointSlice",
            Self::Secret(_) => "Secret",
        }
    }

    /// Name, namespace, labels.
    pub fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::GatewayFleet(o) => &o.metadata,
            Self::ApiRoute(o) => &o.metadata,
            Self::RatePolicy(o) => &o.metadata,
            Self::Service(o) => &o.metadata,
            Self::EndpointSlice(o) => &o.metadata,
            Self::Secret(o) => &o.metadata,
        }
    }
}

/// One thing that is wrong with a document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// Where: `spec.rules[0].backendRefs[1].port`. Empty for the document as a whole.
    pub path: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.path, self.message) }
    }
}
