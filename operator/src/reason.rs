//! Reasons that the operator itself finds, beside those of plans (`planner::problem::reason`) and of sources
//! ([`crate::source::reason`]): fixed words for conditions, Events and metrics. `docs/conditions.md` explains each.

use snapshot::{check::reason::of_proxies::PORT_UNAVAILABLE, proto::Nack};

/// A pod finds no node.
pub const UNSCHEDULABLE: &str = "Unschedulable";
/// A pod's image can't be pulled.
pub const IMAGE_PULL_FAILED: &str = "ImagePullFailed";
/// A pod's container can't be started.
pub const PROXY_NOT_STARTED: &str = "ProxyNotStarted";
/// A proxy ends again and again.
pub const PROXY_CRASHES: &str = "ProxyCrashes";
/// An object of a fleet's name is somebody else's.
pub const NAME_OCCUPIED: &str = "NameOccupied";
/// A fleet is not planned any more, but its GatewayFleet exists.
pub const NOT_REMOVED: &str = "NotRemoved";
/// A quota of the namespace is exceeded.
pub const QUOTA_EXCEEDED: &str = "QuotaExceeded";
/// The namespace is being deleted.
pub const NAMESPACE_TERMINATING: &str = "NamespaceTerminating";
/// The operator lacks a right, or an admission policy is in the way.
pub const FORBIDDEN: &str = "Forbidden";
/// A field of an object can't be changed.
pub const IMMUTABLE: &str = "Immutable";
/// The API server refuses an object.
pub const REFUSED: &str = "Refused";
/// The namespace does not exist.
pub const NOT_FOUND: &str = "NotFound";
/// The API server fails, or is not reached.
pub const API_SERVER_FAILS: &str = "ApiServerFails";
/// Something undoes what the operator applies.
pub const CONTESTED: &str = "Contested";
/// A Deployment can't make pods.
pub const PODS_REFUSED: &str = "PodsRefused";
/// A port is taken.
pub const PORT_IN_USE: &str = "PortInUse";
/// A port needs a privilege.
pub const PORT_NOT_PERMITTED: &str = "PortNotPermitted";
/// A port can't be opened for another cause.
pub const PORT_NOT_OPENED: &str = "PortNotOpened";
/// The default fleet is not as its manifest says.
pub const MANIFEST_REFUSED: &str = "ManifestRefused";
/// The manifest of the default fleet can't be applied.
pub const INVALID_FLEET: &str = "InvalidFleet";
/// An edit of an object was undone.
pub const RESTORED: &str = "Restored";
/// A problem is over.
pub const RESOLVED: &str = "Resolved";
/// A fleet has another number of replicas.
pub const SCALED: &str = "Scaled";
/// An operator begins to lead.
pub const BECAME_LEADER: &str = "BecameLeader";

/// Whether a refusal says something of one proxy, not of the content: the others serve it, so it stays published, and that
/// proxy tries again by itself.
pub(crate) fn is_own_trouble(nack: &Nack) -> bool {
    nack.reason == PORT_UNAVAILABLE
}
