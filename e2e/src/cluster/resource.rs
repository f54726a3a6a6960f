//! The paths of objects at the API server.

/// A kind of object, by its place in the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resource {
    group: &'static str,
    plural: &'static str,
}

#[allow(missing_docs)] // each is the kind of that name
impl Resource {
    pub const ACCESS_POLICIES: Resource = sluice("accesspolicies");
    pub const API_ROUTES: Resource = sluice("apiroutes");
    pub const CLUSTER_ROLES: Resource = Resource { group: RBAC, plural: "clusterroles" };
    pub const CLUSTER_ROLE_BINDINGS: Resource = Resource { group: RBAC, plural: "clusterrolebindings" };
    pub const CONFIG_MAPS: Resource = core("configmaps");
    pub const CONSUMERS: Resource = sluice("consumers");
    pub const CRDS: Resource = Resource { group: "/apis/apiextensions.k8s.io/v1", plural: "customresourcedefinitions" };
    pub const DEPLOYMENTS: Resource = Resource { group: "/apis/apps/v1", plural: "deployments" };
    pub const ENDPOINT_SLICES: Resource = Resource { group: "/apis/discovery.k8s.io/v1", plural: "endpointslices" };
    pub const EVENTS: Resource = core("events");
    pub const GATEWAY_FLEETS: Resource = sluice("gatewayfleets");
    pub const LEASES: Resource = Resource { group: "/apis/coordination.k8s.io/v1", plural: "leases" };
    pub const NAMESPACES: Resource = core("namespaces");
    pub const NETWORK_POLICIES: Resource = Resource { group: "/apis/networking.k8s.io/v1", plural: "networkpolicies" };
    pub const PODS: Resource = core("pods");
    pub const POD_DISRUPTION_BUDGETS: Resource = Resource { group: "/apis/policy/v1", plural: "poddisruptionbudgets" };
    pub const RATE_POLICIES: Resource = sluice("ratepolicies");
    pub const REFERENCE_GRANTS: Resource =
        Resource { group: "/apis/gateway.networking.k8s.io/v1", plural: "referencegrants" };
    pub const REFERENCE_GRANTS_BETA: Resource =
        Resource { group: "/apis/gateway.networking.k8s.io/v1beta1", plural: "referencegrants" };
    pub const REPLICA_SETS: Resource = Resource { group: "/apis/apps/v1", plural: "replicasets" };
    pub const ROLES: Resource = Resource { group: RBAC, plural: "roles" };
    pub const ROLE_BINDINGS: Resource = Resource { group: RBAC, plural: "rolebindings" };
    pub const SECRETS: Resource = core("secrets");
    pub const SERVICES: Resource = core("services");
    pub const SERVICE_ACCOUNTS: Resource = core("serviceaccounts");
}

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

const fn core(plural: &'static str) -> Resource {
    Resource { group: "/api/v1", plural }
}

const fn sluice(plural: &'static str) -> Resource {
    Resource { group: "/apis/sluice.dev/v1alpha1", plural }
}

impl Resource {
    /// The path of the objects of a namespace; of all, if it is empty.
    pub fn all(self, namespace: &str) -> String {
        let Resource { group, plural } = self;
        if namespace.is_empty() {
            format!("{group}/{plural}")
        } else {
            format!("{group}/namespaces/{namespace}/{plural}")
        }
    }

    /// The path of one object; without namespace, of the cluster's own.
    pub fn named(self, namespace: &str, name: &str) -> String {
        format!("{}/{name}", self.all(namespace))
    }

    /// The resource of a kind that tests write.
    pub fn of(kind: &str) -> Option<Resource> {
        Some(match kind {
            "AccessPolicy" => Resource::ACCESS_POLICIES,
            "ApiRoute" => Resource::API_ROUTES,
            "ConfigMap" => Resource::CONFIG_MAPS,
            "Consumer" => Resource::CONSUMERS,
            "Deployment" => Resource::DEPLOYMENTS,
            "GatewayFleet" => Resource::GATEWAY_FLEETS,
            "Namespace" => Resource::NAMESPACES,
            "Pod" => Resource::PODS,
            "RatePolicy" => Resource::RATE_POLICIES,
            "ReferenceGrant" => Resource::REFERENCE_GRANTS,
            "Role" => Resource::ROLES,
            "RoleBinding" => Resource::ROLE_BINDINGS,
            "Secret" => Resource::SECRETS,
            "ServiceAccount" => Resource::SERVICE_ACCOUNTS,
            "Service" => Resource::SERVICES,
            _ => return None,
        })
    }

    /// The plural, as kubectl takes it.
    pub fn plural(self) -> &'static str {
        self.plural
    }
}
