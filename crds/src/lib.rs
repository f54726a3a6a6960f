//! The custom resource types of Sluice (group `sluice.dev`, version `v1alpha1`), their schemas, and [`admit()`]: the API
//! server's verdict on a document, computed locally.
//!
//! ```text
//!  GatewayFleet ── the fleet: listeners, scaling, drain          fleet.rs
//!  ApiRoute ────── where requests go; parentRefs name a fleet    route.rs
//!  RatePolicy ──── who may send how many; targetRefs             policy.rs
//!  AccessPolicy ── how callers are known, what they may do     access.rs
//!  Consumer ────── who calls: labels, credentials                consumer.rs
//!  ReferenceGrant  Gateway API's, read where it is there         grant.rs
//!  Kind ─────────── the table of kinds: what follows from nothing else    kind.rs
//!  definitions() ─ their CustomResourceDefinitions                definitions.rs, schema/
//!  shared shapes: references, durations, status conditions       common.rs, duration.rs
//!  admit(Value) ── unknown fields, defaults, schema, CEL         admit/
//! ```
//!
//! Shapes and words follow Gateway API, so that its users feel at home.

// KubeSchema copies each struct, with its `pub`, into a function.
#![allow(unreachable_pub)]
// Each printcolumn of `#[kube(...)]` has a type, as each should.
#![allow(clippy::duplicated_attributes)]

pub mod access;
pub mod admit;
pub mod common;
pub mod consumer;
mod definitions;
pub mod duration;
pub mod fleet;
pub mod grant;
mod kind;
pub mod policy;
pub mod route;
mod schema;

pub use access::{AccessPolicy, AccessPolicySpec, AccessPolicyStatus};
pub use admit::{Object, Violation, admit};
pub use consumer::{Consumer, ConsumerSpec, ConsumerStatus};
pub use definitions::{definitions, definitions_yaml};
pub use duration::Duration;
pub use fleet::{GatewayFleet, GatewayFleetSpec, GatewayFleetStatus};
pub use grant::{ReferenceGrant, ReferenceGrantSpec};
pub use kind::{Content, Field, Keep, Kind, KindInfo, Labels, Role, Watch};
pub use policy::{RatePolicy, RatePolicySpec, RatePolicyStatus};
pub use route::{ApiRoute, ApiRouteSpec, ApiRouteStatus};

/// The API group of every custom resource here.
pub const GROUP: &str = "sluice.dev";
/// The one served version.
pub const VERSION: &str = "v1alpha1";
/// `group/version`, as it stands in a manifest's `apiVersion`.
pub const API_VERSION: &str = "sluice.dev/v1alpha1";
