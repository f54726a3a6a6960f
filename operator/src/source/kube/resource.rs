//! The resources that are watched.

use kube::{api::ListParams, core::ApiResource, runtime::watcher};
use planner::Kind;

/// The server ends a watch after this time, in seconds, and it is begun again where it ended. So a connection that died
/// unnoticed is found out within it, and a little.
const WATCH_SECONDS: u32 = 60;

/// Objects of a page of what no tenant writes.
const PAGE_OF_CLUSTER: u32 = 25;

/// A resource that is watched, in all namespaces or in one.
#[derive(Debug)]
pub(super) struct Watched {
    /// `plural.group`: the name of its definition, and what messages call it.
    pub(super) name: &'static str,
    /// The kind of its objects; `None`: none that plans are made of.
    pub(super) kind: Option<Kind>,
    /// As it stands in manifests.
    word: &'static str,
    group: &'static str,
    /// The versions that are read, the preferred one first.
    pub(super) versions: &'static [&'static str],
    plural: &'static str,
    /// Only their names and versions are listed and watched.
    pub(super) names_only: bool,
    /// Only objects with these fields.
    fields: Option<&'static str>,
    /// Objects of a page of the list: all of a page is in memory at once, before what is not kept is dropped.
    pub(super) page: u32,
    /// The operator can do without it.
    pub(super) optional: bool,
}

const fn ours(name: &'static str, kind: Kind, word: &'static str, plural: &'static str) -> Watched {
    Watched { word, group: crds::GROUP, versions: &[crds::VERSION], ..core(name, kind, word, plural) }
}

const fn core(name: &'static str, kind: Kind, word: &'static str, plural: &'static str) -> Watched {
    Watched {
        name,
        kind: Some(kind),
        word,
        group: "",
        versions: &["v1"],
        plural,
        names_only: false,
        fields: None,
        // Each has at most 1.5 MiB, and whoever may create one may create many (lists.rs).
        page: 8,
        optional: false,
    }
}

/// Certificates with their keys: in each namespace by itself.
pub(super) static SECRETS: Watched = Watched {
    names_only: true,
    fields: Some("type=kubernetes.io/tls"),
    ..core("secrets", Kind::Secret, "Secret", "secrets")
};

/// The resources that every plan needs.
pub(super) static REQUIRED: [Watched; 7] = [
    ours("gatewayfleets.sluice.dev", Kind::GatewayFleet, "GatewayFleet", "gatewayfleets"),
    ours("apiroutes.sluice.dev", Kind::ApiRoute, "ApiRoute", "apiroutes"),
    ours("ratepolicies.sluice.dev", Kind::RatePolicy, "RatePolicy", "ratepolicies"),
    core("services", Kind::Service, "Service", "services"),
    Watched { page: PAGE_OF_CLUSTER, ..core("namespaces", Kind::Namespace, "Namespace", "namespaces") },
    // Their addresses are no backends.
    Watched { page: PAGE_OF_CLUSTER, ..core("nodes", Kind::Node, "Node", "nodes") },
    Watched {
        group: "discovery.k8s.io",
        ..core("endpointslices.discovery.k8s.io", Kind::EndpointSlice, "EndpointSlice", "endpointslices")
    },
];

/// The watched resource of a kind.
pub(super) fn of(kind: Kind) -> &'static Watched {
    REQUIRED.iter().chain([&SECRETS]).find(|watched| watched.kind == Some(kind)).unwrap_or(&GRANTS)
}

/// Which references may cross namespaces. Of Gateway API, which need not be there.
pub(super) static GRANTS: Watched = Watched {
    group: "gateway.networking.k8s.io",
    versions: &["v1", "v1beta1"],
    optional: true,
    ..core("referencegrants.gateway.networking.k8s.io", Kind::ReferenceGrant, "ReferenceGrant", "referencegrants")
};

/// Whether there are any.
pub(super) static GRANTS_DEFINITION: Watched = Watched {
    name: "customresourcedefinitions.apiextensions.k8s.io",
    kind: None,
    word: "CustomResourceDefinition",
    group: "apiextensions.k8s.io",
    versions: &["v1"],
    plural: "customresourcedefinitions",
    names_only: false,
    fields: Some("metadata.name=referencegrants.gateway.networking.k8s.io"),
    page: 1,
    optional: true,
};

impl Watched {
    /// The resource in one of its versions.
    pub(super) fn api(&self, version: &str) -> ApiResource {
        ApiResource {
            group: self.group.to_owned(),
            version: version.to_owned(),
            api_version: self.api_version(version),
            kind: self.word.to_owned(),
            plural: self.plural.to_owned(),
        }
    }

    /// The `apiVersion` of an object in one of the versions.
    pub(super) fn api_version(&self, version: &str) -> String {
        if self.group.is_empty() { version.to_owned() } else { format!("{}/{version}", self.group) }
    }

    /// The parameters to list one object, and only if it is one of those that are watched.
    pub(super) fn only(&self, name: &str) -> ListParams {
        let fields = self.fields.map_or(String::new(), |fields| format!(",{fields}"));
        ListParams::default().fields(&format!("metadata.name={name}{fields}"))
    }

    /// How it is listed and watched.
    pub(super) fn config(&self) -> watcher::Config {
        let config = watcher::Config::default().page_size(self.page).timeout(WATCH_SECONDS);
        self.fields.map_or(config.clone(), |fields| config.fields(fields))
    }

    /// The fix where the API server does not know the resource.
    pub(super) fn remedy(&self) -> &'static str {
        match self.group {
            crds::GROUP => {
                "its CustomResourceDefinition is not installed: upgrade the Helm release with crds.enabled=true, or \
                 `kubectl apply --server-side -f` the files of crds/yaml"
            }
            _ => "this version of Kubernetes is too old",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_api_server() {
        let watched = REQUIRED.iter().chain([&SECRETS, &GRANTS, &GRANTS_DEFINITION]);
        for watched in watched {
            let expect = match watched.group {
                "" => watched.plural.to_owned(),
                group => format!("{}.{group}", watched.plural),
            };
            assert_eq!(watched.name, expect);
            if let Some(kind) = watched.kind {
                assert_eq!(watched.word, kind.name());
                let versions: Vec<String> = watched.versions.iter().map(|v| watched.api_version(v)).collect();
                assert_eq!(versions, kind.api_versions());
            }
        }
        let mut kinds: Vec<Kind> =
            REQUIRED.iter().chain([&SECRETS, &GRANTS]).filter_map(|watched| watched.kind).collect();
        kinds.sort();
        assert_eq!(kinds, Kind::ALL);
        for kind in kinds {
            assert_eq!(of(kind).kind, Some(kind));
        }
    }
}
