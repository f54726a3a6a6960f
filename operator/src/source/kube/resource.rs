//! The resources that are watched: those of the table of kinds, and the definitions of those that need not be there.

use std::sync::LazyLock;

use crds::{KindInfo, Watch};
use kube::{api::ListParams, core::ApiResource, runtime::watcher};
use planner::Kind;

/// The server ends a watch after this time, in seconds, and it is begun again where it ended. So a connection that died
/// unnoticed is found out within it, and a little.
const WATCH_SECONDS: u32 = 60;

/// Objects of a page of what tenants write: each has at most 1.5 MiB, and whoever may create one may create many (lists.rs).
const PAGE_OF_TENANTS: u32 = 8;
/// Names of a page of what tenants write, each with metadata of at most 256 KiB.
const PAGE_OF_NAMES: u32 = 32;
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
    pub(super) versions: Vec<&'static str>,
    plural: &'static str,
    /// Only their names and versions are listed and watched.
    pub(super) names_only: bool,
    /// Only objects with these fields.
    fields: Option<String>,
    /// Objects of a page of the list: all of a page is in memory at once, before what is not kept is dropped.
    pub(super) page: u32,
    /// The operator can do without it.
    pub(super) optional: bool,
}

/// A kind whose definition need not be there.
#[derive(Debug)]
pub(super) struct Optional {
    pub(super) watched: &'static Watched,
    /// Whether it is there.
    pub(super) definition: Watched,
    /// What it means that it is not.
    pub(super) absent: &'static str,
}

static ALL: LazyLock<Vec<Watched>> =
    LazyLock::new(|| Kind::ALL.into_iter().map(|kind| Watched::new(kind.info())).collect());

static OPTIONAL: LazyLock<Vec<Optional>> = LazyLock::new(|| {
    let optional = |kind: Kind| match kind.info().watch {
        Watch::WhereDefined { absent } => Some(Optional { watched: of(kind), definition: definition(kind), absent }),
        Watch::Everywhere | Watch::ByReference => None,
    };
    Kind::ALL.into_iter().filter_map(optional).collect()
});

/// The watched resource of a kind.
pub(super) fn of(kind: Kind) -> &'static Watched {
    &ALL[kind as usize]
}

/// The resources that every plan needs.
pub(super) fn required() -> impl Iterator<Item = &'static Watched> {
    Kind::ALL.into_iter().filter(|kind| kind.info().watch == Watch::Everywhere).map(of)
}

/// Those that need not be there.
pub(super) fn optional() -> &'static [Optional] {
    &OPTIONAL
}

/// Secrets: in each namespace by itself.
pub(super) fn secrets() -> &'static Watched {
    of(Kind::Secret)
}

fn definition(kind: Kind) -> Watched {
    let resource = kind.info().resource;
    Watched {
        // Each has a watch of its own. (Made once, as the table of them is.)
        name: format!("customresourcedefinitions.apiextensions.k8s.io/{resource}").leak(),
        kind: None,
        word: "CustomResourceDefinition",
        group: "apiextensions.k8s.io",
        versions: vec!["v1"],
        plural: "customresourcedefinitions",
        names_only: false,
        fields: Some(format!("metadata.name={resource}")),
        page: 1,
        optional: true,
    }
}

impl Watched {
    fn new(info: &'static KindInfo) -> Self {
        Self {
            name: info.resource,
            kind: Some(info.kind),
            word: info.name,
            group: info.group(),
            versions: info.versions().collect(),
            plural: info.plural(),
            names_only: info.watch == Watch::ByReference,
            fields: None,
            page: match (info.watch == Watch::ByReference, info.is_namespaced) {
                (true, _) => PAGE_OF_NAMES,
                (false, true) => PAGE_OF_TENANTS,
                (false, false) => PAGE_OF_CLUSTER,
            },
            optional: matches!(info.watch, Watch::WhereDefined { .. }),
        }
    }

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
        let fields = self.fields.as_ref().map_or(String::new(), |fields| format!(",{fields}"));
        ListParams::default().fields(&format!("metadata.name={name}{fields}"))
    }

    /// How it is listed and watched.
    pub(super) fn config(&self) -> watcher::Config {
        let config = watcher::Config::default().page_size(self.page).timeout(WATCH_SECONDS);
        match &self.fields {
            Some(fields) => config.fields(fields),
            None => config,
        }
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
    fn each_kind_is_watched_once() {
        let optional = optional().iter().map(|optional| optional.watched);
        let mut kinds: Vec<Kind> =
            required().chain([secrets()]).chain(optional).filter_map(|watched| watched.kind).collect();
        kinds.sort();
        assert_eq!(kinds, Kind::ALL);
        for kind in kinds {
            let watched = of(kind);
            assert_eq!((watched.kind, watched.word, watched.plural), (Some(kind), kind.name(), kind.plural()));
            let versions: Vec<String> = watched.versions.iter().map(|v| watched.api_version(v)).collect();
            assert_eq!(versions, kind.api_versions());
        }
    }

    #[test]
    fn definitions_are_looked_for_by_name() {
        let names: Vec<_> = optional().iter().map(|optional| optional.definition.fields.as_deref()).collect();
        let expect = ["consumers.sluice.dev", "referencegrants.gateway.networking.k8s.io"];
        assert_eq!(
            names,
            expect.map(|name| format!("metadata.name={name}")).each_ref().map(|name| Some(name.as_str()))
        );
    }
}
