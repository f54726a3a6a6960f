//! The table of kinds: every kind of object that Sluice reads, with the facts that follow from nothing else. Admission,
//! watches, pruning, state, statuses and the chart's rights read it. A new kind is a row here, and its type in
//! `admit/object.rs`.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde::{Deserialize, Serialize};

use crate::{AccessPolicy, ApiRoute, Consumer, GatewayFleet, RatePolicy, ReferenceGrant, consumer, grant};

/// A kind of object that [`crate::admit()`] knows. In worlds, objects are in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[allow(missing_docs)] // each is the kind of that name
pub enum Kind {
    GatewayFleet,
    ApiRoute,
    RatePolicy,
    AccessPolicy,
    Consumer,
    Service,
    EndpointSlice,
    Secret,
    Namespace,
    Node,
    ReferenceGrant,
}

/// The facts about one kind.
#[derive(Debug)]
pub struct KindInfo {
    /// The kind.
    pub kind: Kind,
    /// The word that stands in a manifest.
    pub name: &'static str,
    /// `plural.group`, as its definition is named; of Kubernetes' core group the plural alone.
    pub resource: &'static str,
    /// Each `apiVersion` that is read, the preferred one first.
    pub api_versions: &'static [&'static str],
    /// Whether its objects are in a namespace.
    pub is_namespaced: bool,
    /// Whether the operator says in its status what became of it.
    pub has_status: bool,
    /// The definition, as far as it is known here; `None`: one of Kubernetes' own types.
    pub definition: Option<fn() -> CustomResourceDefinition>,
    /// The way in which it is watched.
    pub watch: Watch,
    /// Whether its objects may refer to Secrets.
    pub refers: bool,
    /// The place of its objects in the order in which they are given up.
    pub role: Role,
    /// The part of an object that plans read.
    pub keep: Keep,
}

/// The way in which objects of a kind are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// The watch covers all namespaces.
    Everywhere,
    /// The watch covers all namespaces, while the definition is there; `absent` is what it means that it is not.
    WhereDefined {
        /// A sentence for the log.
        absent: &'static str,
    },
    /// The watch is of names only, in the namespaces that something refers to; what is referred to is read one by one.
    ByReference,
}

/// The role of a kind's objects. Where there is not room for all, the last role is given up first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Others need it: a fleet, a certificate, a permission.
    Base,
    /// It guards others: while it is not held, neither is what it may guard.
    Guard,
    /// It names backends.
    Backend,
    /// It lists the endpoints of a backend.
    Endpoints,
    /// It says where requests go, or who sends them.
    Traffic,
}

/// The part of an object that is kept.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// The labels that are kept.
    pub labels: Labels,
    /// Whether one that is being deleted still counts. What waits for its dependents only (`kubectl delete
    /// --cascade=foreground`) must not have them made again, and permits nothing any more.
    pub while_deleted: bool,
    /// The content that is kept.
    pub content: Content,
}

/// The labels that are kept.
#[derive(Clone, Copy, Debug)]
pub enum Labels {
    /// No label.
    None,
    /// Every label.
    All,
    /// These labels; an object without the first one is dropped.
    Only(&'static [&'static str]),
    /// These, of which an object need have none.
    Any(&'static [&'static str]),
}

/// The content that is kept, beside what identifies an object.
#[derive(Clone, Copy, Debug)]
pub enum Content {
    /// All but its status: a field of a newer definition is not overlooked in silence.
    AllButStatus,
    /// These fields.
    Fields(&'static [Field]),
}

/// A field that is kept.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The field's name.
    pub name: &'static str,
    /// The fields within it that are kept, of a list in each item; none: all of it.
    pub within: &'static [Field],
}

const fn whole(name: &'static str) -> Field {
    Field { name, within: &[] }
}

const fn within(name: &'static str, within: &'static [Field]) -> Field {
    Field { name, within }
}

/// A kind of ours.
const OURS: KindInfo = KindInfo {
    kind: Kind::GatewayFleet,
    name: "",
    resource: "",
    api_versions: &[crate::API_VERSION],
    is_namespaced: true,
    has_status: true,
    definition: None,
    watch: Watch::Everywhere,
    refers: false,
    role: Role::Base,
    keep: Keep { labels: Labels::None, while_deleted: false, content: Content::AllButStatus },
};

/// A kind of Kubernetes' own.
const CORE: KindInfo = KindInfo {
    api_versions: &["v1"],
    has_status: false,
    keep: Keep { labels: Labels::None, while_deleted: true, content: Content::Fields(&[]) },
    ..OURS
};

/// The label that names a slice's Service, and the one that names who keeps it.
const SLICE_LABELS: &[&str] = &["kubernetes.io/service-name", "endpointslice.kubernetes.io/managed-by"];

static TABLE: [KindInfo; 11] = [
    KindInfo {
        kind: Kind::GatewayFleet,
        name: "GatewayFleet",
        resource: "gatewayfleets.sluice.dev",
        definition: Some(GatewayFleet::crd),
        refers: true,
        ..OURS
    },
    KindInfo {
        kind: Kind::ApiRoute,
        name: "ApiRoute",
        resource: "apiroutes.sluice.dev",
        definition: Some(ApiRoute::crd),
        role: Role::Traffic,
        ..OURS
    },
    KindInfo {
        kind: Kind::RatePolicy,
        name: "RatePolicy",
        resource: "ratepolicies.sluice.dev",
        definition: Some(RatePolicy::crd),
        role: Role::Guard,
        ..OURS
    },
    KindInfo {
        kind: Kind::AccessPolicy,
        name: "AccessPolicy",
        resource: "accesspolicies.sluice.dev",
        definition: Some(AccessPolicy::crd),
        role: Role::Guard,
        ..OURS
    },
    KindInfo {
        kind: Kind::Consumer,
        name: "Consumer",
        resource: "consumers.sluice.dev",
        definition: Some(Consumer::crd),
        watch: Watch::WhereDefined { absent: "Sluice's Consumer is not installed: nobody is known by an API key" },
        role: Role::Traffic,
        refers: true,
        // Its tiers and groups.
        keep: Keep { labels: Labels::All, ..OURS.keep },
        ..OURS
    },
    KindInfo {
        kind: Kind::Service,
        name: "Service",
        resource: "services",
        role: Role::Backend,
        keep: Keep {
            content: Content::Fields(&[within(
                "spec",
                &[
                    whole("type"),
                    whole("clusterIP"),
                    whole("clusterIPs"),
                    whole("selector"), // of which only matters that there is one
                    within(
                        "ports",
                        &[whole("name"), whole("port"), whole("protocol"), whole("targetPort"), whole("appProtocol")],
                    ),
                ],
            )]),
            ..CORE.keep
        },
        ..CORE
    },
    KindInfo {
        kind: Kind::EndpointSlice,
        name: "EndpointSlice",
        resource: "endpointslices.discovery.k8s.io",
        api_versions: &["discovery.k8s.io/v1"],
        role: Role::Endpoints,
        keep: Keep {
            labels: Labels::Only(SLICE_LABELS),
            content: Content::Fields(&[
                whole("addressType"),
                within("ports", &[whole("name"), whole("port"), whole("protocol")]),
                within(
                    "endpoints",
                    &[
                        whole("addresses"),
                        within("conditions", &[whole("ready"), whole("serving"), whole("terminating")]),
                        whole("zone"),
                    ],
                ),
            ]),
            ..CORE.keep
        },
        ..CORE
    },
    KindInfo {
        kind: Kind::Secret,
        name: "Secret",
        resource: "secrets",
        watch: Watch::ByReference,
        keep: Keep {
            labels: Labels::Any(&[consumer::CREDENTIAL_LABEL]),
            content: Content::Fields(&[whole("type"), whole("data")]),
            ..CORE.keep
        },
        ..CORE
    },
    KindInfo {
        kind: Kind::Namespace,
        name: "Namespace",
        resource: "namespaces",
        is_namespaced: false,
        keep: Keep { labels: Labels::All, ..CORE.keep },
        ..CORE
    },
    // Their addresses are no backends.
    KindInfo {
        kind: Kind::Node,
        name: "Node",
        resource: "nodes",
        is_namespaced: false,
        keep: Keep { content: Content::Fields(&[within("status", &[whole("addresses")])]), ..CORE.keep },
        ..CORE
    },
    KindInfo {
        kind: Kind::ReferenceGrant,
        name: "ReferenceGrant",
        resource: "referencegrants.gateway.networking.k8s.io",
        api_versions: grant::API_VERSIONS,
        has_status: false,
        definition: Some(ReferenceGrant::crd),
        watch: Watch::WhereDefined {
            absent: "Gateway API's ReferenceGrant is not installed: no reference to another namespace is permitted",
        },
        ..OURS
    },
];

impl Kind {
    /// Every kind, in order.
    pub const ALL: [Self; TABLE.len()] = {
        let mut all = [Self::GatewayFleet; TABLE.len()];
        let mut i = 0;
        while i < all.len() {
            all[i] = TABLE[i].kind;
            i += 1;
        }
        all
    };

    /// The row in the table.
    pub fn info(self) -> &'static KindInfo {
        &TABLE[self as usize]
    }

    /// The kind of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The word that stands in a manifest.
    pub fn name(self) -> &'static str {
        self.info().name
    }

    /// The plural, in lower case, as URLs and folders have it.
    pub fn plural(self) -> &'static str {
        self.info().plural()
    }

    /// Each `apiVersion` that is read, the preferred one first.
    pub fn api_versions(self) -> &'static [&'static str] {
        self.info().api_versions
    }

    /// Whether its objects are in a namespace.
    pub fn is_namespaced(self) -> bool {
        self.info().is_namespaced
    }

    /// Whether it is of the group of Sluice.
    pub fn is_ours(self) -> bool {
        self.info().group() == crate::GROUP
    }
}

impl KindInfo {
    /// The plural, in lower case.
    pub fn plural(&self) -> &'static str {
        self.resource.split_once('.').map_or(self.resource, |(plural, _)| plural)
    }

    /// The API group; empty: Kubernetes' core group.
    pub fn group(&self) -> &'static str {
        self.resource.split_once('.').map_or("", |(_, group)| group)
    }

    /// Each version that is read, the preferred one first.
    pub fn versions(&self) -> impl Iterator<Item = &'static str> {
        self.api_versions.iter().map(|api_version| api_version.rsplit('/').next().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_agree_with_their_types() {
        for (i, row) in TABLE.iter().enumerate() {
            assert_eq!(row.kind as usize, i);
            assert_eq!((row.name, Kind::named(row.name)), (&*format!("{:?}", row.kind), Some(row.kind)));
            for (api_version, version) in row.api_versions.iter().zip(row.versions()) {
                let expect = if row.group().is_empty() { version.into() } else { format!("{}/{version}", row.group()) };
                assert_eq!(*api_version, expect);
            }
            let Some(crd) = row.definition.map(|definition| definition()) else { continue };
            assert_eq!((crd.metadata.name.as_deref(), &*crd.spec.names.kind), (Some(row.resource), row.name));
            assert_eq!((&*crd.spec.names.plural, &*crd.spec.group), (row.plural(), row.group()));
            assert_eq!(crd.spec.scope == "Namespaced", row.is_namespaced);
            assert_eq!(crd.spec.versions[0].name, row.versions().next().unwrap());
            assert_eq!(crd.spec.versions[0].subresources.is_some(), row.has_status);
        }
    }
}
